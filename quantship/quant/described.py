"""The scheme that describes the codes of a quantized module, found from the codes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from quantship.quant.scheme import LayerFormat, Override, Scheme, WeightFormat
from quantship.quant.tensors import StoredCodes


def scheme_of(stored: Mapping[str, StoredCodes], name: str) -> Scheme | None:
    """A scheme that gives every layer the format that it has; None where nothing is quantized.

    Codes do not tell an embedding from a layer that multiplies, so embeddings are overrides too.

    Args:
        stored: Codes by layer name.
        name: What to call it.
    """
    if not stored:
        return None
    found = {one: format_of(part) for one, part in stored.items()}
    main = Counter(found.values()).most_common(1)[0][0]
    overrides = tuple(
        Override(layers=one, weight=format.weight, activation=format.activation)
        for one, format in found.items()
        if format != main
    )
    return Scheme(
        name=name,
        weight=main.weight,
        activation=main.activation,
        embedding=None,
        overrides=overrides,
    )


def format_of(part: StoredCodes) -> LayerFormat:
    """The format of one layer."""
    scale_OG = part.codes.scale_OG
    num_out, width = part.codes.codes_OI.shape
    weight = {"bits": part.bits, "symmetric": part.codes.zero_OG is None}
    if scale_OG.shape[1] > 1:
        weight["group_size"] = width // scale_OG.shape[1]
    elif scale_OG.shape[0] < num_out:
        return LayerFormat(
            weight=WeightFormat(bits=part.bits, granularity="per_tensor"),
            activation=part.activation,
        )
    return LayerFormat(weight=WeightFormat.model_validate(weight), activation=part.activation)
