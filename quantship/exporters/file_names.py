"""What transformers.js calls an ONNX model in a repository's ``onnx`` folder, by its numbers.

It finds the file by its option ``dtype``: ``fp32`` is ``model.onnx``, ``q8`` ``model_quantized``,
``int8`` ``model_int8``, ``q4`` ``model_q4``. It has no word for other widths, whose files are
called by their scheme; its option ``model_file_name`` finds those.

Source: DEFAULT_DTYPE_SUFFIX_MAPPING in huggingface/transformers.js, src/utils/dtypes.js.
"""

from __future__ import annotations

from typing import NamedTuple

from quantship.quant.scheme import Scheme

BASE = "model"


class FileName(NamedTuple):
    """What a model is called without ``.onnx``, and by which dtype transformers.js finds it."""

    stem: str
    dtype: str | None
    """None: by none."""


def file_name(scheme: Scheme | None) -> FileName:
    """The name of a model of a scheme; None: of a float32 model."""
    if scheme is None:
        return FileName(BASE, "fp32")
    if scheme.weight.bits == 4:
        return FileName(f"{BASE}_q4", "q4")
    if scheme.weight.bits != 8:
        return FileName(f"{BASE}_{scheme.name}", None)
    if scheme.activation is None:
        return FileName(f"{BASE}_int8", "int8")
    return FileName(f"{BASE}_quantized", "q8")
