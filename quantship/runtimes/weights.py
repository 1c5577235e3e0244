"""How many bytes of a model's files one decoded token must read: the floor of its speed.

That is every weight, except tables of which it reads a row: a token embedding with a matrix of its
own, positions, tables of sines. A tied embedding is read whole, by the output head. Not counted is
the KV cache, which comes on top and grows with the text; counted is what only one branch of an
``If`` reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantship import header
from quantship.runtimes.base import is_onnx

if TYPE_CHECKING:
    import onnx_ir as ir

TABLES = {
    "Gather": (0,),
    "GatherBlockQuantized": (0, 2, 3),
    "GroupQueryAttention": (7, 8),
    "RotaryEmbedding": (2, 3),
}
"""Inputs of operators that read a few rows of a constant, by operator."""
PASSING = {"Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators that hand a constant on."""


def bytes_per_token(path: Path) -> int | None:
    """Bytes that one token reads of the weights of a directory, whatever the batch.

    Args:
        path: Directory with ``model.onnx``, or a Hugging Face checkpoint in safetensors.

    Returns:
        None where the directory holds neither.
    """
    if is_onnx(path):
        return _of_graph(path / "model.onnx")
    files = sorted(path.glob("*.safetensors"))
    return _of_checkpoint(path, files) if files else None


def _of_graph(file: Path) -> int:
    import onnx_ir as ir

    constants = [value for graph in ir.load(file).graphs() for value in graph.initializers.values()]
    return sum(
        value.const_value.nbytes
        for value in constants
        if value.const_value is not None and not _is_table(value)
    )


def _is_table(value: ir.Value) -> bool:
    """Whether all that reads a constant reads rows of it."""
    uses = list(value.uses())
    return bool(uses) and all(
        place in TABLES.get(node.op_type, ())
        or (node.op_type in PASSING and _is_table(node.outputs[0]))
        for node, place in uses
    )


def _of_checkpoint(path: Path, files: list[Path]) -> int:
    tables = _tables(path)
    return sum(
        size
        for file in files
        for name, size in _sizes(file).items()
        if name.rpartition(".")[0] not in tables
    )


def _tables(path: Path) -> set[str]:
    """Names of the modules of a checkpoint's model that look rows up and do nothing else."""
    import torch
    from torch import nn

    from quantship.quant.layers import ends, is_tied
    from quantship.quant.loading import model_class

    auto = model_class(path)
    config: Any = auto.config_class.from_pretrained(path)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model = auto._from_config(config)
    head = ends(model)[0] if is_tied(model) else None
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and module is not head
    }


def _sizes(file: Path) -> dict[str, int]:
    """Bytes of each tensor of a safetensors file, from its header alone."""
    entries, _ = header.read(file)
    entries.pop(header.METADATA, None)
    ends = {name: entry["data_offsets"] for name, entry in entries.items()}
    return {name: end - begin for name, (begin, end) in ends.items()}
