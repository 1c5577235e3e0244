"""Instructions in the layout of Alpaca, as JSON Lines or as one JSON list.

A record; ``input`` may be blank or missing, other keys are left out:

    {"instruction": "Name the capital of the country.", "input": "France", "output": "Paris"}

becomes a user turn

    Name the capital of the country.

    France

and an assistant turn (``Paris``). A record with ``system`` begins with that as a system turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from quantship.data.fields import exchange, field, filled
from quantship.data.json_list import json_records
from quantship.data.source import Example, LocalPath, Message, SourceOptions


class Options(SourceOptions):
    """Instructions and what to answer, from a file in Alpaca's layout (.jsonl or .json)."""

    adapter: Literal["alpaca"]
    path: LocalPath
    """Local file; relative to the current directory."""


def rows(options: Options) -> Iterator[Example]:
    """Yield one instruction and its answer a record.

    Raises:
        DataError: A record is malformed; names its file and line.
    """
    for origin, record in json_records(options.path):
        asked = filled(record, "instruction", origin)
        given = _optional(record, "input", origin)
        system = _optional(record, "system", origin)
        answer = filled(record, "output", origin)
        before: tuple[Message, ...] = ()
        if system.strip():
            before = ({"role": "system", "content": system},)
        prompt = f"{asked}\n\n{given}" if given.strip() else asked
        yield Example(before + exchange(prompt, answer), origin)


def _optional(record: object, key: str, origin: str) -> str:
    """The text at a key; blank where there is none."""
    if isinstance(record, dict) and record.get(key) is None:
        return ""
    return field(record, key, str, origin)
