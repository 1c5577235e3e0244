"""A Hugging Face directory to ONNX, by the route that suits its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantship.artifact import Facts
from quantship.errors import QuantshipError
from quantship.exporters import (
    architectures,
    clients,
    decoder,
    examples,
    opaque,
    origin,
    past,
    traced,
)
from quantship.exporters.lowering import Lowering
from quantship.exporters.opaque import Boxed
from quantship.exporters.targets import Target
from quantship.quant.loading import load

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")
COPIED = ("preprocessor_config.json", "processor_config.json")
"""Files beside images' and sounds' models that say how these become numbers."""


def export(
    source: Path, lowering: Lowering, scheme: str | None, out: Path, target: Target
) -> Facts:
    """Write ``model.onnx`` and what clients look for beside it into ``out``.

    Decoders that onnxruntime-genai's model builder knows are drawn by it; every other model is
    traced.

    Args:
        source: Hugging Face directory: float, or a torchao checkpoint written by quantship.
        lowering: Form of the quantized layers; ``float`` for a float model.
        scheme: Name of the checkpoint's scheme, for the model's metadata.
        out: Existing directory.
        target: Machine that the model is for.

    Raises:
        QuantshipError: The model is of a kind that cannot be exported.
    """
    config = json.loads((source / "config.json").read_bytes())
    if architectures.knows(config):
        return decoder.export(source, lowering, scheme, out, target)
    model = load(source)
    metadata = origin.describe(source, lowering, scheme, target)
    facts = export_boxed(opaque.box(model), lowering, metadata, out, target)
    if any((source / name).is_file() for name in TOKENIZER_FILES):
        _write_tokenizer(source, out)
    for name in COPIED:
        if (source / name).is_file():
            (out / name).write_bytes((source / name).read_bytes())
    clients.complete(source, out)
    return facts


def export_boxed(
    boxed: Boxed, lowering: Lowering, metadata: dict[str, Any], out: Path, target: Target
) -> Facts:
    """Trace a model of transformers and write ``model.onnx`` into ``out``.

    Args:
        boxed: The model, quantized or in float.
        lowering: See ``export``.
        metadata: JSON values to store in the model.
        out: Existing directory.
        target: See ``export``.

    Raises:
        QuantshipError: The model is of a kind that cannot be exported.
    """
    model: Any = boxed.module
    if model.config.is_encoder_decoder:
        raise QuantshipError(
            f"a {type(model).__name__} has an encoder and a decoder, and quantship exports models "
            "of one part; give quantship.export one of them as a module, with example inputs"
        )
    is_decoder = past.has_cache(model)
    example = past.for_decoder(model) if is_decoder else examples.for_transformer(model)
    noted = {**metadata, "task": examples.task_of(model)}
    facts = traced.export(boxed, example, lowering, target, noted, out)
    if is_decoder:
        past.write_genai_config(model, list(example.inputs), out)
    return facts


def _write_tokenizer(source: Path, out: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(out)
