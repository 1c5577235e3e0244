"""Which decoders onnxruntime-genai's model builder draws exactly, told from ``config.json`` alone.

An architecture that is not in the table goes another way; one that is may still have an option that
the builder overlooks, and then its graph would run and be silently wrong. Those are refused here,
before any work is done. Nothing heavy is imported: a recipe is checked by this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

KNOWN = {
    "ernie4_5": "Ernie4_5ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "granite": "GraniteForCausalLM",
    "granitemoehybrid": "GraniteMoeHybridForCausalLM",
    "hunyuan_v1_dense": "HunYuanDenseV1ForCausalLM",
    "lfm2": "Lfm2ForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "nemotron": "NemotronForCausalLM",
    "olmo": "OlmoForCausalLM",
    "phi": "PhiForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
"""Model type to architecture: the text models of the builder that transformers has as well."""
ACTIVATIONS = frozenset(
    ("silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "relu2")
)
"""Activation functions that the builder has operators for."""
HEAD_MULTIPLE = 8
"""What the width of an attention head must be a multiple of in onnxruntime's attention."""
SWIGLU_ALPHA = 1.702
"""Of GPT-OSS; the builder has it in its code."""
OVERLOOKED = {
    "gemma": ("use_bidirectional_attention",),
    "gemma2": ("use_bidirectional_attention",),
    "gemma3_text": ("use_bidirectional_attention",),
    "lfm2": ("conv_bias",),
    "nemotron": ("mlp_bias",),
    "phi": ("qk_layernorm",),
}
"""Options that change what a model computes, and that the builder does not look at."""


def knows(config: Mapping[str, Any]) -> bool:
    """Whether the model of a ``config.json`` is for the model builder.

    Args:
        config: Content of the file.
    """
    architecture = KNOWN.get(str(config.get("model_type")))
    return architecture is not None and architecture == _named(config, architecture)


def reject(config: Mapping[str, Any]) -> str | None:
    """Why the model builder cannot draw this model as it is; None when it can.

    Args:
        config: Content of ``config.json``.
    """
    return next(_reasons(config), None)


def _reasons(config: Mapping[str, Any]) -> Iterator[str]:
    kind = str(config.get("model_type"))
    if not knows(config):
        name = _named(config, kind)
        yield f"onnxruntime-genai's model builder does not know the architecture {name}"
        return
    width = _head_width(config)
    if width is not None and width % HEAD_MULTIPLE:
        yield (
            f"onnxruntime's attention takes heads of a multiple of {HEAD_MULTIPLE} features, and "
            f"the heads of this model have {width}"
        )
    for option in OVERLOOKED.get(kind, ()):
        if config.get(option):
            yield _without(kind, option, config[option])
    activation = config.get("hidden_activation") or config.get("hidden_act")
    own = kind == "gpt_oss"  # which has an activation of its own, whatever the file says
    if activation and not own and str(activation) not in ACTIVATIONS:
        yield _without(kind, "hidden_act", activation)
    if kind != "phi3" and _rope_types(config) & {"longrope", "su"}:
        yield (
            f"onnxruntime-genai's model builder knows longrope for Phi-3 alone, and this is a "
            f"{kind} with it"
        )
    if kind == "granitemoehybrid":
        yield from _hybrid(config)
    if kind == "gpt_oss":
        yield from _open(config)


def _open(config: Mapping[str, Any]) -> Iterator[str]:
    """GPT-OSS has options that the builder does not read: it knows the models published."""
    layers = _layers(config)
    windows = [layer == "sliding_attention" for layer in layers]
    if windows != [place % 2 == 0 for place in range(len(layers))]:
        yield _without("gpt_oss", "layer_types", layers)
    if config.get("swiglu_alpha", SWIGLU_ALPHA) != SWIGLU_ALPHA:
        yield _without("gpt_oss", "swiglu_alpha", config["swiglu_alpha"])


def _hybrid(config: Mapping[str, Any]) -> Iterator[str]:
    """Granite 4 has experts and state-space layers; some are without either."""
    if config.get("num_local_experts", 8):
        yield _without("granitemoehybrid", "num_local_experts", config.get("num_local_experts", 8))
    layers = _layers(config) or ["mamba"]
    if any(layer not in ("attention", "full_attention") for layer in layers):
        yield _without("granitemoehybrid", "layer_types", "mamba")


def _without(kind: str, option: str, value: object) -> str:
    return (
        f"onnxruntime-genai's model builder draws {kind} models as if '{option}' were not "
        f"{value!r}, which would be another model"
    )


def _named(config: Mapping[str, Any], default: str) -> str:
    """The architecture that the file names."""
    listed = config.get("architectures")
    return str(listed[0]) if isinstance(listed, list) and listed else default


def _layers(config: Mapping[str, Any]) -> list[Any]:
    """What the layers are, one by one, where the file says so."""
    listed = config.get("layer_types")
    return listed if isinstance(listed, list) else []


def _head_width(config: Mapping[str, Any]) -> int | None:
    """Features of an attention head, where the file says so."""
    width, hidden, heads = (
        config.get(name) for name in ("head_dim", "hidden_size", "num_attention_heads")
    )
    if isinstance(width, int):
        return width
    if isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
        return hidden // heads
    return None


def _rope_types(config: Mapping[str, Any]) -> set[str]:
    """Kinds of rotary embeddings, in the words of transformers 4 and 5."""
    found: set[str] = set()
    for key in ("rope_parameters", "rope_scaling"):
        rope = config.get(key)
        whole = rope if isinstance(rope, Mapping) else {}
        for one in (whole, *(part for part in whole.values() if isinstance(part, Mapping))):
            found |= {str(one[name]) for name in ("rope_type", "type") if name in one}
    return found
