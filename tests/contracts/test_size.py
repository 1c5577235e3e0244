"""An exported 8-bit model is as small as its bits say, its embedding stored once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from quantship.exporters import codes
from quantship.exporters.decoder import MODEL_FILE
from quantship.exporters.lowering import Lowering, reject
from quantship.models import num_parameters, weight_bytes
from quantship.quant.scheme import SCHEMES, Scheme
from quantship.recipe.language import TinyModel
from quantship.tiny import build_model

HIDDEN, LAYERS, ROWS = 512, 4, 288


@pytest.fixture(scope="module")
def wide(workshop: Any, tiny_tokenizer: Any) -> str:
    """Name of a model in which weights outweigh everything else."""
    dimensions = TinyModel(
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_layers=LAYERS,
        max_positions=128,  # the graph holds a rotary table of that length
    )
    workshop.adopt("wide", lambda: build_model(dimensions, tiny_tokenizer, seed=0))
    return "wide"


def initializers(path: Path) -> dict[str, Any]:
    graph = ir.load(path / MODEL_FILE).graph
    return {name: value.const_value for name, value in graph.initializers.items()}


@pytest.mark.parametrize(
    ("scheme", "lowering", "smaller"),
    [("w8a8", "integer", 3.85), ("w8a8", "nbits", 3.8), ("w4a16-g32", "nbits", 6.9)],
)
def test_an_export_is_smaller_by_its_bits(
    workshop: Any, wide: str, scheme: str, lowering: Lowering, smaller: float
) -> None:
    float_bytes = weight_bytes(workshop.export(None, "float", wide))
    quantized = weight_bytes(workshop.export(SCHEMES[scheme], lowering, wide))
    assert float_bytes == pytest.approx(4 * num_parameters(workshop.float_dir(wide)), rel=0.01)
    assert float_bytes / quantized > smaller


def test_a_checkpoint_is_smaller_by_its_bits(workshop: Any, wide: str) -> None:
    quantized = weight_bytes(workshop.checkpoint(SCHEMES["w8a8"], wide))
    assert weight_bytes(workshop.float_dir(wide)) / quantized > 3.9


INT4 = [
    scheme
    for scheme in SCHEMES.values()
    if scheme.weight.bits == 4 and scheme.weight.scale_dtype == "bfloat16"
]


@pytest.mark.parametrize("scheme", INT4, ids=lambda one: one.name)
def test_four_bits_are_at_most_0_30_of_bfloat16(workshop: Any, wide: str, scheme: Scheme) -> None:
    """Of the layers they cover: codes, scales and, where there are some, zero points."""
    exported = workshop.export(scheme, "nbits", wide)
    stored = initializers(exported)
    places = codes.metadata(ir.load(exported / MODEL_FILE))["places"]
    covered = {name: place for name, place in places.items() if name.startswith("model.layers.")}
    assert len(covered) == 7 * LAYERS
    elements = sum(
        (place["rows"][1] - place["rows"][0]) * place["in_features"] for place in covered.values()
    )
    layers = {place["codes"].removesuffix(".codes") for place in covered.values()}
    size_bytes = sum(
        tensor.nbytes for name, tensor in stored.items() if name.rsplit(".", 1)[0] in layers
    )
    assert 0.25 < size_bytes / (2 * elements) <= 0.30


TIED = [
    pytest.param(scheme, lowering, id=f"{scheme.name}-{lowering}")
    for scheme in SCHEMES.values()
    for lowering in ("nbits", "integer")
    if reject(scheme, lowering) is None
]


@pytest.mark.parametrize(("scheme", "lowering"), TIED)
def test_a_tied_embedding_is_stored_once(
    workshop: Any, wide: str, scheme: Scheme, lowering: Lowering
) -> None:
    stored = initializers(workshop.export(scheme, lowering, wide))
    large = [tensor for tensor in stored.values() if tensor.size == HIDDEN * ROWS]
    kind = ir.DataType.FLOAT if scheme.embedding is None else ir.DataType.UINT8
    assert [tensor.dtype for tensor in large] == [kind]
    untied = initializers(workshop.export(scheme, lowering, "untied"))
    assert len([tensor for tensor in untied.values() if tensor.size == 128 * ROWS]) == 2


@pytest.mark.parametrize("lowering", ["integer", "nbits"])
def test_no_float_weight_is_left_over(workshop: Any, wide: str, lowering: Lowering) -> None:
    stored = initializers(workshop.export(SCHEMES["w8a8"], lowering, wide))
    floats = {name: tensor for name, tensor in stored.items() if tensor.dtype == ir.DataType.FLOAT}
    assert all(
        "norm" in name
        or name.endswith((".scales", ".sums"))
        or name.startswith(("cos_cache/", "sin_cache/"))
        for name in floats
    ), floats.keys()
