"""Chats in the layout of ShareGPT, as JSON Lines or as one JSON list.

A record; ``from`` is ``human`` (or ``user``), ``gpt`` (or ``assistant``) or ``system``, other keys
are left out:

    {"conversations": [{"from": "system", "value": "You answer in one word."},
                       {"from": "human", "value": "The capital of France?"},
                       {"from": "gpt", "value": "Paris"}]}

becomes these turns in this order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from quantship.data.fields import field
from quantship.data.json_list import json_records
from quantship.data.source import Example, LocalPath, Message, Role, SourceOptions
from quantship.errors import DataError

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


class Options(SourceOptions):
    """Chats from a file in ShareGPT's layout (.jsonl or .json)."""

    adapter: Literal["sharegpt"]
    path: LocalPath
    """Local file; relative to the current directory."""


def rows(options: Options) -> Iterator[Example]:
    """Yield one chat a record.

    Raises:
        DataError: A record is malformed; names its file and line.
    """
    for origin, record in json_records(options.path):
        turns = field(record, "conversations", list, origin)
        yield Example(tuple(_turn(turn, i, origin) for i, turn in enumerate(turns)), origin)


def _turn(turn: object, index: int, origin: str) -> Message:
    place = f"{origin}: conversations[{index}]"
    speaker = field(turn, "from", str, place)
    if speaker not in _ROLES:
        raise DataError(f"unknown speaker {speaker!r}; known are {', '.join(_ROLES)}", place)
    return {"role": _ROLES[speaker], "content": field(turn, "value", str, place)}
