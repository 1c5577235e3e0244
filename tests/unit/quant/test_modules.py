from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from quantship.quant import modules, numerics
from quantship.quant.layers import formats, matrix
from quantship.quant.linear import rounded_input
from quantship.quant.modules import (
    FakeQuantConv1D,
    FakeQuantEmbedding,
    FakeQuantLinear,
    FakeQuantModule,
    codes_of,
    fake_quantized,
    input_grids,
    prepare_qat,
    restore_float,
)
from quantship.quant.numerics import (
    Grid,
    choose_grid,
    dequantize,
    fake_quantize_input,
    fake_quantize_on,
    fake_quantize_weight,
    input_grid,
    round_to_nearest,
)
from quantship.quant.scheme import SCHEMES, ActivationFormat, LayerFormat, Scheme, WeightFormat

pytestmark = pytest.mark.usefixtures("one_thread")

W8A8, W4A16 = SCHEMES["w8a8"], SCHEMES["w4a16-g32"]
FLOAT_ENDS = SCHEMES["w8a8-linear"]
WITHOUT_GROUPS_OF_128 = [scheme for scheme in SCHEMES.values() if scheme.weight.group_size != 128]
schemes = pytest.mark.parametrize("scheme", WITHOUT_GROUPS_OF_128, ids=lambda scheme: scheme.name)


def twins(model: nn.Module) -> dict[str, str]:
    return {
        name: type(module).__name__
        for name, module in model.named_modules()
        if isinstance(module, FakeQuantModule)
    }


def loss_of(model: Any, tokens: Tensor) -> Tensor:
    loss: Tensor = model(input_ids=tokens, labels=tokens).loss
    return loss


def with_static_ranges(model: nn.Module, num_dims: int = 3) -> Any:
    for _, module in fake_quantized(model):
        inputs = getattr(module, "input_rounding", None)
        if inputs is not None and inputs.fmt.ranges == "static":
            low, high = (torch.full((1,) * num_dims, end) for end in (-2.5, 3.0))
            inputs.set_grid(input_grid(low, high, inputs.fmt), learned=False)
    return model


def with_learned_scales(model: nn.Module) -> Any:
    for _, module in fake_quantized(model):
        scale, zero = choose_grid(matrix(module).detach(), module.rounding.fmt)
        module.rounding.set_grid(Grid(scale * 0.8, zero), learned=True)
    return model


@contextmanager
def plain_autograd() -> Iterator[None]:
    """Compute layers as a chain of differentiable operations, each tested by itself."""

    def reference(layer: Any, input: Tensor, weight: Tensor, bias: Any, key: object) -> Tensor:
        if layer.input_rounding is not None:
            fmt, grid = layer.input_rounding.fmt, layer.input_rounding.static_grid()
            input = fake_quantize_input(input, fmt, grid)
        fmt = layer.rounding.fmt
        if layer.rounding.scale is None:
            numbers = fake_quantize_weight(weight, fmt)
        else:
            numbers = fake_quantize_on(weight, layer.rounding.grid(weight), fmt)
        return F.linear(input, numbers, bias)

    with mock.patch.object(modules, "fake_linear", reference):
        yield


# Making a model of twins


def test_twins_hold_the_very_parameters_under_the_same_names(tied: Any, untied: Any) -> None:
    for model in (tied, untied):
        before = dict(model.named_parameters())
        buffers = [name for name, _ in model.named_buffers()]
        prepare_qat(model, W8A8)
        after = dict(model.named_parameters())
        assert after.keys() == before.keys()
        assert all(after[name] is before[name] for name in before)
        assert [name for name, _ in model.named_buffers()] == buffers
        assert twins(model).keys() == formats(model, W8A8).keys() | {"lm_head"}
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight


def test_state_dicts_are_interchangeable(tied: Any) -> None:
    plain = copy.deepcopy(tied)
    prepared = prepare_qat(tied, W8A8)
    for parameter in prepared.parameters():
        parameter.data.mul_(2)
    plain.load_state_dict(prepared.state_dict(), strict=True)
    assert torch.equal(plain.lm_head.weight, prepared.get_parameter("model.embed_tokens.weight"))
    prepared.load_state_dict(plain.state_dict(), strict=True)


