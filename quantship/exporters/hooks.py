"""Where the model builder is made to emit a checkpoint's integers instead of float weights.

onnxruntime-genai's builder emits every linear layer through ``make_matmul`` and
``make_packed_matmul`` and the embedding through ``make_embedding_lookup``, and asks
``is_qkv_projection_packable`` which of the first two it shall be. For as long as ``installed``
lasts, these look for codes on the module at hand and lower them; a module without codes goes the
builder's own way. A layer that is several in one, as Phi-3's, the builder takes apart: its codes
stay together, and its output is taken apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import onnx_ir as ir

from quantship.errors import QuantshipError
from quantship.exporters import clients, hybrid, inputs, interface, layers, nbits, qdq, rotation
from quantship.exporters.corrections import CORRECTED, Corrections
from quantship.exporters.graph import BuilderDrawing, Graph
from quantship.exporters.lowering import Lowering
from quantship.quant.tensors import StoredCodes
from quantship.runtimes.built_for import METADATA as METADATA

if TYPE_CHECKING:
    from torch import nn

CODES = "quantship_codes"
"""Attribute that carries a module's codes to where the builder emits it."""
HEAD = "/lm_head/MatMul"
"""Name that the builder gives to the output head's layer."""
ROWS = "quantship_rows"
"""Attribute that says which rows of another layer's codes a module stands for."""


class Rows(NamedTuple):
    """Some output features of a layer that is several in one."""

    part: StoredCodes
    start: int
    stop: int


@dataclass(frozen=True)
class Hooks:
    """Replacements for the builder's methods of the same names; ``builder`` is its ``self``.

    Args:
        graph: The graph under construction.
        lowering: Form of the quantized layers.
        model: The model that the builder walks.
        metadata: JSON values to store in the model beside the places of its codes.
        original: The builder's own methods.
    """

    graph: Graph
    lowering: Lowering
    model: nn.Module
    metadata: dict[str, Any]
    original: dict[str, Callable[..., Any]]

    def load_weights(self, builder: Any, input_path: str) -> Any:
        """The model to walk."""
        del input_path
        self.graph.drawing = BuilderDrawing(builder)
        model: Any = self.model
        # The builder rounds the factor of Gemma's embedding to two digits.
        exact = getattr(model.get_input_embeddings(), "scalar_embed_scale", None)
        if exact is not None:
            builder.embed_attrs["scale"] = float(exact)
        return model

    def make_matmul(
        self, builder: Any, matmul: Any, basename: str, root_input: str, **kwargs: Any
    ) -> Any:
        """One linear layer; the head multiplies as many of the last positions as are asked for."""
        if kwargs.get("logits"):
            root_input = self._kept(root_input, builder.hidden_size)
        if self._emitted((matmul,), basename, root_input, kwargs):
            return basename
        rows = rows_of(matmul)
        if rows is not None:
            self._emit_rows(rows, basename, root_input, kwargs)
            return basename
        if matmul.weight.is_meta:
            raise QuantshipError(
                f"onnxruntime-genai's model builder makes '{basename}' of a part of a quantized "
                "layer that quantship does not know; leave such layers in float with an override"
            )
        return self.original["make_matmul"](builder, matmul, basename, root_input, **kwargs)

    def make_packed_matmul(
        self, builder: Any, q: Any, k: Any, v: Any, basename: str, root_input: str, **kwargs: Any
    ) -> Any:
        """Query, key and value of one attention as one layer."""
        if self._emitted((q, k, v), basename, root_input, kwargs):
            return basename
        rows = rows_of(q)
        if rows is not None:  # the three are all of one layer, in this order
            self._emit((rows.part,), basename, root_input, kwargs)
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

    def make_attention_unpacked(
        self, builder: Any, layer_id: int, attention: Any, root_input: str, **kwargs: Any
    ) -> None:
        """Query, key and value out of a layer that is all three."""
        own = self.original["make_attention_unpacked"]
        own(builder, layer_id, attention, root_input, **kwargs)
        whole = getattr(attention, "qkv_proj", None) or getattr(attention, "query_key_value", None)
        if whole is not None:
            _share(whole, attention.q_proj, attention.k_proj, attention.v_proj)

    def make_mlp_unpacked(self, builder: Any, layer_id: int, mlp: Any, root_input: str) -> None:
        """Gate and input out of a layer that is both."""
        self.original["make_mlp_unpacked"](builder, layer_id, mlp, root_input)
        whole = getattr(mlp, "gate_up_proj", None) or getattr(mlp, "dense_h_to_4h", None)
        if whole is not None:
            _share(whole, mlp.gate_proj, mlp.up_proj)

    def make_embedding_lookup(
        self, builder: Any, embedding: Any, basename: str, lm_head: Any
    ) -> Any:
        """The token embedding; a tied one reads the head's codes."""
        part = codes_of(builder.weights.get_input_embeddings())
        if part is None:
            return self.original["make_embedding_lookup"](builder, embedding, basename, lm_head)
        ids = builder.input_names["input_ids"]
        shared = HEAD if codes_of(lm_head) is part else None
        return layers.embedding(self.graph, self.lowering, part, basename, ids, shared=shared)

    def save_model(self, builder: Any, out_dir: str) -> None:
        """Note what is where, then save."""
        interface.refuse_left_padding(builder.model.graph)
        interface.ask_for_logits(builder.model.graph)
        rotation.compute_tables(builder.model.graph, self.model)
        if self.lowering == "hybrid":
            hybrid.branch(builder.model, self.graph)
        noted = {
            **self.metadata,
            "activation_arithmetic": self.graph.describe_arithmetic(),
            "signed_weights": self.graph.signed_weights,
            "places": {name: dataclasses.asdict(at) for name, at in self.graph.places.items()},
        }
        builder.model.metadata_props[METADATA] = json.dumps(noted)
        interface.declare_cache(builder.model.graph, builder.head_size)
        builder.model.graph.sort()
        builder.stamp_build_metadata(builder.model)
        path = Path(out_dir) / builder.filename
        # Shapes stay in the file: where a branch reads them, onnxruntime looks nowhere else.
        ir.save(builder.model, path, external_data=clients.DATA_FILE, size_threshold_bytes=1024)

    def _kept(self, hidden: str, width: int) -> str:
        """The last hidden states, as many as the optional input says; all of them for none."""
        last = self.graph.node("Neg", [interface.NUM_LOGITS], "/lm_head/first")
        bounds = [self.graph.constant("INT64", [at]) for at in (interface.END, 1)]
        kept = self.graph.node("Slice", [hidden, last, *bounds], "/lm_head/kept")
        self.graph.declare(kept, width, "num_logits")
        return kept

    def _emitted(
        self, modules: tuple[Any, ...], name: str, root_input: str, kwargs: dict[str, Any]
    ) -> bool:
        parts = [part for part in map(codes_of, modules) if part is not None]
        if len(parts) < len(modules):
            return False
        self._emit(tuple(parts), name, root_input, kwargs)
        return True

    def _emit_rows(self, rows: Rows, name: str, root_input: str, kwargs: dict[str, Any]) -> None:
        """The whole layer, once, and some of its output."""
        folder = name.rsplit("/", 2)[0]
        whole = f"{folder}/{rows.part.name.rpartition('.')[2]}/MatMul"
        if rows.part.name not in self.graph.places:
            self._emit((rows.part,), whole, root_input, kwargs)
        bounds = [self.graph.constant("INT64", [at]) for at in (rows.start, rows.stop, -1)]
        output = self.graph.node("Slice", [f"{whole}/output_0", *bounds], f"{name}/output_0")
        self.graph.declare(output, rows.stop - rows.start, "sequence_length")

    def _emit(
        self, parts: tuple[StoredCodes, ...], name: str, root_input: str, kwargs: dict[str, Any]
    ) -> None:
        output = "logits" if kwargs.get("logits") else f"{name}/output_0"
        layers.matmul(self.graph, self.lowering, list(parts), name, root_input, output)
        width = sum(part.codes.codes_OI.shape[0] for part in parts)
        self.graph.declare(output, width, kwargs.get("seq_dim", "sequence_length"))

    def _layout(self, part: StoredCodes) -> tuple[object, ...]:
        """What layers that are one in the graph have in common."""
        form = layers.form_for(self.lowering, part)
        if form == "integer":
            return form, inputs.rounding(part)
        if form == "qdq":
            return form, qdq.layout(part, self.graph.target), part.activation
        return "nbits", nbits.layout(self.graph, part), part.activation


