"""Greedy continuations of many prompts at once, token for token those of one prompt at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby

import numpy as np

from quantship.runtimes.base import Logits, Runtime

BATCH_SIZE = 8
"""Prompts at once where nothing else is asked for."""
Enough = Callable[[Sequence[int]], bool]
"""Whether a continuation so far, given as its tokens, needs no more of them."""


def generate(
    runtime: Runtime,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: Collection[int] = (),
    *,
    batch_size: int = BATCH_SIZE,
    enough: Enough | None = None,
) -> list[list[int]]:
    """The most likely continuation of each prompt, in their order; see ``continuations``."""
    found: list[list[int]] = [[] for _ in prompts]
    for index, new in continuations(
        runtime, prompts, max_new_tokens, stop, batch_size=batch_size, enough=enough
    ):
        found[index] = new
    return found


def continuations(
    runtime: Runtime,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: Collection[int] = (),
    *,
    batch_size: int = BATCH_SIZE,
    enough: Enough | None = None,
    known: Collection[int] = (),
) -> Iterator[tuple[int, list[int]]]:
    """Yield ``(index of the prompt, its continuation)`` as soon as each of them has ended.

    The longest prompts come first. A sequence that has ended makes the others of its batch faster.
    Where two tokens are all but equally likely, company may decide between them: it changes the
    order in which a runtime adds up, and with that the last bits of a logit.

    Args:
        runtime: Any runtime; one that does not pad batches prompts of equal length only.
        prompts: Token ids of each prompt, at least one.
        max_new_tokens: Longest continuation, at least 1.
        stop: Tokens that end a continuation; they are not part of it.
        batch_size: Prompts at once, at most.
        enough: Asked after every token whether the continuation ends with it.
        known: Indices of prompts whose continuations are there already and are not yielded. What
            shares a batch with others still does, so that theirs are the same as without this.
    """
    ends = frozenset(stop)
    for batch in _batches(prompts, batch_size, one_length=not runtime.pads):
        rows = list(batch)
        if not set(rows).difference(known):
            continue
        new: dict[int, list[int]] = {index: [] for index in rows}
        last = _begun(runtime, [prompts[index] for index in rows], max_new_tokens)
        while rows:
            going: list[int] = []
            tokens = last.argmax(axis=-1)
            for place, (index, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
                said = new[index]
                if token not in ends:
                    said.append(token)
                    if len(said) < max_new_tokens and not (enough and enough(said)):
                        going.append(place)
                        continue
                if index not in known:
                    yield index, said
            if going and len(going) < len(rows):
                runtime.keep(np.array(going, np.int64))
            rows = [rows[place] for place in going]
            if rows:
                last = runtime.decode(tokens[going])


def _begun(runtime: Runtime, prompts: list[Sequence[int]], max_new_tokens: int) -> Logits:
    """Logits of what follows each prompt of a batch."""
    lengths = np.array([len(prompt) for prompt in prompts], np.int64)
    longest = int(lengths.max())
    padded = np.zeros((len(prompts), longest), np.int64)
    for row, prompt in enumerate(prompts):
        padded[row, : len(prompt)] = prompt
    return runtime.prefill(padded, longest + max_new_tokens, lengths)


def _batches(
    prompts: Sequence[Sequence[int]], batch_size: int, *, one_length: bool
) -> Iterator[Sequence[int]]:
    """Indices of prompts, the longest first."""
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    groups = (
        [list(group) for _, group in groupby(order, lambda index: len(prompts[index]))]
        if one_length
        else [order]
    )
    for group in groups:
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]
