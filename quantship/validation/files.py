"""Files before anything reads them: present, and as long as the graph says.

onnxruntime crashes on external data that are too short, and a file of another model in their place
reads as garbage: so every tensor's bytes are counted first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from quantship.artifact import digest_file
from quantship.progress import track
from quantship.validation.report import FileFacts
from quantship.validation.subjects import Subject

INDEX = "model.safetensors.index.json"


def problems(subject: Subject) -> list[str]:
    """What is wrong with the files of a model, before its numbers are read."""
    if subject.model_file is None:
        return _safetensors_problems(subject.path)
    found: dict[str, None] = {}
    for tensor in _external(subject.model):
        problem = _external_problem(tensor)
        if problem is not None:
            found.setdefault(problem)
    return list(found)


def facts(subject: Subject) -> tuple[FileFacts, ...]:
    """Weights and graph: sizes and digests. Files that are missing are left out."""
    if subject.model_file is None:
        paths = sorted(subject.path.glob("*.safetensors"))
    else:
        external = {Path(one.path) for one in _external(subject.model) if not _leads_away(one)}
        paths = [subject.model_file, *sorted(path for path in external if path.is_file())]
    return tuple(
        FileFacts(name=path.name, size_bytes=path.stat().st_size, sha256=digest_file(path))
        for path in track(paths, f"{subject.label}: digests", len(paths))
    )


def _external(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value
    for node in model.graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR and isinstance(
                attribute.value, ir.ExternalTensor
            ):
                yield attribute.value


def _leads_away(tensor: ir.ExternalTensor) -> bool:
    location = Path(tensor.location)
    return location.is_absolute() or ".." in location.parts


def _external_problem(tensor: ir.ExternalTensor) -> str | None:
    path, name = Path(tensor.path), tensor.name
    if _leads_away(tensor):
        return f"'{name}' points at {tensor.location}, outside of the model's directory"
    if not path.is_file():
        return f"the external data file {tensor.location} is missing"
    size, offset = path.stat().st_size, tensor.offset or 0
    length = tensor.nbytes if tensor.length is None else tensor.length
    if length != tensor.nbytes:
        return (
            f"'{name}' is {tensor.dtype.name}{list(tensor.shape.numpy())}, which takes "
            f"{tensor.nbytes:,} bytes, and the graph says {length:,}"
        )
    if offset + length > size:
        return (
            f"{tensor.location} is truncated: it has {size:,} bytes, and '{name}' ends at byte "
            f"{offset + length:,}"
        )
    return None


def _safetensors_problems(path: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    found = []
    files = {file.name for file in path.glob("*.safetensors")}
    if (path / INDEX).is_file():
        shards = set(json.loads((path / INDEX).read_text())["weight_map"].values())
        found += [f"{name} is missing" for name in sorted(shards - files)]
    for name in sorted(files):
        try:
            with safe_open(path / name, framework="np"):
                pass
        except SafetensorError as error:
            found.append(f"{name} is broken or truncated: {error}")
    return found
