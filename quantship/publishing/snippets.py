"""How to load what was uploaded, in code that the tests take out of a card and run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from quantship.publishing.finished import scheme_of
from quantship.publishing.layout import Place
from quantship.publishing.onnx_files import GENAI

PACKED = "Int4WeightOnlyConfig"
"""What stands in config.json of a checkpoint with 4-bit codes, two a byte."""


@dataclass(frozen=True)
class Snippet:
    """Code that loads a model.

    Args:
        title: What runs it.
        install: What to install, for pip.
        code: Python.
    """

    title: str
    install: str
    code: str


def snippets(repository: str, revision: str, places: tuple[Place, ...]) -> list[Snippet]:
    """How to run the models of a repository: its first checkpoint, its first ONNX model.

    Args:
        repository: Its name.
        revision: Its branch.
        places: Its models.
    """
    found = []
    checkpoints = [place for place in places if place.row.kind in ("float", "torchao")]
    exports = [place for place in places if place.row.kind == "onnx"]
    if checkpoints:
        found.append(_of_checkpoint(repository, revision, checkpoints[0]))
    if exports:
        found += _of_export(repository, revision, exports[0])
    return found


def _of_checkpoint(repository: str, revision: str, place: Place) -> Snippet:
    kind = _kind(place.path)
    if kind == "other" or _needs_quantship(place.path):
        code = _code("quantship.py.j2", repository, revision, place, kind)
        return Snippet("quantship", "quantship", code)
    code = _code("transformers.py.j2", repository, revision, place, kind)
    quantized = place.row.kind == "torchao"
    return Snippet("transformers", "transformers torchao" if quantized else "transformers", code)


def _of_export(repository: str, revision: str, place: Place) -> list[Snippet]:
    kind = _kind(place.path)
    if kind == "other":
        code = _code("onnxruntime.py.j2", repository, revision, place, kind)
        return [Snippet("onnxruntime", "onnxruntime huggingface_hub", code)]
    found = []
    if (place.path / GENAI).is_file():
        code = _code("genai.py.j2", repository, revision, place, kind)
        found.append(Snippet("onnxruntime-genai", "onnxruntime-genai huggingface_hub", code))
    code = _code("optimum.py.j2", repository, revision, place, kind)
    return [*found, Snippet("optimum", '"optimum-onnx[onnxruntime]"', code)]


def _code(name: str, repository: str, revision: str, place: Place, kind: str) -> str:
    return (
        templates()
        .get_template(name)
        .render(
            repository=repository,
            revision=None if revision == "main" else revision,
            folder=place.folder,
            file=place.file,
            kind=kind,
            chats=_chats(place.path),
        )
    )


def _kind(path: Path) -> str:
    """``decoder``, ``classifier`` or ``other``, by what its configuration calls its class."""
    config = json.loads((path / "config.json").read_bytes())
    named = "".join(config.get("architectures") or ())
    if "ForCausalLM" in named or "LMHead" in named:
        return "decoder"
    return "classifier" if "ForSequenceClassification" in named else "other"


def _chats(path: Path) -> bool:
    if (path / "chat_template.jinja").is_file():
        return True
    config = path / "tokenizer_config.json"
    return config.is_file() and bool(json.loads(config.read_bytes()).get("chat_template"))


def _needs_quantship(path: Path) -> bool:
    """Whether plain transformers cannot run a checkpoint on a CPU; see ``quant.loading``."""
    scheme = scheme_of(path)
    text = (path / "config.json").read_text(encoding="utf-8")
    is_transposed = json.loads(text).get("model_type") == "gpt2" and scheme is not None
    return PACKED in text or is_transposed or (scheme is not None and scheme.is_static)


@cache
def templates() -> Environment:
    """The templates of this folder; what they write is Markdown and Python."""
    loader = PackageLoader("quantship.publishing")
    return Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
