"""What a path holds: a checkpoint of PyTorch, or an ONNX model, and what it says about itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantship.errors import QuantshipError, UsageError
from quantship.validation.report import Kind

if TYPE_CHECKING:
    import onnx_ir as ir

    from quantship.quant.tensors import StoredCodes

FLOAT_ARITHMETIC = "float32"
UNSTATED = "not stated; some layers quantize their inputs"
ROUNDING_OPERATORS = {
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QuantizeLinear",
}
"""Operators that round what flows through a graph, or may do so."""


@dataclass(frozen=True)
class Subject:
    """One of the two models.

    Args:
        label: ``A`` or ``B``.
        path: Its directory.
        kind: What runs it.
        model_file: Its ONNX file; None for a checkpoint.
        config: ``config.json`` of a checkpoint; empty for ONNX.
    """

    label: str
    path: Path
    kind: Kind
    model_file: Path | None
    config: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def model(self) -> ir.Model:
        """The ONNX model; its external data are not read before they are asked for."""
        import onnx_ir as ir

        assert self.model_file is not None
        try:
            return ir.load(self.model_file)
        except Exception as error:  # protobuf's and onnx-ir's own are many
            raise QuantshipError(f"{self.model_file} is no readable ONNX model: {error}") from error

    @cached_property
    def described(self) -> dict[str, Any]:
        """What quantship wrote into an ONNX model's metadata; empty for models from elsewhere."""
        from quantship.exporters import codes

        return codes.metadata(self.model) if self.kind == "onnx" else {}

    @cached_property
    def stored(self) -> dict[str, StoredCodes]:
        """Quantized matrices of a torchao checkpoint, by module; none of other models."""
        from quantship.quant import checkpoint

        return checkpoint.load_codes(self.path) if self.kind == "torchao" else {}

    @property
    def has_codes(self) -> bool:
        """Whether it holds quantized matrices with names."""
        return bool(self.stored or self.described.get("places"))

    @cached_property
    def arithmetic(self) -> str:
        """What it does to the inputs of its layers when it runs."""
        if self.kind == "onnx":
            stated = self.described.get("activation_arithmetic")
            if stated is not None:
                return str(stated)
            operators = {node.op_type for node in self.model.graph.all_nodes()}
            return UNSTATED if operators & ROUNDING_OPERATORS else FLOAT_ARITHMETIC
        return _trained_arithmetic(self.stored)

    @cached_property
    def generates(self) -> bool:
        """Whether it continues a text token by token, with a KV cache."""
        if self.model_file is not None:
            names = [str(value.name) for value in self.model.graph.inputs]
            keeps = any(name.startswith("past_key_values.") for name in names)
            return keeps and bool(self._genai) and self.model_file.name == "model.onnx"
        from quantship.quant.loading import model_class

        can: bool = model_class(self.path).can_generate()
        return can

    @cached_property
    def fewest_bits(self) -> int | None:
        """Bits of the smallest codes that it holds, as far as a file says; None: no codes."""
        bits = [part.bits for part in self.stored.values()]
        bits += [place["container_bits"] for place in self.described.get("places", {}).values()]
        return min(bits, default=None)

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer lies beside it."""
        return any((self.path / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))

    @property
    def vocab_size(self) -> int | None:
        """Width of its logits, where a file says so."""
        found = (self.config or self._genai.get("model", {})).get("vocab_size")
        return None if found is None else int(found)

    @property
    def max_tokens(self) -> int | None:
        """Longest sequence that it takes, where a file says so."""
        model = self._genai.get("model", {})
        named = (self.config.get(key) for key in ("max_position_embeddings", "n_positions"))
        found = next(filter(None, (*named, model.get("context_length"))), None)
        return None if found is None else int(found)

    @property
    def _genai(self) -> dict[str, Any]:
        path = self.path / "genai_config.json"
        if self.kind != "onnx" or not path.is_file():
            return {}
        config: dict[str, Any] = _json(path)
        return config


def identify(label: str, path: Path) -> Subject:
    """What a path holds.

    Raises:
        UsageError: It holds no model that can be compared.
    """
    if not path.exists():
        raise UsageError(f"{label}: {path} does not exist")
    if path.suffix == ".onnx":
        return Subject(label, path.parent, "onnx", path)
    if (path / "model.onnx").is_file():
        return Subject(label, path, "onnx", path / "model.onnx")
    if (path / "config.json").is_file() and list(path.glob("*.safetensors")):
        config = _json(path / "config.json")
        quantized = config.get("quantization_config", {}).get("quant_method") == "torchao"
        return Subject(label, path, "torchao" if quantized else "torch", None, config)
    graphs = sorted(path.glob("*.onnx")) if path.is_dir() else []
    if len(graphs) == 1:
        return Subject(label, path, "onnx", graphs[0])
    if graphs:
        names = ", ".join(graph.name for graph in graphs)
        raise UsageError(f"{label}: {path} holds several ONNX models; name one of {names}")
    raise UsageError(
        f"{label}: {path} holds no model; give a directory with config.json and safetensors, a "
        "directory with model.onnx, or an .onnx file"
    )


def _trained_arithmetic(stored: dict[str, StoredCodes]) -> str:
    from quantship.exporters.lowering import arithmetic

    activations = [part.activation for part in stored.values() if part.activation is not None]
    if not activations:
        return FLOAT_ARITHMETIC
    kinds = {arithmetic("integer", activation) for activation in activations}
    return "; ".join(sorted(kinds))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise QuantshipError(f"{path} is no JSON: {error}") from error
