"""How a model computes with its activations, in words."""

from __future__ import annotations

from quantship.artifact import Artifact
from quantship.job import Node
from quantship.quant.scheme import ActivationFormat


def of_model(node: Node, artifact: Artifact) -> str | None:
    """How the files of a model are computed with; None for a float model."""
    if node.scheme is None:
        return None
    if node.stage == "export":
        arithmetic: str = artifact.facts["activation_arithmetic"]
        return arithmetic
    if node.scheme.activation is None:
        return "float32"
    return describe(node.scheme.activation)


def describe(activation: ActivationFormat) -> str:
    """How torchao computes with inputs of this format, in words."""
    symmetry, numbers = (
        ("symmetric", "one scale")
        if activation.symmetric
        else ("asymmetric", "one scale and zero point")
    )
    shared = "token" if activation.granularity == "per_token" else "tensor"
    fixed = ", fixed by calibration" if activation.ranges == "static" else ""
    # torchao multiplies integers only where it has an integer kernel for both sides.
    dequantized = shared == "token" and not activation.symmetric
    how = " (dequantized)" if dequantized else ""
    return f"int{activation.bits}, {symmetry}, {numbers} a {shared}{fixed}{how}"
