"""The tokens that both models read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quantship.errors import DataError, UsageError
from quantship.runtimes.base import Tokens
from quantship.validation.report import Check
from quantship.validation.subjects import Subject
from quantship.validation.texts import BUILT_IN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEWEST = 2
"""Tokens of a sequence that predicts something."""


@dataclass(frozen=True)
class Sequences:
    """What both models read.

    Args:
        windows: Sequences of tokens, each of shape (T,); the last may be shorter.
        described: What they are, in words.
        is_text: Whether they are text, so that a perplexity means something.
        tokenizer: What made them and what makes text of new tokens; None for random tokens.
    """

    windows: tuple[Tokens, ...]
    described: str
    is_text: bool
    tokenizer: Any


def tokenizer_of(subject: Subject) -> PreTrainedTokenizerBase | None:
    """The tokenizer beside a model, if there is one."""
    from quantship.models import load_tokenizer

    return load_tokenizer(subject.path) if subject.has_tokenizer else None


def same_tokenizer(a: Any, b: Any, text: str) -> Check:
    """Whether two tokenizers have the same vocabulary and cut the text in the same way."""
    ours, theirs = a.get_vocab(), b.get_vocab()
    other = sorted(
        token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token)
    )
    if other:
        token = other[0]
        detail = (
            f"{len(other):,} tokens are not the same; {token!r} is "
            f"{ours.get(token, 'none')} in A and {theirs.get(token, 'none')} in B"
        )
        return Check(name="tokenizers", passed=False, detail=detail)
    first, second = a(text)["input_ids"], b(text)["input_ids"]
    if first != second:
        ends = [*zip(first, second, strict=False)]
        at = next((i for i, (one, two) in enumerate(ends) if one != two), len(ends))
        detail = f"with one vocabulary, they cut the text in other ways from token {at} on"
        return Check(name="tokenizers", passed=False, detail=detail)
    return Check(name="tokenizers", passed=True, detail=f"{len(ours):,} tokens, and the same cuts")


def read_text(path: Path | None) -> str:
    """The text of a file, or the built-in one.

    Raises:
        UsageError: The file does not exist.
        DataError: It is no UTF-8 or has nothing in it.
    """
    if path is None:
        return BUILT_IN
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--text: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text ({error.reason})", str(path)) from error
    if not text.strip():
        raise DataError("there is no text in it", str(path))
    return text


def from_text(text: str, named: str, tokenizer: Any, *, sequences: int, length: int) -> Sequences:
    """The first tokens of a text, cut into sequences.

    Raises:
        DataError: The text has fewer than two tokens.
    """
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][: sequences * length]
    windows = [np.array(ids[at : at + length], np.int64) for at in range(0, len(ids), length)]
    kept = tuple(window for window in windows if len(window) >= FEWEST)
    if not kept:
        raise DataError(f"a text of {len(ids)} tokens predicts nothing", named)
    total = sum(len(window) for window in kept)
    described = f"{named}: {len(kept)} sequences of up to {length} tokens, {total:,} in all"
    return Sequences(kept, described, True, tokenizer)


def at_random(vocabulary: int, *, sequences: int, length: int, seed: int) -> Sequences:
    """Random tokens, for models without a tokenizer."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(vocabulary, size=(sequences, length), dtype=np.int64)
    described = f"{sequences} sequences of {length} random tokens (no tokenizer; seed {seed})"
    return Sequences(tuple(drawn), described, False, None)
