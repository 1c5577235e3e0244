"""Frozen weights in 4 bits: torchao's ``NF4Tensor``, on any device.

Its 16 values lie as those of normally distributed weights do, not evenly as integer codes. Weights
that lay on the very grid that they are trained for would have to cross half a step, all of them,
before the first code changed.

Source:
    Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, 2023, section 3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

BLOCK = 64
"""Consecutive weights that share a scale of 8 bits."""
SCALES_BLOCK = 256
"""Scales that share a scale of their own in float."""


def shrink(layer: nn.Module, name: str) -> None:
    """Put a layer's weight into 4 bits, in place, and freeze it.

    Raises:
        ValueError: The weight cannot be cut into blocks.
    """
    from torchao.quantization.quantize_.workflows.nf4.nf4_tensor import to_nf4

    weight = layer.weight
    assert isinstance(weight, Tensor)
    if weight.numel() % BLOCK:
        raise ValueError(
            f"the {weight.numel()} weights of layer '{name}' cannot be cut into blocks of {BLOCK}; "
            "keep the base in float32, or leave the layer out of the LoRA targets"
        )
    scales_block = math.gcd(weight.numel() // BLOCK, SCALES_BLOCK)
    small = to_nf4(weight.detach().contiguous(), BLOCK, scales_block)
    layer.weight = nn.Parameter(small, requires_grad=False)


def release_file(model: nn.Module) -> None:
    """Copy, in place, the weights that are still in floats, so that the float model is let go of.

    Weights from a safetensors file are views of it, and the whole file stays in memory for as long
    as one of them does.
    """
    for parameter in model.parameters():
        if not hasattr(parameter, "get_original_weight"):
            parameter.data = parameter.data.clone()


def expand(layer: nn.Module) -> None:
    """Put a layer's weight back into floats, in place: the numbers that the 4 bits stand for."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    layer.weight = nn.Parameter(dense(weight), requires_grad=False)


def dense(weight: Tensor) -> Tensor:
    """A weight in floats, whether it is kept in 4 bits or not; without its gradient."""
    original = getattr(weight, "get_original_weight", None)
    with torch.no_grad():
        numbers: Tensor = weight.detach() if original is None else original()
    return numbers