@pytest.mark.parametrize("name", ["tied", "untied", "gpt2", "bert"])
def test_preparing_twice_is_preparing_once(
    build: Callable[[str], Any], name: str, tokens: Tensor
) -> None:
    once = prepare_qat(build(name), W8A8)
    with_learned_scales(once)
    found = dict(fake_quantized(once))
    logits = once(input_ids=tokens).logits
    again = prepare_qat(once, W8A8)
    assert dict(fake_quantized(again)) == found
    assert formats(again, W8A8) == formats(build(name), W8A8)
    assert torch.equal(again(input_ids=tokens).logits, logits)


def test_preparing_for_another_scheme_changes_what_differs(tied: Any) -> None:
    prepare_qat(tied, W8A8)
    embedding = tied.get_input_embeddings()
    prepare_qat(tied, SCHEMES["w4a8"])
    assert tied.get_input_embeddings() is embedding
    assert tied.model.layers[0].mlp.up_proj.format.weight.bits == 4


@pytest.mark.parametrize("training", [True, False])
def test_twins_are_in_the_mode_of_their_originals(tied: Any, training: bool) -> None:
    prepare_qat(tied.train(training), W8A8)
    assert all(module.training == training for module in tied.modules())


def test_float_ends_are_left_alone(untied: Any) -> None:
    assert not twins(prepare_qat(untied, FLOAT_ENDS)).keys() & {"model.embed_tokens", "lm_head"}


def test_a_model_that_cannot_be_prepared_is_left_as_it_was(tied: Any) -> None:
    with pytest.raises(ValueError, match="groups of 48"):
        prepare_qat(tied, Scheme(name="x", weight=WeightFormat(bits=4, group_size=48)))
    assert not twins(tied)


def test_each_kind_of_layer_has_its_twin(build: Callable[[str], Any]) -> None:
    gpt2 = twins(prepare_qat(build("gpt2"), W8A8))
    assert gpt2["transformer.h.0.mlp.c_fc"] == "FakeQuantConv1D"
    assert gpt2["transformer.wte"] == "FakeQuantEmbedding"
    assert gpt2["lm_head"] == "FakeQuantLinear"
    bert = twins(prepare_qat(build("bert"), W8A8))
    assert bert["bert.embeddings.word_embeddings"] == "FakeQuantEmbedding"
    assert "bert.embeddings.position_embeddings" not in bert
    plain = twins(prepare_qat(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), W8A8))
    assert plain == {"0": "FakeQuantLinear", "2": "FakeQuantLinear"}


@pytest.mark.parametrize("name", ["tied", "untied", "gpt2", "bert"])
def test_a_restored_model_is_the_float_one_with_the_same_weights(
    build: Callable[[str], Any], name: str, tokens: Tensor
) -> None:
    model = build(name)
    expected, parameters = model(input_ids=tokens).logits, dict(model.named_parameters())
    kinds = {name: type(module) for name, module in model.named_modules()}
    restored: Any = restore_float(prepare_qat(model, W8A8))
    assert {name: type(module) for name, module in restored.named_modules()} == kinds
    after = dict(restored.named_parameters())
    assert after.keys() == parameters.keys()
    assert all(after[key] is parameters[key] for key in parameters)
    assert torch.equal(restored(input_ids=tokens).logits, expected)


# Forward


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@schemes
def test_a_linear_twin_multiplies_what_the_grids_leave(
    scheme: Scheme, bias: bool, learned: bool
) -> None:
    torch.manual_seed(0)
    linear, input = nn.Linear(64, 24, bias=bias), torch.randn(2, 5, 64)
    model = with_static_ranges(prepare_qat(nn.Sequential(linear), scheme))
    if learned:
        with_learned_scales(model)
    output = model(input)
    with plain_autograd():
        expected = model(input)
    if model[0].format.scales_products:  # in another order
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    else:
        assert torch.equal(output, expected)
    assert not torch.allclose(output, linear(input), rtol=1e-4, atol=1e-5)


