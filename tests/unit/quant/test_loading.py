from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torchao.quantization import Int4Tensor, Int8Tensor, IntxUnpackedToInt8Tensor
from torchao.utils import TorchAOBaseTensor
from transformers import AutoModelForCausalLM

from quantship.quant.checkpoint import WEIGHTS, load_codes, save
from quantship.quant.differences import differing
from quantship.quant.layers import is_transposed
from quantship.quant.loading import fill_gaps, load, load_online
from quantship.quant.modules import codes_of, fake_quantized, input_grids, prepare_qat
from quantship.quant.numerics import input_grid
from quantship.quant.scheme import SCHEMES, ActivationFormat, Override, Scheme, WeightFormat
from quantship.quant.tensors import codes_in

pytestmark = pytest.mark.usefixtures("one_thread")

FITTING = [scheme for scheme in SCHEMES.values() if scheme.weight.group_size != 128]
schemes = pytest.mark.parametrize("scheme", FITTING, ids=lambda scheme: scheme.name)


def fake(model: Any, scheme: Scheme, *, num_dims: int = 3) -> Any:
    model = prepare_qat(model, scheme)
    for _, module in fake_quantized(model):
        inputs = getattr(module, "input_rounding", None)
        if inputs is not None and inputs.fmt.ranges == "static":
            low, high = (torch.full((1,) * num_dims, end) for end in (-3.0, 4.0))
            inputs.set_grid(input_grid(low, high, inputs.fmt), learned=False)
    return model


def write(model: Any, out: Path, *, packed: bool) -> None:
    formats = {name: module.format for name, module in fake_quantized(model)}
    save(model, formats, codes_of(model), input_grids(model), out, packed=packed)


@torch.inference_mode()
def logits(model: Any, tokens: Tensor) -> Tensor:
    result: Tensor = model(input_ids=tokens).logits
    return result


def quantized(model: Any) -> dict[str, Any]:
    """Every quantized matrix by module name; a tied one by the name of each module it is in."""
    return {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), TorchAOBaseTensor)
    }


def assert_near(one: Tensor, other: Tensor, scheme: Scheme) -> None:
    """Equal to the bit, or nearly so where torchao adds up integers."""
    activation = scheme.activation
    if activation is None or (activation.granularity, activation.symmetric) == ("per_token", False):
        assert torch.equal(one, other)
    else:
        assert (one - other).norm() < 1e-3 * one.norm()


# Without quantship


@pytest.mark.parametrize("name", ["tied", "untied"])
@pytest.mark.parametrize(
    "scheme", [one for one in FITTING if not one.is_static], ids=lambda scheme: scheme.name
)
def test_plain_transformers_loads_and_runs_a_checkpoint(
    build: Callable[[str], Any], name: str, scheme: Scheme, tmp_path: Path, tokens: Tensor
) -> None:
    model = fake(build(name), scheme)
    write(model, tmp_path, packed=False)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert quantized(plain).keys() == codes_of(model).keys() | (
        {"lm_head"} if scheme.embedding is not None else set()
    )
    assert_near(logits(model, tokens), logits(plain, tokens), scheme)
    prompt = torch.tensor([[5, 6, 7]])
    new = plain.generate(prompt, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert new.shape == (1, 7)


@pytest.mark.parametrize("name", ["w4a16-g32", "w4a16-g128", "w4a16-g32-linear"])
def test_plain_transformers_loads_packed_codes(tiny_model: Any, name: str, tmp_path: Path) -> None:
    model = fake(tiny_model, SCHEMES[name])
    write(model, tmp_path, packed=True)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    weight = plain.model.layers[0].mlp.up_proj.weight
    assert isinstance(weight.data, Int4Tensor)
    assert weight.qdata.shape == (weight.shape[0], weight.shape[1] // 2)
    ours, theirs = codes_of(model), codes_in(plain)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key].codes_OI, ours[key].codes_OI) for key in ours)


