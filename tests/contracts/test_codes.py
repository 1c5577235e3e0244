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
from quantship.quant.scheme import SCHEMES, ActivationFormat, Scheme, WeightFormat

Array = NDArray[Any]
Change = Callable[[ir.Model, dict[str, Any]], None]

ASYMMETRIC = Scheme(
    name="asymmetric in all",
    weight=WeightFormat(bits=5, symmetric=False),
    activation=ActivationFormat(),
    embedding=WeightFormat(bits=4, group_size=32, symmetric=False),
)
ALLOWED = [
    (scheme, lowering)
    for scheme in (*SCHEMES.values(), ASYMMETRIC)
    for lowering in ("nbits", "integer", "qdq")
    if reject(scheme, lowering) is None
]
PAIRS = [pytest.param(*pair, id=f"{pair[0].name}-{pair[1]}") for pair in ALLOWED]
LAYER = "model.layers.1.mlp.up_proj"
SHARING = "model.layers.1.mlp.gate_proj"
"""Has that layer's input, which is rounded once for both."""
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
        how(array.view(np.int8) if value.dtype == ir.DataType.INT4 else array, places[name])
        value.const_value = ir.tensor(array, name=value.name)

    return change


def features_first(array: Array, place: dict[str, Any]) -> Array:
    """The same memory with the output features first."""
    return array if place["form"] == "nbits" else np.moveaxis(array, -1, 0)


def of_feature(array: Array, place: dict[str, Any]) -> Array:
    """What of an array belongs to the first output feature of a matrix, in the same memory."""
    row = place["rows"][0]
    numbers: Array = features_first(array, place)[row : row + 1].reshape(-1)
    return numbers


def flip_lowest_bit_of_one_code(array: Array, place: dict[str, Any]) -> None:
    of_feature(array, place)[5] ^= 1


def raise_one_scale_by_one_ulp(array: Array, place: dict[str, Any]) -> None:
    of_feature(array.view(f"i{array.itemsize}"), place)[0] += 1


def swap_two_rows(array: Array, place: dict[str, Any]) -> None:
    rows = features_first(array, place)
    first = place["rows"][0]
    rows[[first, first + 1]] = rows[[first + 1, first]].copy()