@schemes
def test_a_transposed_twin_is_a_linear_twin_of_the_transposed_matrix(scheme: Scheme) -> None:
    torch.manual_seed(0)
    layer, input = Conv1D(24, 64), torch.randn(2, 5, 64)
    linear = nn.Linear(64, 24)
    linear.weight.data.copy_(layer.weight.t())
    linear.bias.data.copy_(layer.bias)
    one, other = (
        with_static_ranges(prepare_qat(nn.Sequential(each), scheme)) for each in (layer, linear)
    )
    assert isinstance(one[0], FakeQuantConv1D)
    torch.testing.assert_close(one(input), other(input), rtol=1e-5, atol=1e-6)
    (mine,), (theirs,) = codes_of(one).values(), codes_of(other).values()
    assert torch.equal(mine.codes_OI, theirs.codes_OI)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(
    "fmt",
    [
        WeightFormat(bits=4),
        WeightFormat(bits=4, group_size=16),
        WeightFormat(bits=3, group_size=16, symmetric=False),
        WeightFormat(bits=8, granularity="per_tensor"),
    ],
    ids=repr,
)
def test_an_embedding_twin_looks_up_rows_of_the_quantized_table(
    fmt: WeightFormat, learned: bool
) -> None:
    torch.manual_seed(0)
    embedding = nn.Embedding(20, 32, padding_idx=3)
    twin = FakeQuantEmbedding(embedding, fmt)
    grid = choose_grid(embedding.weight.detach(), fmt)
    if learned:
        grid = Grid(grid.scale * 0.7, grid.zero)
        twin.rounding.set_grid(grid, learned=True)
    ids = torch.tensor([[1, 3, 19], [1, 1, 0]])
    table = dequantize(numerics.round_to(embedding.weight.detach(), grid, fmt))
    assert torch.equal(twin(ids), F.embedding(ids, table))


@pytest.mark.parametrize("name", ["w8a8", "w8a8-static", "w4a16-g32-asymmetric"])
def test_what_a_model_computes_with_are_its_codes(tied: Any, name: str, tokens: Tensor) -> None:
    scheme = SCHEMES[name]
    model = with_static_ranges(prepare_qat(copy.deepcopy(tied), scheme))
    codes = codes_of(model)
    assert codes.keys() == formats(tied, scheme).keys()
    for layer, part in codes.items():
        expected = round_to_nearest(
            tied.get_parameter(f"{layer}.weight").detach(), formats(tied, scheme)[layer].weight
        )
        assert torch.equal(part.codes_OI, expected.codes_OI)
    before = model(input_ids=tokens).logits
    for layer, module in fake_quantized(model):
        module.weight.data.copy_(dequantize(codes[layer]))
        grid = codes[layer].scale_OG, codes[layer].zero_OG
        module.rounding.set_grid(Grid(*grid), learned=False)
    assert torch.equal(model(input_ids=tokens).logits, before)


def test_only_static_inputs_have_grids(tied: Any) -> None:
    assert input_grids(prepare_qat(copy.deepcopy(tied), W8A8)) == {}
    static = with_static_ranges(prepare_qat(tied, SCHEMES["w8a8-static"]))
    grids = input_grids(static)
    assert grids.keys() == formats(tied, W8A8).keys() - {"model.embed_tokens"}
    assert all(grid.scale.shape == (1, 1, 1) for grid in grids.values())


def test_static_ranges_that_were_never_set_are_missed(tied: Any, tokens: Tensor) -> None:
    model: Any = prepare_qat(tied, SCHEMES["w8a8-static"])
    with pytest.raises(RuntimeError, match="not calibrated"):
        model(input_ids=tokens)


