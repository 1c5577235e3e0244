"""Which GPUs run a torchao checkpoint, and by which kernel: the one table, with its sources.

A layer's format decides, never a scheme's name. Sources are files of the versions that
``docker/constraints.txt`` pins: torch 2.13, torchao 0.18, mslk 1.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal

from quantship.hardware import Capability, Gpu
from quantship.quant.scheme import LayerFormat, Scheme, packs

Kernel = Literal["mslk", "tinygemm", "unpacked", "integer", "float"]
"""How a GPU multiplies by a layer's weight.

``mslk``: packed 4-bit codes by mslk's CUTLASS kernel. ``tinygemm``: packed 4-bit codes by a kernel
of PyTorch's own. ``unpacked``: 4-bit codes are held one a byte, and become floats to multiply.
``integer``: codes times codes. ``float``: codes become floats to multiply.
"""

MSLK: Capability = (9, 0)
"""Only there. torchao/quantization/quantize_/workflows/int4/int4_tensor.py calls
``torch.ops.mslk.bf16i4bf16_rowwise``, whose CUTLASS kernel is built for ``cutlass::arch::Sm90``
with TMA; such code (sm_90a) runs on no later architecture either. An RTX 3090 (8.6) has none."""
TINYGEMM: Capability = (8, 0)
"""int4_tile_packed_to_4d_tensor.py, ``from_hp``: "the minimum compute capability is 8.0"."""
TINYGEMM_GROUPS = (32, 64, 128, 256)
"""Group sizes that ``aten._weight_int4pack_mm`` takes (ATen/native/cuda/int4mm.cu)."""
BFLOAT16: Capability = (8, 0)
"""torch/cuda/__init__.py, ``is_bf16_supported``: before it, bfloat16 is emulated."""
COMPILE: Capability = (7, 0)
"""torch/_inductor/exc.py, ``GPUTooOldForTriton``: "CUDA Capability >= 7.0"."""
INT_MM_ROWS = 17
"""``torch._int_mm`` takes no fewer rows on CUDA (``_int_mm_out_cuda``: "self.size(0) needs to be
greater than 16"). Eager, torchao's ``safe_int_mm`` (torchao/kernel/intmm.py) multiplies floats
then; compiled, it fails."""


def kernel(format: LayerFormat, capability: Capability, *, packed: bool, mslk: bool) -> Kernel:
    """How quantship multiplies by a layer's weight in bfloat16 on a GPU.

    Args:
        format: Of the layer.
        capability: Of the GPU.
        packed: Whether the checkpoint holds 4-bit codes two a byte where it can.
        mslk: Whether mslk is installed.
    """
    if packed and packs(format):
        if mslk and capability == MSLK:
            return "mslk"
        tiled = capability >= TINYGEMM and format.weight.group_size in TINYGEMM_GROUPS
        return "tinygemm" if tiled else "unpacked"
    if format.scales_products and format.activation is not None:
        return "integer"
    return "float"


def needs(scheme: Scheme, *, packed: bool) -> list[str]:
    """What hardware a checkpoint of a scheme needs, in sentences.

    Args:
        scheme: Of the model.
        packed: See ``kernel``.
    """
    formats = list(_layers(scheme))
    lines = []
    if packed and any(map(packs, formats)):
        lines.append(
            f"4-bit codes, two a byte: plain transformers and torchao run them on GPUs of compute "
            f"capability {_words(MSLK)} only (H100, H200), with the package mslk, in bfloat16; "
            "quantship.load runs them on any GPU and on a CPU: from compute capability "
            f"{_words(TINYGEMM)} by PyTorch's own 4-bit kernel, elsewhere unpacked to a byte a code"
        )
    if any(one.scales_products and one.activation is not None for one in formats):
        lines.append(
            "8-bit codes times 8-bit codes: any GPU or CPU; on a GPU the integer kernel takes at "
            f"least {INT_MM_ROWS} rows, so that token after token PyTorch multiplies floats"
        )
    if any(kernel(one, MSLK, packed=packed, mslk=False) == "float" for one in formats):
        lines.append(
            "codes of a byte each, made floats of to multiply: any GPU or CPU; on a GPU it is "
            "faster than bfloat16 only under torch.compile, from compute capability "
            f"{_words(COMPILE)}"
        )
    return lines


def unserved(scheme: Scheme, gpu: Gpu | None, *, packed: bool, mslk: bool) -> list[str]:
    """What a GPU, or else the CPU, cannot do for a checkpoint of a scheme; mostly nothing.

    Args:
        scheme: Of the model.
        gpu: The GPU; None: the model will run on a CPU.
        packed: See ``kernel``.
        mslk: See ``kernel``.
    """
    lines = []
    if packed and any(map(packs, _layers(scheme))):
        if gpu is None:
            lines.append(
                "plain transformers and torchao cannot run 4-bit codes, two a byte, on a CPU; "
                "quantship.load can, and with `packed: false` they lie one a byte and run anywhere"
            )
        elif gpu.capability != MSLK or not mslk:
            have = f"and this is {gpu}" if gpu.capability != MSLK else "which is not installed here"
            lines.append(
                "plain transformers and torchao run 4-bit codes, two a byte, on compute capability "
                f"{_words(MSLK)} with mslk only, {have}; quantship.load runs them here"
                f"{_by_tinygemm(scheme, gpu)}, and with `packed: false` they run anywhere"
            )
    return lines


def untrained(gpu: Gpu, *, compiles: bool) -> list[str]:
    """What a GPU cannot do for a run, whatever the schemes; mostly nothing.

    Args:
        gpu: The GPU.
        compiles: Whether the run asks for torch.compile.
    """
    lines = []
    if gpu.capability < BFLOAT16:
        lines.append(
            f"{gpu} has no bfloat16, which is there from compute capability {_words(BFLOAT16)} on: "
            "models are trained and served in float32"
        )
    if compiles and gpu.capability < COMPILE:
        lines.append(
            f"torch.compile needs compute capability {_words(COMPILE)}, and this is {gpu}: set "
            "`compile: false`"
        )
    return lines


def missing(error: BaseException, gpu: Gpu) -> str | None:
    """What to tell of an error that a GPU without a kernel leads to; None: it is another error.

    Args:
        error: As PyTorch or torchao raised it.
        gpu: The GPU it ran on.
    """
    text = f"{type(error).__name__}: {error}"
    found = next((sign for sign in _SIGNS if sign in text), None)
    if found is None:
        return None
    return (
        f"{gpu} has no kernel for this model: {_first_line(error)} {_SIGNS[found]} Else run it on "
        "the CPU (CUDA_VISIBLE_DEVICES=-1), or choose another scheme."
    )


def has_mslk() -> bool:
    """Whether the package that holds torchao's kernels for packed 4-bit codes is installed."""
    return find_spec("mslk") is not None


_UNPACK = (
    f"Packed 4-bit codes need compute capability {'.'.join(map(str, MSLK))} and the package mslk: "
    "set `packed: false` for codes of a byte each."
)
_SIGNS = {
    "GPUTooOldForTriton": "torch.compile needs compute capability 7.0: set `compile: false`.",
    "TritonMissing": "torch.compile needs the package triton: install it, or set `compile: false`.",
    "Failed to find C compiler": (
        "torch.compile needs a C compiler with Python's headers, which the container image does "
        "not have: set `compile: false`, or add one."
    ),
    "needs to be greater than 16": (
        f"torch._int_mm takes at least {INT_MM_ROWS} rows: set `compile: false`, or a larger batch."
    ),
    "mslk": _UNPACK,
    "cutlass cannot": _UNPACK,
    "tinygemm": _UNPACK,
    "_weight_int4pack_mm": _UNPACK,
    "no kernel image is available": "This PyTorch was built for other GPUs: install one for yours.",
    "CUBLAS_STATUS_NOT_SUPPORTED": "cuBLAS does not know this product there.",
}
"""What is in the errors of missing kernels, and what can be done about each."""


def _layers(scheme: Scheme) -> Iterator[LayerFormat]:
    """Formats of all that a scheme quantizes."""
    yield LayerFormat(weight=scheme.weight, activation=scheme.activation)
    for override in scheme.overrides:
        if override.weight is not None:
            yield LayerFormat(weight=override.weight, activation=override.activation)
    for weight in (scheme.embedding, scheme.head_format):
        if weight is not None:
            yield LayerFormat(weight=weight)


def _by_tinygemm(scheme: Scheme, gpu: Gpu) -> str:
    """By which of its kernels quantship serves packed codes."""
    packed = [one for one in _layers(scheme) if packs(one)]
    kinds = {kernel(one, gpu.capability, packed=True, mslk=False) for one in packed}
    return " by PyTorch's own 4-bit kernel" if kinds == {"tinygemm"} else ", unpacked"


def _words(capability: Capability) -> str:
    return ".".join(map(str, capability))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".") + "."
