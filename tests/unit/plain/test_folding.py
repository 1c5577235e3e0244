from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quantship import fold_batch_norms


class Block(nn.Module):
    """A residual block: one batch norm is behind a convolution, one behind a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.last = nn.BatchNorm2d(4)

    def forward(self, input: Tensor) -> Tensor:
        return self.last(input + torch.relu(self.norm(self.first(input))))


class Branching(nn.Module):
    """What torch.fx cannot trace, around a sequence that can be read."""

    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, input: Tensor) -> Tensor:
        return self.inner(input) if input.sum() > 0 else self.inner(-input)


class Twice(nn.Module):
    """The convolution's output is used by the batch norm and by the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, input: Tensor) -> Tensor:
        hidden = self.layer(input)
        return hidden + self.norm(hidden)


class Shared(nn.Module):
    """One convolution runs twice, once before a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, input: Tensor) -> Tensor:
        return self.norm(self.layer(self.layer(input)))


def seen(module: nn.Module) -> nn.Module:
    """The module after its batch norms have seen some data."""
    for _ in range(3):
        module(1 + 3 * torch.randn(8, 4, 6, 6))
    return module.eval()


def norms(module: nn.Module) -> list[str]:
    return [name for name, one in module.named_modules() if isinstance(one, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda: nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)), []),
        (lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8, affine=False)), []),
        (lambda: nn.Sequential(Block(), Block()), ["0.last", "1.last"]),
        (lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)), ["0"]),
        (lambda: Branching(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()), []),
        (
            lambda: Branching(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
            ["inner.2"],
        ),
        (Twice, ["norm"]),
        (Shared, ["norm"]),
        (lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), []),
    ],
)
def test_folding_changes_no_output(make: Callable[[], nn.Module], left: list[str]) -> None:
    torch.manual_seed(0)
    module = seen(make())
    input = 1 + 3 * torch.randn(8, 4, 6, 6)
    before = module(input)
    folded = fold_batch_norms(module)
    assert norms(folded) == left
    torch.testing.assert_close(folded(input), before, rtol=1e-4, atol=1e-4)
    assert torch.equal(module(input), before)


def test_in_place_the_module_itself_is_folded() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    assert fold_batch_norms(module, inplace=True) is module
    assert norms(module) == []


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_kept(training: bool) -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).train(training)
    folded = fold_batch_norms(module)
    assert {one.training for one in folded.modules()} == {training}
    assert {one.training for one in module.modules()} == {training}


def test_what_comes_before_a_batch_norm_must_be_seen() -> None:
    module = Branching(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    with pytest.raises(ValueError, match=r"before batch norm 'inner.0'.*symbolically traced"):
        fold_batch_norms(module)


def test_a_batch_norm_without_statistics_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ValueError, match="batch norm '1' keeps no running statistics"):
        fold_batch_norms(module, inplace=True)
    assert norms(module) == ["1"]
