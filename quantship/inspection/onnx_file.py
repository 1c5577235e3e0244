"""Open an ONNX file without its weights, and say plainly what is wrong with one that is broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from quantship.errors import QuantshipError
from quantship.reporting.formatting import size

UNNAMED = "an unnamed tensor"


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that is whole.

    Args:
        path: The file.
        model: Its graph, functions inlined; tensors in external files are read when asked for.
        tensors: Every stored tensor by the name of its value, in all branches.
        external: Files beside it that hold tensors.
    """

    path: Path
    model: ir.Model
    tensors: dict[str, ir.TensorProtocol]
    external: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the file and of its external data."""
        return sum(file.stat().st_size for file in (self.path, *self.external))


def read(path: Path) -> OnnxFile:
    """Read the graph of an ONNX file and check that its external data is all there.

    Raises:
        QuantshipError: It is no ONNX file, or data that it refers to is missing or cut off.
    """
    try:
        model = ir.load(path)
    except OSError as error:
        raise QuantshipError(f"{path} cannot be read: {error}") from error
    except Exception as error:
        lines = str(error.__cause__ or error).splitlines()
        cause = lines[0] if lines else type(error).__name__
        raise QuantshipError(f"{path} is no ONNX file, or is cut off: {cause}") from error
    if not model.ir_version or not (len(model.graph) or model.graph.outputs):
        raise QuantshipError(f"{path} is no ONNX file: there is no graph in it")
    if model.functions:
        from onnx_ir.passes.common import InlinePass

        model = InlinePass()(model).model
    tensors = dict(_tensors(model))
    return OnnxFile(path, model, tensors, _external(path, tensors))


def graphs(model: ir.Model) -> list[ir.Graph]:
    """The main graph and all branches and loop bodies below it."""
    return [model.graph, *model.graph.subgraphs()]


def _tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    for graph in graphs(model):
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                yield name, value.const_value
    for node in model.graph.all_nodes():
        tensor = constant_of(node)
        if tensor is not None:
            yield node.outputs[0].name or UNNAMED, tensor


def constant_of(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor of a Constant node; None for other nodes and for short forms of constants."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    value = node.attributes.get("value")
    return None if value is None or value.type != ir.AttributeType.TENSOR else value.as_tensor()


def _external(path: Path, tensors: dict[str, ir.TensorProtocol]) -> tuple[Path, ...]:
    """The external files, each tensor of which lies within its file."""
    sizes: dict[Path, int] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        location = Path(tensor.location)
        if location.is_absolute() or ".." in location.parts:
            raise QuantshipError(
                f"the tensor '{name}' of {path} points at {location}, outside of the model's "
                "directory; ONNX Runtime does not follow that"
            )
        file = path.parent / location
        if file not in sizes:
            if not file.is_file():
                raise QuantshipError(
                    f"{path} keeps its weights in {location}, and there is no {file}; the two "
                    "files belong together"
                )
            sizes[file] = file.stat().st_size
        end = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
        if end > sizes[file]:
            raise QuantshipError(
                f"{file} is cut off: it holds {size(sizes[file])}, and '{name}' reaches to byte "
                f"{end:,} of at least as many"
            )
        if tensor.length is not None and tensor.length < tensor.nbytes:
            raise QuantshipError(
                f"the tensor '{name}' of {path} needs {tensor.nbytes:,} bytes, and its place in "
                f"{location} has {tensor.length:,}"
            )
    return tuple(sizes)
