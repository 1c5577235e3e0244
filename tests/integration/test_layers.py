"""What a report says of single layers is what their checkpoints hold and calibration saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quantship import pipeline
from quantship.quant import numerics
from quantship.quant.checkpoint import load_codes
from quantship.recipe import load
from quantship.reporting import write

if TYPE_CHECKING:
    from pathlib import Path

    from quantship.reporting.schema import Report

RECIPE = """\
model: {tiny: {hidden_size: 64, num_layers: 2, num_heads: 4, num_kv_heads: 2}}
data:
  train: [{adapter: builtin, num_examples: 12}]
  eval: [{adapter: builtin, split: eval, num_examples: 2}]
evaluation: null
benchmark: null
scheme: w8a8-static
steps:
  - {stage: quantize, name: widest, calibration: {sequences: 6, range: minmax}}
  - {stage: quantize, name: narrow, calibration: {sequences: 6, range: percentile, percentile: 99}}
  - {stage: quantize, name: gptq, algorithm: gptq, calibration: {sequences: 6}}
  - {stage: quantize, name: dynamic, scheme: w8a8}
  - {stage: qat, name: trained, max_steps: 1, batch_size: 2}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """A report, and the folder of the models that it is of."""
    root = tmp_path_factory.mktemp("layers")
    (root / "layers.yaml").write_text(RECIPE)
    pipeline.run(load(root / "layers.yaml"), root)
    out = root / "runs" / "layers"
    return write.read(out), out / "models"


def test_ranges_are_those_of_the_checkpoints(finished: tuple[Report, Path]) -> None:
    report, models = finished
    assert report.layers is not None
    names = [one.model for one in report.layers.ranges]
    assert names == ["widest", "narrow", "gptq", "trained"]
    for one in report.layers.ranges:
        stored = load_codes(models / one.model)
        static = {name: part.input_grid for name, part in stored.items() if part.input_grid}
        assert one.layers.keys() == static.keys()
        assert len(static) == 14
        for name, (scale, zero) in static.items():
            low, high = (
                float(scale * (code - (0 if zero is None else zero)))
                for code in numerics.code_range(8)
            )
            assert one.layers[name].low == pytest.approx(low, rel=1e-4)
            assert one.layers[name].high == pytest.approx(high, rel=1e-4)


def test_what_was_seen_fills_the_widest_range_and_goes_beyond_a_narrow_one(
    finished: tuple[Report, Path],
) -> None:
    layers = finished[0].layers
    assert layers is not None
    (seen,) = layers.seen
    assert (seen.model, seen.num_sequences) == ("model", 6)
    ranges = {one.model: one for one in layers.ranges}
    assert [one.seen for one in layers.ranges] == [0, 0, None, None]
    clipped = 0
    for name, held in ranges["widest"].layers.items():
        inputs = seen.layers[name]
        step = (held.high - held.low) / 255
        assert inputs.lowest == pytest.approx(held.low, abs=step)
        assert inputs.highest == pytest.approx(held.high, abs=step)
        assert inputs.inner_low is not None
        assert inputs.inner_high is not None
        assert inputs.lowest <= inputs.inner_low < inputs.inner_high <= inputs.highest
        narrow = ranges["narrow"].layers[name]
        clipped += narrow.high - narrow.low < held.high - held.low - step
    assert clipped > 10


def test_errors_are_of_what_was_only_rounded(finished: tuple[Report, Path]) -> None:
    report, models = finished
    assert report.layers is not None
    errors = {one.model: one.layers for one in report.layers.errors}
    assert list(errors) == ["widest", "narrow", "gptq", "dynamic"]
    for model, found in errors.items():
        assert found.keys() == load_codes(models / model).keys()
        assert all(0.001 < error < 0.05 for error in found.values())  # 8 bits


def test_the_page_shows_both(finished: tuple[Report, Path]) -> None:
    page = (finished[1].parent / "report.html").read_text(encoding="utf-8")
    assert 'id="errors"' in page
    assert 'id="ranges"' in page
