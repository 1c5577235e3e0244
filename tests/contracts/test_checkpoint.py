"""Fake-quantized in training, converted, reloaded by plain transformers: one and the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torchao.utils import TorchAOBaseTensor
from transformers import AutoModelForCausalLM, TorchAoConfig

from quantship.quant import checkpoint, loading
from quantship.quant.layers import formats
from quantship.quant.modules import prepare_qat
from quantship.quant.scheme import SCHEMES, ActivationFormat, Scheme, WeightFormat

FURTHER = (
    Scheme(name="float embedding", weight=WeightFormat(bits=8), embedding=None),
    Scheme(
        name="everything in groups",
        weight=WeightFormat(bits=5, group_size=64),
        activation=ActivationFormat(),
        embedding=WeightFormat(bits=4, group_size=16),
    ),
    Scheme(
        name="asymmetric everywhere",
        weight=WeightFormat(bits=3, group_size=16, symmetric=False),
        activation=ActivationFormat(),
        embedding=WeightFormat(bits=8, symmetric=False),
    ),
    Scheme(name="one scale a matrix", weight=WeightFormat(bits=8, granularity="per_tensor")),
)
"""Schemes that the table has no row for, and that one row would make work."""
BY_TORCHAO = [
    scheme
    for scheme in (*SCHEMES.values(), *FURTHER)
    if not scheme.is_static and scheme.weight.scale_dtype == "float32"
]
"""Schemes whose checkpoints torchao could have made itself, by rounding to nearest."""

pytestmark = pytest.mark.parametrize("name", ["tied", "untied"])
schemes = pytest.mark.parametrize("scheme", BY_TORCHAO, ids=lambda one: one.name)


def load(path: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **options).eval()


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    tokens = torch.randint(260, (3, 40), generator=torch.Generator().manual_seed(5))
    result: torch.Tensor = model(input_ids=tokens, use_cache=False).logits
    return result


def quantized(model: Any) -> dict[str, Any]:
    """Every quantized matrix by module name; a tied one by the name of each module it is in."""
    return {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), TorchAOBaseTensor)
    }


def config_of(saved: Path) -> TorchAoConfig:
    """What the checkpoint's configuration tells torchao to do."""
    config = json.loads((saved / "config.json").read_text())["quantization_config"]
    result: TorchAoConfig = TorchAoConfig.from_dict(config)
    return result


@schemes
def test_fake_quantized_reloaded_and_torchaos_own_logits_are_equal(
    workshop: Any, scheme: Scheme, name: str
) -> None:
    saved = workshop.checkpoint(scheme, name)
    fake = logits(prepare_qat(workshop.model(name), scheme))
    reloaded = logits(load(saved))
    own = logits(load(workshop.float_dir(name), quantization_config=config_of(saved)))
    assert not torch.equal(fake, logits(workshop.model(name)))
    assert torch.equal(reloaded, own)
    if any(format.scales_products for format in formats(workshop.model(name), scheme).values()):
        assert (fake - reloaded).norm() < 1e-5 * fake.norm()
    else:
        assert torch.equal(fake.view(torch.int32), reloaded.view(torch.int32))


@schemes
def test_codes_are_those_torchao_makes_of_the_float_model(
    workshop: Any, scheme: Scheme, name: str
) -> None:
    saved = workshop.checkpoint(scheme, name)
    theirs = quantized(load(workshop.float_dir(name), quantization_config=config_of(saved)))
    reloaded = quantized(load(saved))
    stored = checkpoint.load_codes(saved)
    assert reloaded.keys() == theirs.keys() >= stored.keys()
    assert stored.keys() == formats(workshop.model(name), scheme).keys()
    for module, part in stored.items():
        zero = part.codes.zero_OG
        for tensor in (theirs[module], reloaded[module]):
            assert type(tensor.data) is type(reloaded[module].data)
            assert torch.equal(part.codes.codes_OI, tensor.qdata)
            assert torch.equal(part.codes.scale_OG, tensor.scale)
            assert torch.equal(
                torch.zeros_like(tensor.zero_point) if zero is None else zero, tensor.zero_point
            )
            for attribute in ("activation_quantization", "act_quant_kwargs", "target_dtype"):
                assert getattr(tensor, attribute, None) == getattr(theirs[module], attribute, None)


every_scheme = pytest.mark.parametrize(
    "scheme", [*SCHEMES.values(), *FURTHER], ids=lambda one: one.name
)


@every_scheme
def test_what_is_not_quantized_is_stored_as_it_was(
    workshop: Any, scheme: Scheme, name: str
) -> None:
    before = workshop.model(name).state_dict()
    with safe_open(workshop.checkpoint(scheme, name) / checkpoint.WEIGHTS, "pt") as file:
        plain = {key: file.get_tensor(key) for key in file.keys() if key in before}  # noqa: SIM118
    quantized_names = {f"{key}.weight" for key in formats(workshop.model(name), scheme)}
    tied = {"lm_head.weight"} if name == "tied" else set()
    assert plain.keys() == before.keys() - quantized_names - tied
    assert all(torch.equal(value, before[key]) for key, value in plain.items())


@every_scheme
def test_a_tied_pair_is_one_tensor_in_the_file_and_in_memory(
    workshop: Any, scheme: Scheme, name: str
) -> None:
    saved = workshop.checkpoint(scheme, name)
    with safe_open(saved / checkpoint.WEIGHTS, "pt") as file:
        heads = [key for key in file.keys() if "lm_head" in key]  # noqa: SIM118
        described = "lm_head" in json.dumps(file.metadata())
    # What plain transformers cannot load, quantship does.
    model: Any = loading.load(saved) if scheme.is_static else load(saved)
    one = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert one == (name == "tied")
    assert bool(heads) == described == (name == "untied")


@schemes
def test_a_reloaded_model_generates(workshop: Any, scheme: Scheme, name: str) -> None:
    model = load(workshop.checkpoint(scheme, name))
    prompt = torch.tensor([[5, 6, 7]])
    new = model.generate(prompt, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert new.shape == (1, 7)
