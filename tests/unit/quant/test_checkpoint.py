from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from quantship.quant.checkpoint import WEIGHTS, load_codes, save
from quantship.quant.layers import formats, is_linear, matrix
from quantship.quant.modules import prepare_qat
from quantship.quant.numerics import Codes, Grid, code_range, input_grid
from quantship.quant.scheme import SCHEMES, LayerFormat, Override, Scheme, WeightFormat

pytestmark = pytest.mark.usefixtures("one_thread")

MIXED = Scheme(
    name="mixed",
    weight=WeightFormat(bits=4, group_size=16, symmetric=False),
    embedding=WeightFormat(bits=4),
    overrides=(
        Override(layers="*.0.*", weight=WeightFormat(bits=8)),
        Override(layers="*.1.mlp.*_proj", weight=None),
    ),
)
WHOLE = Scheme(name="whole", weight=WeightFormat(bits=8, granularity="per_tensor"))
FITTING = [scheme for scheme in SCHEMES.values() if scheme.weight.group_size != 128]
schemes = pytest.mark.parametrize("scheme", [*FITTING, MIXED, WHOLE], ids=lambda one: one.name)


def random_codes(model: nn.Module, found: dict[str, LayerFormat]) -> dict[str, Codes]:
    """Codes that no rounding ever made: what is stored is what was given."""
    generator = torch.Generator().manual_seed(0)
    codes = {}
    for name, format in found.items():
        fmt = format.weight
        num_out, num_in = matrix(model.get_submodule(name)).shape
        low, high = code_range(fmt.bits)
        shape = (1, 1)
        if fmt.granularity != "per_tensor":
            shape = (num_out, num_in // (fmt.group_size or num_in))
        scale = torch.rand(shape, generator=generator) + 0.01
        zero = torch.randint(low, high + 1, shape, generator=generator, dtype=torch.int8)
        codes[name] = Codes(
            torch.randint(low, high + 1, (num_out, num_in), generator=generator, dtype=torch.int8),
            scale.bfloat16().float() if fmt.scale_dtype == "bfloat16" else scale,
            None if fmt.symmetric else zero,
        )
    return codes


def static_grids(found: dict[str, LayerFormat]) -> dict[str, Grid]:
    return {
        name: input_grid(torch.full((1,) * 3, -1.0), torch.full((1,) * 3, 2.0), format.activation)
        for name, format in found.items()
        if format.activation is not None and format.activation.ranges == "static"
    }


def write(model: Any, scheme: Scheme, out: Path, *, packed: bool = True) -> dict[str, Codes]:
    found = formats(model, scheme)
    codes = random_codes(model, found)
    save(model, found, codes, static_grids(found), out, packed=packed)
    return codes


def contents(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path / WEIGHTS, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.parametrize(("name", "packed"), [("tied", True), ("tied", False), ("gpt2", True)])
@schemes
def test_codes_come_back_as_they_went(
    build: Callable[[str], Any], name: str, scheme: Scheme, packed: bool, tmp_path: Path
) -> None:
    model = build(name)
    codes = write(model, scheme, tmp_path, packed=packed)
    stored = load_codes(tmp_path)
    found = formats(model, scheme)
    assert stored.keys() == codes.keys()
    for layer, part in stored.items():
        format = found[layer]
        assert part.name == layer
        assert torch.equal(part.codes.codes_OI, codes[layer].codes_OI)
        assert torch.equal(part.codes.scale_OG.float(), codes[layer].scale_OG)
        zero = codes[layer].zero_OG
        assert (part.codes.zero_OG is None) == (zero is None)
        assert zero is None or torch.equal(part.codes.zero_OG, zero)  # type: ignore[arg-type]
        assert (part.bits, part.activation) == (format.weight.bits, format.activation)
        grid = static_grids(found).get(layer)
        assert (part.input_grid is None) == (grid is None)
        if grid is not None:
            assert torch.equal(part.input_grid.scale, grid.scale)  # type: ignore[union-attr]
            assert torch.equal(part.input_grid.zero, grid.zero)  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize("name", ["tied", "gpt2", "bert"])
def test_fake_quantized_layers_count_as_the_layers_they_replace(
    build: Callable[[str], Any], name: str, tmp_path: Path
) -> None:
    model, scheme = build(name), SCHEMES["w4a8"]
    codes = random_codes(model, formats(model, scheme))
    written = {}
    for state in ("plain", "prepared", "learned"):
        (tmp_path / state).mkdir()
        save(model, formats(model, scheme), codes, {}, tmp_path / state)
        written[state] = contents(tmp_path / state)
        prepare_qat(model, scheme)
        if state == "prepared":
            for layer, part in codes.items():
                grid = Grid(part.scale_OG)
                model.get_submodule(layer).rounding.set_grid(grid, learned=True)
    for state in ("prepared", "learned"):
        assert written[state][1] == written["plain"][1]
        assert written[state][0].keys() == written["plain"][0].keys()
        for key, tensor in written["plain"][0].items():
            assert torch.equal(tensor, written[state][0][key])
    assert len({(tmp_path / state / "config.json").read_text() for state in written}) == 1


@pytest.mark.parametrize("name", ["tied", "gpt2"])
@schemes
def test_what_is_not_quantized_is_stored_as_it_was(
    build: Callable[[str], Any], name: str, scheme: Scheme, tmp_path: Path
) -> None:
    model = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    write(model, scheme, tmp_path)
    quantized = {f"{layer}.weight" for layer in formats(model, scheme)}
    stored, _ = contents(tmp_path)
    plain = {key: tensor for key, tensor in stored.items() if key in before}
    assert plain.keys() == before.keys() - quantized - {"lm_head.weight"}
    assert all(torch.equal(tensor, before[key]) for key, tensor in plain.items())


@pytest.mark.parametrize("name", ["tied", "gpt2"])
def test_a_tied_head_is_nowhere_in_the_file(
    build: Callable[[str], Any], name: str, tmp_path: Path
) -> None:
    write(build(name), SCHEMES["w8a8"], tmp_path)
    tensors, metadata = contents(tmp_path)
    assert not [key for key in tensors if "lm_head" in key]
    assert "lm_head" not in json.dumps(metadata)
    large = [key for key, tensor in tensors.items() if tensor.shape == (96, 64)]
    assert len(large) == 1


def test_a_head_of_its_own_is_in_the_file(untied: Any, tmp_path: Path) -> None:
    write(untied, SCHEMES["w8a8"], tmp_path)
    assert "lm_head" in load_codes(tmp_path)


def test_saving_leaves_the_model_alone(tied: Any, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in tied.state_dict().items()}
    config = tied.config.to_dict()
    write(tied, SCHEMES["w8a8"], tmp_path)
    assert tied.config.to_dict() == config
    after = tied.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def quantization(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((path / "config.json").read_text())
    return config["quantization_config"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["tied", "untied", "gpt2", "bert"])
@schemes
def test_the_configuration_is_short_and_names_what_it_means(
    build: Callable[[str], Any], name: str, scheme: Scheme, tmp_path: Path
) -> None:
    if name == "bert" and scheme is MIXED:
        scheme = scheme.model_copy(update={"overrides": scheme.overrides[:1]})
    model = build(name)
    num_linear = sum(is_linear(module) for module in model.modules())
    write(model, scheme, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [type(model).__name__]
    assert "_name_or_path" not in config
    said = quantization(tmp_path)
    assert said["quant_method"] == "torchao"
    assert "_default" not in json.dumps(said)
    patterns = said["quant_type"]["default"]["_data"]["fqn_to_config"]
    num_formats = len({*formats(model, scheme).values()})
    if scheme.overrides:  # names may have to be listed where endings do not tell layers apart
        assert num_formats <= len(patterns) <= num_linear + 1
    else:
        assert num_formats <= len(patterns) <= num_formats + 1  # what stays in float


def test_many_layers_do_not_make_a_longer_configuration(tied: Any, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    sizes = []
    for num_layers in (1, 6):
        config = type(tied.config)(**{**tied.config.to_dict(), "num_hidden_layers": num_layers})
        out = tmp_path / str(num_layers)
        out.mkdir()
        write(LlamaForCausalLM(config), SCHEMES["w4a16-g32"], out)
        sizes.append(len(json.dumps(quantization(out))))
    assert sizes[0] == sizes[1]


def test_a_model_that_generates_brings_its_defaults(
    build: Callable[[str], Any], tmp_path: Path
) -> None:
    for name in ("tied", "bert"):
        (tmp_path / name).mkdir()
        write(build(name), SCHEMES["w8a8"], tmp_path / name)
    assert (tmp_path / "tied" / "generation_config.json").is_file()
    assert not (tmp_path / "bert" / "generation_config.json").exists()


def test_codes_for_another_set_of_layers_are_a_bug(tied: Any, tmp_path: Path) -> None:
    found = formats(tied, SCHEMES["w8a8"])
    codes = random_codes(tied, found)
    del codes["model.layers.0.mlp.up_proj"]
    with pytest.raises(AssertionError):
        save(tied, found, codes, {}, tmp_path)


def test_a_float_model_holds_no_codes(tiny_model_dir: Path) -> None:
    assert load_codes(tiny_model_dir) == {}


# Bytes


def bytes_of(path: Path, layers: set[str]) -> int:
    """Bytes that the file's header gives to all parts of these layers' matrices."""
    with (path / WEIGHTS).open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for key, entry in header.items():
        if key.split("._weight_")[0].removesuffix(".weight") in layers:
            first, last = entry["data_offsets"]
            total += last - first
    return total


@pytest.mark.parametrize("name", ["w4a16-g32", "w4a16-g128", "w4a16-g32-linear"])
def test_4_bit_layers_take_at_most_three_tenths_of_bfloat16(
    tiny_model: Any, name: str, tmp_path: Path
) -> None:
    scheme = SCHEMES[name]
    write(tiny_model, scheme, tmp_path)
    found = formats(tiny_model, scheme)
    four = {layer for layer, format in found.items() if format.weight.bits == 4}
    assert len(four) == 2 * 7
    of_bfloat16 = sum(2 * matrix(tiny_model.get_submodule(layer)).numel() for layer in four)
    assert 0.25 * of_bfloat16 < bytes_of(tmp_path, four) <= 0.30 * of_bfloat16


@pytest.mark.parametrize("name", ["tied", "gpt2"])
def test_8_bit_layers_take_little_more_than_half_of_bfloat16(
    build: Callable[[str], Any], name: str, tmp_path: Path
) -> None:
    model = build(name)
    write(model, SCHEMES["w8a8"], tmp_path)
    layers = set(formats(model, SCHEMES["w8a8"]))
    of_bfloat16 = sum(2 * matrix(model.get_submodule(layer)).numel() for layer in layers)
    assert 0.5 * of_bfloat16 < bytes_of(tmp_path, layers) <= 0.55 * of_bfloat16
