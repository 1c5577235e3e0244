from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from quantship.exporters.architectures import ACTIVATIONS, KNOWN, knows, reject

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_attention_heads": 4,
    "hidden_act": "silu",
}
HYBRID = {"model_type": "granitemoehybrid", "num_local_experts": 0, "layer_types": ["attention"]}


def builder_source() -> str:
    import onnxruntime_genai

    return (Path(onnxruntime_genai.__file__).parent / "models" / "builder.py").read_text()


def test_what_is_known_is_known_to_transformers_and_to_the_builder() -> None:
    source = builder_source()
    for kind, architecture in KNOWN.items():
        assert MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind] == architecture
        assert f'"{architecture}"' in source


def test_activations_are_those_of_the_builder() -> None:
    import onnxruntime_genai

    base = Path(onnxruntime_genai.__file__).parent / "models" / "builders" / "base.py"
    body = base.read_text().split("def make_activation(")[1].split("def ")[0]
    assert all(f'"{name}"' in body for name in ACTIVATIONS)


@pytest.mark.parametrize(
    "config",
    [
        LLAMA,
        {"model_type": "llama"},
        {**LLAMA, "head_dim": 24, "hidden_size": 100},
        {**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {**LLAMA, "rope_scaling": None, "qk_layernorm": True},
        {"model_type": "phi3", "rope_scaling": {"type": "longrope"}},
        {"model_type": "gemma", "hidden_act": "gelu", "hidden_activation": None},
        {"model_type": "gemma3_text", "attn_logit_softcapping": 50.0},
        {"model_type": "gpt_oss", "layer_types": ["sliding_attention", "full_attention"]},
        HYBRID,
        {**HYBRID, "layer_types": ["full_attention"] * 2, "num_experts_per_tok": 2},
    ],
)
def test_what_the_builder_draws_exactly_is_not_rejected(config: dict[str, Any]) -> None:
    assert knows(config)
    assert reject(config) is None


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"model_type": "bert"}, "bert"),
        ({**LLAMA, "architectures": ["LlamaForSequenceClassification"]}, "SequenceClassification"),
        ({"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}, "Gemma3"),
        ({}, "None"),
    ],
)
def test_what_the_builder_does_not_know_is_named(config: dict[str, Any], name: str) -> None:
    assert not knows(config)
    reason = reject(config)
    assert reason is not None
    assert "does not know the architecture" in reason
    assert name in reason


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**LLAMA, "num_attention_heads": 16}, ["multiple of 8", "have 4"]),
        ({**LLAMA, "head_dim": 20}, ["multiple of 8", "have 20"]),
        ({**LLAMA, "hidden_act": "quick_gelu"}, ["hidden_act", "quick_gelu"]),
        ({**LLAMA, "rope_scaling": {"type": "longrope"}}, ["longrope", "llama"]),
        ({**LLAMA, "rope_parameters": {"rope_type": "longrope"}}, ["longrope", "llama"]),
        (
            {
                "model_type": "gemma3_text",
                "rope_parameters": {"full_attention": {"rope_type": "longrope"}},
            },
            ["longrope"],
        ),
        ({"model_type": "phi", "qk_layernorm": True}, ["phi", "qk_layernorm"]),
        ({"model_type": "nemotron", "mlp_bias": True}, ["nemotron", "mlp_bias"]),
        ({"model_type": "lfm2", "conv_bias": True}, ["lfm2", "conv_bias"]),
        ({"model_type": "gpt_oss", "swiglu_alpha": 1.0}, ["swiglu_alpha", "1.0"]),
        (
            {"model_type": "gemma3_text", "use_bidirectional_attention": True},
            ["use_bidirectional_attention"],
        ),
        ({**HYBRID, "num_local_experts": 4}, ["num_local_experts", "4"]),
        ({"model_type": "granitemoehybrid"}, ["num_local_experts"]),
        ({**HYBRID, "layer_types": ["mamba", "attention"]}, ["layer_types", "mamba"]),
        (
            {"model_type": "gpt_oss", "layer_types": ["full_attention", "sliding_attention"]},
            ["layer_types"],
        ),
    ],
)
def test_what_the_builder_would_overlook_is_refused_with_the_reason(
    config: dict[str, Any], words: list[str]
) -> None:
    assert knows(config)
    reason = reject(config)
    assert reason is not None
    assert all(word in reason for word in words), reason


@pytest.mark.parametrize("junk", [None, "x", 0, -1, [], {}, [None], {"a": "b"}, 1.5])
def test_no_content_of_a_key_makes_it_fail(junk: object) -> None:
    keys = ("architectures", "hidden_size", "num_attention_heads", "head_dim", "rope_parameters")
    for kind in KNOWN:
        for key in (*keys, "rope_scaling", "layer_types", "hidden_act", "num_local_experts"):
            reason = reject({"model_type": kind, key: junk})
            assert reason is None or isinstance(reason, str)


def test_nothing_heavy_is_imported() -> None:
    program = (
        "import sys; import quantship.exporters.architectures; "
        "sys.exit(bool({'torch', 'transformers', 'onnx_ir', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
