"""Taking typed values out of parsed records, with errors that say where and what."""

from __future__ import annotations

from typing import TypeVar, cast

from quantship.data.source import Message, Role
from quantship.errors import DataError

Value = TypeVar("Value", str, int, list[object], dict[str, object])
_NAMES: dict[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def field(record: object, key: str, kind: type[Value], origin: str) -> Value:
    """The value at ``key`` of a record that must be an object.

    Raises:
        DataError: The record is no object, has no such key, or its value is of another type.
    """
    if not isinstance(record, dict):
        raise DataError(f"must be an object, not {_name(record)}", origin)
    if key not in record:
        raise DataError(f"key '{key}' is missing", origin)
    return checked(record[key], kind, origin, key)


def filled(record: object, key: str, origin: str) -> str:
    """The text at ``key`` of a record, with more than white space in it.

    Raises:
        DataError: As ``field`` does, or the text is blank.
    """
    text = field(record, key, str, origin)
    if not text.strip():
        raise DataError(f"'{key}' is blank", origin)
    return text


def checked(value: object, kind: type[Value], origin: str, key: str) -> Value:
    """The value itself, known to be of this type.

    Raises:
        DataError: It is of another type.
    """
    if type(value) is not kind:  # exact: True is an int to isinstance
        raise DataError(f"'{key}' must be {_NAMES[kind]}, not {_name(value)}", origin)
    return value


def texts(values: list[object], origin: str, key: str) -> list[str]:
    """The values of a list, each known to be text.

    Raises:
        DataError: One of them is of another type.
    """
    return [checked(value, str, origin, f"{key}[{i}]") for i, value in enumerate(values)]


def turns(values: list[object], origin: str) -> tuple[Message, ...]:
    """The messages of a list of objects with ``role`` and ``content``; other keys are left out.

    Raises:
        DataError: One of them is no object, or lacks a key, or holds another type.
    """
    found: list[Message] = []
    for index, value in enumerate(values):
        place = f"{origin}: messages[{index}]"
        role = field(value, "role", str, place)
        content = field(value, "content", str, place)
        found.append({"role": cast(Role, role), "content": content})  # Example checks the role
    return tuple(found)


def exchange(user: str, assistant: str) -> tuple[Message, ...]:
    """One question and its answer."""
    return (
        {"role": "user", "content": user},
        {"role": "assistant", "content": assistant},
    )


def _name(value: object) -> str:
    return _NAMES.get(type(value), type(value).__name__)
