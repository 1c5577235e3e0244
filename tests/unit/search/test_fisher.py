from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantship.errors import QuantshipError
from quantship.quant.choices import Layer, layers_of
from quantship.quant.layers import matrix
from quantship.quant.scheme import Scheme
from quantship.search import fisher
from quantship.search.sensitivity import Calibration, Predictions, Rounding, measure

ROUNDING = Rounding()
FINE = ("w8a16", "w4a16-g32")


def test_it_estimates_what_is_measured(
    model: Any, sequences: list[Calibration], base: Scheme, candidates: Any, tmp_path: Path
) -> None:
    layers = layers_of(model, base, {name: candidates[name] for name in FINE}, embedding=True)
    many = sequences * 8  # of each sequence, several continuations are drawn
    estimated = fisher.estimate(model, many, layers, ROUNDING, tmp_path)
    measured = measure(Predictions(model, sequences), layers, ROUNDING, tmp_path)
    pairs = [
        (estimated[layer.name][name], measured[layer.name][name].kl_nats)
        for layer in layers
        for name in layer.formats
    ]
    ours, theirs = np.log(np.array(pairs)).T
    assert np.corrcoef(ours, theirs)[0, 1] > 0.95
    assert abs((ours - theirs).mean()) < 0.5


def test_the_model_is_left_as_it_was(
    model: Any, sequences: list[Calibration], layers: list[Layer], tmp_path: Path
) -> None:
    before = {name: one.clone() for name, one in model.state_dict().items()}
    fisher.estimate(model, sequences, layers, ROUNDING, tmp_path)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad
        assert parameter.grad is None


def test_a_killed_search_does_not_look_at_gradients_again(
    model: Any,
    sequences: list[Calibration],
    layers: list[Layer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    once = fisher.estimate(model, sequences, layers, ROUNDING, tmp_path)
    monkeypatch.setattr(fisher, "_information", None)
    assert fisher.estimate(model, sequences, layers, ROUNDING, tmp_path) == once


def test_it_is_the_same_every_time(
    model: Any, sequences: list[Calibration], layers: list[Layer], tmp_path: Path
) -> None:
    one = fisher.estimate(model, sequences, layers, ROUNDING, tmp_path / "one")
    torch.manual_seed(5)
    assert fisher.estimate(model, sequences, layers, ROUNDING, tmp_path / "other") == one


def test_a_broken_model_is_refused(
    model: Any, sequences: list[Calibration], layers: list[Layer], tmp_path: Path
) -> None:
    with torch.no_grad():
        matrix(model.get_submodule("model.layers.0.mlp.up_proj"))[0, 0] = torch.nan
    with pytest.raises((QuantshipError, RuntimeError)):
        fisher.estimate(model, sequences, layers, ROUNDING, tmp_path)
