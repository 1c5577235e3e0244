from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantship.quant.histogram import BINS, Histogram
from quantship.quant.numerics import input_grid
from quantship.quant.scheme import STATIC, ActivationFormat

pytestmark = pytest.mark.usefixtures("one_thread")

SYMMETRIC = STATIC.model_copy(update={"symmetric": True})
FORMATS = [pytest.param(STATIC, id="asymmetric"), pytest.param(SYMMETRIC, id="symmetric")]
NUM_NUMBERS = 50_000
MAKERS = {
    "normal": lambda generator: torch.randn(NUM_NUMBERS, generator=generator),
    "long tails": lambda generator: torch.randn(NUM_NUMBERS, generator=generator) ** 3,
    "lopsided": lambda generator: torch.rand(NUM_NUMBERS, generator=generator).log().neg() - 0.3,
    "relu": lambda generator: torch.randn(NUM_NUMBERS, generator=generator).relu(),
    "far from zero": lambda generator: torch.rand(NUM_NUMBERS, generator=generator) + 50,
}


def histogram(numbers: torch.Tensor) -> Histogram:
    made = Histogram.between(numbers.amin(), numbers.amax())
    made.counts.add_(made.count(numbers))
    return made


def normal(seed: int = 0) -> torch.Tensor:
    return torch.randn(NUM_NUMBERS, generator=torch.Generator().manual_seed(seed))


def divergence_in_words(
    found: Histogram, lowest: float, highest: float, fmt: ActivationFormat
) -> float:
    """The same divergence, bin by bin."""
    grid = input_grid(torch.tensor(lowest), torch.tensor(highest), fmt)
    zero = 0.0 if grid.zero is None else float(grid.zero)
    width = (found.highest - found.lowest) / BINS
    counts = [float(count) for count in found.counts]
    codes = [
        round((found.lowest + (bin + 0.5) * width) / float(grid.scale)) + zero
        for bin in range(BINS)
    ]
    inside = [bin for bin in range(BINS) if -128 <= codes[bin] <= 127]
    expected = {bin: counts[bin] for bin in inside}
    expected[inside[0]] += sum(counts[: inside[0]])
    expected[inside[-1]] += sum(counts[inside[-1] + 1 :])
    by_code: dict[float, list[float]] = {}
    for bin in inside:
        if counts[bin]:
            by_code.setdefault(codes[bin], []).append(counts[bin])
    coded = {}
    for bin in inside:
        if expected[bin]:
            alike = by_code.get(codes[bin], [0.0])
            coded[bin] = max(sum(alike) / len(alike) if counts[bin] else 0.0, 1.0)
    total, total_coded = sum(expected.values()), sum(coded.values())
    return sum(
        expected[bin] / total * math.log(expected[bin] / total / (coded[bin] / total_coded))
        for bin in coded
    )


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("share", [1.0, 0.7, 0.2])
def test_the_divergence_is_what_its_words_say(fmt: ActivationFormat, share: float) -> None:
    found = histogram(normal())
    ends = [torch.tensor([end * share]) for end in (found.lowest, found.highest)]
    expected = divergence_in_words(found, float(ends[0]), float(ends[1]), fmt)
    assert float(found.divergence(*ends, fmt)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_no_range_tells_more_wrong_than_the_whole_one(
    kind: str, fmt: ActivationFormat, seed: int
) -> None:
    found = histogram(MAKERS[kind](torch.Generator().manual_seed(seed)))
    lowest, highest = found.least_divergence(fmt)
    whole = [torch.tensor([end]) for end in (found.lowest, found.highest)]
    least = found.divergence(lowest.view(1), highest.view(1), fmt)
    assert least <= found.divergence(*whole, fmt)
    assert found.lowest <= lowest <= highest <= found.highest * (1 + 1e-6)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_lone_outlier_is_given_up(fmt: ActivationFormat) -> None:
    numbers = normal()
    whole = float(numbers.amax())
    numbers[7] = 60.0
    _, highest = histogram(numbers).least_divergence(fmt)
    assert 0.6 * whole < highest < 10


def test_each_end_is_drawn_in_by_itself() -> None:
    numbers = torch.rand(NUM_NUMBERS, generator=torch.Generator().manual_seed(0)) - 0.5
    numbers[7] = 20.0
    lowest, highest = histogram(numbers).least_divergence(STATIC)
    assert lowest == pytest.approx(-0.5, abs=0.05), "no number is below the many"
    assert highest < 10


@pytest.mark.parametrize("fmt", FORMATS)
def test_evenly_spread_numbers_stay_whole(fmt: ActivationFormat) -> None:
    numbers = torch.linspace(-1, 1, NUM_NUMBERS)
    lowest, highest = histogram(numbers).least_divergence(fmt)
    assert (float(lowest), float(highest)) == pytest.approx((-1, 1))


def test_zeros_cost_no_range() -> None:
    numbers = normal().relu()
    assert histogram(numbers).least_divergence(STATIC)[1] > 0.7 * numbers.amax()


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_range_grows_with_the_numbers(fmt: ActivationFormat) -> None:
    one, other = histogram(normal()), histogram(normal() * 4)
    for end, wide in zip(one.least_divergence(fmt), other.least_divergence(fmt), strict=True):
        assert float(wide) == pytest.approx(4 * float(end), rel=1e-6)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("number", [0.0, 5.0, -5.0, 1e-30, 1e30])
def test_one_number_all_over_is_its_own_range(fmt: ActivationFormat, number: float) -> None:
    found = histogram(torch.full((100,), number))
    for ends in (
        found.least_divergence(fmt),
        found.least_error(fmt),
        found.percentile(99.9),
    ):
        assert [float(end) for end in ends] == pytest.approx([number] * 2, rel=1e-6, abs=1e-9)
