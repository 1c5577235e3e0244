"""The exported model holds the checkpoint's integers and computes the checkpoint's logits.

Tolerances are relative to the logits' standard deviation. Rounding an input to 8 bits, under
a scale that its largest value sets, moves it by a root mean square of
``largest / 127 / sqrt(12)``. The largest of some hundred values of a normal distribution is three
times their root mean square, so one rounding is a relative noise of 0.7 %. A decoder layer has four
roundings in a row (into attention, out of it, into the feed-forward layer, out of it) and the head
one, and independent noises add as squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantship.exporters import codes
from quantship.exporters.lowering import Lowering, reject
from quantship.quant.modules import formats
from quantship.quant.scheme import SCHEMES, ActivationFormat, Scheme, WeightFormat
from quantship.runtimes.base import Logits, Tokens, open_runtime

ROUNDING = 0.007
NUM_LAYERS = 2

FLOAT_ENDS = Scheme(
    name="w8a8, float embedding",
    weight=WeightFormat(bits=8),
    activation=ActivationFormat(),
    embedding=None,
)
FURTHER = (
    FLOAT_ENDS,
    Scheme(name="w2 in groups of 16", weight=WeightFormat(bits=2, group_size=16)),
    Scheme(
        name="w6a8 in groups of 64",
        weight=WeightFormat(bits=6, group_size=64),
        activation=ActivationFormat(),
        embedding=WeightFormat(bits=4, group_size=32),
    ),
)
PAIRS = [
    pytest.param(scheme, lowering, id=f"{scheme.name}-{lowering}")
    for scheme in (*SCHEMES.values(), *FURTHER)
    for lowering in ("nbits", "integer")
    if reject(scheme, lowering) is None
]


def tokens(shape: tuple[int, int]) -> Tokens:
    return np.random.default_rng(3).integers(4, 260, shape)


def logits(path: Path, input_ids: Tokens) -> Logits:
    return open_runtime(path).logits(input_ids, np.ones_like(input_ids))


def tolerance(scheme: Scheme, lowering: Lowering) -> float:
    """Twice the noise that the two sides of the comparison do not share."""
    head = int(scheme.embedding is not None)  # without activation quantization in any checkpoint
    if lowering == "integer":
        return 2 * ROUNDING * math.sqrt(head)
    sides = 2 if scheme.activation else 1  # both round, at other places
    return 2 * ROUNDING * math.sqrt(sides * 4 * NUM_LAYERS + head)


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


@pytest.mark.parametrize("name", ["tied", "untied"])
@pytest.mark.parametrize(
    ("scheme", "lowering"), [pair for pair in PAIRS if pair.values != (FLOAT_ENDS, "integer")]
)
def test_logits_are_the_checkpoints_but_for_the_rounding_of_activations(
    workshop: Any, scheme: Scheme, lowering: Lowering, name: str
) -> None:
    inputs = tokens((4, 32))
    ours = logits(workshop.export(scheme, lowering, name), inputs)
    theirs = logits(workshop.checkpoint(scheme, name), inputs)
    noise = np.sqrt(np.mean((ours - theirs) ** 2)) / theirs.std()
    assert 0 < noise < tolerance(scheme, lowering)


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_integer_layers_add_no_noise_at_all(workshop: Any, name: str) -> None:
    """With float ends, checkpoint and export differ by nothing but the order of float sums.

    Such a difference may still push a value over the edge between two codes, and from there on a
    sequence is on its own: so the sequences are short and many, and not each has to agree.
    """
    inputs = tokens((64, 6))
    ours = logits(workshop.export(FLOAT_ENDS, "integer", name), inputs)
    theirs = logits(workshop.checkpoint(FLOAT_ENDS, name), inputs)
    worst = np.abs(ours - theirs).max(axis=(1, 2)) / theirs.std()
    assert np.median(worst) < 2e-5
    assert worst.max() < 10 * ROUNDING


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_a_float_model_stays_what_it_is(workshop: Any, name: str) -> None:
    inputs = tokens((4, 32))
    ours = logits(workshop.export(None, "float", name), inputs)
    theirs = logits(workshop.float_dir(name), inputs)
    assert np.abs(ours - theirs).max() < 2e-5 * theirs.std()


def configured(name: str) -> Callable[[], Any]:
    """A model of another architecture, two layers deep."""

    def build() -> Any:
        import transformers

        config = getattr(transformers, f"{name}Config")(
            vocab_size=288,
            hidden_size=96,
            intermediate_size=160,
            num_hidden_layers=NUM_LAYERS,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=256,
            tie_word_embeddings=name != "Mistral",
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=3,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            model = getattr(transformers, f"{name}ForCausalLM")(config)
            for parameter in model.parameters():
                if parameter.ndim == 1:  # biases and norms away from 0 and 1
                    parameter.data.add_(torch.randn_like(parameter) * 0.1)
        return model

    return build


@pytest.mark.parametrize("lowering", ["nbits", "integer"])
@pytest.mark.parametrize("name", ["Qwen2", "Qwen3", "Mistral", "Granite", "SmolLM3"])
def test_other_architectures_keep_their_codes_and_logits(
    workshop: Any, name: str, lowering: Lowering
) -> None:
    scheme, inputs = SCHEMES["w8a8"], tokens((2, 32))
    workshop.adopt(name, configured(name))
    source = workshop.checkpoint(scheme, name)
    exported = workshop.export(scheme, lowering, name)
    compared = codes.compare(exported, source)
    assert compared.equal
    assert compared.tensors_compared == len(formats(workshop.model(name), scheme))
    ours, theirs = logits(exported, inputs), logits(source, inputs)
    noise = np.sqrt(np.mean((ours - theirs) ** 2)) / theirs.std()
    assert noise < tolerance(scheme, lowering)
