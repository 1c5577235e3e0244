"""What a search may choose: for each layer, the formats that candidates have for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quantship.quant.scheme import LayerFormat, Override, Scheme, WeightFormat, unserved

if TYPE_CHECKING:
    from torch import nn

Place = Literal["linear", "embedding", "head"]
"""What a matrix is to its model; a head that is tied to the embedding is the embedding."""
Allocation = Mapping[str, str]
"""Name of a candidate by the name of each layer that is chosen for."""


@dataclass(frozen=True)
class Layer:
    """One weight matrix of a model that is quantized.

    Args:
        name: Of its module.
        num_out: Output features.
        num_in: Input features.
        place: What it is to the model.
        is_multiplied: Whether inputs are multiplied by it: all but an embedding of its own are.
        formats: What it may become, by the name of the candidate; where nothing is chosen, what
            the base makes of it, alone.
        is_chosen: Whether the search chooses.
    """

    name: str
    num_out: int
    num_in: int
    place: Place
    is_multiplied: bool
    formats: Mapping[str, LayerFormat]
    is_chosen: bool

    @property
    def num_weights(self) -> int:
        """Numbers in the matrix."""
        return self.num_out * self.num_in


def layers_of(
    model: nn.Module, base: Scheme, candidates: Mapping[str, Scheme], *, embedding: bool
) -> list[Layer]:
    """The layers that are quantized, in the order of the model.

    Linear layers that no override of the base touches are chosen for; with ``embedding``, so are
    the token embedding and the output head, among the formats that candidates have for these. A
    format that several candidates have counts once, under the first one's name.

    Args:
        model: A Hugging Face model; its weights are not looked at.
        base: Where activations, the ends and overrides come from.
        candidates: By name, at least one.
        embedding: Whether to choose for the ends as well.

    Raises:
        ValueError: The base does not fit the model, or no candidate fits some layer.
    """
    from quantship.quant.layers import ends, formats, is_tied, matrix

    probe = base.model_copy(update={"weight": WeightFormat(bits=8)})
    if embedding:
        probe = probe.model_copy(update={"embedding": WeightFormat(bits=8), "head": "embedding"})
    first, last = ends(model)
    layers = []
    for name, format in formats(model, probe).items():
        module = model.get_submodule(name)
        num_out, num_in = matrix(module).shape
        place: Place = "embedding" if module is first else "head" if module is last else "linear"
        choosable = not _is_overridden(base, name) and (embedding or place == "linear")
        own = _formats(candidates, base, place, num_in) if choosable else {}
        if choosable and not own and place == "linear":
            raise ValueError(
                f"none of the candidates {', '.join(candidates)} fits layer '{name}': no group "
                f"size of theirs divides its {num_in} input features"
            )
        layers.append(
            Layer(
                name=name,
                num_out=num_out,
                num_in=num_in,
                place=place,
                is_multiplied=place != "embedding" or is_tied(model),
                formats=own or {base.name: base.layer(name, standing(base, place)) or format},
                is_chosen=bool(own),
            )
        )
    return layers


def standing(scheme: Scheme, place: Place) -> LayerFormat | None:
    """What a scheme makes of a layer that no override touches; None: it stays in float."""
    if place == "linear":
        return LayerFormat(weight=scheme.weight, activation=scheme.activation)
    weight = scheme.embedding if place == "embedding" else scheme.head_format
    return None if weight is None else LayerFormat(weight=weight)


def bits_of(fmt: WeightFormat, num_out: int, num_in: int) -> float:
    """Bits of a matrix in a format: codes, scales and zero points, packed as densely as can be."""
    groups = num_out * (num_in // fmt.group_size if fmt.group_size else 1)
    if fmt.granularity == "per_tensor":
        groups = 1
    scale = 16 if fmt.scale_dtype == "bfloat16" else 32
    zero = 0 if fmt.symmetric else fmt.bits
    return num_out * num_in * fmt.bits + groups * (scale + zero)


def bits_range(layers: Sequence[Layer]) -> tuple[float, float]:
    """Least and most bits a weight, on an average over the layers that are chosen for."""
    chosen = [one for one in layers if one.is_chosen]
    total = sum(one.num_weights for one in chosen)
    each = [
        [bits_of(format.weight, one.num_out, one.num_in) for format in one.formats.values()]
        for one in chosen
    ]
    return sum(map(min, each)) / total, sum(map(max, each)) / total


def scheme_of(base: Scheme, name: str, layers: Sequence[Layer], chosen: Allocation) -> Scheme:
    """The scheme that an allocation is: the base, with an override for each layer that differs.

    The format that most linear layers have becomes the scheme's own, so that the list is short.

    Args:
        base: What the search started from.
        name: Of the scheme.
        layers: Of the model.
        chosen: Candidate by the name of each layer that is chosen for.
    """
    formats = {one.name: one.formats[chosen[one.name]] for one in layers if one.is_chosen}
    linear = [formats[one.name].weight for one in layers if one.is_chosen and one.place == "linear"]
    main = max(linear, key=linear.count, default=base.weight)
    plain = base.model_copy(update={"name": name, "weight": main})
    overrides = [
        Override(
            layers=one.name,
            weight=formats[one.name].weight,
            activation=formats[one.name].activation,
        )
        for one in layers
        if one.is_chosen and formats[one.name] != standing(plain, one.place)
    ]
    values = dict(plain) | {"overrides": (*base.overrides, *overrides)}
    return Scheme(**values)


def uniform(layers: Sequence[Layer], candidate: str) -> Allocation | None:
    """The allocation that gives one candidate to all linear layers; None where it does not fit.

    The ends get that candidate's format where they are chosen for, and have it.
    """
    chosen: dict[str, str] = {}
    for layer in (one for one in layers if one.is_chosen):
        if candidate in layer.formats:
            chosen[layer.name] = candidate
        elif layer.place == "linear":
            return None
        else:
            chosen[layer.name] = next(iter(layer.formats))
    return chosen


def _formats(
    candidates: Mapping[str, Scheme], base: Scheme, place: Place, num_in: int
) -> dict[str, LayerFormat]:
    found: dict[str, LayerFormat] = {}
    for name, candidate in candidates.items():
        own = standing(candidate, place)
        if own is None:
            continue
        activation = base.activation if place == "linear" else None
        group = own.weight.group_size
        if unserved(own.weight, activation) is not None or (group and num_in % group):
            continue
        format = LayerFormat(weight=own.weight, activation=activation)
        if format not in found.values():
            found[name] = format
    return found


def _is_overridden(base: Scheme, name: str) -> bool:
    from quantship.quant.layers import MATCHLESS

    return base.layer(name, MATCHLESS) is not MATCHLESS
