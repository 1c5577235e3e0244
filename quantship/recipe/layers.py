"""A recipe's layers: the file it extends, the file, a profile, ``--set``.

Each layer changes the one below by the same rule. Mappings merge, everything else is replaced
whole; a dotted key (``steps.qat.max_steps``) reaches inside; an item of a list is called by its
index, or by its ``name``, ``stage``, ``adapter`` or ``kind``. A list of single values, to sweep
over, is replaced by a mapping too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from quantship.errors import Problem, RecipeError
from quantship.recipe import roots
from quantship.recipe.keys import suggest
from quantship.recipe.yaml_source import Place, Value, parse, parse_mapping, read

Items = dict[str, Value]
_COMMAND_LINE = Place()
_LABELS = ("name", "stage", "adapter", "kind", "run", "task")
"""Keys that an item of a list is called by, the first that it has."""


def read_chain(path: Path, problems: list[Problem], chain: tuple[Path, ...] = ()) -> Items:
    """The keys of a recipe file, merged over those of the file it extends.

    A base lends everything but its name: the runs of two recipes must not land in one place.

    Args:
        path: The YAML file.
        problems: Takes what is wrong but leaves the rest readable.
        chain: The files that led here, each extending the next.

    Raises:
        RecipeError: A file of the chain cannot be read, or the chain is a circle.
    """
    items = _items(read(path, problems))
    extends = items.pop("extends", None)
    if extends is None:
        return items
    base = _base_path(path, extends, (*chain, path))
    below = read_chain(base, problems, (*chain, path))
    below.pop("name", None)
    return _merge_keys(below, items, problems)


def parse_items(text: str, path: Path, problems: list[Problem]) -> Items:
    """The keys of a recipe that is a text: YAML, for which nothing else is read.

    Args:
        text: The YAML.
        path: The file that it stands in, for errors.
        problems: Takes what is wrong but leaves the rest readable.

    Raises:
        RecipeError: It is not YAML, or not a mapping.
    """
    return _items(parse_mapping(text, path, problems))


def profiles(items: Items, problems: list[Problem]) -> dict[str, Items]:
    """A recipe's profiles by name, each the keys it changes; malformed ones are problems."""
    value = items.get("profiles")
    if value is None or value.content is None:
        return {}
    found: dict[str, Items] = {}
    entries = value.content if isinstance(value.content, dict) else {}
    for name, entry in entries.items():
        if isinstance(entry.content, dict):
            found[name] = _items(entry)
    if len(found) < max(len(entries), 1):
        remedy = "Write `profiles: {smoke: {data.max_length: 128}}`: names, each with its keys."
        message = "expected names of profiles, each with a mapping of keys to change"
        problems.append(_problem(message, "profiles", value.place, remedy))
    return found


def choose_profile(items: Items, profile: str, problems: list[Problem]) -> Items:
    """A recipe's keys with a profile's laid over them."""
    known = profiles(items, problems)
    if profile in known:
        return _merge_keys(items, known[profile], problems)
    listed = f"Profiles: {', '.join(known)}." if known else "The recipe has no profiles."
    remedy = suggest(profile, known) + listed
    problems.append(Problem(f"no profile is called '{profile}'", remedy=remedy))
    return items


def override(items: Items, overrides: Sequence[str], problems: list[Problem]) -> Items:
    """A recipe's keys with ``KEY=VALUE`` settings from the command line, each replacing its key."""
    for text in overrides:
        key, equals, written = text.partition("=")
        if not equals or not key or key.partition(".")[0] in ("extends", "profiles"):
            remedy = "Write --set KEY=VALUE, as --set steps.qat.learning_rate=1e-4."
            problems.append(Problem(f"--set '{text}' sets no key of the recipe", remedy=remedy))
            continue
        try:
            value = _parse_override(written, text)
            items = _items(
                _at(_mapping(items), key.split("."), key, _COMMAND_LINE, _replacing(value))
            )
        except RecipeError as error:
            problems += error.problems
    return items


def _merge_keys(below: Items, above: Items, problems: list[Problem]) -> Items:
    """One layer's keys over another's; the upper one's keys may be dotted."""
    for key, value in above.items():
        try:
            parts = key.split(".")
            below = _items(_at(_mapping(below), parts, key, value.place, _merging(value, key)))
        except RecipeError as error:
            problems += error.problems
    return below


def _replacing(value: Value) -> Callable[[Value | None], Value]:
    return lambda _: value


def _merging(above: Value, key: str) -> Callable[[Value | None], Value]:
    return lambda below: above if below is None else _merge(below, above, key)


