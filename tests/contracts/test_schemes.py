"""Every scheme on every architecture: fake-quantized, converted and reloaded are one model.

Codes are equal to the bit. Logits too, except where torchao multiplies integers and training
multiplies floats that stand for them: there they differ by the rounding of float sums.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quantship.quant.calibration import calibrate
from quantship.quant.checkpoint import load_codes
from quantship.quant.convert import convert
from quantship.quant.differences import differing
from quantship.quant.layers import formats, matrix
from quantship.quant.loading import load
from quantship.quant.modules import codes_of, fake_quantized, prepare_qat
from quantship.quant.numerics import choose_grid, dequantize, round_to_nearest
from quantship.quant.scheme import SCHEMES, ActivationFormat, Override, Scheme, WeightFormat
from quantship.quant.tensors import codes_in
from quantship.recipe.rounding_options import Calibration

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VOCABULARY = 96
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


def llama(*, tied: bool) -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=tied))


def gemma3() -> PreTrainedModel:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    return Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, num_key_value_heads=2, head_dim=32))


def gpt2() -> PreTrainedModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": 128, "n_layer": 2, "n_head": 4}
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(**sizes, n_positions=64, **ends))


def qwen3() -> PreTrainedModel:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(
        Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True)
    )


def bert_classifier() -> PreTrainedModel:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**SIZES))


def bert_masked() -> PreTrainedModel:
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig(**SIZES))


ARCHITECTURES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama-tied": lambda: llama(tied=True),
    "llama-untied": lambda: llama(tied=False),
    "gemma3": gemma3,
    "gpt2": gpt2,
    "qwen3": qwen3,
    "bert-classifier": bert_classifier,
    "bert-masked": bert_masked,
}
TIED = {"llama-tied", "gemma3", "gpt2", "qwen3", "bert-masked"}

INT8 = WeightFormat(bits=8)
DYNAMIC = ActivationFormat()
OWN = (
    Scheme(
        name="embedding at 4 bits",
        weight=INT8,
        activation=DYNAMIC,
        embedding=WeightFormat(bits=4, group_size=32),
    ),
    Scheme(
        name="asymmetric 3 bits in groups of 16",
        weight=WeightFormat(bits=3, group_size=16, symmetric=False),
        activation=DYNAMIC,
    ),
    Scheme(name="one scale a matrix", weight=WeightFormat(bits=8, granularity="per_tensor")),
    Scheme(
        name="one scale a matrix and input",
        weight=WeightFormat(bits=8, granularity="per_tensor"),
        activation=ActivationFormat(granularity="per_tensor", symmetric=True),
    ),
    Scheme(
        name="static and symmetric",
        weight=INT8,
        activation=ActivationFormat(granularity="per_tensor", ranges="static", symmetric=True),
    ),
    Scheme(
        name="small scales, asymmetric",
        weight=WeightFormat(bits=5, group_size=64, symmetric=False, scale_dtype="bfloat16"),
        activation=DYNAMIC,
    ),
    Scheme(name="head apart", weight=INT8, embedding=None, head=WeightFormat(bits=4)),
)
"""Schemes that the table has no row for, and that a recipe may write."""
MIXED = {
    "llama-untied": ("*.down_proj", "model.layers.0.self_attn.*", "*.1.*.o_proj"),
    "gpt2": ("*.mlp.c_proj", "transformer.h.0.attn.*", "*.1.attn.c_attn"),
    "bert-classifier": ("*.intermediate.dense", "bert.encoder.layer.0.attention.*", "classifier"),
}
"""Layers of an architecture at 8 bits, at 4 bits, and in float."""


def mixed(architecture: str) -> Scheme:
    eight, four, none = MIXED[architecture]
    return Scheme(
        name="mixed",
        weight=WeightFormat(bits=6),
        overrides=(
            Override(layers=eight, weight=INT8, activation=ActivationFormat(symmetric=True)),
            Override(layers=four, weight=WeightFormat(bits=4, group_size=32), activation=DYNAMIC),
            Override(layers=none, weight=None),
        ),
    )


@pytest.fixture(scope="module")
def model_of() -> Callable[[str], Any]:
    """A fresh copy of an architecture's model, of the same weights each time."""
    built: dict[str, Any] = {}

    def model_of(architecture: str) -> Any:
        if architecture not in built:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                built[architecture] = ARCHITECTURES[architecture]().eval()
        return copy.deepcopy(built[architecture])

    return model_of


