"""A chat corpus made on the spot: small questions that a small model learns in minutes.

A record, drawn from eleven families of facts with six phrasings each,

    user:      Please spell the word goat.
    assistant: g-o-a-t

is one question and its short answer, in at most 90 bytes. Every question there is belongs to one
of the splits, by a hash of its words: ``eval`` holds about an eighth of them, and none of
``train``. What ``eval`` asks has been taught in other words.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Literal
from zlib import crc32

from pydantic import Field

from quantship.data.builtin_families import Pair, families
from quantship.data.fields import exchange
from quantship.data.source import Example, SourceOptions


class Options(SourceOptions):
    """A generated chat corpus of small questions; needs no file and no network."""

    adapter: Literal["builtin"]
    split: Literal["train", "eval"] = "train"
    """train and eval share no question, whatever their seeds."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides which questions are drawn, and in which order."""
    num_examples: Annotated[int, Field(ge=1)] = 4000
    """Questions to draw; all of a split (1242 train, 192 eval) come before any comes again."""


def rows(options: Options) -> Iterator[Example]:
    """Yield ``num_examples`` questions with their answers, the same ones for the same options."""
    every = [pair for family in families().values() for pair in family]
    pool = [pair for pair in every if _split(pair) == options.split]
    drawn = islice(_endless(pool, random.Random(options.seed)), options.num_examples)
    for index, (question, answer) in enumerate(drawn):
        yield Example(exchange(question, answer), f"builtin {options.split}[{index}]")


def _split(pair: Pair) -> str:
    return "eval" if crc32(pair[0].encode()) % 8 == 0 else "train"


def _endless(pairs: list[Pair], generator: random.Random) -> Iterator[Pair]:
    while True:
        yield from generator.sample(pairs, len(pairs))
