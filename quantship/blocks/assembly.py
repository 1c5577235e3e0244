"""From parts to a checkpoint: bytes are copied from file to file, and never all in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantship.quant import checkpoint
from quantship.quant.checkpoint import TENSOR_NAMES, TRANSPOSED, WEIGHTS
from quantship.quant.container import Spec, Writer, read_header
from quantship.quant.scheme import LayerFormat

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def assemble(
    parts: Sequence[Path],
    names: Sequence[str],
    model: PreTrainedModel,
    formats: Mapping[str, LayerFormat],
    out: Path,
    *,
    packed: bool,
) -> None:
    """Write a checkpoint.

    Args:
        parts: Files that hold its tensors between them.
        names: Its tensors in the order of the model, before torchao's are taken apart.
        model: The float model.
        formats: Format of each layer that is quantized.
        out: Existing directory.
        packed: See ``checkpoint.save``.
    """
    headers = {path: read_header(path) for path in parts}
    specs: dict[str, Spec] = {}
    found: dict[str, str] = {}
    transposed: set[str] = set()
    for header in headers.values():
        specs |= header.specs
        found |= header.metadata
        transposed |= set(json.loads(header.metadata[TRANSPOSED]))
    metadata = {name: found[name] for name in names}
    metadata[TENSOR_NAMES] = json.dumps(list(names))
    metadata |= checkpoint.kept_metadata([name for name in formats if name in transposed])
    with Writer(out / WEIGHTS, specs, metadata) as file:
        for path, header in headers.items():
            with path.open("rb") as source:
                source.seek(header.size_bytes)
                for name, spec in header.specs.items():
                    file.copy(name, source, spec.size_bytes)
    checkpoint.save_config(model, formats, out, packed=packed)
