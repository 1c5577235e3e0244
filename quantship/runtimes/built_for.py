"""What machine an ONNX model was made for, and what becomes of it on another."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from quantship import hardware
from quantship.runtimes import kernels

METADATA = "quantship"
"""Key of the model's metadata that holds what quantship knows about it, as JSON."""


class BuiltFor(NamedTuple):
    """What a model's form rests on."""

    lowering: str
    target: str
    signed_weights: bool
    """Whether signed bytes of weights meet unsigned bytes of inputs."""


def parse(properties: Mapping[str, str]) -> BuiltFor | None:
    """What a model says of itself; None for one from elsewhere.

    Args:
        properties: Metadata of the model, as the ONNX format has it.
    """
    known: dict[str, Any] = json.loads(properties.get(METADATA, "{}"))
    if "target" not in known:
        return None
    return BuiltFor(known["lowering"], known["target"], bool(known.get("signed_weights")))


def read(path: Path) -> BuiltFor | None:
    """What the model of a directory says of itself; None where it is no ONNX model of quantship."""
    import onnx_ir as ir

    file = path / "model.onnx"
    return parse(ir.load(file).metadata_props) if file.is_file() else None


def inexact(built: BuiltFor, machine: hardware.Kind) -> str | None:
    """Why results are wrong on a machine, or None where they are not."""
    is_arm, has_vnni = machine == "arm", machine != "x86"
    if not built.signed_weights or not kernels.saturates(
        "uint8", "int8", is_arm=is_arm, has_vnni=has_vnni
    ):
        return None
    return (
        f"made for {built.target}, its results are wrong on a CPU without VNNI: products of "
        "unsigned inputs by signed weights saturate in 16 bits there; export it for x86"
    )


def slower(built: BuiltFor, machine: hardware.Kind) -> tuple[str, ...]:
    """Why speeds on a machine are not those that the model was made for; mostly nothing."""
    if built.lowering == "float" or built.target in (machine, "portable"):
        return ()
    if built.target == "cuda":
        return ("made for cuda: what it does on a CPU says nothing about a GPU",)
    if inexact(built, machine) is not None:
        return ()  # the speed of wrong results is of no interest
    return (
        f"made for {built.target}, and this machine is {machine}: another export may be faster "
        f"here, and speeds measured here are not those of {built.target}",
    )


def heed(properties: Mapping[str, str], path: Path) -> None:
    """Warn, as Python warns, where a model that is loaded gives wrong results on this machine.

    Args:
        properties: See ``parse``.
        path: Of the model, to name it.
    """
    built = parse(properties)
    reason = inexact(built, hardware.kind()) if built is not None else None
    if reason is not None:
        warnings.warn(f"{path}: {reason}", UserWarning, stacklevel=4)
