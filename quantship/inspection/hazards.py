"""What makes a quantized model wrong, slow or large on a machine: all such knowledge, in one place.

What single operators do is in ``runtimes.kernels``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from quantship.inspection.report import (
    FloatTensor,
    Fusion,
    Hazard,
    Machine,
    OnnxFacts,
    QuantizedTensor,
)
from quantship.reporting.formatting import size
from quantship.runtimes.kernels import has_no_kernel, multiplies_floats, saturates

NOTABLE_SHARE = 0.02
"""Of the weight bytes: less is not worth a warning."""


def of_products(
    quantized: Sequence[QuantizedTensor],
    machine: Machine,
    may_saturate: Callable[[QuantizedTensor], bool],
) -> list[Hazard]:
    """What is wrong or slow about how layers are multiplied on a machine.

    Args:
        quantized: Quantized weights.
        machine: The machine.
        may_saturate: Whether codes of a tensor are so large that pairs of products overflow.
    """
    wrong, kernelless, in_float = [], [], []
    for tensor in quantized:
        for use in tensor.uses:
            if use.does not in ("multiplies", "convolves"):
                continue
            kind = _as_bytes(use.weight_dtype)
            given = use.input_dtype if use.operator != "MatMulNBits" else None
            if (
                saturates(given, kind, is_arm=machine.is_arm, has_vnni=machine.has_vnni)
                and tensor not in wrong
                and may_saturate(tensor)
            ):
                wrong.append(tensor)
            if has_no_kernel(given, is_arm=machine.is_arm):
                kernelless.append(tensor)
            if multiplies_floats(use.operator, use.accuracy_level):
                in_float.append(tensor)
    found = []
    if wrong:
        found.append(
            Hazard(
                code="saturates",
                severity="wrong",
                message=(
                    "uint8 inputs × int8 weights saturate in 16 bits on this CPU, which has no "
                    "VNNI: results are silently wrong"
                ),
                remedy=(
                    "export unsigned weights (quantship's lowering integer), or weights of 7 bits "
                    "(reduce_range), or set session.x64quantprecision to 1"
                ),
                layers=_layers(wrong),
            )
        )
    if kernelless:
        found.append(
            Hazard(
                code="no-fast-kernel",
                severity="slow",
                message="ONNX Runtime has no fast kernel for int8 inputs on x86, only for uint8",
                remedy="shift inputs and their zero points by 128 to uint8; products stay the same",
                layers=_layers(kernelless),
            )
        )
    if in_float:
        found.append(
            Hazard(
                code="float-products",
                severity="slow",
                message="MatMulNBits without accuracy_level 4 multiplies floats on a CPU",
                remedy="set its attribute accuracy_level to 4",
                layers=_layers(in_float),
            )
        )
    return found


def of_storage(
    quantized: Sequence[QuantizedTensor], floats: Sequence[FloatTensor], weight_bytes: int
) -> list[Hazard]:
    """What makes a model larger than it need be.

    Args:
        quantized: Quantized weights.
        floats: Parameters in float.
        weight_bytes: Of all weights.
    """
    found = []
    if quantized:
        found += _float_embeddings(quantized, floats, weight_bytes)
    found += _stored_twice(quantized, floats, weight_bytes)
    loose = [one for one in quantized if one.bits <= 4 and one.container_bits >= 8]
    wasted = sum(one.num_parameters * (one.container_bits - 4) // 8 for one in loose)
    if wasted > NOTABLE_SHARE * weight_bytes:
        found.append(
            Hazard(
                code="unpacked",
                severity="size",
                message=f"codes of {max(one.bits for one in loose)} bits lie one a byte: "
                f"{size(wasted)} could be saved",
                remedy="pack two a byte, as quantship's checkpoints with groups and the lowering "
                "nbits do",
                layers=_layers(loose),
            )
        )
    return found


def of_fusion(fusion: Fusion, has_weights: bool) -> list[Hazard]:
    """What ONNX Runtime's own optimizations show.

    Args:
        fusion: What it made of the graph.
        has_weights: Whether anything is quantized.
    """
    found = []
    if fusion.status == "failed":
        found.append(
            Hazard(
                code="does-not-load",
                severity="fails",
                message=f"ONNX Runtime does not load it here: {fusion.reason}",
                remedy="see the message; a newer onnxruntime, or an export for an older opset",
            )
        )
    if fusion.unfused and has_weights:
        found.append(
            Hazard(
                code="unfused",
                severity="slow",
                message="weights are dequantized to float in every run, then multiplied in float",
                remedy=(
                    "ONNX Runtime fuses blocked scales on axis 0 without a Transpose, and int8 "
                    "pairs with quantized inputs; or export MatMulNBits"
                ),
                layers=fusion.unfused,
            )
        )
    if fusion.folded:
        found.append(
            Hazard(
                code="folded",
                severity="note",
                message="codes became other tensors while the model was loaded, floats perhaps",
                remedy="compare memory in use with the file's size",
                layers=fusion.folded,
            )
        )
    return found


def of_versions(facts: OnnxFacts, machine: Machine, refusal: str | None) -> list[Hazard]:
    """Whether the file is too new for what runs it.

    Args:
        facts: Versions of the file.
        machine: Machine, with its ONNX Runtime.
        refusal: What ONNX Runtime says of an empty model of these versions; None: it loads it.
    """
    if refusal is None:
        return []
    return [
        Hazard(
            code="too-new",
            severity="fails",
            message=(
                f"opset {facts.opsets.get('', '?')} or IR version {facts.ir_version} is too new "
                f"for onnxruntime {machine.onnxruntime}: {refusal}"
            ),
            remedy="install a newer onnxruntime, or export for an older opset",
        )
    ]


def _float_embeddings(
    quantized: Sequence[QuantizedTensor], floats: Sequence[FloatTensor], weight_bytes: int
) -> list[Hazard]:
    large = [
        one
        for one in floats
        if one.role in ("embedding", "head") and one.size_bytes > NOTABLE_SHARE * weight_bytes
    ]
    return [
        Hazard(
            code=f"float-{one.role}",
            severity="size",
            message=(
                f"the {one.role} {one.layer} is in {one.dtype}: {size(one.size_bytes)}, "
                f"{100 * one.size_bytes / weight_bytes:.0f} % of all weight bytes"
            ),
            remedy="quantize it too; a tied one once, for the embedding and the head",
            layers=(one.layer,),
        )
        for one in large
    ]


def _stored_twice(
    quantized: Sequence[QuantizedTensor], floats: Sequence[FloatTensor], weight_bytes: int
) -> list[Hazard]:
    """An embedding beside a matrix of just its size that makes the logits."""
    looked_up = [
        (one.layer, one.shape, one.size_bytes) for one in floats if one.role == "embedding"
    ]
    multiplied = [(one.layer, one.shape, one.size_bytes) for one in floats if one.role == "head"]
    for tensor in quantized:
        entry = (" + ".join(tensor.layers), tensor.shape, tensor.size_bytes)
        does = {use.does for use in tensor.uses}
        if does == {"looks up"}:
            looked_up.append(entry)
        elif does == {"multiplies"}:
            multiplied.append(entry)
    found = []
    for name, shape, size_bytes in looked_up:
        same = [other for other, its, _ in multiplied if sorted(its) == sorted(shape)]
        if same and size_bytes > NOTABLE_SHARE * weight_bytes:
            found.append(
                Hazard(
                    code="stored-twice",
                    severity="size",
                    message=(
                        f"the embedding and a matrix of its size ({shape[0]:,} × {shape[1]:,}) are "
                        "stored apart: if the model ties them, one is too many"
                    ),
                    remedy="export them as one tensor with two readers, as lowering nbits does",
                    layers=(name, same[0]),
                )
            )
    return found


def _as_bytes(dtype: str | None) -> str:
    """What kernels take codes for; those of 4 bits are widened."""
    return "uint8" if dtype is not None and dtype.startswith("u") else "int8"


def _layers(tensors: Iterable[QuantizedTensor]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for tensor in tensors for name in tensor.layers))