HOOKED = (
    "load_weights",
    "make_matmul",
    "make_packed_matmul",
    "is_qkv_projection_packable",
    "make_attention_unpacked",
    "make_mlp_unpacked",
    "make_embedding_lookup",
    "save_model",
)
REPLACED = (*HOOKED, *CORRECTED)
"""All methods of the builder that are not its own while it works for quantship."""


@contextlib.contextmanager
def installed(
    model_class: Any,
    graph: Graph,
    lowering: Lowering,
    model: nn.Module,
    metadata: dict[str, Any],
) -> Iterator[None]:
    """Put hooks in place of the methods of the builder's ``Model``, and take them out again."""
    original = {name: getattr(model_class, name) for name in REPLACED}
    hooks = Hooks(graph, lowering, model, metadata, original)
    corrections = Corrections(graph, model, original)
    try:
        for name in HOOKED:
            setattr(model_class, name, _as_method(getattr(hooks, name)))
        for name in CORRECTED:
            setattr(model_class, name, _as_method(getattr(corrections, name)))
        yield
    finally:
        for name, function in original.items():
            setattr(model_class, name, function)


def codes_of(module: object) -> StoredCodes | None:
    """The codes that a module carries to the builder, if it is quantized."""
    part: StoredCodes | None = getattr(module, CODES, None)
    return part


def rows_of(module: object) -> Rows | None:
    """The rows of another layer's codes that a module stands for, if that layer is quantized."""
    rows: Rows | None = getattr(module, ROWS, None)
    return rows


def _share(whole: Any, *modules: Any) -> None:
    """Note which rows of a layer's codes each module stands for, one below the other."""
    part = codes_of(whole)
    if part is None:
        return
    row = 0
    for module in modules:
        num_rows = module.weight.shape[0]
        setattr(module, ROWS, Rows(part, row, row + num_rows))
        row += num_rows
    assert row == part.codes.codes_OI.shape[0]


def _as_method(hook: Callable[..., Any]) -> Callable[..., Any]:
    def method(builder: Any, *args: Any, **kwargs: Any) -> Any:
        return hook(builder, *args, **kwargs)

    return method
