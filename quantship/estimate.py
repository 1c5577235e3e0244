"""Rough disk and memory needs of a job, for ``--plan``: arithmetic on the number of parameters."""

from __future__ import annotations

from dataclasses import dataclass

from quantship.job import Node
from quantship.recipe.language import TinyModel

FLOAT32_BYTES = 4
CHECKPOINTS = 2  # Trainer keeps two: weights and both of Adam's moments in float32
TINY_VOCABULARY = 288  # 256 bytes and four special tokens, filled up to whole blocks of 32
RUNTIME_BYTES = 400_000_000  # Python with its libraries, before any weight


@dataclass(frozen=True)
class Needs:
    """Bytes on disk and at peak in memory; activations and data are not counted."""

    disk_bytes: int
    memory_bytes: int


def needs(node: Node, num_parameters: int) -> Needs:
    """What a job needs for a model of that many parameters.

    Training: weights, gradients and two moments in float32 (16 bytes a parameter), checkpoints of
    weights and moments on disk; under fake quantization one more copy of the weights. Quantized
    codes are counted at the size of their container.
    """
    weights = num_parameters * FLOAT32_BYTES
    left = weights if node.scheme is None else num_parameters
    if node.stage in ("finetune", "qat"):
        memory = 4 * weights + (weights if node.stage == "qat" else 0)
        return Needs(left + CHECKPOINTS * 3 * weights, RUNTIME_BYTES + memory)
    if node.stage in ("tiny", "quantize"):
        return Needs(left, RUNTIME_BYTES + 2 * weights)
    if node.stage == "export":
        if node.scheme is not None and node.scheme.weight.bits <= 4:
            left = num_parameters * 5 // 8  # two codes a byte, and the scales of their groups
        return Needs(left, RUNTIME_BYTES + (2 * left))
    return Needs(0, RUNTIME_BYTES + weights)


def tiny_parameters(tiny: TinyModel) -> int:
    """Parameters of the built-in tiny model, without building it."""
    width, kv_width = tiny.hidden_size, tiny.hidden_size * tiny.num_kv_heads // tiny.num_heads
    attention = 2 * width * width + 2 * width * kv_width
    layer = attention + 3 * width * tiny.intermediate_size + 2 * width
    embeddings = (1 if tiny.tied else 2) * TINY_VOCABULARY * width
    return embeddings + tiny.num_layers * layer + width
