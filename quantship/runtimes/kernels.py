"""What ONNX Runtime's CPU kernels make of integers: which are wrong or slow, and where.

All ask for plain facts, so they serve before there is a model as well. Where numbers are named they
are SmolLM2-135M on two cores with AVX2 and without VNNI.
"""

from __future__ import annotations

INT8_LEVEL = 4
"""Accuracy level at which MatMulNBits multiplies integers."""


def saturates(input_dtype: str | None, weight_dtype: str, *, is_arm: bool, has_vnni: bool) -> bool:
    """Whether ONNX Runtime's products of these types lose their upper bits.

    Without VNNI, x86 adds pairs of unsigned × signed byte products in 16 bits. The stock
    ``quantize_dynamic`` with int8 weights: perplexity 1,195,515 in place of 25.

    Args:
        input_dtype: Of the input's codes; None: it is float.
        weight_dtype: Of the weight's codes.
        is_arm: Whether the CPU is an ARM.
        has_vnni: Whether the CPU has VNNI or the like.
    """
    return (input_dtype, weight_dtype) == ("uint8", "int8") and not is_arm and not has_vnni


def has_no_kernel(input_dtype: str | None, *, is_arm: bool) -> bool:
    """Whether ONNX Runtime multiplies inputs of this type one by one.

    Its x86 kernels take unsigned inputs only, with VNNI or without: MatMulInteger, QLinearMatMul,
    QGemm and QLinearConv are 20 to 60 times slower on signed ones. In a whole model, the same
    integers decode at 9 tokens a second as int8, and at 93 as uint8.
    """
    return input_dtype == "int8" and not is_arm


def multiplies_floats(operator: str, accuracy_level: int | None) -> bool:
    """Whether MatMulNBits makes floats of its codes before it multiplies.

    At 8 bits decode falls from 103 to 3.3 tokens a second, at 4 bits from 133 to 60.
    """
    return operator == "MatMulNBits" and accuracy_level != INT8_LEVEL
