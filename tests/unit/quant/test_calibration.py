from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from quantship.errors import QuantshipError
from quantship.quant.calibration import calibrate, static_inputs
from quantship.quant.modules import input_grids, prepare_qat
from quantship.quant.scheme import SCHEMES
from quantship.quant.statistics import InputRange, InputStatistics, Watch
from quantship.recipe.rounding_options import Calibration

LOW, HIGH = -2.0, 6.0


def prepared() -> nn.Module:
    torch.manual_seed(0)
    return prepare_qat(nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)), STATIC)


STATIC = SCHEMES["w8a8-static"]


def batches(count: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    found = [torch.rand(32, 16, generator=generator) * (HIGH - LOW) + LOW for _ in range(count)]
    found[0][0, 0], found[0][0, 1] = LOW, HIGH
    return found


def reach(model: nn.Module, layer: str = "0") -> tuple[float, float]:
    """Least and greatest number that the layer's input grid can stand for."""
    scale, zero = input_grids(model)[layer]
    assert zero is not None
    return float((-128 - zero) * scale), float((127 - zero) * scale)


def test_the_extremes_are_the_range() -> None:
    model = prepared()
    assert calibrate(model, batches(), model, Calibration(range="minmax")) == 2
    lowest, highest = reach(model)
    step = (HIGH - LOW) / 255
    assert lowest == pytest.approx(LOW, abs=step)
    assert highest == pytest.approx(HIGH, abs=step)


def test_a_model_runs_only_after_calibration() -> None:
    model = prepared()
    with pytest.raises(RuntimeError, match="not calibrated"):
        model(batches()[0])
    calibrate(model, batches(), model, Calibration())
    assert model(batches()[0]).isfinite().all()


def test_a_moving_average_follows_the_batches_and_not_the_extremes() -> None:
    model, data = prepared(), batches()
    data[3] = data[3] * 10
    calibrate(model, data, model, Calibration(range="moving_average"))
    assert HIGH < reach(model)[1] < HIGH * 3


def test_a_percentile_clips_outliers() -> None:
    model, data = prepared(), [torch.randn(64, 16).clamp(-3, 3) for _ in range(8)]
    data[3][0, 0] = 100.0
    calibrate(model, data, model, Calibration(range="percentile", percentile=99.9))
    assert reach(model)[1] < 4
    whole = prepared()
    calibrate(whole, data, whole, Calibration(range="minmax"))
    assert reach(whole)[1] > 99


def test_the_search_never_does_worse_than_the_whole_range() -> None:
    data = [torch.randn(512, 16) ** 5 for _ in range(8)]  # long tails
    errors = {}
    options = (Calibration(range="minmax"), Calibration(range="mse"))
    for option in options:
        model = prepared()
        calibrate(model, data, model, option)
        rounding = static_inputs(model)["0.input_rounding"]
        errors[option.range] = sum(
            float((rounding(batch)[0] - batch).square().sum()) for batch in data
        )
    assert errors["mse"] <= errors["minmax"] * 1.001  # the histogram's bins have a width


def test_the_grid_has_the_dimensions_of_the_input() -> None:
    model = prepared()
    calibrate(model, [batch.view(4, 8, 16) for batch in batches()], model, Calibration())
    assert input_grids(model)["0"].scale.shape == (1, 1, 1)


def test_learned_ranges_are_trained() -> None:
    model = prepared()
    calibrate(model, batches(), model, Calibration(), learned=True)
    names = [name for name, _ in model.named_parameters() if "input_rounding" in name]
    assert names == [
        f"{layer}.input_rounding.{part}" for layer in (0, 2) for part in ("scale", "zero")
    ]
    before = reach(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(batches()[0]).square().sum().backward()
    optimizer.step()
    assert reach(model) != before


def test_the_mode_of_the_model_is_kept_and_nothing_observes_any_more() -> None:
    model = prepared().train()
    calibrate(model, batches(), model, Calibration())
    assert model.training
    assert all(rounding.observer is None for rounding in static_inputs(model).values())


@pytest.mark.parametrize("kind", get_args(InputRange))
def test_a_range_is_that_of_what_was_seen(kind: InputRange) -> None:
    model = prepared()
    calibrate(model, batches(), model, Calibration(range=kind))
    seen = {"0": InputStatistics()}
    watch = Watch(seen)
    for look in (watch.see, watch.count):
        for batch in batches():
            look("0", batch)
    grid = seen["0"].grid(Calibration(range=kind), static_inputs(model)["0.input_rounding"].fmt)
    assert torch.equal(input_grids(model)["0"].scale, grid.scale)


def test_entropy_clips_a_lone_outlier() -> None:
    model, data = prepared(), [torch.randn(512, 16).clamp(-3, 3) for _ in range(8)]
    data[3][0, 0] = 100.0
    calibrate(model, data, model, Calibration(range="entropy"))
    assert reach(model)[1] < 20


@pytest.mark.parametrize("kind", get_args(InputRange))
def test_nan_is_an_error_that_names_the_layer(kind: InputRange) -> None:
    model, data = prepared(), batches()
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")  # type: ignore[index, union-attr, operator]
    with pytest.raises(QuantshipError, match="NaN or infinity of the input of '2'"):
        calibrate(model, data, model, Calibration(range=kind))


@pytest.mark.parametrize("kind", get_args(InputRange))
@pytest.mark.parametrize("number", [0.0, 3.0, -3.0])
def test_a_constant_input_comes_through(kind: InputRange, number: float) -> None:
    model, data = prepared(), [torch.full((4, 16), number)]
    calibrate(model, data, model, Calibration(range=kind))
    rounded, _ = static_inputs(model)["0.input_rounding"](data[0])
    assert torch.allclose(rounded, data[0])


def test_no_data_is_an_error() -> None:
    model = prepared()
    with pytest.raises(ValueError, match="no calibration data reached"):
        calibrate(model, [], model, Calibration())


def test_a_scheme_without_static_ranges_needs_none() -> None:
    model = prepare_qat(nn.Sequential(nn.Linear(16, 8)), SCHEMES["w8a8"])
    assert calibrate(model, [], model, Calibration()) == 0