def test_layers_that_share_an_input_round_it_once(
    tied: Any, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Tensor] = []
    ours = numerics.fake_quantize_input

    def counted(input_TI: Tensor, *rest: Any) -> Tensor:
        calls.append(input_TI)
        return ours(input_TI, *rest)

    model: Any = prepare_qat(tied, W8A8).train()
    alone = copy.deepcopy(model)
    monkeypatch.setattr(numerics, "fake_quantize_input", counted)
    loss = loss_of(model, tokens)
    loss.backward()
    # Of seven layers in a block, q, k and v share an input, and so do gate and up.
    assert len(calls) == 2 * 4
    with plain_autograd():
        loss_of(alone, tokens).backward()
    for mine, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_an_input_that_was_changed_is_rounded_again() -> None:
    torch.manual_seed(0)
    layer = FakeQuantLinear(
        nn.Linear(16, 4), LayerFormat(weight=W8A8.weight, activation=W8A8.activation)
    )
    input = torch.randn(3, 16, requires_grad=True) * 1
    before = layer(input)
    with torch.no_grad():
        input.mul_(2)
    assert torch.equal(layer(input), layer(input.detach().clone()))
    assert not torch.equal(layer(input), before)


def test_an_input_that_was_rounded_without_gradient_still_gets_one() -> None:
    torch.manual_seed(0)
    layer = FakeQuantLinear(
        nn.Linear(16, 4), LayerFormat(weight=W8A8.weight, activation=W8A8.activation)
    )
    leaf = torch.randn(3, 16, requires_grad=True)
    input = leaf * 1
    with torch.no_grad():
        layer(input)
    layer(input).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.any()


# Gradients


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("kind", ["linear", "transposed"])
@schemes
def test_gradients_are_those_of_plain_autograd(scheme: Scheme, kind: str, learned: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 24) if kind == "linear" else Conv1D(24, 64)
    model = with_static_ranges(prepare_qat(nn.Sequential(layer), scheme)).train()
    if learned:
        with_learned_scales(model)
        inputs = getattr(model[0], "input_rounding", None)
        if inputs is not None and inputs.fmt.ranges == "static":
            inputs.set_grid(inputs.static_grid(), learned=True)
    leaf, incoming = torch.randn(2, 5, 64, requires_grad=True), torch.randn(2, 5, 24)
    wanted = [leaf, *model.parameters()]
    arrived = torch.autograd.grad(model(leaf), wanted, incoming)
    with plain_autograd():
        expected = torch.autograd.grad(model(leaf), wanted, incoming)
    torch.testing.assert_close(arrived, expected, rtol=1e-4, atol=1e-5)
    assert all(gradient.any() for gradient in arrived)
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_parameters()}
    assert ("scale" in names) == learned


def test_only_what_wants_a_gradient_gets_one() -> None:
    torch.manual_seed(0)
    model: Any = prepare_qat(nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 8)), W8A8).train()
    model[0].weight.requires_grad_(False)
    model(torch.randn(3, 64)).sum().backward()
    assert model[0].weight.grad is None
    assert model[0].bias.grad is not None
    assert model[1].weight.grad is not None


@pytest.mark.parametrize(
    "fmt", [WeightFormat(bits=4), WeightFormat(bits=4, group_size=16)], ids=repr
)
def test_embedding_gradients_are_the_originals(fmt: WeightFormat) -> None:
    torch.manual_seed(0)
    embedding = nn.Embedding(20, 32, padding_idx=3)
    ids, weights = torch.tensor([[1, 3, 19], [1, 1, 0]]), torch.randn(2, 3, 32)
    twin = FakeQuantEmbedding(embedding, fmt)
    expected, arrived = (
        torch.autograd.grad((one(ids) * weights).sum(), embedding.weight)[0]
        for one in (embedding, twin)
    )
    assert torch.equal(arrived, expected)
    assert not arrived[3].any()


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_learned_embeddings_gradients_are_those_of_its_whole_table(symmetric: bool) -> None:
    torch.manual_seed(0)
    embedding = nn.Embedding(20, 32)
    fmt = WeightFormat(bits=3, group_size=16, symmetric=symmetric)
    twin = FakeQuantEmbedding(embedding, fmt)
    scale, zero = choose_grid(embedding.weight.detach(), fmt)
    twin.rounding.set_grid(Grid(scale * 0.6, zero), learned=True)
    ids, weights = torch.tensor([[1, 3, 19], [1, 1, 0]]), torch.randn(2, 3, 32)
    wanted = list(twin.parameters())
    assert len(wanted) == (2 if symmetric else 3)
    arrived = torch.autograd.grad((twin(ids) * weights).sum(), wanted)
    table = fake_quantize_on(twin.weight, twin.rounding.grid(twin.weight), fmt)
    expected = torch.autograd.grad((F.embedding(ids, table) * weights).sum(), wanted)
    torch.testing.assert_close(arrived, expected)
    assert arrived[1][1].all()
    assert not arrived[1][2].any()  # nobody looked it up


