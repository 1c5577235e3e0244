"""Which tensor of a model goes into which part of its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from quantship.blocks.opening import Opened
from quantship.blocks.parts import TAIL
from quantship.quant import layers
from quantship.quant.checkpoint import state
from quantship.quant.scheme import LayerFormat, Scheme


@dataclass(frozen=True)
class Layout:
    """What becomes of each part of a model.

    Args:
        formats: Format of each layer that is quantized, in the order of the model.
        names: All tensors of the checkpoint, in the order of the model.
        ends: Names of the token embedding and of a head with a matrix of its own, but for a head
            whose inputs are quantized, which is a layer like any other.
        tied_head: Name of a head that is the embedding.
    """

    formats: Mapping[str, LayerFormat]
    names: tuple[str, ...]
    ends: tuple[str, ...]
    tied_head: str | None

    @property
    def inner(self) -> dict[str, LayerFormat]:
        """Formats of the layers that an algorithm rounds: all but those of the ends."""
        return {name: one for name, one in self.formats.items() if name not in self.ends}

    def tensors(self, key: str, blocks: tuple[str, ...]) -> list[str]:
        """Tensors of a block, or of the tail.

        Args:
            key: Name of the block, or ``TAIL``.
            blocks: Names of all blocks.
        """
        if key != TAIL:
            return [name for name in self.names if name.startswith(f"{key}.")]
        elsewhere = (*(f"{name}." for name in blocks), *(f"{name}.weight" for name in self.ends))
        return [name for name in self.names if not name.startswith(elsewhere)]


def layout_of(opened: Opened, scheme: Scheme) -> Layout:
    """Where the tensors of a model go under a scheme.

    Raises:
        ValueError: A layer cannot take its format.
    """
    model = opened.model
    formats = layers.formats(model, scheme)
    embedding, head = layers.ends(model)
    tied = layers.is_tied(model)
    ends, tied_head = [], None
    for name, module in model.named_modules():
        if module is embedding and isinstance(module, nn.Embedding):
            ends.append(name)
            if name in formats:  # a look-up has no input to round
                formats[name] = LayerFormat(weight=formats[name].weight)
        elif module is head and type(module) is nn.Linear:
            if tied:
                tied_head = name
            elif not _rounds_input(formats.get(name)):
                ends.append(name)
    return Layout(formats, tuple(state(model)), tuple(ends), tied_head)


def _rounds_input(format: LayerFormat | None) -> bool:
    return format is not None and format.activation is not None
