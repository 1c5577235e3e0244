"""A tiny model, what it may become, and sequences to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from quantship.quant.choices import Layer, layers_of
from quantship.quant.scheme import SCHEMES, Scheme
from quantship.search.sensitivity import Calibration, read

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAMES = ("w8a16", "w4a16-g32", "w2a16-g32")
BASE = SCHEMES["w4a16-g32"]
CANDIDATES = {name: SCHEMES[name] for name in NAMES}


@pytest.fixture
def base() -> Scheme:
    return BASE


@pytest.fixture
def candidates() -> dict[str, Scheme]:
    return dict(CANDIDATES)


@pytest.fixture
def model(tiny_model: PreTrainedModel, one_thread: None) -> Any:
    """With predictions that are far from uniform, and layers that differ in what they do."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in tiny_model.named_parameters():
            if parameter.dim() == 2:
                size = 4.0 if "down_proj" in name else 2.0
                parameter.mul_(size + torch.rand((), generator=generator) * size)
    return tiny_model.eval()


@pytest.fixture
def layers(model: Any) -> list[Layer]:
    return layers_of(model, BASE, CANDIDATES, embedding=False)


@pytest.fixture
def sequences() -> list[Calibration]:
    generator = torch.Generator().manual_seed(0)
    batches = []
    for length in (24, 17, 30, 21):
        ids = torch.randint(4, 260, (1, length), generator=generator)
        labels = ids.clone()
        labels[0, :5] = -100
        batches.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    return read(batches)