@pytest.mark.parametrize("name", ["tied", "gpt2", "bert"])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("scheme", ["w8a8", "w8a8-symmetric", "w4a16-g32-asymmetric"])
def test_a_models_gradients_are_those_of_plain_autograd(
    build: Callable[[str], Any], name: str, scheme: str, learned: bool, tokens: Tensor
) -> None:
    model: Any = prepare_qat(build(name), SCHEMES[scheme]).train()
    if learned:
        with_learned_scales(model)

    def gradients() -> dict[str, Any]:
        model.zero_grad()
        logits = model(input_ids=tokens).logits
        labels = tokens if logits.dim() == 3 else tokens[:, 0] % 2
        F.cross_entropy(logits.flatten(0, -2), labels.flatten()).backward()
        return {key: parameter.grad for key, parameter in model.named_parameters()}

    arrived = gradients()
    with plain_autograd():
        expected = gradients()
    for key, gradient in expected.items():
        if gradient is None:
            assert arrived[key] is None
        elif scheme == "w8a8-symmetric":
            # Sums in another order, and an input that this moves to its next code now and then.
            difference = (arrived[key] - gradient).norm()
            assert difference < 0.03 * gradient.norm() + 1e-6
        else:
            torch.testing.assert_close(arrived[key], gradient, rtol=1e-4, atol=1e-6)


@schemes
@pytest.mark.parametrize("learned", [False, True])
def test_every_parameter_learns(tied: Any, scheme: Scheme, learned: bool, tokens: Tensor) -> None:
    model = with_static_ranges(prepare_qat(tied, scheme)).train()
    if learned:
        with_learned_scales(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    first = loss_of(model, tokens)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model, tokens).backward()
        optimizer.step()
    assert all(not torch.equal(value, before[key]) for key, value in model.named_parameters())
    assert loss_of(model, tokens) < first


@schemes
@pytest.mark.parametrize("learned", [False, True])
def test_training_in_mixed_precision_gives_finite_gradients_near_the_exact_ones(
    tied: Any, scheme: Scheme, learned: bool, tokens: Tensor
) -> None:
    model = with_static_ranges(prepare_qat(tied, scheme)).train()
    if learned:
        with_learned_scales(model)
    loss_of(model, tokens).backward()
    exact = {key: parameter.grad for key, parameter in model.named_parameters()}
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, tokens)
    loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == parameter.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all()
        if parameter.dim() == 2 and key.endswith("weight"):
            difference = (parameter.grad - exact[key]).norm()
            assert difference < 0.3 * parameter.grad.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["w8a8", "w4a8", "w4a16-g32", "w8a8-symmetric"])
