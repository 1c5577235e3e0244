"""Where the model builder is made to emit a checkpoint's integers instead of float weights.

onnxruntime-genai's builder emits every linear layer through ``make_matmul`` and
``make_packed_matmul`` and the embedding through ``make_embedding_lookup``, and asks
``is_qkv_projection_packable`` which of the first two it shall be. For as long as ``installed``
lasts, these look for codes on the module at hand and lower them; a module without codes goes the
builder's own way.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantship.errors import QuantshipError
from quantship.exporters import inputs, integer, nbits
from quantship.exporters.graph import BuilderDrawing, Graph
from quantship.exporters.lowering import Form, Lowering, arithmetic, form_of
from quantship.quant.tensors import StoredCodes

if TYPE_CHECKING:
    from torch import nn

METADATA = "quantship"
"""Key of the model's metadata that holds what quantship knows about it, as JSON."""
CODES = "quantship_codes"
"""Attribute that carries a module's codes to where the builder emits it."""
HEAD_MULTIPLE = 16
"""What the width of an attention head must be a multiple of in GroupQueryAttention with rotary
embeddings; other models are built, and fail in their first run."""


@dataclass(frozen=True)
class Hooks:
    """Replacements for the builder's methods of the same names; ``builder`` is its ``self``.

    Args:
        graph: The graph under construction.
        lowering: Form of the quantized layers.
        load: Makes the model that the builder walks; None: the builder's own way.
        metadata: JSON values to store in the model beside the places of its codes.
        original: The builder's own methods.
    """

    graph: Graph
    lowering: Lowering
    load: Callable[[], nn.Module] | None
    metadata: dict[str, Any]
    original: dict[str, Callable[..., Any]]

    def load_weights(self, builder: Any, input_path: str) -> Any:
        """The model to walk."""
        if builder.head_size % HEAD_MULTIPLE:
            raise QuantshipError(
                f"onnxruntime's attention takes heads of a multiple of {HEAD_MULTIPLE} features, "
                f"and the heads of this model have {builder.head_size}"
            )
        self.graph.drawing = BuilderDrawing(builder)
        own = self.original["load_weights"]
        model: Any = self.load() if self.load else own(builder, input_path)
        # The builder rounds the factor of Gemma's embedding to two digits.
        exact = getattr(model.get_input_embeddings(), "scalar_embed_scale", None)
        if exact is not None:
            builder.embed_attrs["scale"] = float(exact)
        return model

    def make_matmul(
        self, builder: Any, matmul: Any, basename: str, root_input: str, **kwargs: Any
    ) -> Any:
        """One linear layer."""
        if self._emitted((matmul,), basename, root_input, kwargs):
            return basename
        if matmul.weight.is_meta:
            raise QuantshipError(
                f"onnxruntime-genai's model builder makes '{basename}' of a part of a quantized "
                "layer, and codes are not taken apart; leave such layers in float with an override"
            )
        return self.original["make_matmul"](builder, matmul, basename, root_input, **kwargs)

    def make_packed_matmul(
        self, builder: Any, q: Any, k: Any, v: Any, basename: str, root_input: str, **kwargs: Any
    ) -> Any:
        """Query, key and value of one attention as one layer."""
        if self._emitted((q, k, v), basename, root_input, kwargs):
            return basename
        return self.original["make_packed_matmul"](builder, q, k, v, basename, root_input, **kwargs)

    def is_qkv_projection_packable(self, builder: Any, layer_id: int, attention: Any) -> Any:
        """Whether query, key and value lie in one layer: where their formats are the same."""
        parts = [
            codes_of(module) for module in (attention.q_proj, attention.k_proj, attention.v_proj)
        ]
        alike = len({None if part is None else self._layout(part) for part in parts}) == 1
        ask = self.original["is_qkv_projection_packable"]
        packable = alike and ask(builder, layer_id, attention)
        if packable:  # the builder would go on feeding attention with the last unpacked layer's
            builder.attention_attrs.update(k_path="", v_path="")
        return packable

    def make_embedding_lookup(
        self, builder: Any, embedding: Any, basename: str, lm_head: Any
    ) -> Any:
        """The token embedding; a tied one reads the head's codes."""
        part = codes_of(builder.weights.get_input_embeddings())
        if part is None:
            return self.original["make_embedding_lookup"](builder, embedding, basename, lm_head)
        if codes_of(lm_head) is part:
            stored = nbits.names(part, "/lm_head/MatMul")
        else:
            stored = nbits.store(self.graph, [part], basename)
        return nbits.embedding(self.graph, part, stored, basename, builder.input_names["input_ids"])

    def save_model(self, builder: Any, out_dir: str) -> None:
        """Note what is where, then save."""
        noted = {
            **self.metadata,
            "activation_arithmetic": self.graph.describe_arithmetic(),
            "places": {name: dataclasses.asdict(at) for name, at in self.graph.places.items()},
        }
        builder.model.metadata_props[METADATA] = json.dumps(noted)
        self.original["save_model"](builder, out_dir)

    def _emitted(
        self, modules: tuple[Any, ...], name: str, root_input: str, kwargs: dict[str, Any]
    ) -> bool:
        parts = [part for part in map(codes_of, modules) if part is not None]
        if len(parts) < len(modules):
            return False
        output = "logits" if kwargs.get("logits") else f"{name}/output_0"
        form = self._form(parts[0])
        matmul = integer.matmul if form == "integer" else nbits.matmul
        matmul(self.graph, parts, name, root_input, output)
        self.graph.arithmetic[arithmetic(form, parts[0].activation)] += len(parts)
        width = sum(part.codes.codes_OI.shape[0] for part in parts)
        self.graph.declare(output, width, kwargs.get("seq_dim", "sequence_length"))
        return True

    def _form(self, part: StoredCodes) -> Form:
        form = form_of(self.lowering, part.activation, grouped=part.codes.scale_OG.shape[1] > 1)
        if form == "nbits" and part.input_grid is not None:
            raise QuantshipError(
                f"the layer '{part.name}' was trained with a static input range, which the "
                f"lowering '{self.lowering}' would not use; use integer"
            )
        return form

    def _layout(self, part: StoredCodes) -> tuple[object, ...]:
        """What layers that are one in the graph have in common."""
        if self._form(part) == "integer":
            return "integer", inputs.rounding(part)
        return "nbits", nbits.layout(part), part.activation


HOOKED = (
    "load_weights",
    "make_matmul",
    "make_packed_matmul",
    "is_qkv_projection_packable",
    "make_embedding_lookup",
    "save_model",
)


@contextlib.contextmanager
def installed(
    model_class: Any,
    graph: Graph,
    lowering: Lowering,
    load: Callable[[], nn.Module] | None,
    metadata: dict[str, Any],
) -> Iterator[None]:
    """Put hooks in place of the methods of the builder's ``Model``, and take them out again."""
    original = {name: getattr(model_class, name) for name in HOOKED}
    hooks = Hooks(graph, lowering, load, metadata, original)
    try:
        for name in HOOKED:
            setattr(model_class, name, _as_method(getattr(hooks, name)))
        yield
    finally:
        for name, function in original.items():
            setattr(model_class, name, function)


def codes_of(module: object) -> StoredCodes | None:
    """The codes that a module carries to the builder, if it is quantized."""
    part: StoredCodes | None = getattr(module, CODES, None)
    return part


def _as_method(hook: Callable[..., Any]) -> Callable[..., Any]:
    def method(builder: Any, *args: Any, **kwargs: Any) -> Any:
        return hook(builder, *args, **kwargs)

    return method
