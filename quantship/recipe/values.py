"""Reaching into the values of a file, which stay as they are: a change is another value."""

from __future__ import annotations

from quantship.recipe.yaml_source import Key, Value


def at(value: Value, key: Key) -> Value | None:
    """What stands at a key below a value, through mappings; None where nothing does."""
    for part in key:
        if not isinstance(value.content, dict) or part not in value.content:
            return None
        value = value.content[str(part)]
    return value


def text(value: Value, name: str) -> str | None:
    """The text under a name of a mapping; None where there is none, or no text."""
    item = at(value, (name,))
    return item.content if item is not None and isinstance(item.content, str) else None


def items(value: Value) -> list[Value]:
    """The items of a list, or the value itself."""
    return value.content if isinstance(value.content, list) else [value]


def replace(value: Value, key: Key, new: Value | None) -> Value:
    """A mapping with another value at a key, whose parts but the last are there.

    Args:
        value: The mapping.
        key: Names, each below the one before.
        new: The value; None takes the key out.
    """
    assert isinstance(value.content, dict)
    name, *rest = map(str, key)
    if rest:
        new = replace(value.content[name], tuple(rest), new)
    kept = {one: item for one, item in value.content.items() if one != name or new is not None}
    return Value(kept if new is None else kept | {name: new}, value.place)
