"""The operators of ONNX and ONNX Runtime that read quantized weights, as a table.

``DequantizeLinear`` is not in it: what it makes is read by a float operator, see ``onnx_qdq``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MICROSOFT = "com.microsoft"
Does = Literal["multiplies", "looks up", "convolves", "other"]
Activation = Literal["float", "codes", "rounded per tensor"]


@dataclass(frozen=True)
class Reading:
    """Which inputs of an operator are the parts of one quantized matrix.

    Args:
        codes: Index of the codes.
        scale: Index of their scales; None: they are multiplied in by later nodes.
        zero: Index of their zero points; None: there are none.
        does: What is done with the matrix.
        activation: How the other factor comes in: in float; as codes; or in float, to be rounded
            to uint8 with one scale a tensor by the operator itself.
        input: Index of the other factor.
        input_zero: Index of its zero point.
        transposed: Whether a matrix lies as (in features, out features).
    """

    codes: int
    scale: int | None = None
    zero: int | None = None
    does: Does = "multiplies"
    activation: Activation = "float"
    input: int = 0
    input_zero: int | None = None
    transposed: bool = False


_MATMUL_INTEGER = Reading(1, None, 3, activation="codes", input_zero=2, transposed=True)
_QLINEAR_MATMUL = Reading(3, 4, 5, activation="codes", input_zero=2, transposed=True)

READINGS: dict[tuple[str, str], tuple[Reading, ...]] = {
    (MICROSOFT, "MatMulNBits"): (Reading(1, 2, 3),),
    (MICROSOFT, "MatMulBnb4"): (Reading(1, 2),),
    (MICROSOFT, "GatherBlockQuantized"): (Reading(0, 2, 3, does="looks up", input=1),),
    ("", "MatMulInteger"): (_MATMUL_INTEGER,),
    ("", "ConvInteger"): (Reading(1, None, 3, "convolves", "codes", input_zero=2),),
    ("", "QLinearMatMul"): (_QLINEAR_MATMUL,),
    ("", "QLinearConv"): (Reading(3, 4, 5, "convolves", "codes", input_zero=2),),
    (MICROSOFT, "QLinearConv"): (Reading(3, 4, 5, "convolves", "codes", input_zero=2),),
    (MICROSOFT, "QGemm"): (_QLINEAR_MATMUL,),
    (MICROSOFT, "MatMulIntegerToFloat"): (
        Reading(1, 3, 5, activation="codes", input_zero=4, transposed=True),
    ),
    (MICROSOFT, "DynamicQuantizeMatMul"): (
        Reading(1, 2, 3, activation="rounded per tensor", transposed=True),
    ),
    (MICROSOFT, "DynamicQuantizeLSTM"): (
        Reading(1, 8, 9, activation="rounded per tensor"),
        Reading(2, 10, 11, activation="rounded per tensor"),
    ),
    (MICROSOFT, "QAttention"): (
        Reading(1, 4, 7, activation="codes", input_zero=6, transposed=True),
    ),
    (MICROSOFT, "QMoE"): (Reading(2, 3), Reading(5, 6), Reading(8, 9)),
}
"""By domain and operator; several where an operator reads several matrices."""

IN_BLOCKS = ("MatMulNBits", "MatMulBnb4", "GatherBlockQuantized", "QMoE")
"""Operators whose scales stand for blocks of input features, and which have no signed codes."""
FLOAT_READERS = ("MatMul", "FusedMatMul", "Gemm", "Conv", "ConvTranspose", "Gather", "Einsum")
"""Float operators that a dequantized weight may feed."""
