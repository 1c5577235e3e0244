from __future__ import annotations

from pathlib import Path

import torch

from quantship.quant import handoff
from quantship.quant.numerics import Codes, round_to_nearest
from quantship.quant.scheme import WeightFormat


def codes(weight_OI: torch.Tensor) -> dict[str, Codes]:
    fmt = WeightFormat(bits=4, group_size=16, symmetric=False)
    return {"a": round_to_nearest(weight_OI, fmt), "b": round_to_nearest(-weight_OI, fmt)}


def test_the_same_codes_are_found_again(tmp_path: Path) -> None:
    trained = codes(torch.randn(4, 32))
    handoff.save(trained, tmp_path)
    assert handoff.compare(trained, tmp_path) == {
        "codes_equal": True,
        "tensors_compared": 2,
        "tensors_different": 0,
        "share_of_codes_equal": 1.0,
    }


def test_each_code_that_differs_is_counted(tmp_path: Path) -> None:
    trained = codes(torch.randn(4, 32))
    handoff.save(trained, tmp_path)
    trained["a"].codes_OI[0, :3] += 1
    found = handoff.compare(trained, tmp_path)
    assert found is not None
    assert (found["codes_equal"], found["tensors_different"]) == (False, 1)
    assert found["share_of_codes_equal"] == 1 - 3 / 256


def test_a_scale_or_zero_point_that_differs_is_counted() -> None:
    one = codes(torch.randn(4, 32))
    scaled = {**one, "a": one["a"]._replace(scale_OG=one["a"].scale_OG * 1.0001)}
    assert handoff.count(one, scaled)["tensors_different"] == 1
    zero_OG = one["a"].zero_OG
    assert zero_OG is not None
    shifted = {**one, "a": one["a"]._replace(zero_OG=zero_OG + 1)}
    assert handoff.count(one, shifted)["tensors_different"] == 1


def test_a_model_from_elsewhere_has_nothing_to_compare_with(tmp_path: Path) -> None:
    assert handoff.compare(codes(torch.randn(4, 32)), tmp_path) is None


def test_other_layers_have_nothing_to_compare_with(tmp_path: Path) -> None:
    trained = codes(torch.randn(4, 32))
    handoff.save(trained, tmp_path)
    assert handoff.compare({"a": trained["a"]}, tmp_path) is None
