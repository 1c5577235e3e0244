"""Every architecture that the model builder draws is the model that transformers runs.

Each is held against transformers with norms, biases and scalings away from what a default would
hide, windows shorter than the sequence, and half of the tokens through the cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quantship.blocks.engine import Task, quantize
from quantship.blocks.opening import open_model
from quantship.blocks.parts import Parts
from quantship.exporters import codes
from quantship.exporters.architectures import KNOWN
from quantship.exporters.decoder import MODEL_FILE
from quantship.exporters.lowering import Lowering
from quantship.models import float_class
from quantship.quant.convert import convert
from quantship.quant.layers import formats
from quantship.quant.modules import prepare_qat
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import QuantizeStep
from quantship.runtimes.base import Logits, Tokens, open_runtime

COMMON = {
    "vocab_size": 288,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 3,
}
TIED: dict[str, Any] = {"tie_word_embeddings": True, "head_dim": 16}
LAYERS = ["sliding_attention", "full_attention"]
WINDOW: dict[str, Any] = {"sliding_window": 16, "layer_types": LAYERS}
FACTORS = {
    "embedding_multiplier": 12.0,
    "logits_scaling": 7.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.3,
}
HYBRID = {
    **FACTORS,
    "shared_intermediate_size": 160,
    "num_local_experts": 0,
    "num_experts_per_tok": 0,
    "layer_types": ["attention"] * 2,
    "mamba_n_heads": 12,
}


def rope(kind: str, **numbers: Any) -> dict[str, Any]:
    return {"rope_scaling": {"rope_type": kind, **numbers}}


def long(original: int, width: int) -> dict[str, Any]:
    short, long = [1.1] * (width // 2), [2.0 + index for index in range(width // 2)]
    return rope(
        "longrope",
        short_factor=short,
        long_factor=long,
        original_max_position_embeddings=original,
    )


VARIANTS: dict[str, dict[str, Any]] = {
    "Llama": {"rms_norm_eps": 1e-3, "attention_bias": True, "mlp_bias": True, "rope_theta": 500.0},
    "Llama with one head for keys": {"num_key_value_heads": 1, "hidden_act": "gelu"},
    "Llama, as wide in the middle as its vocabulary": {"intermediate_size": 288},
    "Llama, heads of 24": {"head_dim": 24},
    "Llama, heads of 8": {"head_dim": 8},
    "Llama, rope linear": rope("linear", factor=4.0),
    "Llama, rope yarn": rope("yarn", factor=4.0, original_max_position_embeddings=64),
    "Llama, rope llama3": rope(
        "llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=32,
    ),
    "Mistral": {"sliding_window": None},
    "Mistral with a window": {"sliding_window": 16, "head_dim": 24},
    "Qwen2": {"tie_word_embeddings": True},
    "Qwen2 with a window": {"use_sliding_window": True, "sliding_window": 16} | WINDOW,
    "Qwen3": {"head_dim": 16, "rms_norm_eps": 1e-3, "attention_bias": True},
    "Gemma": TIED | {"attention_bias": True},
    "Gemma2": TIED | WINDOW | {"query_pre_attn_scalar": 40},
    "Gemma3Text": TIED | WINDOW | {"query_pre_attn_scalar": 40, "attn_logit_softcapping": 20.0},
    "Gemma3Text, rope linear": TIED | WINDOW | rope("linear", factor=8.0),
    "Phi": {"hidden_size": 192, "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-3},
    "Phi, heads of 40": {"hidden_size": 240, "partial_rotary_factor": 0.4},
    "Phi3": {"original_max_position_embeddings": 256},
    "Phi3 with a window": {"sliding_window": 16},
    "Phi3, heads of 24": {"hidden_size": 144},
    "Phi3, rope partial": {"hidden_size": 192, "partial_rotary_factor": 0.5},
    "Phi3, rope long": long(32, 16),
    "Phi3, rope long while decoding": long(54, 16) | {"original_max_position_embeddings": 54},
    "Olmo": {},
    "Olmo that clips": {"clip_qkv": 0.1},
    "SmolLM3": {"num_hidden_layers": 4, "no_rope_layers": [1, 0, 1, 0]},
    "SmolLM3, heads of 24": {"hidden_size": 144, "no_rope_layers": [1, 0]},
    "Granite": FACTORS | {"attention_bias": True, "mlp_bias": True},
    "GraniteMoeHybrid": HYBRID | {"position_embedding_type": "rope"},
    "GraniteMoeHybrid without rope": HYBRID,
    "Nemotron": {"head_dim": 32, "partial_rotary_factor": 0.5, "attention_bias": True},
    "Ernie4_5": {"head_dim": 16, "use_bias": True},
    "HunYuanDenseV1": {"head_dim": 16, "attention_bias": True},
    "HunYuanDenseV1, heads of 24": {"head_dim": 24} | rope("dynamic", alpha=1000.0, factor=1.0),
    "Lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 32},
    "GptOss": {"head_dim": 16, "sliding_window": 16, "num_local_experts": 4},
}
FIRST = {name.split()[0].rstrip(","): name for name in reversed(VARIANTS)}
"""One variant of each architecture."""
ALONE = [name for name in VARIANTS if "heads of 24" in name or "vocabulary" in name]
"""Those whose layers are drawn in a way of their own."""
LENGTH, STEPS = 48, 10


def built(name: str) -> Callable[[], Any]:
    def build() -> Any:
        import transformers

        kind = name.split()[0].rstrip(",")
        config = getattr(transformers, f"{kind}Config")(**COMMON | VARIANTS[name])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            model = getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")(config)
            for parameter in model.parameters():
                if parameter.ndim == 1:  # biases and norms away from 0 and 1
                    parameter.data.add_(torch.randn_like(parameter) * 0.1)
        return model

    return build


def tokens() -> Tokens:
    return np.random.default_rng(3).integers(4, 260, (2, LENGTH + STEPS))


def decoded(path: Path, inputs: Tokens) -> Logits:
    """Logits of the last positions, each made from the cache: (B, STEPS + 1, V)."""
    runtime = open_runtime(path)
    made = [runtime.prefill(inputs[:, :LENGTH].copy(), LENGTH + STEPS).copy()]
    made += [runtime.decode(one.copy()).copy() for one in inputs[:, LENGTH:].T]
    return np.stack(made, axis=1)


@torch.inference_mode()
def decoded_by_torch(model: Any, inputs: Tokens) -> Iterator[Logits]:
    given = torch.from_numpy(inputs)
    chunks = [given[:, :LENGTH], *given[:, LENGTH:].split(1, dim=1)]
    cache = None
    for chunk in chunks:
        out = model(input_ids=chunk, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        yield out.logits[:, -1].numpy()


def test_every_known_architecture_is_here() -> None:
    import transformers

    kinds = {getattr(transformers, f"{kind}Config").model_type for kind in FIRST}
    assert kinds == KNOWN.keys()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_float_export_computes_what_transformers_computes(workshop: Any, name: str) -> None:
    workshop.adopt(name, built(name))
    exported, model, inputs = workshop.export(None, "float", name), workshop.model(name), tokens()
    mask = np.ones_like(inputs)
    mask[1, 9:] = 0
    with torch.inference_mode():
        theirs = model(torch.from_numpy(inputs), torch.from_numpy(mask)).logits.numpy()
    ours = open_runtime(exported).logits(inputs, mask)
    seen = mask.astype(bool)
    assert np.abs(ours - theirs)[seen].max() < 2e-5 * theirs.std()
    stepwise = np.stack([*decoded_by_torch(model, inputs)], axis=1)
    assert np.abs(decoded(exported, inputs) - stepwise).max() < 2e-5 * theirs.std()


def pairs() -> Iterator[Any]:
    ways: tuple[tuple[str, Lowering], ...] = (
        ("w8a8", "integer"),
        ("w8a8", "nbits"),
        ("w8a16", "nbits"),
    )
    names = [*FIRST.values(), *ALONE]
    for name, (scheme, lowering) in zip(names, itertools.cycle(ways)):
        fitting = "w8a8-linear" if name.startswith("Gemma") else scheme
        yield pytest.param(name, fitting, lowering, id=f"{name}-{fitting}-{lowering}")
    yield pytest.param("Phi3", "w4a16-g32", "nbits", id="Phi3-w4a16-g32-nbits")


@pytest.mark.parametrize(("name", "scheme", "lowering"), [*pairs()])
def test_a_quantized_export_keeps_codes_and_logits(
    workshop: Any, name: str, scheme: str, lowering: Lowering
) -> None:
    """What differs is the rounding of inputs, in four layers a block; see ``test_lowerings``."""
    workshop.adopt(name, built(name))
    source = workshop.checkpoint(SCHEMES[scheme], name)
    exported, inputs = workshop.export(SCHEMES[scheme], lowering, name), tokens()
    compared = codes.compare(exported, source)
    assert compared.equal
    assert compared.tensors_compared == len(formats(workshop.model(name), SCHEMES[scheme]))
    theirs = open_runtime(source).logits(inputs, np.ones_like(inputs))[:, LENGTH - 1 :]
    noise = np.sqrt(np.mean((decoded(exported, inputs) - theirs) ** 2)) / theirs.std()
    assert noise < 0.03


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", FIRST.values(), ids=FIRST)
def test_block_by_block_is_byte_for_byte_what_the_whole_becomes(name: str, tmp_path: Path) -> None:
    source, ours, theirs = (tmp_path / part for part in ("float", "ours", "theirs"))
    built(name)().to(torch.bfloat16).save_pretrained(source)
    assert open_model(source).blocks
    scheme = SCHEMES["w8a8-linear" if name.startswith("Gemma") else "w8a8"]
    for folder in (ours, theirs):
        folder.mkdir()
    step = QuantizeStep(stage="quantize")
    quantize(source, Task(step, scheme, [], Parts(tmp_path / "parts", "")), ours)
    whole = float_class(source).from_pretrained(source, dtype=torch.float32)
    convert(prepare_qat(whole, scheme), theirs)
    assert files(ours) == files(theirs)


def operators(exported: Path) -> list[str]:
    return [node.op_type for node in ir.load(exported / MODEL_FILE).graph]


def test_layers_that_are_several_in_one_stay_one(workshop: Any) -> None:
    workshop.adopt("Phi3", built("Phi3"))
    drawn = operators(workshop.export(SCHEMES["w8a8"], "nbits", "Phi3"))
    # Attention, its output, gate with input, and what comes after, in two blocks; and the head.
    assert drawn.count("MatMulNBits") == 2 * 4 + 1


def test_attention_rotates_itself_where_it_can(workshop: Any) -> None:
    for name, nodes in {"Llama": 0, "Llama, heads of 24": 4, "SmolLM3, heads of 24": 2}.items():
        workshop.adopt(name, built(name))
        drawn = operators(workshop.export(None, "float", name))
        assert drawn.count("RotaryEmbedding") == nodes
