"""Rough disk and memory needs of a job, for ``--plan``: arithmetic on the number of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from quantship.job import Node
from quantship.recipe.language import MlpModel, TinyModel
from quantship.recipe.rounding_options import Lora
from quantship.stages import qat

FLOAT32_BYTES, BFLOAT16_BYTES = 4, 2
CHECKPOINTS = 2  # Trainer keeps two: weights and both of Adam's moments in float32
TINY_VOCABULARY = 288  # 256 bytes and four special tokens, filled up to whole blocks of 32
PARTS = 2  # what is quantized block by block lies in parts until the checkpoint is made of them
FEWEST_BLOCKS = 4  # of any model worth the arithmetic; one at a time is in memory, and half as much
RUNTIME_BYTES = 400_000_000  # Python with its libraries, before any weight


@dataclass(frozen=True)
class Needs:
    """Bytes on disk and at peak in memory; activations and data are not counted."""

    disk_bytes: int
    memory_bytes: int


def needs(node: Node, num_parameters: int) -> Needs:
    """What a job needs for a model of that many parameters.

    Training: weights, gradients and two moments in float32 (16 bytes a parameter), checkpoints of
    weights and moments on disk; under fake quantization one more copy of the weights, and one of a
    teacher, taken to be as large. Adapters count for nothing beside the weights that they stand
    on, so training them takes no gradients, moments or checkpoints worth counting. Quantized codes
    are counted at the size of their container, twice while their parts are on disk as well; a
    model is quantized one block at a time, whatever its depth.
    """
    weights, left = num_parameters * FLOAT32_BYTES, _left(node, num_parameters)
    if node.stage in ("finetune", "qat"):
        lora = _lora(node)
        memory = 4 * weights
        if lora is not None:
            memory = weights if lora.base == "float32" else num_parameters * 5 // 8
        memory += weights if node.stage == "qat" else 0
        memory += weights if "teacher" in node.inputs else 0
        checkpoints = CHECKPOINTS * 3 * weights if lora is None else 0
        return Needs(left + checkpoints, RUNTIME_BYTES + memory)
    if node.stage == "quantize":
        return Needs(PARTS * left, RUNTIME_BYTES + 3 * weights // (2 * FEWEST_BLOCKS))
    if node.stage in ("tiny", "mlp", "head"):
        return Needs(left, RUNTIME_BYTES + 2 * weights)
    if node.stage == "export":
        return Needs(left, RUNTIME_BYTES + (2 * left))
    return Needs(0, RUNTIME_BYTES + weights)


def _left(node: Node, num_parameters: int) -> int:
    """Bytes of the model that a job leaves."""
    if node.scheme is None:
        is_clean = node.stage == "qat"  # its weights are written for another step to quantize
        return num_parameters * (BFLOAT16_BYTES if is_clean else FLOAT32_BYTES)
    step = getattr(node.settings, "step", None)
    bits = node.scheme.weight.bits
    if bits <= 4 if node.stage == "export" else bits == 4 and step is not None and step.packed:
        return num_parameters * 5 // 8  # two codes a byte, and the scales of their groups
    return num_parameters


def _lora(node: Node) -> Lora | None:
    return node.settings.step.lora if isinstance(node.settings, qat.Settings) else None


def mlp_parameters(mlp: MlpModel) -> int:
    """Parameters of a classifier, without building it."""
    return sum((before + 1) * after for before, after in pairwise(mlp.sizes))


def tiny_parameters(tiny: TinyModel) -> int:
    """Parameters of the built-in tiny model, without building it."""
    width, kv_width = tiny.hidden_size, tiny.hidden_size * tiny.num_kv_heads // tiny.num_heads
    attention = 2 * width * width + 2 * width * kv_width
    layer = attention + 3 * width * tiny.intermediate_size + 2 * width
    embeddings = (1 if tiny.tied else 2) * TINY_VOCABULARY * width
    return embeddings + tiny.num_layers * layer + width
