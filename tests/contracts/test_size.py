"""An exported 8-bit model is as small as its bits say, its embedding stored once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from quantship.exporters.decoder import MODEL_FILE
from quantship.exporters.lowering import Lowering
from quantship.models import num_parameters, weight_bytes
from quantship.quant.scheme import SCHEMES
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
    [("w8a8", "integer", 3.85), ("w8a8", "nbits", 3.8), ("w4a16-g32", "nbits", 6.2)],
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


@pytest.mark.parametrize("lowering", ["integer", "nbits"])
def test_a_tied_embedding_is_stored_once(workshop: Any, wide: str, lowering: Lowering) -> None:
    stored = initializers(workshop.export(SCHEMES["w8a8"], lowering, wide))
    large = [tensor for tensor in stored.values() if tensor.size == HIDDEN * ROWS]
    assert [tensor.dtype for tensor in large] == [ir.DataType.UINT8]
    untied = initializers(workshop.export(SCHEMES["w8a8"], lowering, "untied"))
    assert len([tensor for tensor in untied.values() if tensor.size == 128 * ROWS]) == 2


@pytest.mark.parametrize("lowering", ["integer", "nbits"])
def test_no_float_weight_is_left_over(workshop: Any, wide: str, lowering: Lowering) -> None:
    stored = initializers(workshop.export(SCHEMES["w8a8"], lowering, wide))
    floats = {name: tensor for name, tensor in stored.items() if tensor.dtype == ir.DataType.FLOAT}
    assert all(
        "norm" in name or name.endswith((".scales", ".sums", "_cache")) for name in floats
    ), floats.keys()
