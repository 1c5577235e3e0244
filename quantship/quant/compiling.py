"""Train a model under torch.compile, block by block, with the rounding kept out of it.

What decides codes is one rounding error away from other codes, and Inductor adds up, multiplies and
divides in its own ways. So fake-quantized layers run as they are, between the compiled parts: the
codes that are trained are made by the very operations that make those that ship.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from quantship.quant.modules import FakeQuantModule

BACKEND = "inductor"
"""torch.compile's, where nothing else is asked for."""


@contextmanager
def compiled(
    model: nn.Module, is_wanted: bool = True, backend: str | None = None
) -> Iterator[None]:
    """Compile the forward passes of a model's blocks in place, as long as this lasts.

    Args:
        model: Float or fake-quantized, with adapters or without. Its parameters, their names and
            what is saved stay the same.
        is_wanted: False: do nothing.
        backend: torch.compile's; None: ``BACKEND``.
    """
    if not is_wanted:
        yield
        return
    with ExitStack() as stack:
        for layer in roundings(model):
            stack.enter_context(_left_out(layer))
        for block in blocks(model):
            block.compile(backend=backend or BACKEND)
            stack.callback(_plain, block)
        yield


def blocks(model: nn.Module) -> list[nn.Module]:
    """The modules that follow each other, by what transformers calls them; else the whole model."""
    names = {
        name
        for module in model.modules()
        for name in getattr(module, "_no_split_modules", None) or ()
    }
    return [one for one in model.modules() if type(one).__name__ in names] or [model]


def roundings(model: nn.Module) -> list[nn.Module]:
    """The outermost modules that round: layers, and layers with adapters around them."""
    from quantship.quant.adapted import AdaptedLinear

    adapted = [one for one in model.modules() if isinstance(one, AdaptedLinear)]
    inside = {one.base_layer for one in adapted}
    own = [one for one in model.modules() if isinstance(one, FakeQuantModule)]
    return [*adapted, *(one for one in own if one not in inside)]


@contextmanager
def _left_out(layer: nn.Module) -> Iterator[None]:
    layer.forward = torch.compiler.disable(layer.forward)
    try:
        yield
    finally:
        del layer.forward


def _plain(block: nn.Module) -> None:
    block._compiled_call_impl = None
