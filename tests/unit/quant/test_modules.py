from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from quantship.quant.modules import FakeQuantEmbedding, FakeQuantLinear, formats, prepare_qat
from quantship.quant.numerics import fake_quantize_tokens, fake_quantize_weight
from quantship.quant.scheme import SCHEMES, Scheme, WeightFormat
from quantship.recipe.language import TinyModel
from quantship.tiny import build_model

pytestmark = pytest.mark.usefixtures("one_thread")

W8A8, W8A16 = SCHEMES["w8a8"], SCHEMES["w8a16"]
FLOAT_ENDS = Scheme(name="float ends", weight=WeightFormat(bits=4), embedding=None)


@pytest.fixture
def untied_model(tiny_tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return build_model(TinyModel(tied=False), tiny_tokenizer, seed=0)


def twins(model: nn.Module) -> dict[str, str]:
    return {
        name: type(module).__name__
        for name, module in model.named_modules()
        if isinstance(module, FakeQuantLinear | FakeQuantEmbedding)
    }


def loss_of(model: Any) -> torch.Tensor:
    tokens = torch.randint(4, 260, (2, 12), generator=torch.Generator().manual_seed(0))
    result: torch.Tensor = model(input_ids=tokens, labels=tokens).loss
    return result


def test_formats_name_every_matrix_once(tiny_model: Any, untied_model: Any) -> None:
    matrices = {name for name, tensor in untied_model.named_parameters() if tensor.ndim == 2}
    assert {f"{name}.weight" for name in formats(untied_model, W8A8)} == matrices
    assert {f"{name}.weight" for name in formats(tiny_model, W8A8)} == matrices - {"lm_head.weight"}


def test_the_ends_of_the_model_follow_the_embeddings_format(untied_model: Any) -> None:
    found = formats(untied_model, SCHEMES["w4a8"])
    for end in ("model.embed_tokens", "lm_head"):
        assert found[end] == (WeightFormat(bits=8), None)
    weight, activation = found["model.layers.0.mlp.up_proj"]
    assert weight.bits == 4
    assert activation is not None


def test_float_ends_are_left_alone(untied_model: Any) -> None:
    assert not formats(untied_model, FLOAT_ENDS).keys() & {"model.embed_tokens", "lm_head"}
    assert not twins(prepare_qat(untied_model, FLOAT_ENDS)).keys() & {
        "model.embed_tokens",
        "lm_head",
    }


def test_a_group_that_does_not_divide_names_the_layer(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    dimensions = TinyModel(hidden_size=64, intermediate_size=80, num_heads=4, num_kv_heads=4)
    model = build_model(dimensions, tiny_tokenizer, seed=0)
    with pytest.raises(ValueError, match="groups of 32") as caught:
        prepare_qat(model, SCHEMES["w4a16-g32"])
    assert "80 input features of layer 'model.layers.0.mlp.down_proj'" in str(caught.value)
    assert not twins(model)


def test_an_embedding_that_does_more_than_look_up_is_refused() -> None:
    config = Gemma2Config(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    model = Gemma2ForCausalLM(config)
    with pytest.raises(
        ValueError, match=r"'model.embed_tokens' is a Gemma2TextScaledWordEmbedding"
    ):
        prepare_qat(model, W8A8)
    assert twins(prepare_qat(model, FLOAT_ENDS))


def test_twins_hold_the_very_parameters_under_the_same_names(
    tiny_model: Any, untied_model: Any
) -> None:
    for model in (tiny_model, untied_model):
        before = dict(model.named_parameters())
        buffers = [name for name, _ in model.named_buffers()]
        prepare_qat(model, W8A8)
        after = dict(model.named_parameters())
        assert after.keys() == before.keys()
        assert all(after[name] is before[name] for name in before)
        assert [name for name, _ in model.named_buffers()] == buffers
        assert twins(model).keys() == formats(model, W8A8).keys() | {"lm_head"}
    head, embedding = tiny_model.get_output_embeddings(), tiny_model.get_input_embeddings()
    assert head.weight is embedding.weight


def test_state_dicts_are_interchangeable(tiny_model: Any) -> None:
    plain = copy.deepcopy(tiny_model)
    prepared = prepare_qat(tiny_model, W8A8)
    for parameter in prepared.parameters():
        parameter.data.mul_(2)
    plain.load_state_dict(prepared.state_dict(), strict=True)
    assert torch.equal(plain.lm_head.weight, prepared.get_parameter("model.embed_tokens.weight"))
    prepared.load_state_dict(plain.state_dict(), strict=True)


def test_preparing_twice_is_preparing_once(tiny_model: Any) -> None:
    once = prepare_qat(tiny_model, W8A8)
    names, loss = twins(once), loss_of(once)
    again = prepare_qat(once, W8A8)
    assert twins(again) == names
    assert formats(again, W8A8) == formats(once, W8A8)
    assert torch.equal(loss_of(again), loss)


@pytest.mark.parametrize("training", [True, False])
def test_twins_are_in_the_mode_of_their_originals(tiny_model: Any, training: bool) -> None:
    prepare_qat(tiny_model.train(training), W8A8)
    assert all(module.training == training for module in tiny_model.modules())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["w8a8", "w8a16", "w4a16-g32"])
def test_a_linear_twin_multiplies_what_the_grid_leaves(name: str, bias: bool) -> None:
    torch.manual_seed(0)
    scheme = SCHEMES[name]
    linear, tokens = nn.Linear(64, 24, bias=bias), torch.randn(2, 5, 64)
    twin = FakeQuantLinear(linear, scheme.weight, scheme.activation)
    seen = fake_quantize_tokens(tokens) if scheme.activation else tokens
    expected = F.linear(seen, fake_quantize_weight(linear.weight, scheme.weight), linear.bias)
    assert torch.equal(twin(tokens), expected)
    assert not torch.equal(twin(tokens), linear(tokens))


@pytest.mark.parametrize("group", [None, 16])
def test_an_embedding_twin_looks_up_rows_of_the_quantized_table(group: int | None) -> None:
    torch.manual_seed(0)
    embedding = nn.Embedding(20, 32, padding_idx=3)
    fmt = WeightFormat(bits=4, group_size=group)
    tokens = torch.tensor([[1, 3, 19], [1, 1, 0]])
    table = fake_quantize_weight(embedding.weight, fmt)
    looked_up = FakeQuantEmbedding(embedding, fmt)(tokens)
    assert torch.equal(looked_up, F.embedding(tokens, table))


def test_embedding_gradients_are_the_originals() -> None:
    torch.manual_seed(0)
    embedding = nn.Embedding(20, 32, padding_idx=3)
    tokens, weights = torch.tensor([[1, 3, 19], [1, 1, 0]]), torch.randn(2, 3, 32)
    twin = FakeQuantEmbedding(embedding, WeightFormat(bits=4))
    expected, arrived = (
        torch.autograd.grad((one(tokens) * weights).sum(), embedding.weight)[0]
        for one in (embedding, twin)
    )
    assert torch.equal(arrived, expected)
    assert not arrived[3].any()


@pytest.mark.parametrize("name", SCHEMES)
def test_every_parameter_learns(tiny_model: Any, name: str) -> None:
    model = prepare_qat(tiny_model, SCHEMES[name]).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    first = loss_of(model)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    assert all(not torch.equal(value, before[key]) for key, value in model.named_parameters())
    assert loss_of(model) < first
