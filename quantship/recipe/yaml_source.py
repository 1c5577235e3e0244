"""YAML files as values that know the file and line they were written on.

YAML 1.2, so ``no`` is text and ``1e-5`` a number. What YAML lets pass and a recipe must not is
refused here: duplicate keys, tags that build objects, aliases that expand without end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from quantship.errors import Problem, RecipeError

Key = tuple[str | int, ...]

MAX_BYTES = 256 * 1024
"""No recipe is as long; a model file given by mistake is."""
MAX_VALUES = 10_000
"""Values in one file once its aliases are expanded."""
MAX_DEPTH = 40
"""Nesting; the language needs 6."""

_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = {_TAG + "str", _TAG + "timestamp", _TAG + "value"}
_SCALAR_TAGS = {_TAG + "int", _TAG + "float", _TAG + "bool", _TAG + "null"}
_SYNTAX = (
    # What the parser's message holds, what to say instead (None: leave it), what to do about it.
    ("'\\t'", "a tab where only spaces may stand", "Indent with spaces: YAML forbids tabs there."),
    (
        "mapping values",
        "a second ': ' on one line, or a wrong indentation",
        "Check the indentation; put text that holds ': ' in quotes.",
    ),
    ("cannot start any token", None, "Put text that starts with this character in quotes."),
    ("another document", "more than one document", "Remove the line that is only '---'."),
    ("undefined alias", None, "Put text that starts with '*' in quotes."),
)


@dataclass(frozen=True)
class Place:
    """Where a value was written; no file for one from the command line."""

    file: Path | None = None
    line: int | None = None


@dataclass(frozen=True)
class Value:
    """A YAML value and where it was written; a mapping's values carry their key's line."""

    content: str | int | float | bool | list[Value] | dict[str, Value] | None
    place: Place


def read(path: Path, problems: list[Problem]) -> Value:
    """The mapping that a YAML file holds.

    Args:
        path: The file.
        problems: Takes what is wrong but leaves the rest readable, as duplicate keys.

    Raises:
        RecipeError: The file is missing, not text, not YAML, or not a mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        inside = ", ".join(sorted(file.name for file in path.glob("*.y*ml"))) or "none"
        raise _error(
            path, None, "is a directory", f"Name a file. Recipes in it: {inside}"
        ) from None
    except FileNotFoundError:
        raise _error(path, None, "no such file", "Check the path of the recipe.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _error(path, None, f"cannot be read: {reason}", "Check the path.") from None
    return parse_mapping(_decode(path, content), path, problems)


def parse_mapping(text: str, file: Path, problems: list[Problem]) -> Value:
    """The mapping that YAML text holds; RecipeError when it holds anything else."""
    value = parse(text, file, problems)
    if value.content is None:
        raise _error(file, None, "is empty", "A recipe needs model, data and steps.")
    if not isinstance(value.content, dict):
        given = "a list" if isinstance(value.content, list) else "a single value"
        raise _error(
            file, value.place.line, f"holds {given}, not keys", "Write `key: value` lines."
        )
    return value


def parse(text: str, file: Path | None, problems: list[Problem]) -> Value:
    """Any YAML value.

    Args:
        text: One YAML document.
        file: File that the text came from; None for the command line.
        problems: Takes what is wrong but leaves the rest readable, as duplicate keys.

    Raises:
        RecipeError: The text is not YAML, or expands without end.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        node = yaml.compose(StringIO(text))
    except YAMLError as error:
        raise _syntax_error(error, text, file) from None
    except RecursionError:
        raise _error(file, None, "is nested too deeply", "Check the brackets.") from None
    if node is None:
        return Value(None, Place(file))
    return _Reader(yaml, file, problems).value(node, _line(node, file), ())


def plain(value: Value) -> Any:
    """The value as dicts, lists and scalars, without places."""
    if isinstance(value.content, dict):
        return {key: plain(item) for key, item in value.content.items()}
    if isinstance(value.content, list):
        return [plain(item) for item in value.content]
    return value.content


def texts(value: Value, key: Key = ()) -> Iterator[tuple[Key, str]]:
    """Every text in a value, with its key."""
    if isinstance(value.content, dict):
        for name, item in value.content.items():
            yield from texts(item, (*key, name))
    elif isinstance(value.content, list):
        for index, item in enumerate(value.content):
            yield from texts(item, (*key, index))
    elif isinstance(value.content, str):
        yield key, value.content


def nearest(value: Value, key: Key) -> tuple[Value, Key]:
    """The value at ``key`` or, where that was not written, the nearest one around it; and its key.

    ``model.path`` is ``model`` where the model is given by a text.
    """
    found: Key = ()
    for part in key:
        content = value.content
        if isinstance(content, dict) and part in content:
            value = content[str(part)]
        elif isinstance(content, list) and isinstance(part, int) and part < len(content):
            value = content[part]
        else:
            break
        found = (*found, part)
    return value, found


def locate(value: Value, key: Key) -> Place:
    """Where the value at ``key`` was written, or the nearest value around it."""
    return nearest(value, key)[0].place


def dotted(key: Key) -> str:
    """A key as the user writes it: ``steps.2.input``."""
    return ".".join(str(part) for part in key)


class _Reader:
    """Turns YAML nodes into values, collecting what is wrong with them."""

    def __init__(self, yaml: YAML, file: Path | None, problems: list[Problem]) -> None:
        self._problems = problems
        self._yaml = yaml
        self._file = file
        self._num_values = 0

    def value(self, node: Node, line: int | None, key: Key) -> Value:
        """The value of the node at ``key``, written at ``line``."""
        self._num_values += 1
        depth = len(key)
        if self._num_values > MAX_VALUES or depth > MAX_DEPTH:
            what = "nests too deeply" if depth > MAX_DEPTH else "has too many values"
            remedy = (
                f"At most {MAX_VALUES} values, {MAX_DEPTH} deep; check anchors (&) and aliases (*)."
            )
            raise _error(self._file, line, f"{what} once aliases are expanded", remedy)
        place = Place(self._file, line)
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            return Value(dict(self._entries(node, key)), place)
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            items = (
                self.value(item, _line(item, self._file), (*key, index))
                for index, item in enumerate(node.value)
            )
            return Value(list(items), place)
        if isinstance(node, ScalarNode) and node.tag in _TEXT_TAGS:
            return Value(self._text(node, line, key), place)
        if isinstance(node, ScalarNode) and node.tag in _SCALAR_TAGS:
            return Value(self._scalar(node, line, key), place)
        self._refuse(line, key, f"tag '{node.tag}' is not allowed", "Write a plain value.")
        return Value(None, place)

    def _entries(self, node: MappingNode, within: Key) -> Iterator[tuple[str, Value]]:
        lines: dict[str, int | None] = {}
        for key_node, value_node in node.value:
            line = _line(key_node, self._file)
            if not isinstance(key_node, ScalarNode):
                remedy = "Put text that starts with '{' or '[' in quotes."
                self._refuse(line, within, "a list or mapping cannot be a key", remedy)
                continue
            name = self._text(key_node, line, within)
            key = (*within, name)
            if key_node.tag == _TAG + "merge":
                remedy = "Repeat the keys, or put them into a file that this one `extends`."
                self._refuse(line, key, "merge keys (<<) are not part of YAML 1.2", remedy)
            elif name in lines:
                where = f", first written on line {lines[name]}" if lines[name] else ""
                self._refuse(line, key, f"duplicate key{where}", "Keep one of the two.")
            else:
                lines[name] = line
                yield name, self.value(value_node, line, key)

    def _scalar(self, node: ScalarNode, line: int | None, key: Key) -> int | float | bool | None:
        try:
            value = self._yaml.constructor.construct_object(node)
            finite = not isinstance(value, float) or math.isfinite(value)
        except (ValueError, LookupError, TypeError, YAMLError):
            value, finite = None, False
        if not finite:
            given = node.value[:40]
            self._refuse(line, key, f"'{given}' is not a finite number", "Put text in quotes.")
            return None
        return value  # type: ignore[no-any-return]

    def _text(self, node: ScalarNode, line: int | None, key: Key) -> str:
        text: str = node.value
        if not any("\ud800" <= character <= "\udfff" for character in text):
            return text
        remedy = "Write the character itself, or \\U and eight digits."
        self._refuse(
            line, key, "half a surrogate pair (\\ud800 to \\udfff) is no character", remedy
        )
        return text.encode(errors="replace").decode()

    def _refuse(self, line: int | None, key: Key, message: str, remedy: str) -> None:
        self._problems.append(Problem(message, self._file, line, dotted(key) or None, remedy))


def _decode(path: Path, content: bytes) -> str:
    try:
        text = content[:MAX_BYTES].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # A character cut in two by the limit is no sign of a binary file.
        if len(content) <= MAX_BYTES or error.start < MAX_BYTES - 4:
            line = content.count(b"\n", 0, error.start) + 1
            raise _not_text(path, line, "is not UTF-8 text") from None
        text = ""
    if "\0" in text:
        raise _not_text(path, text.count("\n", 0, text.index("\0")) + 1, "is a binary file")
    if len(content) > MAX_BYTES:
        remedy = f"A recipe is at most {MAX_BYTES // 1024} KiB long; is this another file?"
        raise _error(path, None, "is too long for a recipe", remedy)
    return text


def _not_text(path: Path, line: int, message: str) -> RecipeError:
    remedy = "Name a recipe: a YAML file saved as UTF-8 text."
    return _error(path, line, message, remedy)


def _syntax_error(error: YAMLError, text: str, file: Path | None) -> RecipeError:
    if not isinstance(error, MarkedYAMLError):
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) and file else None
        return _error(file, line, "holds a control character", "Save it as plain UTF-8 text.")
    mark = error.problem_mark or error.context_mark
    message = error.problem or error.context or "is not YAML"
    remedy = "Check the indentation, brackets and quotes on this line and the one before."
    for sign, plain_words, advice in _SYNTAX:
        if sign in message:
            message, remedy = plain_words or message, advice
            break
    return _error(file, mark.line + 1 if mark and file else None, message, remedy)


def _line(node: Node, file: Path | None) -> int | None:
    return node.start_mark.line + 1 if file else None


def _error(file: Path | None, line: int | None, message: str, remedy: str) -> RecipeError:
    return RecipeError([Problem(message, file, line, None, remedy)])
