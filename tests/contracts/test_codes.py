"""The comparison of codes says yes only when every integer and every scale is the checkpoint's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from quantship.exporters import codes
from quantship.exporters.decoder import MODEL_FILE
from quantship.exporters.hooks import METADATA
from quantship.exporters.lowering import reject
from quantship.quant import checkpoint
from quantship.quant.scheme import SCHEMES, Scheme

Array = NDArray[Any]
Change = Callable[[ir.Model, dict[str, Any]], None]

PAIRS = [
    pytest.param(scheme, lowering, id=f"{scheme.name}-{lowering}")
    for scheme in SCHEMES.values()
    for lowering in ("nbits", "integer")
    if reject(scheme, lowering) is None
]
LAYER = "model.layers.1.mlp.up_proj"
PACKED = "model.layers.0.self_attn.k_proj"
HEAD = "lm_head"


def rewritten(source: Path, out: Path, change: Change) -> Path:
    """A copy of an exported model with its initializers or its places changed."""
    model = ir.external_data.load_to_model(ir.load(source / MODEL_FILE))
    described = codes.metadata(model)
    change(model, described["places"])
    model.metadata_props[METADATA] = json.dumps(described)
    ir.save(model, out / MODEL_FILE)
    return out


def edit(name: str, part: str, how: Callable[[Array, Any], None]) -> Change:
    """Change the array that holds the codes or the scales of one matrix."""

    def change(model: ir.Model, places: dict[str, Any]) -> None:
        value = model.graph.initializers[places[name][part]]
        assert value.const_value is not None
        array = value.const_value.numpy().copy()
        how(array, places[name])
        value.const_value = ir.tensor(array, name=value.name)

    return change


def first_row(place: dict[str, Any]) -> Any:
    """Where the first output feature of a matrix lies in its array."""
    row = place["rows"][0]
    return (slice(None), row) if place["form"] == "integer" else row


def flip_lowest_bit_of_one_code(array: Array, place: dict[str, Any]) -> None:
    row = array[first_row(place)]
    row.reshape(-1)[5:6] ^= 1


def raise_one_scale_by_one_ulp(array: Array, place: dict[str, Any]) -> None:
    scales = array[place["rows"][0] :].reshape(-1)
    scales[0] = np.nextafter(scales[0], np.float32(np.inf))


def swap_two_rows(array: Array, place: dict[str, Any]) -> None:
    rows = array.T if place["form"] == "integer" else array
    first = place["rows"][0]
    rows[[first, first + 1]] = rows[[first + 1, first]].copy()


@pytest.mark.parametrize("name", [LAYER, PACKED, HEAD])
@pytest.mark.parametrize(
    ("part", "how"),
    [
        ("codes", flip_lowest_bit_of_one_code),
        ("codes", swap_two_rows),
        ("scales", raise_one_scale_by_one_ulp),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize(("scheme", "lowering"), PAIRS)
def test_one_changed_number_is_found_and_named(
    workshop: Any, scheme: Scheme, lowering: str, part: str, how: Any, name: str, tmp_path: Path
) -> None:
    exported = workshop.export(scheme, lowering, "untied")
    changed = rewritten(exported, tmp_path, edit(name, part, how))
    compared = codes.compare(changed, workshop.checkpoint(scheme, "untied"))
    assert compared.different == (name,)
    assert not compared.equal
    assert compared.tensors_compared > 1


@pytest.mark.parametrize(("scheme", "lowering"), PAIRS)
def test_rewriting_alone_changes_nothing(
    workshop: Any, scheme: Scheme, lowering: str, tmp_path: Path
) -> None:
    exported = workshop.export(scheme, lowering, "untied")
    same = rewritten(exported, tmp_path, lambda model, places: None)
    assert codes.compare(same, workshop.checkpoint(scheme, "untied")).equal


def forget(model: ir.Model, places: dict[str, Any]) -> None:
    del places[LAYER]


def point_at_nothing(model: ir.Model, places: dict[str, Any]) -> None:
    places[LAYER]["codes"] = "nowhere"


def exchange(model: ir.Model, places: dict[str, Any]) -> None:
    other = LAYER.replace("layers.1", "layers.0")
    places[LAYER], places[other] = places[other], places[LAYER]


def shift_rows(model: ir.Model, places: dict[str, Any]) -> None:
    first, end = places[PACKED]["rows"]
    places[PACKED]["rows"] = [first + 1, end + 1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (forget, {LAYER}),
        (point_at_nothing, {LAYER}),
        (exchange, {LAYER, LAYER.replace("layers.1", "layers.0")}),
        (shift_rows, {PACKED}),
    ],
)
@pytest.mark.parametrize(("scheme", "lowering"), PAIRS)
def test_a_wrong_place_is_found_and_named(
    workshop: Any, scheme: Scheme, lowering: str, change: Change, named: set[str], tmp_path: Path
) -> None:
    exported = workshop.export(scheme, lowering, "untied")
    compared = codes.compare(
        rewritten(exported, tmp_path, change), workshop.checkpoint(scheme, "untied")
    )
    assert set(compared.different) == named
    assert not compared.equal


@pytest.mark.parametrize(("scheme", "lowering"), PAIRS)
def test_another_checkpoint_is_not_the_same(workshop: Any, scheme: Scheme, lowering: str) -> None:
    def build() -> Any:
        model = workshop.model("untied")
        for parameter in model.parameters():
            parameter.data.mul_(-1)
        return model

    workshop.adopt("negated", build)
    other = workshop.checkpoint(scheme, "negated")
    compared = codes.compare(workshop.export(scheme, lowering, "untied"), other)
    assert not compared.equal
    assert compared.different == tuple(checkpoint.load_codes(other))


def test_nothing_compared_is_not_equal(workshop: Any) -> None:
    scheme = SCHEMES["w8a8"]
    exported = workshop.export(scheme, "nbits", "untied")
    compared = codes.compare(exported, workshop.float_dir("untied"))
    assert compared.tensors_compared == 0
    assert not compared.different
    assert not compared.equal


def test_a_float_export_holds_no_codes(workshop: Any) -> None:
    source = workshop.checkpoint(SCHEMES["w8a8"], "untied")
    compared = codes.compare(workshop.export(None, "float", "untied"), source)
    assert not compared.equal
    assert compared.different == tuple(checkpoint.load_codes(source))
