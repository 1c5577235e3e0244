"""From a YAML file to a checked Recipe, or to every problem it has, with file and line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from quantship.errors import Problem, RecipeError
from quantship.recipe import (
    classifier,
    evaluations,
    files,
    fit,
    gate_checks,
    push_layout,
    roots,
    splits,
    sweeps,
    tracking_options,
)
from quantship.recipe.findings import Finding
from quantship.recipe.language import Recipe
from quantship.recipe.layers import (
    Items,
    choose_profile,
    override,
    parse_items,
    profiles,
    read_chain,
)
from quantship.recipe.problems import explain_error, given, spot
from quantship.recipe.resolve import resolve
from quantship.recipe.yaml_source import Key, Place, Value, dotted, locate, plain, texts
from quantship.scrubbing import is_secret

_SHAPING = {"name", "stage", "input", "scheme", "schemes", "lowering", "adapter", "task"}
"""Keys that other parts of a recipe refer to or depend on."""


def load(path: Path, *, overrides: Sequence[str] = (), profile: str | None = None) -> Recipe:
    """Read a recipe: what it extends, the file, one of its profiles, settings; then check it.

    Every step of the recipe that comes back has its name, input and scheme filled in. Nothing is
    written to disk.

    Args:
        path: The YAML file.
        overrides: ``KEY=VALUE`` settings; keys are dotted, values are YAML.
        profile: Name of one of the file's profiles.

    Raises:
        RecipeError: Everything that is wrong, each with file, line, key and remedy.
    """
    problems: list[Problem] = []
    items = read_chain(path, problems)
    profiles(items, problems)
    recipe = _compose(path, items, overrides, profile, problems)
    return _flawless(recipe, problems)


def load_text(text: str, path: Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """As ``load``, of a recipe that stands in a file of another kind.

    Args:
        text: The recipe as YAML, on the lines that it has in the file.
        path: The file, for errors.
        overrides: ``KEY=VALUE`` settings.

    Raises:
        RecipeError: Everything that is wrong, each with file, line, key and remedy.
    """
    problems: list[Problem] = []
    items = parse_items(text, path, problems)
    return _flawless(_compose(path, items, overrides, None, problems), problems)


def check(path: Path, *, overrides: Sequence[str] = (), profile: str | None = None) -> Recipe:
    """As ``load``, and try the recipe without a profile and with each one as well.

    Raises:
        RecipeError: Everything that is wrong with any of them.
    """
    problems: list[Problem] = []
    items = read_chain(path, problems)
    recipe = _compose(path, items, overrides, profile, problems)
    for other in (None, *profiles(items, problems)):
        if other != profile:
            _compose(path, items, overrides, other, problems)
    return _flawless(recipe, problems)


def _flawless(recipe: Recipe | None, problems: Sequence[Problem]) -> Recipe:
    if problems:
        raise RecipeError(sorted(dict.fromkeys(problems), key=_by_place))
    assert recipe is not None
    return recipe


def _compose(
    path: Path,
    items: Items,
    overrides: Sequence[str],
    profile: str | None,
    problems: list[Problem],
) -> Recipe | None:
    """The recipe of these layers; None, with problems added, where it is none."""
    if profile is not None:
        items = choose_profile(items, profile, problems)
    items = override(items, overrides, problems)
    source = Value({key: item for key, item in items.items() if key != "profiles"}, Place(path, 1))
    expansion = sweeps.expand(source)
    missteps = {finding.key for finding in expansion.findings}
    problems += [_as_problem(finding, source) for finding in expansion.findings]
    values = {"name": _name(path)} | plain(expansion.source)
    problems += [_as_problem(finding, source) for finding in _secrets(expansion)]
    errors = [
        error
        for error in _validation_errors(values)
        if expansion.written(spot(error["loc"]).key) not in missteps
    ]
    problems += [explain_error(error, source, expansion.written) for error in errors]
    broken = {spot(error["loc"]).key for error in errors}
    recipe, kept = _salvage(values, broken)
    if recipe is None:
        return None
    stray = list(roots.find_problems(recipe, expansion.source, path, expansion.written))
    refused = {each.key for each in stray}
    resolved, findings = resolve(recipe, _flawed_schemes(broken), expansion.names)
    findings += stray
    findings += sweeps.find_duplicates(recipe, expansion, {key[1] for key in broken if key[1:]})
    seen = roots.without(resolved, refused)  # what may not be read is not looked at
    unusable = list(files.find_problems(seen))
    findings += unusable
    if ("model", "path") not in refused:
        findings += classifier.find_problems(seen)
    findings += [
        one
        for one in evaluations.find_problems(seen)
        if not any(one.key[: len(key) - 1] == key[:-1] for key in refused)
    ]
    findings += tracking_options.find_problems(resolved)
    if not any(key[0] in ("evaluation", "benchmark") for key in broken if key):
        findings += gate_checks.find_problems(resolved)  # else what is measured is not known
    findings += push_layout.find_problems(resolved)
    findings += splits.find_problems(resolved)
    if not any(each.key[0] == "model" for each in (*unusable, *stray)):
        findings += fit.find_problems(seen)
    findings += _booleans_taken_as_numbers(kept, recipe.model_dump(), ())
    told = [each for each in findings if each.key not in broken]
    told = [one for one in sweeps.told_once(told, expansion) if one.key not in missteps]
    problems += [_as_problem(finding, source) for finding in told]
    return resolved


def _secrets(expansion: sweeps.Expansion) -> Iterator[Finding]:
    """Texts that hold a token or a password: a recipe is copied into all that it makes."""
    remedy = "Take it out, and put it in the environment, as HF_TOKEN; then make a new one."
    for key, value in texts(expansion.source):
        if is_secret(value):
            yield Finding(expansion.written(key), "holds what looks like a secret", remedy)


def _validation_errors(values: dict[str, Any]) -> list[ErrorDetails]:
    try:
        Recipe.model_validate(values)
    except ValidationError as error:
        # A list with broken items is "too short" to pydantic; that says nothing new.
        errors = error.errors(include_url=False)
        return [
            detail
            for detail in errors
            if detail["type"] != "too_short" or not _has_others_below(detail, errors)
        ]
    return []


def _has_others_below(error: ErrorDetails, errors: Iterable[ErrorDetails]) -> bool:
    depth = len(error["loc"])
    return any(one["loc"][:depth] == error["loc"] and one is not error for one in errors)


def _booleans_taken_as_numbers(value: Any, made: Any, key: Key) -> Iterator[Finding]:
    """Where ``true`` became 1: pydantic lets it pass, and nobody means it."""
    if isinstance(value, dict) and isinstance(made, dict):
        for name in value.keys() & made.keys():
            yield from _booleans_taken_as_numbers(value[name], made[name], (*key, name))
    elif isinstance(value, list) and isinstance(made, tuple | list):
        for index, (item, made_item) in enumerate(zip(value, made, strict=True)):
            yield from _booleans_taken_as_numbers(item, made_item, (*key, index))
    elif isinstance(value, bool) and isinstance(made, int | float) and not isinstance(made, bool):
        yield Finding(key, f"expected a number, got {given(value)}", "Give a number.")


def _salvage(values: dict[str, Any], broken: set[Key]) -> tuple[Recipe | None, dict[str, Any]]:
    """The recipe without its broken keys, so that the rest can be checked in the same go.

    A scheme goes as a whole: half of it would be another scheme. So does any mapping that is
    nothing without a broken key. None where what is left is no recipe, or where the broken keys
    shape the rest of it.
    """
    whole = {("schemes", name) for name in _flawed_schemes(broken)}
    broken = {key for key in broken if key[:2] not in whole} | whole
    kept = _without(values, broken, ())
    if any(key and key[-1] in _SHAPING for key in broken):
        return None, kept
    errors = _validation_errors(kept)
    around = {spot(error["loc"]).key[:-1] for error in errors}
    if errors and all(key and isinstance(key[-1], str) for key in around):
        kept = _without(kept, around, ())
        errors = _validation_errors(kept)
    return (None if errors else Recipe.model_validate(kept)), kept


def _flawed_schemes(broken: Iterable[Key]) -> set[str]:
    """Names of the recipe's own schemes that could not be read."""
    return {str(key[1]) for key in broken if key[0:1] == ("schemes",) and len(key) > 1}


def _without(value: Any, broken: set[Key], key: Key) -> Any:
    if isinstance(value, dict):
        return {
            name: _without(item, broken, (*key, name))
            for name, item in value.items()
            if (*key, name) not in broken
        }
    if isinstance(value, list):
        # Items stay where they are, broken or not, so that keys still fit.
        return [_without(item, broken, (*key, index)) for index, item in enumerate(value)]
    return value


def _as_problem(finding: Finding, source: Value) -> Problem:
    place = locate(source, finding.key)
    message = finding.message + (" (from --set)" if place.file is None else "")
    return Problem(message, place.file, place.line, dotted(finding.key), finding.remedy)


def _by_place(problem: Problem) -> tuple[str, int]:
    return (str(problem.file or ""), problem.line or 0)


def _name(path: Path) -> str:
    """A file's name without its suffix, in the letters that a recipe's name may have."""
    return re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).lstrip("._-") or "recipe"
