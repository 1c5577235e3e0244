"""Chats of your own, as JSON Lines.

A record, one JSON object a line; ``role`` is system, user or assistant, other keys are left out:

    {"messages": [{"role": "system", "content": "You answer in one word."},
                  {"role": "user", "content": "The capital of France?"},
                  {"role": "assistant", "content": "Paris"}]}

becomes these turns as they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from quantship.data.fields import field, turns
from quantship.data.files import json_lines
from quantship.data.source import Example, LocalPath, SourceOptions


class Options(SourceOptions):
    """Chats from a JSON Lines file with ``messages`` in every line."""

    adapter: Literal["chat"]
    path: LocalPath
    """Local file; relative to the current directory."""


def rows(options: Options) -> Iterator[Example]:
    """Yield one chat a line.

    Raises:
        DataError: A line is malformed; names its file and line.
    """
    for origin, record in json_lines(options.path):
        yield Example(turns(field(record, "messages", list, origin), origin), origin)
