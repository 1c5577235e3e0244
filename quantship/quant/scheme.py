"""Quantization schemes as data: one row a scheme, and nothing anywhere asks for a scheme's name.

A scheme drives QAT, PTQ, the checkpoint and the export alike. Add a row to ``SCHEMES`` and every
stage understands it, or says why it does not.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from quantship.frozen import Frozen


class WeightFormat(Frozen):
    """How a weight matrix of shape (out features, in features) becomes integers."""

    bits: int = Field(ge=2, le=8)
    """Bits of one code; codes are signed, in [-2^(bits-1), 2^(bits-1) - 1]."""
    group_size: int | None = Field(default=None, ge=1)
    """Consecutive input features that share a scale; None: one scale an output feature."""


class ActivationFormat(Frozen):
    """How the input of a linear layer becomes integers, at run time."""

    bits: Literal[8] = 8
    """Bits of one code."""
    symmetric: Literal[False] = False
    """False: a zero point beside the scale, which fits the lopsided inputs of most layers."""


class Scheme(Frozen):
    """Everything there is to say about a quantized model's numbers."""

    name: str
    weight: WeightFormat
    """Format of the linear layers' weights."""
    activation: ActivationFormat | None = None
    """Format of the linear layers' inputs, one scale a token; None: they stay in float."""
    embedding: WeightFormat | None = WeightFormat(bits=8)
    """Format of the token embedding and the output head. A tied pair is quantized once."""


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(name="w8a8", weight=WeightFormat(bits=8), activation=ActivationFormat()),
        Scheme(name="w8a16", weight=WeightFormat(bits=8)),
        Scheme(name="w4a16-g32", weight=WeightFormat(bits=4, group_size=32)),
        Scheme(name="w4a8", weight=WeightFormat(bits=4), activation=ActivationFormat()),
        Scheme(name="w2a16-g32", weight=WeightFormat(bits=2, group_size=32)),
    )
}
