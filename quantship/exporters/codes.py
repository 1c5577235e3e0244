"""Read the integers back out of an ONNX file and hold them against a checkpoint's.

This is written against the operators' definitions, not against the code that emits them, so that a
mistake there is found here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from quantship.exporters.decoder import MODEL_FILE
from quantship.exporters.graph import Place
from quantship.exporters.hooks import METADATA
from quantship.quant import checkpoint
from quantship.quant.checkpoint import StoredCodes


@dataclass(frozen=True)
class CodeComparison:
    """Outcome of holding an ONNX model's integers against a checkpoint's.

    Args:
        tensors_compared: Quantized matrices found in the checkpoint, each compared.
        different: Names of those whose codes or scales differ in any bit, or that are missing.
    """

    tensors_compared: int
    different: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Every matrix of the checkpoint is in the ONNX model, to the bit."""
        return self.tensors_compared > 0 and not self.different


def compare(model_dir: Path, checkpoint_dir: Path) -> CodeComparison:
    """Compare every quantized matrix of a checkpoint with its place in an ONNX model."""
    stored = checkpoint.load_codes(checkpoint_dir)
    model = ir.load(model_dir / MODEL_FILE)
    places = metadata(model).get("places", {})
    initializers = model.graph.initializers
    different = [
        name
        for name, part in stored.items()
        if name not in places or not _same(part, Place(**places[name]), initializers)
    ]
    return CodeComparison(len(stored), tuple(different))


def metadata(model: ir.Model) -> dict[str, Any]:
    """What quantship wrote into a model's metadata; empty for models from elsewhere."""
    parsed: dict[str, Any] = json.loads(model.metadata_props.get(METADATA, "{}"))
    return parsed


def _same(part: StoredCodes, place: Place, initializers: Any) -> bool:
    if place.codes not in initializers or place.scales not in initializers:
        return False
    first, end = place.rows
    raw = initializers[place.codes].const_value.numpy()
    scales = initializers[place.scales].const_value.numpy()
    if place.form == "integer":
        codes_OI = raw.T[first:end].astype(np.int16) - 128
        scale_OG = scales[first:end, None]
    else:
        codes_OI = _unpack(raw[first:end], place.container_bits)[:, : place.in_features]
        scale_OG = scales[first:end]
    expected_OG = part.codes.scale_OG.float().numpy()
    repeats, rest = divmod(scale_OG.shape[1], expected_OG.shape[1])
    return (
        rest == 0
        and np.array_equal(codes_OI, part.codes.codes_OI.numpy())
        and np.array_equal(scale_OG, np.repeat(expected_OG, repeats, axis=1))
    )


def _unpack(blocks: np.ndarray, bits: int) -> np.ndarray:
    """Signed codes of MatMulNBits' B input: low half byte first, zero point in mid-range."""
    bytes_ = blocks.reshape(blocks.shape[0], -1).astype(np.int16)
    if bits == 8:
        return bytes_ - 128
    unpacked = np.empty((bytes_.shape[0], bytes_.shape[1] * 2), np.int16)
    unpacked[:, 0::2], unpacked[:, 1::2] = bytes_ & 15, bytes_ >> 4
    return unpacked - 8
