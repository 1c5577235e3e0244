"""Hold the integers of an exported model of any format against a checkpoint's."""

from __future__ import annotations

from pathlib import Path

from quantship.exporters import codes, openvino_codes
from quantship.exporters.codes import CodeComparison
from quantship.runtimes.base import is_openvino


def compare(model_dir: Path, checkpoint_dir: Path) -> CodeComparison:
    """Compare every quantized matrix of a checkpoint with its place in an exported model."""
    if is_openvino(model_dir):
        return openvino_codes.compare(model_dir, checkpoint_dir)
    return codes.compare(model_dir, checkpoint_dir)
