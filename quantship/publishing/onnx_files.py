"""ONNX models under the names that a repository gives them, beside what their clients read.

An ONNX file names the file of its external data, so that a model under another name is another
file: the graph is written anew, the weights stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantship.exporters.clients import DATA_FILE
from quantship.exporters.file_names import BASE, FileName
from quantship.publishing.uploads import Upload

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

GRAPH_FILE = f"{BASE}.onnx"
FOLDER = "onnx"
CONFIG = "config.json"
GENAI = "genai_config.json"


@dataclass(frozen=True)
class Export:
    """An ONNX model and what it will be called.

    Args:
        path: Its directory, with ``model.onnx``.
        name: What it is called there.
    """

    path: Path
    name: FileName

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.name.stem}.onnx"

    @property
    def has_data(self) -> bool:
        """Whether its weights lie in a file of their own."""
        return (self.path / DATA_FILE).is_file()


def model_files(export: Export, folder: str = FOLDER) -> list[Upload]:
    """The graph, and its weights where they lie apart."""
    graph = export.path / GRAPH_FILE
    place = f"{folder}/{export.file}"
    if not export.has_data:
        return [Upload(place, graph)]
    source = graph if export.name.stem == BASE else _pointing_to(graph, f"{export.file}_data")
    return [Upload(place, source), Upload(f"{place}_data", export.path / DATA_FILE)]


def genai_config(export: Export) -> bytes:
    """``genai_config.json`` of a decoder, for its file's name."""
    config: dict[str, Any] = json.loads((export.path / GENAI).read_bytes())
    config["model"]["decoder"]["filename"] = export.file
    return _as_json(config, indent=4)


def with_browser_words(config: Path, exports: Sequence[Export]) -> bytes:
    """``config.json`` with what transformers.js has to know of all models in the folder.

    Args:
        config: A configuration, which says nothing of them or speaks of one alone.
        exports: The models, the one to be used by default first.
    """
    content: dict[str, Any] = json.loads(config.read_bytes())
    words: dict[str, Any] = {}
    if exports[0].name.dtype is not None:
        words["dtype"] = exports[0].name.dtype
    apart = {one.file: 1 for one in exports if one.has_data}
    if apart:
        words["use_external_data_format"] = apart
    return _as_json({**content, "transformers.js_config": words}, indent=2)


def _as_json(content: dict[str, Any], indent: int) -> bytes:
    return (json.dumps(content, indent=indent, ensure_ascii=False) + "\n").encode()


def _pointing_to(graph: Path, data_file: str) -> bytes:
    """An ONNX file that finds its external data under another name."""
    import onnx

    model = onnx.load(graph, load_external_data=False)
    for tensor in _tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                assert entry.value == DATA_FILE
                entry.value = data_file
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from _of_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            for attribute in node.attribute:
                yield from _of_attribute(attribute)


def _of_graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from _of_attribute(attribute)


def _of_attribute(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("g"):
        yield from _of_graph(attribute.g)
    for graph in attribute.graphs:
        yield from _of_graph(graph)
