"""The files that an export can write beside ONNX, and which schemes each can carry.

``onnx``        what the lowerings draw.
``openvino``    OpenVINO's intermediate representation, ``openvino_model.xml`` and ``.bin``.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from quantship.exporters.lowering import LoweringName
from quantship.quant.scheme import Scheme

FormatName = Literal["onnx", "openvino"]


def reject(scheme: Scheme | None, lowering: LoweringName, format: FormatName) -> str | None:
    """Why a model cannot be written in this format here, or None when it can.

    OpenVINO takes weights of any width, group and zero point, and float models, so that no scheme
    is turned down.

    Args:
        scheme: Scheme of the model to export; None for a float model.
        lowering: Lowering asked for.
        format: Format asked for; ``onnx`` is for ``lowering.reject`` to judge.
    """
    if format == "onnx":
        return None
    possible = ("auto",) if scheme is not None else ("auto", "float")
    if lowering not in possible:
        return (
            f"the lowering '{lowering}' is a form of ONNX graphs, and the format '{format}' has "
            "its own; leave lowering out"
        )
    if find_spec(format) is None:
        return (
            f"the format '{format}' needs a package that is not installed; "
            f"pip install 'quantship[{format}]'"
        )
    return None