@pytest.mark.parametrize(
    ("part", "how"),
    [
        ("codes", flip_lowest_bit_of_one_code),
        ("codes", swap_two_rows),
        ("scales", raise_one_scale_by_one_ulp),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize(
    ("scheme", "lowering", "name"),
    [
        pytest.param(*pair, name, id=f"{pair[0].name}-{pair[1]}-{name}")
        for pair in ALLOWED
        for name in (LAYER, PACKED, HEAD)
        if name != HEAD or pair[0].embedding is not None
    ],
)
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


def other(name: str) -> str:
    """The same matrix in the other decoder layer."""
    return name.replace("layers.1", "layers.0")


def forget(model: ir.Model, places: dict[str, Any]) -> None:
    del places[LAYER]


def point_at_nothing(model: ir.Model, places: dict[str, Any]) -> None:
    places[LAYER]["codes"] = "nowhere"


def exchange(model: ir.Model, places: dict[str, Any]) -> None:
    one, two = LAYER, other(LAYER)
    places[one], places[two] = places[two], places[one]


def shift_rows(model: ir.Model, places: dict[str, Any]) -> None:
    first, end = places[PACKED]["rows"]
    places[PACKED]["rows"] = [first + 1, end + 1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (forget, {LAYER}),
        (point_at_nothing, {LAYER}),
        (exchange, {LAYER, other(LAYER)}),
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


@pytest.mark.parametrize("name", [LAYER, PACKED, HEAD])
@pytest.mark.parametrize("lowering", ["nbits", "integer", "qdq"])
def test_a_changed_zero_point_is_found_and_named(
    workshop: Any, lowering: str, name: str, tmp_path: Path
) -> None:
    def flip(zeros: Array, place: dict[str, Any]) -> None:
        of_feature(zeros, place)[0] ^= 1

    def change(model: ir.Model, places: dict[str, Any]) -> None:
        zeros = places[name]["codes"].replace(".codes", ".zeros")
        edit(name, "codes", flip)(model, {name: {**places[name], "codes": zeros}})

    changed = rewritten(workshop.export(ASYMMETRIC, lowering, "untied"), tmp_path, change)
    compared = codes.compare(changed, workshop.checkpoint(ASYMMETRIC, "untied"))
    assert compared.different == (name,)


def user_of(model: ir.Model, places: dict[str, Any], name: str) -> ir.Node:
    """The node that multiplies by a matrix."""
    ((node, _),) = model.graph.initializers[places[name]["codes"]].uses()
    return node


def take_the_scales_of_another(model: ir.Model, places: dict[str, Any]) -> None:
    node, donor = user_of(model, places, LAYER), user_of(model, places, other(LAYER))
    node.replace_input_with(2, donor.inputs[2])


def halve_the_blocks(model: ir.Model, places: dict[str, Any]) -> None:
    node = user_of(model, places, LAYER)
    half = node.attributes["block_size"].as_int() // 2
    node.attributes["block_size"] = ir.AttrInt64("block_size", half)


def drop_the_zero_points(model: ir.Model, places: dict[str, Any]) -> None:
    user_of(model, places, LAYER).replace_input_with(3, None)


@pytest.mark.parametrize(
    ("scheme", "change"),
    [
        (SCHEMES["w4a16-g32"], take_the_scales_of_another),
        (SCHEMES["w8a8"], take_the_scales_of_another),
        (SCHEMES["w4a16-g32"], halve_the_blocks),
        (SCHEMES["w4a16-g32-asymmetric"], drop_the_zero_points),
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "__name__", None)),
)
def test_a_node_that_reads_its_matrix_wrongly_is_found_and_named(
    workshop: Any, scheme: Scheme, change: Change, tmp_path: Path
) -> None:
    exported = workshop.export(scheme, "nbits", "untied")
    compared = codes.compare(
        rewritten(exported, tmp_path, change), workshop.checkpoint(scheme, "untied")
    )
    assert compared.different == (LAYER,)


def raise_the_static_scale(model: ir.Model, places: dict[str, Any]) -> None:
    first = places[SHARING]["codes"].replace(".codes", ".input_scale")
    value = model.graph.initializers[first]
    assert value.const_value is not None
    larger = np.nextafter(value.const_value.numpy(), np.float32(np.inf), dtype=np.float32)
    value.const_value = ir.tensor(larger, name=value.name)


def scale_by_another(model: ir.Model, places: dict[str, Any]) -> None:
    scales = model.graph.initializers[places[LAYER]["scales"]]
    donor = model.graph.initializers[places[other(LAYER)]["scales"]]
    for node, index in scales.uses():
        node.replace_input_with(index, donor)


def shift_the_input(model: ir.Model, places: dict[str, Any]) -> None:
    node = user_of(model, places, LAYER)
    rounding = node.inputs[0].producer()  # type: ignore[union-attr]
    assert rounding is not None
    assert rounding.op_type == "QuantizeLinear"
    zero = ir.val("moved", const_value=ir.tensor(np.array(3, np.uint8), name="moved"))
    model.graph.register_initializer(zero)
    rounding.replace_input_with(2, zero)


@pytest.mark.parametrize("change", [raise_the_static_scale, scale_by_another, shift_the_input])
def test_a_static_layer_that_rounds_or_scales_otherwise_is_found_and_named(
    workshop: Any, change: Change, tmp_path: Path
) -> None:
    scheme = SCHEMES["w8a8-static"]
    exported = workshop.export(scheme, "integer", "untied")
    compared = codes.compare(
        rewritten(exported, tmp_path, change), workshop.checkpoint(scheme, "untied")
    )
    assert LAYER in compared.different
    assert set(compared.different) <= {LAYER, SHARING}


@pytest.mark.parametrize(("scheme", "lowering"), PAIRS)
def test_another_checkpoint_is_not_the_same(workshop: Any, scheme: Scheme, lowering: str) -> None:
    def build() -> Any:
        model = workshop.model("untied")
        for parameter in model.parameters():
            parameter.data.mul_(-1)
        return model

    workshop.adopt("negated", build)
    negated = workshop.checkpoint(scheme, "negated")
    compared = codes.compare(workshop.export(scheme, lowering, "untied"), negated)
    assert not compared.equal
    assert compared.different == tuple(checkpoint.load_codes(negated))


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
