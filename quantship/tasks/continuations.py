"""How likely a model finds texts to go on in given ways; the same on every runtime.

What goes into the model is the prefix and all of the continuation but its last token, which nothing
follows. So continuations of one token, as ``yes`` and ``no``, share a single pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantship.runtimes.base import Runtime, Tokens
from quantship.tasks import distributions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD = 0
"""Fills up shorter sequences; masked, so any token would do."""


@dataclass(frozen=True)
class Continuation:
    """Tokens, and tokens that may follow them.

    Args:
        prefix: At least one token.
        tokens: At least one token.
    """

    prefix: tuple[int, ...]
    tokens: tuple[int, ...]

    def within(self, max_length: int) -> Continuation:
        """The same, its beginning cut off where more than ``max_length`` tokens would be read."""
        room = max(1, max_length - len(self.tokens) + 1)
        return Continuation(self.prefix[-room:], self.tokens)

    @property
    def read(self) -> tuple[int, ...]:
        """What the model reads."""
        return self.prefix + self.tokens[:-1]


@dataclass(frozen=True)
class Score:
    """What a model makes of a continuation.

    Args:
        log_likelihood_nats: Of all its tokens together, in nats; 0 is certain.
        is_greedy: Whether each of its tokens is the most likely one.
    """

    log_likelihood_nats: float
    is_greedy: bool


def encode(tokenizer: PreTrainedTokenizerBase, prefix: str, going_on: str) -> Continuation:
    """Tokens of a text, split where it goes on; no token is added.

    Both are tokenized as one text, since a word's token depends on the space before it: spaces at
    the end of the prefix count to what goes on. Before an empty prefix stands the token that the
    tokenizer begins or ends texts with.
    """
    kept = prefix.rstrip()
    going_on = prefix[len(kept) :] + going_on
    before = _tokens(tokenizer, kept) if kept else []
    after = _tokens(tokenizer, kept + going_on)[len(before) :]
    if not after:  # the tokenizer made fewer tokens of both than of the prefix alone
        after = _tokens(tokenizer, going_on)
    if not before:
        first = tokenizer.bos_token_id
        before = [first if first is not None else (tokenizer.eos_token_id or PAD)]
    return Continuation(tuple(before), tuple(after))


def score(
    runtime: Runtime, wanted: Sequence[Continuation], batch_size: int
) -> Iterator[tuple[int, Score]]:
    """Yield each continuation's place in ``wanted`` and its score, long ones first.

    Args:
        runtime: Any runtime that reads text.
        wanted: What to score; those that read the same tokens are read once.
        batch_size: Sequences at once.
    """
    readers: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, one in enumerate(wanted):
        readers[one.read].append(place)
    by_length = sorted(readers, key=len, reverse=True)  # little padding; what is too much is early
    for start in range(0, len(by_length), batch_size):
        reads = by_length[start : start + batch_size]
        logits_BTV = runtime.logits(*_padded(reads))
        longest = logits_BTV.shape[1]
        for row, read in enumerate(reads):
            for place in readers[read]:
                tokens = np.array(wanted[place].tokens, np.int64)
                end = row * longest + len(read)
                places = np.arange(end - len(tokens), end)
                nll, best = distributions.nll_nats(logits_BTV, places, tokens)
                yield place, Score(-float(nll.sum()), bool((best == tokens).all()))


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _padded(reads: Sequence[tuple[int, ...]]) -> tuple[Tokens, Tokens]:
    longest = max(map(len, reads))
    input_ids = np.full((len(reads), longest), PAD, np.int64)
    mask = np.zeros((len(reads), longest), np.int64)
    for row, read in enumerate(reads):
        input_ids[row, : len(read)] = read
        mask[row, : len(read)] = 1
    return input_ids, mask
