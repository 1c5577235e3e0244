"""Embeddings of standard operators, with a head of their own and tied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from quantship.exporters import qdq
from quantship.quant import numerics
from quantship.quant.scheme import WeightFormat

Array = NDArray[Any]


embeddings = pytest.mark.parametrize(
    "weight",
    [
        WeightFormat(bits=bits, group_size=group, symmetric=symmetric)
        for bits in (4, 8)
        for group in (None, 32, 24)
        for symmetric in (True, False)
    ],
    ids=lambda one: f"w{one.bits} {one.group_size} {'' if one.symmetric else 'asymmetric'}",
)


@embeddings
@pytest.mark.parametrize("width", [96, 99])
def test_embeddings_are_looked_up_to_the_bit_in_every_runtime(
    part: Any, empty: Any, weight: WeightFormat, width: int
) -> None:
    if weight.group_size is not None and width % weight.group_size:
        weight = weight.model_copy(update={"group_size": 3})
    one, drawn = part(weight, shape=(50, width)), empty()
    stored = qdq.store(drawn.graph, [one], "table")
    drawn.give(qdq.embedding(drawn.graph, one, stored, "table", "ids"))
    assert drawn.holds(one)
    onnx.checker.check_model(drawn.proto, full_check=True)
    ids = np.random.default_rng(1).integers(0, 50, (2, 5))
    expected = numerics.dequantize(one.codes).float().numpy()[ids]
    for (found,) in drawn.run(ids=ids).values():
        assert np.array_equal(found, expected)


@embeddings
def test_a_tied_head_shares_its_codes_and_is_fused_all_the_same(
    part: Any, empty: Any, weight: WeightFormat, tmp_path: Path
) -> None:
    one, drawn = part(weight, shape=(50, 96), name="table"), empty()
    qdq.matmul(drawn.graph, [one], "head", "x", "y")
    rows = qdq.embedding(drawn.graph, one, qdq.names(one, "head"), "table", "ids")
    drawn.give("y").give(rows)
    large = [value for value in drawn.model.graph.initializers.values() if value.shape[0] == 96]
    assert len(large) == 1
    operators = [node.op_type for node in drawn.fused(tmp_path)]
    assert ("MatMulNBits" in operators) == (weight.group_size != 24)
