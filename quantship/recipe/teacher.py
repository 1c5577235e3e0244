"""Whether one model can teach another: the same vocabulary, and the same shape where that counts.

Only JSON is read here, so a recipe is checked without loading a library or a weight.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantship.recipe.language import TinyModel


@dataclass(frozen=True)
class Makeup:
    """What of a model decides which models it can teach; None for what is not known.

    Args:
        vocab_size: Width of its logits.
        tokens: The tokenizer's tokens and their ids.
        hidden_size: Width of its hidden states.
        num_layers: Decoder layers.
    """

    vocab_size: int | None
    tokens: Mapping[str, int] | None
    hidden_size: int | None
    num_layers: int | None


@dataclass(frozen=True)
class Mismatch:
    """Why a model cannot teach: a sentence that begins after "the teacher", and what to do."""

    message: str
    remedy: str


def mismatch(student: Makeup, teacher: Makeup, *, hidden_states: bool) -> Mismatch | None:
    """Why the teacher cannot teach the student; None where nothing is known against it.

    Args:
        student: The model to be taught.
        teacher: The model that is to teach it.
        hidden_states: Whether hidden states are compared as well.
    """
    remedy = "A teacher must have the tokenizer and the vocab_size of the model it teaches."
    if _differ(student.vocab_size, teacher.vocab_size):
        sizes = f"has {teacher.vocab_size} logits and the model it teaches {student.vocab_size}"
        return Mismatch(f"has another vocabulary: it {sizes}", remedy)
    if student.tokens is not None and teacher.tokens is not None:
        difference = _first_difference(student.tokens, teacher.tokens)
        if difference is not None:
            return Mismatch(f"has another vocabulary: {difference}", remedy)
    for ours, theirs, what in (
        (student.hidden_size, teacher.hidden_size, "features in a hidden state"),
        (student.num_layers, teacher.num_layers, "layers"),
    ):
        if hidden_states and _differ(ours, theirs):
            return Mismatch(
                f"has {theirs} {what} and the model it teaches {ours}, so their hidden states "
                "cannot be compared",
                "Set hidden_states to 0, or choose a teacher of the same shape.",
            )
    return None


def read_makeup(directory: Path) -> Makeup:
    """The makeup of a Hugging Face directory, as far as its JSON files tell it."""
    config = _read(directory / "config.json")
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    return Makeup(
        vocab_size=_whole(config, "vocab_size"),
        tokens=_tokens(_read(directory / "tokenizer.json")),
        hidden_size=_whole(config, "hidden_size", "n_embd"),
        num_layers=_whole(config, "num_hidden_layers", "n_layer"),
    )


def tiny_makeup(dimensions: TinyModel) -> Makeup:
    """The makeup of a tiny model that is yet to be made."""
    from quantship.tiny import vocab_size, vocabulary

    return Makeup(
        vocab_size=vocab_size(),
        tokens=vocabulary(),
        hidden_size=dimensions.hidden_size,
        num_layers=dimensions.num_layers,
    )


def is_quantized(directory: Path) -> bool:
    """Whether a directory holds a model that is quantized already."""
    return "quantization_config" in _read(directory / "config.json")


def _differ(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other


def _first_difference(student: Mapping[str, int], teacher: Mapping[str, int]) -> str | None:
    """The token of the smallest id that the two tokenizers do not share, in words."""
    ours, theirs = set(student.items()), set(teacher.items())
    if ours == theirs:
        return None
    token, number = min(ours ^ theirs, key=lambda item: (item[1], item[0]))
    whose, other = ("model's", "teacher's") if (token, number) in ours else ("teacher's", "model's")
    return f"token {number} is {token!r} in the {whose} tokenizer, and not in the {other}"


def _tokens(tokenizer: Mapping[str, Any]) -> dict[str, int] | None:
    try:
        vocabulary = tokenizer["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: pairs of a piece and its score
            vocabulary = {piece: index for index, (piece, _) in enumerate(vocabulary)}
        added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
        return {**vocabulary, **added}
    except (KeyError, TypeError, ValueError):  # a layout that only the stage can read
        return None


def _whole(config: Mapping[str, Any], *names: str) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def _read(path: Path) -> dict[str, Any]:
    """The mapping of a JSON file; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
