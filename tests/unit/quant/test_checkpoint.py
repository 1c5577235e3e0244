from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from quantship.errors import ParityError
from quantship.quant.checkpoint import WEIGHTS, load_codes, save
from quantship.quant.modules import formats, prepare_qat
from quantship.quant.numerics import Codes, code_range
from quantship.quant.scheme import SCHEMES, Scheme

pytestmark = pytest.mark.usefixtures("one_thread")


def random_codes(model: Any, scheme: Scheme) -> dict[str, Codes]:
    """Codes that no rounding ever made: what is stored is what was given."""
    generator = torch.Generator().manual_seed(0)
    codes = {}
    for name, (fmt, _) in formats(model, scheme).items():
        num_out, num_in = model.get_parameter(f"{name}.weight").shape
        low, high = code_range(fmt.bits)
        codes[name] = Codes(
            torch.randint(low, high + 1, (num_out, num_in), generator=generator, dtype=torch.int8),
            torch.rand(num_out, num_in // (fmt.group_size or num_in), generator=generator) + 0.01,
        )
    return codes


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_codes_come_back_as_they_went(tiny_model: Any, scheme: Scheme, tmp_path: Path) -> None:
    codes = random_codes(tiny_model, scheme)
    save(tiny_model, scheme, codes, tmp_path)
    stored = load_codes(tmp_path)
    assert stored.keys() == codes.keys()
    for name, part in stored.items():
        fmt, activation = formats(tiny_model, scheme)[name]
        assert part.name == name
        assert torch.equal(part.codes.codes_OI, codes[name].codes_OI)
        assert torch.equal(part.codes.scale_OG, codes[name].scale_OG)
        assert (part.bits, part.quantizes_input) == (fmt.bits, activation is not None)


def test_fake_quantized_layers_count_as_the_layers_they_replace(
    tiny_model: Any, tmp_path: Path
) -> None:
    scheme = SCHEMES["w4a8"]
    codes = random_codes(tiny_model, scheme)
    written = {}
    for name in ("plain", "prepared"):
        (tmp_path / name).mkdir()
        save(tiny_model, scheme, codes, tmp_path / name)
        with safe_open(tmp_path / name / WEIGHTS, "pt") as file:
            tensors = {key: file.get_tensor(key).tolist() for key in file.keys()}  # noqa: SIM118
            written[name] = tensors, file.metadata()
        prepare_qat(tiny_model, scheme)
    assert written["plain"] == written["prepared"]
    configs = [(tmp_path / name / "config.json").read_text() for name in written]
    assert configs[0] == configs[1]


def test_saving_leaves_the_model_alone(tiny_model: Any, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in tiny_model.state_dict().items()}
    config = tiny_model.config.to_dict()
    save(tiny_model, SCHEMES["w8a8"], random_codes(tiny_model, SCHEMES["w8a8"]), tmp_path)
    assert tiny_model.config.to_dict() == config
    after = tiny_model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_the_configuration_says_what_to_load(tiny_model: Any, tmp_path: Path) -> None:
    save(tiny_model, SCHEMES["w8a8"], random_codes(tiny_model, SCHEMES["w8a8"]), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["quantization_config"]["quant_method"] == "torchao"
    assert config["tie_word_embeddings"]
    assert (tmp_path / "generation_config.json").is_file()


def test_codes_for_another_set_of_layers_are_a_bug(tiny_model: Any, tmp_path: Path) -> None:
    codes = random_codes(tiny_model, SCHEMES["w8a8"])
    del codes["model.layers.0.mlp.up_proj"]
    with pytest.raises(AssertionError):
        save(tiny_model, SCHEMES["w8a8"], codes, tmp_path)


def test_a_float_model_holds_no_codes(tiny_model_dir: Path) -> None:
    assert load_codes(tiny_model_dir) == {}


def test_zero_points_are_refused_by_name(tiny_model: Any, tmp_path: Path) -> None:
    save(tiny_model, SCHEMES["w8a8"], random_codes(tiny_model, SCHEMES["w8a8"]), tmp_path)
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors["model.layers.1.mlp.down_proj._weight_zero_point"][3] = 1
    save_file(tensors, tmp_path / WEIGHTS, metadata=metadata)
    with pytest.raises(ParityError, match=r"'model.layers.1.mlp.down_proj' has zero points"):
        load_codes(tmp_path)
