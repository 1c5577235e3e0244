"""The exported model holds the checkpoint's integers and computes the checkpoint's logits.

It is held against two references: a model that does to its inputs what the lowering is said to
do, which it equals but for the order of float sums, and the checkpoint as torchao runs it.
Tolerances are relative to the logits' standard deviation. Rounding an input to 8 bits, under
a scale that its largest value sets, moves it by a root mean square of
``largest / 127 / sqrt(12)``. The largest of some hundred values of a normal distribution is three
times their root mean square, so one rounding is a relative noise of 0.7 %. A decoder layer has four
roundings in a row (into attention, out of it, into the feed-forward layer, out of it) and the head
one, and independent noises add as squares.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quantship.exporters import codes
from quantship.exporters.decoder import MODEL_FILE
from quantship.exporters.lowering import Lowering, reject
from quantship.quant import checkpoint, numerics
from quantship.quant.layers import formats
from quantship.quant.scheme import SCHEMES, ActivationFormat, Override, Scheme, WeightFormat
from quantship.runtimes.base import Logits, Tokens, open_runtime

ROUNDING = 0.007
NUM_LAYERS = 2

STATIC = ActivationFormat(granularity="per_tensor", ranges="static")
MIXED = Scheme(
    name="mixed",
    weight=WeightFormat(bits=4, group_size=32, scale_dtype="bfloat16"),
    head=WeightFormat(bits=4, group_size=64, symmetric=False),
    overrides=(
        # Query, key and value of one format in one layer, and of two in the other.
        Override(
            layers="*.layers.0.self_attn.q_proj",
            weight=WeightFormat(bits=8),
            activation=ActivationFormat(),
        ),
        Override(layers="*.layers.0.mlp.down_proj", weight=None),
        Override(
            layers="*.layers.1.mlp.up_proj",
            weight=WeightFormat(bits=4, group_size=16, symmetric=False),
            activation=ActivationFormat(),
        ),
        Override(
            layers="*.layers.1.mlp.down_proj",
            weight=WeightFormat(bits=8),
            activation=ActivationFormat(symmetric=True),
        ),
    ),
)
FURTHER = (
    Scheme(name="w2 in groups of 16", weight=WeightFormat(bits=2, group_size=16)),
    Scheme(
        name="w6a8 in groups of 64",
        weight=WeightFormat(bits=6, group_size=64),
        activation=ActivationFormat(),
        embedding=WeightFormat(bits=4, group_size=32),
    ),
    Scheme(
        name="asymmetric in all",
        weight=WeightFormat(bits=5, symmetric=False),
        activation=ActivationFormat(),
        # In 4 bits, half of a block's largest input would be on the edge of two codes.
        embedding=WeightFormat(bits=8, group_size=32, symmetric=False),
    ),
    Scheme(
        name="one scale a matrix",
        weight=WeightFormat(bits=8, granularity="per_tensor"),
        activation=ActivationFormat(granularity="per_tensor", symmetric=True),
        embedding=WeightFormat(bits=8, granularity="per_tensor"),
    ),
    MIXED,
    MIXED.model_copy(
        update={
            "name": "mixed and static",
            "overrides": (
                *MIXED.overrides,
                Override(layers="*.o_proj", weight=WeightFormat(bits=8), activation=STATIC),
            ),
        }
    ),
)
PAIRS = [
    pytest.param(scheme, lowering, id=f"{scheme.name}-{lowering}")
    for scheme in (*SCHEMES.values(), *FURTHER)
    for lowering in ("nbits", "integer", "qdq")
    if reject(scheme, lowering) is None
]


def tokens(shape: tuple[int, int]) -> Tokens:
    return np.random.default_rng(3).integers(4, 260, shape)


def logits(path: Path, input_ids: Tokens) -> Logits:
    return open_runtime(path).logits(input_ids, np.ones_like(input_ids))


@torch.inference_mode()
def stated(exported: Path, source: Path, model: Any, input_ids: Tokens) -> Logits:
    """Logits of a float model with dequantized weights that rounds inputs as is stated."""
    graph = ir.load(exported / MODEL_FILE).graph
    places = codes.metadata(ir.load(exported / MODEL_FILE))["places"]
    stored = checkpoint.load_codes(source)
    for name, part in stored.items():
        module = model.get_submodule(name)
        module.weight.copy_(numerics.dequantize(part.codes, torch.float32))
        multiplies = module if isinstance(module, torch.nn.Linear) else None
        if "lm_head" not in stored and module is model.get_input_embeddings():
            multiplies = model.get_output_embeddings()
        users = [node for node, _ in graph.initializers[places[name]["codes"]].uses()]
        for node in users:
            if node.op_type == "MatMulNBits":
                rounding = partial(by_block, size=node.attributes["block_size"].as_int())
                multiplies.register_forward_pre_hook(rounding)
            elif node.op_type == "MatMulInteger":
                rounding = partial(as_trained, part=part)
                multiplies.register_forward_pre_hook(rounding)
            elif node.op_type == "DequantizeLinear":
                multiplies.register_forward_pre_hook(behind_dequantize_linear(part))
    logits: Logits = model(input_ids=torch.from_numpy(input_ids)).logits.numpy()
    return logits


def by_block(_: object, args: tuple[torch.Tensor], size: int) -> torch.Tensor:
    """Round to int8, symmetrically, with a scale for each token and block of features."""
    values = args[0]
    width = values.shape[-1]
    blocks = torch.nn.functional.pad(values, (0, -width % size)).unflatten(-1, (-1, size))
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    steps = torch.where(scale > 0, blocks / scale, 0).round()
    return (steps * scale).flatten(-2)[..., :width]


def behind_dequantize_linear(part: Any) -> Any:
    """What onnxruntime makes of a layer of standard operators."""
    num_groups = part.codes.scale_OG.shape[1]
    if part.activation is None or num_groups > 1:
        width = part.codes.codes_OI.shape[1]
        return partial(by_block, size=width // num_groups if num_groups > 1 else 32)
    return partial(divided if part.input_grid is not None else as_trained, part=part)


def divided(_: object, args: tuple[torch.Tensor], part: Any) -> torch.Tensor:
    """Round to a static grid by a division, as QuantizeLinear is defined."""
    scale, zero = part.input_grid
    zero = torch.zeros(()) if zero is None else zero
    return ((args[0] / scale).round().add(zero).clamp(-128, 127) - zero) * scale


def as_trained(_: object, args: tuple[torch.Tensor], part: Any) -> torch.Tensor:
    """Round as training did."""
    return numerics.fake_quantize_input(args[0], part.activation, part.input_grid)


def tolerance(scheme: Scheme, lowering: Lowering) -> float:
    """Twice the noise that the two sides of the comparison do not share."""
    head = int(scheme.embedding is not None)  # without activation quantization in any checkpoint
    if lowering == "integer" and not scheme.overrides:
        return 2 * ROUNDING * math.sqrt(head)
    rounds = scheme.activation is not None or bool(scheme.overrides)
    sides = 2 if rounds else 1  # both round, at other places
    coarse = scheme.activation is not None and scheme.activation.granularity == "per_tensor"
    return (3 if coarse else 2) * ROUNDING * math.sqrt(sides * 4 * NUM_LAYERS + head)


@pytest.mark.parametrize("name", ["tied", "untied"])
@pytest.mark.parametrize(("scheme", "lowering"), PAIRS)
def test_every_code_and_scale_is_the_checkpoints(
    workshop: Any, scheme: Scheme, lowering: Lowering, name: str
) -> None:
    exported = workshop.export(scheme, lowering, name)
    compared = codes.compare(exported, workshop.checkpoint(scheme, name))
    assert compared.equal
    assert not compared.different
    assert compared.tensors_compared == len(formats(workshop.model(name), scheme))


def any_symmetric(scheme: Scheme) -> bool:
    """Whether some input is quantized symmetrically."""
    activations = [scheme.activation, *(override.activation for override in scheme.overrides)]
    return any(one is not None and one.symmetric for one in activations)


@pytest.mark.parametrize("name", ["tied", "untied"])
@pytest.mark.parametrize(("scheme", "lowering"), PAIRS)
def test_logits_are_those_of_the_stated_arithmetic(
    workshop: Any, scheme: Scheme, lowering: Lowering, name: str
) -> None:
    """Export and reference differ by nothing but the order of float sums.

    Such a difference may still push a value over the edge between two codes, and from there on a
    sequence is on its own: so the sequences are short and many, and not each has to agree. Where
    a tensor has one range, a sequence is the whole batch.
    """
    exported, source = workshop.export(scheme, lowering, name), workshop.checkpoint(scheme, name)
    inputs = tokens((256, 2))
    theirs = stated(exported, source, workshop.model(name), inputs)
    worst = np.abs(logits(exported, inputs) - theirs).max(axis=(1, 2)) / theirs.std()
    # torchao's symmetric range puts its own end, when it is negative, on such an edge.
    on_edge = lowering in ("integer", "qdq") and any_symmetric(scheme)
    assert np.median(worst) < (5 * ROUNDING if on_edge else 2e-5)
    assert worst.max() < 20 * ROUNDING


@pytest.mark.parametrize("name", ["tied", "untied"])
@pytest.mark.parametrize(("scheme", "lowering"), PAIRS)
def test_logits_are_the_checkpoints_but_for_the_rounding_of_activations(
    workshop: Any, scheme: Scheme, lowering: Lowering, name: str
) -> None:
    inputs = tokens((4, 32))
    ours = logits(workshop.export(scheme, lowering, name), inputs)
    theirs = logits(workshop.checkpoint(scheme, name), inputs)
    noise = np.sqrt(np.mean((ours - theirs) ** 2)) / theirs.std()
    assert 0 < noise < (tolerance(scheme, lowering) or ROUNDING)


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_a_float_model_stays_what_it_is(workshop: Any, name: str) -> None:
    inputs = tokens((4, 32))
    ours = logits(workshop.export(None, "float", name), inputs)
    theirs = logits(workshop.float_dir(name), inputs)
    assert np.abs(ours - theirs).max() < 2e-5 * theirs.std()
