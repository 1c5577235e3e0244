from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quantship import lines
from quantship.errors import QuantshipError
from quantship.quant.choices import Layer
from quantship.quant.layers import matrix
from quantship.search.replay import Replay
from quantship.search.sensitivity import (
    MEASURED,
    Calibration,
    Predictions,
    Rounding,
    measure,
    read,
    rounded,
)

ROUNDING = Rounding()


def test_a_model_that_was_not_rounded_predicts_the_same(
    model: Any, sequences: list[Calibration]
) -> None:
    assert Predictions(model, sequences).compare() == (0.0, 0.0)


def test_from_a_block_on_it_is_what_the_whole_model_computes(
    model: Any, sequences: list[Calibration]
) -> None:
    inputs = [one.inputs for one in sequences]
    whole = list(Replay(model, inputs, [None] * len(inputs)).logits())
    for start in (1, 2):
        replay = Replay(model, inputs, [None] * len(inputs))
        replay.move_to(start)
        for ours, theirs in zip(replay.logits(), whole, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_only_predicted_positions_come_out(model: Any, sequences: list[Calibration]) -> None:
    one = sequences[0]
    (whole,) = Replay(model, [one.inputs], [None]).logits()
    (some,) = Replay(model, [one.inputs], [one.positions]).logits()
    torch.testing.assert_close(some, whole[one.positions], rtol=1e-5, atol=1e-5)


def test_each_layer_alone_is_measured_as_in_a_full_run(
    model: Any, sequences: list[Calibration], layers: list[Layer], tmp_path: Path
) -> None:
    predictions = Predictions(model, sequences)
    found = measure(predictions, layers, ROUNDING, tmp_path)
    assert found.keys() == {layer.name for layer in layers}
    for layer in layers[::5]:
        for name, format in layer.formats.items():
            predictions.replay.restart()
            with rounded(model, {layer.name: format}, ROUNDING):
                damage = predictions.compare()
            assert found[layer.name][name].kl_nats == pytest.approx(damage.kl_nats, rel=1e-3)
            assert found[layer.name][name].kl_nats > 0


def test_fewer_bits_do_more_harm(
    model: Any, sequences: list[Calibration], layers: list[Layer], tmp_path: Path
) -> None:
    found = measure(Predictions(model, sequences), layers, ROUNDING, tmp_path)
    for layer in (one for one in layers if one.is_chosen):
        wide, middle, narrow = (found[layer.name][name].kl_nats for name in layer.formats)
        assert wide < middle < narrow


def test_the_model_is_left_as_it_was(
    model: Any, sequences: list[Calibration], layers: list[Layer], tmp_path: Path
) -> None:
    before = {name: one.clone() for name, one in model.state_dict().items()}
    measure(Predictions(model, sequences), layers[:3], ROUNDING, tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_killed_search_measures_only_what_is_missing(
    model: Any,
    sequences: list[Calibration],
    layers: list[Layer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictions = Predictions(model, sequences)
    whole = measure(predictions, layers, ROUNDING, tmp_path / "whole")
    known = (tmp_path / "whole" / MEASURED).read_text().splitlines(keepends=True)
    half = tmp_path / "half"
    half.mkdir()
    (half / MEASURED).write_text("".join(known[:7]) + known[7][:20])
    runs = 0
    compare = Predictions.compare

    def counting(self: Predictions) -> Any:
        nonlocal runs
        runs += 1
        return compare(self)

    monkeypatch.setattr(Predictions, "compare", counting)
    assert measure(predictions, layers, ROUNDING, half) == whole
    assert runs == len(known) - 7
    assert lines.read(half / MEASURED) == lines.read(tmp_path / "whole" / MEASURED)


def test_a_broken_model_is_refused(model: Any, sequences: list[Calibration]) -> None:
    with torch.no_grad():
        matrix(model.get_submodule("model.layers.0.mlp.up_proj"))[0, 0] = torch.nan
    with pytest.raises(QuantshipError, match="nan or infinite"):
        Predictions(model, sequences)


def test_sequences_without_anything_to_predict_are_refused() -> None:
    ids = torch.ones((1, 4), dtype=torch.long)
    batch = {"input_ids": ids, "attention_mask": ids, "labels": torch.full_like(ids, -100)}
    with pytest.raises(QuantshipError, match="no token to predict"):
        read([batch])