def tokens(seed: int) -> Tensor:
    return torch.randint(VOCABULARY, (3, 24), generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def logits(model: Any) -> Tensor:
    result: Tensor = model.eval()(input_ids=tokens(5)).logits
    return result


def calibrated(model: Any, *, learned: bool = False) -> Any:
    def run(batch: Any) -> object:
        return model(input_ids=batch)

    calibrate(model, [tokens(6)], run, Calibration(), learned=learned)
    return model


def takes(architecture: str, scheme: Scheme) -> bool:
    return architecture != "gemma3" or (scheme.embedding is None and scheme.head_format is None)


def assert_same_model(fake: Any, saved: Path) -> Any:
    """Codes in the file and in memory are the model's, and so are logits. Returns the reloaded."""
    codes = codes_of(fake)
    stored = load_codes(saved)
    assert differing(codes, {name: part.codes for name, part in stored.items()}) == []
    reloaded: Any = load(saved)
    assert differing(codes, codes_in(reloaded)) == []
    layers = {name: module.format for name, module in fake_quantized(fake)}
    assert {name: part.bits for name, part in stored.items()} == {
        name: format.weight.bits for name, format in layers.items()
    }
    assert {name: part.activation for name, part in stored.items()} == {
        name: format.activation for name, format in layers.items()
    }
    mine, theirs = logits(fake), logits(reloaded)
    assert torch.isfinite(mine).all()
    if any(format.scales_products for format in layers.values()):
        assert (mine - theirs).norm() <= 1e-5 * mine.norm()
    else:
        assert torch.equal(mine, theirs)
    return reloaded


WALK = [
    pytest.param(scheme, architecture, id=f"{scheme.name}-{architecture}")
    for architecture in ARCHITECTURES
    for scheme in (*SCHEMES.values(), *OWN)
    if takes(architecture, scheme)
]


@pytest.mark.parametrize(("scheme", "architecture"), WALK)
def test_fake_converted_and_reloaded_are_one_model(
    model_of: Callable[[str], Any], scheme: Scheme, architecture: str, tmp_path: Path
) -> None:
    original = model_of(architecture)
    fake = calibrated(prepare_qat(model_of(architecture), scheme))
    facts = convert(fake, tmp_path)
    assert facts["tensors_compared"] == len(formats(original, scheme))
    reloaded = assert_same_model(fake, tmp_path)
    for name, part in codes_of(fake).items():
        weight_OI = matrix(original.get_submodule(name)).detach()
        format = formats(original, scheme)[name]
        assert torch.equal(part.codes_OI, round_to_nearest(weight_OI, format.weight).codes_OI)
    assert not torch.equal(logits(fake), logits(original))
    embedding, head = reloaded.get_input_embeddings(), reloaded.get_output_embeddings()
    if head is not None:
        assert (head.weight is embedding.weight) == (architecture in TIED)


@pytest.mark.parametrize("architecture", MIXED)
def test_mixed_formats_are_one_model(
    model_of: Callable[[str], Any], architecture: str, tmp_path: Path
) -> None:
    scheme = mixed(architecture)
    fake = prepare_qat(model_of(architecture), scheme)
    bits = {part.codes_OI.dtype for part in codes_of(fake).values()}
    assert bits == {torch.int8}
    convert(fake, tmp_path)  # type: ignore[arg-type]
    reloaded = assert_same_model(fake, tmp_path)
    stored = load_codes(tmp_path)
    assert {part.bits for part in stored.values()} == {4, 6, 8}
    left = [
        name
        for name, format in formats(model_of(architecture), SCHEMES["w8a8"]).items()
        if name not in stored
    ]
    assert left
    for name in left:
        assert type(reloaded.get_submodule(name).weight.data) is Tensor


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_gemmas_scaled_embedding_is_refused_with_the_remedy(
    model_of: Callable[[str], Any], scheme: Scheme
) -> None:
    model = model_of("gemma3")
    if takes("gemma3", scheme):
        assert len(formats(model, scheme)) == 2 * 7
        return
    with pytest.raises(ValueError, match="more than look up rows; choose a scheme that leaves"):
        prepare_qat(model, scheme)


def train(model: Any, *, steps: int = 2) -> None:
    model.train()
    torch.manual_seed(0)  # of dropout
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        result = model(input_ids=tokens(step)).logits
        labels = tokens(step) if result.dim() == 3 else tokens(step)[:, 0] % 2
        F.cross_entropy(result.flatten(0, -2), labels.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()


TRAINED = ("w8a8", "w8a8-static", "w4a16-g32", "w4a16-g32-asymmetric")


@pytest.mark.parametrize("learned", [False, True], ids=["weights", "weights and grids"])
@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2", "bert-classifier"])
@pytest.mark.parametrize("name", TRAINED)
def test_what_was_trained_is_what_ships(
    model_of: Callable[[str], Any], name: str, architecture: str, learned: bool, tmp_path: Path
) -> None:
    fake = prepare_qat(model_of(architecture), SCHEMES[name])
    calibrated(fake, learned=learned)
    if learned:
        for _, module in fake_quantized(fake):
            grid = choose_grid(matrix(module).detach(), module.rounding.fmt)
            module.rounding.set_grid(grid, learned=True)
    before = codes_of(fake)
    grids = {key: value.clone() for key, value in fake.named_parameters() if "rounding" in key}
    train(fake)
    convert(fake, tmp_path)  # type: ignore[arg-type]
    assert_same_model(fake, tmp_path)
    assert bool(grids) == learned
    # Gradients of an untrained BERT's attention are too small to move all of it in two steps.
    changed = differing(before, codes_of(fake))
    assert {name for name in before if ".attention." not in name} <= set(changed)
    after = dict(fake.named_parameters())
    for name, value in grids.items():
        if name.endswith("rounding.scale") and ".attention." not in name:
            assert not torch.equal(after[name], value)


def test_the_numbers_that_ship_are_those_that_training_multiplied(
    model_of: Callable[[str], Any], tmp_path: Path
) -> None:
    """Without fake quantization anywhere: a float model made of the codes' numbers."""
    fake = prepare_qat(model_of("llama-untied"), SCHEMES["w4a16-g32"])
    train(fake)
    convert(fake, tmp_path)  # type: ignore[arg-type]
    plain = model_of("llama-untied")
    plain.load_state_dict(fake.state_dict())
    for name, part in load_codes(tmp_path).items():
        plain.get_submodule(name).weight.data.copy_(dequantize(part.codes))
    assert torch.equal(logits(plain), logits(load(tmp_path)))