@pytest.mark.parametrize("name", ["tied", "gpt2"])
@schemes
def test_a_tied_pair_is_one_object_in_memory(
    build: Callable[[str], Any], name: str, scheme: Scheme, tmp_path: Path
) -> None:
    write(fake(build(name), scheme), tmp_path, packed=True)
    model = load(tmp_path)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert head.weight is embedding.weight
    assert isinstance(embedding.weight, TorchAOBaseTensor) == (scheme.embedding is not None)


# With quantship


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["tied", "gpt2"])
@schemes
def test_a_loaded_model_computes_what_was_trained(
    build: Callable[[str], Any],
    name: str,
    scheme: Scheme,
    packed: bool,
    tmp_path: Path,
    tokens: Tensor,
) -> None:
    model = fake(build(name), scheme)
    write(model, tmp_path, packed=packed)
    loaded = load(tmp_path)
    assert not loaded.training
    assert type(loaded) is type(model)
    assert_near(logits(model, tokens), logits(loaded, tokens), scheme)


def test_an_encoder_is_loaded_as_what_it_is(
    build: Callable[[str], Any], tmp_path: Path, tokens: Tensor
) -> None:
    model = fake(build("bert"), SCHEMES["w8a8"])
    write(model, tmp_path, packed=True)
    loaded = load(tmp_path)
    assert type(loaded).__name__ == "BertForSequenceClassification"
    assert torch.equal(logits(model, tokens), logits(loaded, tokens))


def test_a_float_model_is_loaded_too(tied: Any, tmp_path: Path, tokens: Tensor) -> None:
    tied.save_pretrained(tmp_path)
    assert torch.equal(logits(tied, tokens), logits(load(tmp_path), tokens))


