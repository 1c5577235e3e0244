"""Small modules of every kind that can be quantized, with data to run them on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


class Reader(nn.Module):
    """An embedding, and a linear layer that is used under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 64)
        self.inner = nn.Linear(64, 64)
        self.again = self.inner
        self.out = nn.Linear(64, 40, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = torch.relu(self.inner(self.words(ids)))
        return self.out(torch.relu(self.again(hidden)))


@pytest.fixture(autouse=True)
def seeded(one_thread: None) -> None:
    torch.manual_seed(0)


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(40, (3, 7))


@pytest.fixture
def convolutions() -> nn.Module:
    """Convolutions of several shapes with batch norms that have seen data, and a linear layer."""
    module = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=8, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.Flatten(),
        nn.Linear(4 * 16, 5),
    )
    for _ in range(4):
        module(3 + 2 * torch.randn(16, 2, 8, 8))
    return module.eval()


@pytest.fixture
def images() -> Tensor:
    return 3 + 2 * torch.randn(16, 2, 8, 8)
