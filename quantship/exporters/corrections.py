"""Where the model builder would draw another model than transformers runs.

onnxruntime-genai's builder reads numbers out of ``config.json``, and for some models misses one:
the epsilon of a norm, the kind of it, a window of attention, a scaling of rotary embeddings. Such a
graph runs, and is silently wrong. So these numbers are taken from the model itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantship.exporters.graph import Graph

if TYPE_CHECKING:
    from torch import Tensor, nn

ROTATION_MULTIPLE = 16
"""What the widths of a head and of its rotation must be multiples of for GroupQueryAttention to
rotate; other rotations get nodes of their own."""
OLMO_EPSILON = 1e-5
"""Written into the code of OlmoLayerNorm, which has no attribute for it."""


def align(config: Any, model: Any) -> None:
    """Say in the builder's copy of a configuration what it would look for in vain, or misread.

    Args:
        config: Configuration that the builder will read.
        model: The model that transformers makes of that configuration.
    """
    config.architectures = [type(model).__name__]
    if config.model_type == "gemma3_text":
        config.attn_logit_softcapping = None  # a word of its configuration that its code ignores
    windowed = getattr(config, "sliding_window", None) is not None
    if windowed and getattr(config, "layer_types", None) is None:
        config.layer_types = ["sliding_attention"] * config.num_hidden_layers
    rotation = dict(getattr(config, "rope_parameters", None) or {})
    if "full_attention" in rotation:  # Gemma 3 has two; the builder expects transformers 4's names
        config.rope_local_base_freq = rotation["sliding_attention"]["rope_theta"]
        rotation = dict(rotation["full_attention"])
    # Tables of sines come from the model (see Corrections): the builder need not know how they are
    # made, but that there are two, and where one ends.
    original = config.max_position_embeddings
    if rotation.get("rope_type") == "longrope":
        rotation["type"] = "longrope"
        original = rotation.get("original_max_position_embeddings") or original
    else:
        rotation["rope_type"] = "default"
    config.original_max_position_embeddings = original
    config.rope_parameters = rotation


@dataclass(frozen=True)
class Corrections:
    """Replacements for the builder's methods of the same names; ``builder`` is its ``self``.

    Args:
        graph: The graph under construction.
        model: The model that the builder walks, with its norms, without what is quantized.
        original: The builder's own methods.
    """

    graph: Graph
    model: nn.Module
    original: dict[str, Callable[..., Any]]

    def has_lm_head(self, builder: Any, module: Any) -> bool:
        """Whether a module is the head; the builder takes any layer as wide as the vocabulary."""
        return module is builder.weights.get_output_embeddings()

    def make_layernorm(
        self, builder: Any, layer_id: int, layernorm: Any, skip: bool, simple: bool, location: str
    ) -> None:
        """A norm, of its own kind and with its own epsilon."""
        del simple
        centred = "RMSNorm" not in type(layernorm).__name__
        builder.layernorm_attrs["epsilon"] = _epsilon(layernorm)
        own = self.original["make_layernorm"]
        own(builder, layer_id, layernorm, skip, not centred, location)

    def make_qk_norm(self, builder: Any, layer_id: int, attention: Any) -> None:
        """The norms of queries and keys."""
        builder.layernorm_attrs["epsilon"] = _epsilon(attention.q_norm)
        self.original["make_qk_norm"](builder, layer_id, attention)

    def make_attention_input_proj(
        self, builder: Any, layer_id: int, attention: Any, root_input: str, **kwargs: Any
    ) -> None:
        """Queries, keys and values, clipped where the model clips them."""
        builder.attention_attrs["scale"] = attention.scaling
        own = self.original["make_attention_input_proj"]
        own(builder, layer_id, attention, root_input, **kwargs)
        limit = getattr(self._config, "clip_qkv", None)
        if limit is None:
            return
        for path in ("q_path", "k_path", "v_path"):
            value = builder.attention_attrs[path]
            if value:
                bounds = [self.graph.constant("FLOAT", bound) for bound in (-limit, limit)]
                clipped = self.graph.node("Clip", [value, *bounds], f"{value}/clipped")
                builder.attention_attrs[path] = clipped

    def is_fused_rope_supported(self, builder: Any) -> bool:
        """Whether attention can rotate queries and keys itself."""
        widths = (builder.rope_attrs["rotary_embedding_dim"], builder.head_size)
        own = self.original["is_fused_rope_supported"]
        return not any(width % ROTATION_MULTIPLE for width in widths) and bool(own(builder))

    def is_packed_matmul_supported(self, builder: Any) -> bool:
        """Whether query, key and value may come out of one layer: they are rotated one by one."""
        split = builder.attention_attrs["q_norm"] and builder.attention_attrs["k_norm"]
        own = self.original["is_packed_matmul_supported"]
        return bool(own(builder)) and (split or builder.is_fused_rope_supported())

    def make_attention_qk_rope(self, builder: Any, layer_id: int, **kwargs: Any) -> tuple[str, str]:
        """The rotation of queries and keys, in the layers that have one."""
        rotates = self._rotates(layer_id)
        fused = rotates and builder.is_fused_rope_supported()
        builder.attention_attrs["use_rope_in_attn"] = fused
        if not rotates:
            return "", ""
        names: tuple[str, str] = self.original["make_attention_qk_rope"](
            builder, layer_id, **kwargs
        )
        return names

    def make_rotary_embedding_caches(self, builder: Any, **kwargs: Any) -> Any:
        """Tables of cosines and sines, as the model computes them."""
        local = "local" in kwargs.get("cos_cache_name", "")

        def tables() -> tuple[Tensor, Tensor]:
            return self._tables(builder.rope_attrs["cache_length"], local=local)

        builder.make_rotary_embedding_caches_from_scratch = tables
        return self.original["make_rotary_embedding_caches"](builder, **kwargs)

    @property
    def _config(self) -> Any:
        return self.model.config

    def _rotates(self, layer_id: int) -> bool:
        marks = getattr(self._config, "no_rope_layers", None)  # 1 where a layer does rotate
        return self._rotation() is not None and (not marks or bool(marks[layer_id]))

    def _rotation(self) -> Any:
        return getattr(self.model.base_model, "rotary_emb", None)

    def _tables(self, length: int, *, local: bool) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the first positions: (positions, half or all of the width)."""
        import torch

        # The model's own may have been made without its numbers.
        rotation = type(self._rotation())(self._config)
        kinds = () if "full_attention" not in self._config.rope_parameters else ("full_attention",)
        if kinds and local:
            kinds = ("sliding_attention",)
        with torch.inference_mode():
            cos, sin = rotation(torch.zeros(1), torch.arange(length)[None], *kinds)
        return cos[0].clone(), sin[0].clone()


def _epsilon(norm: Any) -> float:
    """What a norm adds to a variance."""
    for name in ("variance_epsilon", "eps"):
        if hasattr(norm, name):
            return float(getattr(norm, name))
    assert type(norm).__name__ == "OlmoLayerNorm"
    return OLMO_EPSILON


CORRECTED = (
    "has_lm_head",
    "make_layernorm",
    "make_qk_norm",
    "make_attention_input_proj",
    "is_fused_rope_supported",
    "is_packed_matmul_supported",
    "make_attention_qk_rope",
    "make_rotary_embedding_caches",
)