def test_options_are_passed_on(tied: Any, tmp_path: Path) -> None:
    tied.save_pretrained(tmp_path)
    assert load(str(tmp_path)).dtype == torch.float32
    assert load(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_static_ranges_are_in_the_loaded_model(tied: Any, tmp_path: Path) -> None:
    model = fake(tied, SCHEMES["w8a8-static"])
    write(model, tmp_path, packed=True)
    loaded: Any = load(tmp_path)
    weight = loaded.model.layers[1].self_attn.q_proj.weight
    assert isinstance(weight.data, Int8Tensor)
    grid = input_grids(model)["model.layers.1.self_attn.q_proj"]
    assert torch.equal(weight.act_quant_scale, grid.scale)
    assert grid.zero is not None
    assert torch.equal(weight.act_quant_zero_point, grid.zero.to(torch.int8))


def test_loading_leaves_transformers_as_it_was(tied: Any, tmp_path: Path) -> None:
    from transformers.quantizers.quantizer_torchao import TorchAoHfQuantizer

    before = TorchAoHfQuantizer.serialized_names
    write(fake(tied, SCHEMES["w8a8-static"]), tmp_path, packed=True)
    load(tmp_path)
    assert TorchAoHfQuantizer.serialized_names is before
    (tmp_path / WEIGHTS).write_bytes(b"")
    with pytest.raises(Exception):  # noqa: B017, PT011
        load(tmp_path)
    assert TorchAoHfQuantizer.serialized_names is before


def test_packed_codes_are_unpacked_on_a_cpu(tied: Any, tmp_path: Path) -> None:
    scheme = SCHEMES["w4a16-g32"]
    write(fake(tied, scheme), tmp_path, packed=True)
    loaded: Any = load(tmp_path)
    weight = loaded.model.layers[0].mlp.up_proj.weight
    assert isinstance(weight.data, IntxUnpackedToInt8Tensor)
    stored = load_codes(tmp_path)
    for name, part in codes_in(loaded).items():
        assert torch.equal(part.codes_OI, stored[name].codes.codes_OI)


@pytest.mark.parametrize(
    "weight",
    [
        WeightFormat(bits=8),
        WeightFormat(bits=3, group_size=16, symmetric=False),
        WeightFormat(bits=8, granularity="per_tensor"),
    ],
    ids=["rows", "groups", "whole"],
)
def test_transposed_layers_become_linear_ones_that_compute_the_same(
    build: Callable[[str], Any], weight: WeightFormat, tmp_path: Path, tokens: Tensor
) -> None:
    model = fake(build("gpt2"), Scheme(name="x", weight=weight))
    write(model, tmp_path, packed=True)
    loaded = load(tmp_path)
    assert not any(is_transposed(module) for module in loaded.modules())
    layer: Any = loaded.get_submodule("transformer.h.1.mlp.c_fc")
    assert isinstance(layer, nn.Linear)
    assert layer.weight.shape == (256, 64)
    assert (logits(model, tokens) - logits(loaded, tokens)).abs().max() < 1e-5
    ours, theirs = codes_of(model), codes_in(loaded)
    assert theirs.keys() == ours.keys()
    for name, part in theirs.items():
        assert torch.equal(part.codes_OI, ours[name].codes_OI)
        assert torch.equal(part.scale_OG, ours[name].scale_OG)


def test_filling_gaps_twice_is_filling_them_once(
    build: Callable[[str], Any], tmp_path: Path, tokens: Tensor
) -> None:
    write(fake(build("gpt2"), SCHEMES["w4a8"]), tmp_path, packed=True)
    loaded = load(tmp_path)
    before = logits(loaded, tokens)
    fill_gaps(loaded)
    assert torch.equal(logits(loaded, tokens), before)


def test_codes_of_a_loaded_model_are_those_of_the_file(
    build: Callable[[str], Any], tmp_path: Path
) -> None:
    for name in ("tied", "untied"):
        (tmp_path / name).mkdir()
        model = fake(build(name), SCHEMES["w4a16-g32-asymmetric"])
        write(model, tmp_path / name, packed=True)
        found, stored = codes_in(load(tmp_path / name)), load_codes(tmp_path / name)
        assert found.keys() == stored.keys()
        stored_codes = {layer: part.codes for layer, part in stored.items()}
        assert differing(found, stored_codes) == []


# Rounding while loading: torchao keeps scales in the precision of the weights, here float32


ONLINE = [
    *(SCHEMES[name] for name in ("w8a8", "w8a16", "w8a8-linear")),
    Scheme(
        name="4 bits, asymmetric",
        weight=WeightFormat(bits=4, group_size=32, symmetric=False),
        activation=ActivationFormat(),
    ),
    Scheme(
        name="mixed",
        weight=WeightFormat(bits=4, group_size=32),
        overrides=(Override(layers="*.down_proj", weight=WeightFormat(bits=8)),),
    ),
    Scheme(
        name="mixed by place",  # endings do not tell its layers apart
        weight=WeightFormat(bits=4, group_size=32),
        overrides=(
            Override(layers="*.0.*", weight=WeightFormat(bits=8)),
            Override(layers="*.1.mlp.*", weight=None),
        ),
    ),
]


@pytest.mark.parametrize("name", ["tied", "untied"])
@pytest.mark.parametrize("scheme", ONLINE, ids=lambda scheme: scheme.name)
def test_rounding_on_load_makes_the_codes_that_training_would(
    build: Callable[[str], Any], name: str, scheme: Scheme, tmp_path: Path, tokens: Tensor
) -> None:
    model = build(name)
    model.save_pretrained(tmp_path)
    online = load_online(tmp_path, scheme)
    trained = fake(copy.deepcopy(model), scheme)
    ours, theirs = codes_of(trained), codes_in(online)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key].codes_OI, ours[key].codes_OI) for key in ours)
    assert torch.equal(logits(trained, tokens), logits(online, tokens))


def test_files_name_nothing_but_tensors(tied: Any, tmp_path: Path) -> None:
    write(fake(tied, SCHEMES["w8a8-static"]), tmp_path, packed=True)
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        assert not [key for key in file.keys() if "rounding" in key]  # noqa: SIM118