def test_a_model_in_half_precision_trains_in_it(
    tied: Any, name: str, dtype: torch.dtype, tokens: Tensor
) -> None:
    model = prepare_qat(tied.to(dtype), SCHEMES[name]).train()
    loss_of(model, tokens).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == dtype
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("symmetric", [False, True])
def test_codes_that_are_multiplied_are_those_of_the_unrounded_input(
    dtype: torch.dtype, symmetric: bool
) -> None:
    torch.manual_seed(0)
    activation = ActivationFormat(granularity="per_tensor", symmetric=symmetric)
    linear = nn.Linear(64, 64, bias=False, dtype=dtype)
    linear.weight.data.copy_(torch.eye(64))
    layer = FakeQuantLinear(linear, LayerFormat(weight=WeightFormat(bits=8), activation=activation))
    scale_O = codes_of(nn.Sequential(layer))["0"].scale_OG.flatten()
    # A range whose upper end has fewer numbers in bfloat16 than codes, and is clipped by rounding.
    input = torch.linspace(-0.6953, 2.1875, 40 * 64).view(40, 64).to(dtype)
    grid = numerics.dynamic_grid(input, activation)
    if dtype == torch.bfloat16 and not symmetric:
        again = numerics.input_codes(fake_quantize_input(input, activation, grid), grid)
        assert not torch.equal(again, numerics.input_codes(input, grid))
    _, integers = rounded_input(layer, input)
    assert integers is not None
    assert torch.equal(numerics.input_codes(*integers), numerics.input_codes(input, grid))
    wide = torch.float32 if dtype == torch.float16 else dtype  # sums do not fit a float16
    sums = numerics.input_codes(input, grid).to(wide) * 127
    expected = (sums * grid.scale).to(dtype)
    if grid.zero is not None:
        expected = expected - (grid.zero * grid.scale * 127).to(dtype)
    assert torch.equal(layer(input), expected * scale_O)


# Memory


@pytest.mark.parametrize("name", ["w8a8", "w8a8-symmetric", "w4a16-g32", "w4a16-g32-asymmetric"])
def test_the_backward_keeps_codes_and_no_float_copy_of_the_weight(name: str) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 96)
    model = prepare_qat(nn.Sequential(linear), SCHEMES[name]).train()
    input = torch.randn(1, 64, requires_grad=True) * 1
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input).sum().backward()
    large = [tensor for tensor in kept if tensor.numel() >= linear.weight.numel()]
    assert [tensor.dtype for tensor in large] == [torch.int8]
    codes = codes_of(model)["0"].codes_OI
    assert torch.equal(large[0], codes)


def test_a_learned_layer_keeps_its_weight_itself_and_no_copy() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 96)
    model = with_learned_scales(prepare_qat(nn.Sequential(linear), W4A16)).train()
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.randn(1, 64)).sum().backward()
    floats = [
        tensor
        for tensor in kept
        if tensor.is_floating_point() and tensor.numel() >= linear.weight.numel()
    ]
    assert [tensor.data_ptr() for tensor in floats] == [linear.weight.data_ptr()]


# Tied models


@pytest.mark.parametrize("name", ["tied", "gpt2"])
def test_a_tied_embedding_and_head_share_one_rounding(
    build: Callable[[str], Any], name: str, tokens: Tensor
) -> None:
    model = with_learned_scales(prepare_qat(build(name), W8A8)).train()
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    for one in (model, copy.deepcopy(model)):
        assert one.get_output_embeddings().rounding is one.get_input_embeddings().rounding
        assert one.get_output_embeddings().weight is one.get_input_embeddings().weight
    place = next(key for key, module in model.named_modules() if module is embedding)
    shape = (model.config.vocab_size, 1)
    of_rows = [key for key, value in model.named_parameters() if value.shape == shape]
    assert of_rows == [f"{place}.rounding.scale"]
    assert [key for key, value in model.state_dict().items() if value.shape == shape] == of_rows
    assert not any(key.startswith("lm_head.rounding") for key in model.state_dict())
    assert [key for key, module in fake_quantized(model) if module in (embedding, head)] == [place]
    loss_of(model, tokens).backward()
    # The head gives every row's scale a gradient, also those of tokens that were not looked up.
    assert embedding.rounding.scale.grad.all()


def test_a_tied_model_resumes_from_its_state_dict(tied: Any, tokens: Tensor) -> None:
    untrained = copy.deepcopy(tied)
    model = with_learned_scales(prepare_qat(tied, W8A8)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loss_of(model, tokens).backward()
    optimizer.step()
    resumed = with_learned_scales(prepare_qat(untrained, W8A8))
    resumed.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(loss_of(resumed.eval(), tokens), loss_of(model.eval(), tokens))
