from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch

from quantship.errors import QuantshipError
from quantship.quant import statistics_file
from quantship.quant.scheme import STATIC
from quantship.quant.statistics import (
    FROM_HISTOGRAM,
    InputRange,
    InputStatistics,
    Look,
    Watch,
    remarks,
    require_sound,
)
from quantship.recipe.rounding_options import Calibration

SYMMETRIC = STATIC.model_copy(update={"symmetric": True})
NUM_FEATURES = 24


def inputs(count: int = 5, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(1, 20 + number, NUM_FEATURES, generator=generator) ** 3
        for number in range(count)
    ]


def seen(parts: list[torch.Tensor], name: str = "layer") -> dict[str, InputStatistics]:
    layers = {name: InputStatistics(of_features=True)}
    watch = Watch(layers)
    for look in (watch.see, watch.count):
        for part in parts:
            look(name, part)
    return layers


def test_parts_add_up_to_the_whole() -> None:
    parts = inputs()
    whole_TI = torch.cat(parts, dim=1)[0]
    found = seen(parts)["layer"]
    assert found.num_tokens == len(whole_TI)
    assert found.num_dims == 3
    assert (found.lowest, found.highest) == (whole_TI.amin(), whole_TI.amax())
    assert found.features is not None
    assert torch.equal(found.features.lowest_I, whole_TI.amin(0))
    assert torch.equal(found.features.highest_I, whole_TI.amax(0))
    assert torch.equal(found.reach_I, whole_TI.abs().amax(0))
    torch.testing.assert_close(found.mean_I, whole_TI.double().mean(0))
    torch.testing.assert_close(found.mean_abs_I, whole_TI.double().abs().mean(0))
    assert found.histogram is not None
    assert found.histogram.counts.sum() == whole_TI.numel()


def test_the_moving_average_forgets() -> None:
    first, second = torch.tensor([[-1.0, 1.0]]), torch.tensor([[-3.0, 2.0]])
    found = seen([first, second])["layer"]
    lowest, highest = found.range(Calibration(range="moving_average"), STATIC)
    assert (float(lowest), float(highest)) == pytest.approx((-1.2, 1.1))


@pytest.mark.parametrize("of_features", [True, False])
def test_looking_at_features_changes_nothing_of_the_whole(of_features: bool) -> None:
    part = inputs()[0]
    look = Look.at(part, of_features=of_features)
    assert (look.lowest, look.highest) == (part.amin(), part.amax())
    assert (look.features is None) != of_features


def test_layers_that_share_an_input_see_what_each_would_see_alone() -> None:
    layers = {name: InputStatistics(of_features=True) for name in ("one", "other")}
    watch = Watch(layers)
    for look in (watch.see, watch.count):
        for part in inputs():
            look("one", part)
            look("other", part)
    alone = seen(inputs())["layer"]
    for found in layers.values():
        for kind in get_args(InputRange):
            options = Calibration(range=kind)
            assert torch.equal(found.grid(options, STATIC).scale, alone.grid(options, STATIC).scale)
        assert found.num_tokens == alone.num_tokens


def test_a_tensor_that_was_written_to_is_looked_at_again() -> None:
    layers = {name: InputStatistics() for name in ("before", "after")}
    watch = Watch(layers)
    part = torch.ones(4, NUM_FEATURES)
    watch.see("before", part)
    part.mul_(3)
    watch.see("after", part)
    assert (layers["before"].highest, layers["after"].highest) == (1, 3)


def test_tensors_of_inference_mode_are_looked_at_one_by_one() -> None:
    layers = {name: InputStatistics() for name in ("before", "after")}
    watch = Watch(layers)
    with torch.inference_mode():
        part = torch.ones(4, NUM_FEATURES)
        watch.see("before", part)
        part.mul_(3)
        watch.see("after", part)
    assert (layers["before"].highest, layers["after"].highest) == (1, 3)


@pytest.mark.parametrize("kind", get_args(InputRange))
@pytest.mark.parametrize("fmt", [STATIC, SYMMETRIC], ids=["asymmetric", "symmetric"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_file_gives_the_same_ranges_to_the_bit(
    kind: InputRange, fmt: object, dtype: torch.dtype, tmp_path: Path
) -> None:
    layers = seen([part.to(dtype) for part in inputs()], name="model.layers.0.mlp.up_proj")
    statistics_file.save(layers, tmp_path / "statistics.safetensors")
    read = statistics_file.load(tmp_path / "statistics.safetensors")
    assert list(read) == list(layers)
    for name, found in read.items():
        options = Calibration(range=kind)
        for one, other in zip(
            found.grid(options, fmt),  # type: ignore[arg-type]
            layers[name].grid(options, fmt),  # type: ignore[arg-type]
            strict=True,
        ):
            assert (one is None) == (other is None)
            if one is not None:
                assert one.shape == (1, 1, 1)
                assert one.dtype == other.dtype
                assert torch.equal(one, other)
        assert torch.equal(found.mean_I, layers[name].mean_I)
        assert torch.equal(found.reach_I, layers[name].reach_I)
        assert found.num_tokens == layers[name].num_tokens


def test_a_file_may_hold_extremes_only(tmp_path: Path) -> None:
    layers = {"layer": InputStatistics()}
    Watch(layers).see("layer", inputs()[0])
    statistics_file.save(layers, tmp_path / "statistics.safetensors")
    read = statistics_file.load(tmp_path / "statistics.safetensors")["layer"]
    assert read.features is None
    assert read.histogram is None
    assert read.highest == layers["layer"].highest


def test_what_never_ran_is_named() -> None:
    layers = {"ran": InputStatistics(), "idle": InputStatistics(), "empty": InputStatistics()}
    watch = Watch(layers)
    watch.see("ran", inputs()[0])
    watch.see("empty", torch.zeros(0, NUM_FEATURES))
    with pytest.raises(ValueError, match="no calibration data reached idle, empty"):
        require_sound(layers)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", [0, 3])
def test_an_input_that_is_no_number_is_an_error_that_names_the_layer(
    number: float, where: int
) -> None:
    parts = inputs()
    parts[where][0, 1, 2] = number
    layers = {"sound": InputStatistics(), "model.layers.1.q_proj": InputStatistics()}
    watch = Watch(layers)
    for part, sound in zip(parts, inputs(), strict=True):
        watch.see("sound", sound)
        watch.see("model.layers.1.q_proj", part)
    with pytest.raises(QuantshipError, match=r"NaN or infinity.*'model\.layers\.1\.q_proj'"):
        require_sound(layers)


def test_poor_data_is_remarked_upon() -> None:
    assert remarks(seen(inputs())) == []
    few = seen([torch.randn(1, 1, NUM_FEATURES)], name="seldom")
    assert remarks(few) == ["calibration saw no more than 1 tokens"]
    assert [remark for remark in remarks(few | seen(inputs())) if "in seldom" in remark]
    constant = seen([torch.full((100, NUM_FEATURES), 2.0)], name="dead")
    assert [remark for remark in remarks(constant) if "one number" in remark and "dead" in remark]


@pytest.mark.parametrize("kind", FROM_HISTOGRAM)
def test_one_token_is_enough_for_a_range(kind: InputRange) -> None:
    part = torch.linspace(-1, 2, NUM_FEATURES).view(1, 1, -1)
    lowest, highest = seen([part])["layer"].range(Calibration(range=kind), STATIC)
    assert -1 <= lowest < 0.5
    assert 1 < highest <= 2
