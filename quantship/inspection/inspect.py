"""Inspect a model: the one function behind ``quantship inspect``."""

from __future__ import annotations

from pathlib import Path

from quantship.inspection import checkpoint, hazards, machine, sizes
from quantship.inspection.locate import Found, locate
from quantship.inspection.report import Inspection
from quantship.reading import reading


def inspect(path: Path, *, session: bool = True) -> Inspection:
    """Say what is in a model: ONNX, a checkpoint, or a safetensors file.

    Weights are not loaded; large files are read in parts, where codes must be looked at.

    Args:
        path: File or directory.
        session: Let ONNX Runtime optimize an ONNX model for this machine, and compare.

    Raises:
        UsageError: There is no model at ``path``, or more than one.
        QuantshipError: The model is broken.
    """
    with reading(path):
        found = locate(path)
        if found.kind == "onnx":
            from quantship.inspection import onnx_model  # graphs are of no concern to checkpoints

            return onnx_model.inspect(found, session=session)
        return _checkpoint(found, path)


def _checkpoint(found: Found, path: Path) -> Inspection:
    read = checkpoint.read(found.files, found.config)
    return Inspection(
        path=str(path),
        kind="checkpoint" if found.config else "safetensors",
        sizes=sizes.count(read.quantized, read.floats, read.weight_bytes, read.file_bytes, found),
        checkpoint=read.facts,
        quantized=read.quantized,
        floats=read.floats,
        metadata=read.metadata,
        machine=machine.here(),
        hazards=tuple(hazards.of_storage(read.quantized, read.floats, read.weight_bytes)),
    )
