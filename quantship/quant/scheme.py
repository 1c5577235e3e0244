"""Quantization schemes as data: one row a scheme, and nothing anywhere asks for a scheme's name.

A scheme drives QAT, PTQ, the checkpoint and the export alike. Add a row to ``SCHEMES``, or write
one in a recipe under ``schemes``, and every stage understands it, or says why it does not.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field, field_validator, model_validator

from quantship.frozen import Frozen

FLOAT = "float"
"""What a recipe writes where a format could stand, to leave numbers as they are."""


RangeName = Literal["minmax", "percentile", "mse", "outermost"]
"""How far a grid reaches: to the outermost number; so far that it holds a share of all numbers; as
far as makes the squared rounding error least; or so that the outermost number is on its end."""


class WeightFormat(Frozen):
    """How a weight matrix of shape (out features, in features) becomes integers."""

    bits: int = Field(ge=2, le=8)
    """Bits of one code; codes are signed, in [-2^(bits-1), 2^(bits-1) - 1]."""
    granularity: Literal["per_tensor", "per_channel", "per_group"] = "per_channel"
    """What shares a scale: the whole matrix, an output feature, or a group of input features."""
    group_size: int | None = Field(default=None, ge=1)
    """Consecutive input features in a group; giving it means ``per_group``."""
    symmetric: bool = True
    """False: a zero point beside each scale, for weights that are not centred on zero."""
    scale_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the scales, in training as in the file; a bfloat16 scale is half as large."""

    @model_validator(mode="before")
    @classmethod
    def _group_size_means_groups(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("group_size") and "granularity" not in value:
            return {**value, "granularity": "per_group"}
        return value

    @model_validator(mode="after")
    def _groups_have_a_size(self) -> WeightFormat:
        if (self.granularity == "per_group") != (self.group_size is not None):
            raise ValueError("group_size goes with granularity per_group, and with no other")
        return self


class ActivationFormat(Frozen):
    """How the input of a linear layer becomes integers, at run time."""

    bits: Literal[8] = 8
    """Bits of one code."""
    granularity: Literal["per_token", "per_tensor"] = "per_token"
    """What shares a scale: one token's features, or all tokens of a batch."""
    ranges: Literal["dynamic", "static"] = "dynamic"
    """dynamic: from the numbers at hand; static: fixed beforehand, from calibration data."""
    symmetric: bool = False
    """False: a zero point beside the scale, which fits the lopsided inputs of most layers."""

    @model_validator(mode="after")
    def _static_is_per_tensor(self) -> ActivationFormat:
        if self.ranges == "static" and self.granularity != "per_tensor":
            raise ValueError("static ranges are fixed before any token is seen: use per_tensor")
        return self


def _float_is_none(value: object) -> object:
    return None if value == FLOAT else value


class LayerFormat(Frozen):
    """What becomes of one layer."""

    weight: WeightFormat
    """Format of its weight."""
    activation: ActivationFormat | None = None
    """Format of its input; None: it stays in float."""

    @model_validator(mode="after")
    def _served(self) -> LayerFormat:
        reason = unserved(self.weight, self.activation)
        if reason is not None:
            raise ValueError(reason)
        return self

    @property
    def scales_products(self) -> bool:
        """Whether torchao multiplies the codes themselves and applies the scales afterwards.

        Otherwise it makes floats of the codes and multiplies those.
        """
        return self.weight.granularity == "per_tensor" or (
            self.activation is not None
            and (self.activation.granularity == "per_tensor" or self.activation.symmetric)
        )


class Override(Frozen):
    """Another format for some layers; of several overrides that match, the last one counts."""

    layers: str = Field(min_length=1)
    """Glob pattern of module names, as ``*.mlp.down_proj`` or ``model.layers.0.*``."""
    weight: WeightFormat | None
    """Format of their weights; ``float``: they stay in float, and so do their inputs."""
    activation: ActivationFormat | None = None
    """Format of their inputs; ``float`` or left out: they stay in float."""

    _floats = field_validator("weight", "activation", mode="before")(_float_is_none)


class Scheme(Frozen):
    """Everything there is to say about a quantized model's numbers."""

    name: str
    weight: WeightFormat
    """Format of the linear layers' weights."""
    activation: ActivationFormat | None = None
    """Format of the linear layers' inputs; None or ``float``: they stay in float."""
    embedding: WeightFormat | None = WeightFormat(bits=8)
    """Format of the token embedding; None or ``float``: it stays in float."""
    head: WeightFormat | Literal["embedding"] | None = "embedding"
    """Format of the output head where it has a matrix of its own; ``embedding``: the same as the
    embedding. A head tied to the embedding is the embedding, and is quantized once."""
    overrides: tuple[Override, ...] = ()
    """Other formats for some layers: mixed precision."""

    _floats = field_validator("activation", "embedding", "head", mode="before")(_float_is_none)

    @model_validator(mode="after")
    def _served(self) -> Scheme:
        pairs = [(self.weight, self.activation)]
        pairs += [(one.weight, one.activation) for one in self.overrides if one.weight is not None]
        pairs += [(one, None) for one in (self.embedding, self.head_format) if one is not None]
        for reason in (unserved(weight, activation) for weight, activation in pairs):
            if reason is not None:
                raise ValueError(reason)
        return self

    @property
    def head_format(self) -> WeightFormat | None:
        """Format of an output head that is not tied to the embedding."""
        return self.embedding if self.head == "embedding" else self.head

    @property
    def is_static(self) -> bool:
        """Whether some activation ranges are fixed beforehand, so that calibration is needed."""
        activations = [self.activation, *(override.activation for override in self.overrides)]
        return any(one is not None and one.ranges == "static" for one in activations)

    def layer(self, name: str, default: LayerFormat | None) -> LayerFormat | None:
        """Format of a layer after the overrides; None: it stays in float."""
        found = default
        for override in self.overrides:
            if fnmatchcase(name, override.layers):
                found = (
                    None
                    if override.weight is None
                    else LayerFormat(weight=override.weight, activation=override.activation)
                )
        return found


def packs(format: LayerFormat) -> bool:
    """Whether torchao has a tensor with two codes a byte for this format."""
    weight = format.weight
    return (
        weight.bits == 4
        and weight.symmetric
        and weight.granularity == "per_group"
        and weight.group_size is not None
        and weight.group_size % 2 == 0
        and weight.scale_dtype == "bfloat16"
        and format.activation is None
    )


def unserved(weight: WeightFormat, activation: ActivationFormat | None) -> str | None:
    """Why no torchao tensor can serve a layer of these formats, or None where one can.

    torchao has two: one with codes of any width whose input is quantized asymmetrically for each
    token or not at all, and one for 8-bit symmetric codes whose input may be quantized in any way.
    """
    if activation is None or (activation.granularity == "per_token" and not activation.symmetric):
        if weight.granularity == "per_tensor" and (weight.bits != 8 or not weight.symmetric):
            return (
                "torchao serves per-tensor scales on 8-bit symmetric weights only; use "
                "per_channel or a group_size"
            )
        return None
    if weight.bits != 8 or not weight.symmetric or weight.granularity == "per_group":
        kind: str = "static" if activation.ranges == "static" else activation.granularity
        if activation.granularity == "per_token":
            kind = "symmetric per-token"
        return (
            f"torchao serves {kind.replace('_', '-')} activations on 8-bit symmetric weights with "
            "one scale a channel or tensor only; use such weights, or asymmetric per-token "
            "activations"
        )
    return None


DYNAMIC = ActivationFormat()
STATIC = ActivationFormat(granularity="per_tensor", ranges="static")
INT8 = WeightFormat(bits=8)
INT4_G32 = WeightFormat(bits=4, group_size=32, scale_dtype="bfloat16")
INT4_G128 = WeightFormat(bits=4, group_size=128, scale_dtype="bfloat16")

SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(name="w8a8", weight=INT8, activation=DYNAMIC),
        Scheme(name="w8a8-linear", weight=INT8, activation=DYNAMIC, embedding=None),
        Scheme(name="w8a8-symmetric", weight=INT8, activation=ActivationFormat(symmetric=True)),
        Scheme(
            name="w8a8-per-tensor",
            weight=INT8,
            activation=ActivationFormat(granularity="per_tensor"),
        ),
        Scheme(name="w8a8-static", weight=INT8, activation=STATIC),
        Scheme(name="w8a16", weight=INT8),
        Scheme(name="w8a16-linear", weight=INT8, embedding=None),
        Scheme(name="w4a8", weight=INT4_G32, activation=DYNAMIC),
        Scheme(name="w4a16-g32", weight=INT4_G32),
        Scheme(name="w4a16-g128", weight=INT4_G128),
        Scheme(name="w4a16-g32-linear", weight=INT4_G32, embedding=None),
        Scheme(
            name="w4a16-g32-asymmetric",
            weight=INT4_G32.model_copy(update={"symmetric": False}),
        ),
        Scheme(name="w2a16-g32", weight=INT4_G32.model_copy(update={"bits": 2})),
    )
}