def _merge(below: Value, above: Value, key: str) -> Value:
    if not isinstance(above.content, dict) or not isinstance(below.content, dict | list):
        return above
    if isinstance(below.content, list) and not _holds_mappings(below.content):
        return above
    for name, value in above.content.items():
        path = f"{key}.{name}"
        below = _at(below, [name], path, value.place, _merging(value, path))
    return Value(below.content, above.place)


def _at(
    below: Value | None,
    parts: Sequence[str],
    key: str,
    place: Place,
    change: Callable[[Value | None], Value],
) -> Value:
    """``below`` with the value that ``parts`` lead to changed; ``key`` and ``place`` for errors."""
    if not parts:
        return change(below)
    first, *rest = parts
    if below is None or below.content is None:
        return Value({first: _at(None, rest, key, place, change)}, place)
    if isinstance(below.content, list):
        index = _find_item(below.content, first, key, place)
        items = list(below.content)
        items[index] = _at(items[index], rest, key, place, change)
        return Value(items, below.place)
    if isinstance(below.content, dict):
        inner = _at(below.content.get(first), rest, key, place, change)
        return Value(below.content | {first: inner}, below.place)
    message = f"'{first}' is no key of the single value '{below.content}'"
    remedy = "Give the whole mapping instead."
    raise RecipeError([_problem(message, key, place, remedy)])


def _find_item(items: list[Value], called: str, key: str, place: Place) -> int:
    for label in _LABELS:
        found = [index for index, item in enumerate(items) if _text(item, label) == called]
        # A step without a name has that of its stage.
        nameless = [index for index in found if _text(items[index], "name") is None]
        found = nameless if len(nameless) == 1 else found
        if len(found) == 1:
            return found[0]
        if found:
            message = f"{len(found)} items have {label} '{called}'"
            remedy = f"Use an index: {' or '.join(map(str, found))}."
            raise RecipeError([_problem(message, key, place, remedy)])
    if called in map(str, range(len(items))):
        return int(called)
    calls = [next(filter(None, (_text(item, label) for label in _LABELS)), None) for item in items]
    known = [call for call in calls if call]
    message = f"no item is called '{called}'"
    remedy = f"{suggest(called, known)}Items: {', '.join(known)}; or use an index from 0."
    raise RecipeError([_problem(message, key, place, remedy)])


def _holds_mappings(items: list[Value]) -> bool:
    return any(isinstance(item.content, dict) for item in items)


def _text(item: Value, key: str) -> str | None:
    value = item.content.get(key) if isinstance(item.content, dict) else None
    return value.content if value is not None and isinstance(value.content, str) else None


def _base_path(path: Path, extends: Value, chain: tuple[Path, ...]) -> Path:
    place = extends.place
    remedy = "Write `extends: other.yaml`, a path from this file's folder."
    if not isinstance(extends.content, str):
        raise RecipeError([_problem("expected a file name", "extends", place, remedy)])
    base = path.parent / extends.content
    folders = roots.allowed(chain[0])
    if not roots.is_inside(base, folders):
        message = f"{base} is outside the folders that a recipe may read"
        remedy = f"Name its folder in {roots.ROOTS}. {roots.readable(folders)}"
        raise RecipeError([_problem(message, "extends", place, remedy)])
    try:
        found, real = base.is_file(), base.resolve()
        circle = real in [link.resolve() for link in chain]
    except (OSError, RuntimeError, ValueError):
        found, circle = False, False
    if not found:
        message = f"no such file: {base}"
        raise RecipeError([_problem(message, "extends", place, remedy)])
    if circle:
        links = " → ".join(str(link) for link in (*chain, base))
        message = f"recipes extend each other in a circle: {links}"
        raise RecipeError([_problem(message, "extends", place, "Remove one of the links.")])
    return base


def _parse_override(written: str, text: str) -> Value:
    soft: list[Problem] = []
    try:
        value = parse(written, None, soft)
        if soft:
            raise RecipeError(soft)
        return value
    except RecipeError as error:
        remedy = "VALUE is read as YAML: put text with special characters in double quotes."
        problems = [Problem(f"--set '{text}': {p.message}", remedy=remedy) for p in error.problems]
        raise RecipeError(problems) from None


def _problem(message: str, key: str, place: Place, remedy: str) -> Problem:
    if place == _COMMAND_LINE:
        message += " (from --set)"
    return Problem(message, place.file, place.line, key, remedy)


def _mapping(items: Mapping[str, Value]) -> Value:
    return Value(dict(items), _COMMAND_LINE)


def _items(value: Value) -> Items:
    assert isinstance(value.content, dict)
    return dict(value.content)
