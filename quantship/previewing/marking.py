"""Tokens as text again, the masked ones told from those that are learnt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from quantship.data.templating import IGNORED
from quantship.previewing.schema import Rendered, Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN_TOKENS = 400
"""Tokens of an example that are shown."""
_UNSEEN = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
_UNSEEN |= {0x7F: 0x2421, **dict.fromkeys(range(0x80, 0xA0), 0xFFFD)}


def rendered(
    origin: str,
    input_ids: Sequence[int],
    labels: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    label: str | None = None,
) -> Rendered:
    """A sequence as text, in runs of masked and of learnt tokens; its beginning where it is long.

    Args:
        origin: Where it came from.
        input_ids: Its tokens.
        labels: The same, IGNORED where masked.
        tokenizer: What made them.
        label: Its class, where it has one.
    """
    shown = range(min(len(input_ids), SHOWN_TOKENS))
    runs = []
    before = ""
    for learnt, places in groupby(shown, lambda place: labels[place] != IGNORED):
        end = [*places][-1] + 1
        # Text so far, as the text of a token depends on those before it.
        text = str(tokenizer.decode(list(input_ids[:end]), clean_up_tokenization_spaces=False))
        runs.append(Run(text=visible(text[len(before) :]), learnt=learnt))
        before = text
    return Rendered(
        origin=origin,
        tokens=len(input_ids),
        learnt_tokens=sum(one != IGNORED for one in labels),
        label=label,
        runs=tuple(runs),
        is_cut=len(input_ids) > len(shown),
    )


def visible(text: str) -> str:
    """The text with signs in place of control characters, which would work on a terminal."""
    return text.translate(_UNSEEN)
