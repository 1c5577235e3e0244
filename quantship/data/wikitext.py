"""WikiText, or any plain text: running text, cut into articles.

A file is paragraphs and headings, one a line:

     = Homarus gammarus =

     Homarus gammarus , known as the European lobster or common lobster , is a species of ...

     = = Description = =

     Homarus gammarus is a large <unk> , with a body length up to 60 centimetres ( 24 in ) ...

A line with a single ``=`` on both sides, after a blank one, opens an article, and an article
becomes one raw example. An article, or text without any, is cut at the end of a line once it has
1,000,000 characters. Examples joined again are the file, to the character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

from quantship.data import hub
from quantship.data.fields import field
from quantship.data.files import text_lines
from quantship.data.source import Example, FileOptions

LONGEST_CHARACTERS = 1_000_000
_TITLE = re.compile(r" = (?!= ).* = ?\r?\n?")


class Options(FileOptions):
    """Running text, from a text file or from Salesforce/wikitext; may be split into windows."""

    hub: ClassVar = "Salesforce/wikitext"
    adapter: Literal["wikitext"]
    config: str = "wikitext-2-raw-v1"
    """Configuration on the Hub; unused where ``path`` is given."""


def rows(options: Options) -> Iterator[Example]:
    """Yield one article at a time, raw; ``limit`` counts articles.

    Raises:
        DataError: The file cannot be read, or a line is not UTF-8; names file and line.
    """
    if options.path is not None:
        return _articles(text_lines(options.path))
    records = hub.records(options.hub, options.config, options.revision, options.split)
    return _articles(_hub_lines(records))


def _hub_lines(records: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, str]]:
    for origin, record in records:
        # The Hub's copy holds "" where the original file holds a line with one space.
        yield origin, field(record, "text", str, origin) or " \n"


def _articles(lines: Iterable[tuple[str, str]]) -> Iterator[Example]:
    held: list[str] = []
    held_characters = 0
    has_text = False
    after_blank = True  # WikiText holds formulas that look like titles, inside paragraphs
    start = ""
    for origin, line in lines:
        is_blank = line.isspace()
        is_title = after_blank and _TITLE.fullmatch(line)
        is_enough = held_characters >= LONGEST_CHARACTERS and not is_blank
        if has_text and (is_title or is_enough):
            yield _example(held, start)
            held, held_characters, has_text = [], 0, False
        start = start if held else origin
        held.append(line)
        held_characters += len(line)
        after_blank = is_blank
        has_text = has_text or not is_blank
    if has_text:
        yield _example(held, start)


def _example(lines: list[str], origin: str) -> Example:
    return Example(({"role": "assistant", "content": "".join(lines)},), origin, raw=True)
