"""The lists of a step where the language wants one value, which are what it is swept over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from quantship.recipe.findings import Finding
from quantship.recipe.keys import annotated, discriminator, element, models
from quantship.recipe.language import Recipe
from quantship.recipe.values import text
from quantship.recipe.yaml_source import Key, Value

_STEP = element(annotated(Recipe.model_fields["steps"]))
_REMEDY = "Write one value, or two or more to make a step of each."


@dataclass(frozen=True)
class Choice:
    """One value of a sweep, and the item of the written list that it was; None: of no list."""

    value: Value
    item: int | None


@dataclass(frozen=True)
class Axis:
    """The values that one key of a step is swept over."""

    key: Key
    choices: tuple[Choice, ...]


def is_step(value: Value) -> bool:
    """Whether a value is a step of a stage that there is, whatever else it holds."""
    return text(value, "stage") in models(_STEP)


def find_axes(step: Value, key: Key, findings: list[Finding]) -> list[Axis]:
    """The lists of a step that it is swept over, in the order in which they are written.

    Args:
        step: One that ``is_step``.
        key: Where it stands.
        findings: Takes what is wrong with the lists; their other items are used.
    """
    return list(_below(step, _STEP, (), key, findings))


def _below(
    value: Value, annotation: Any, path: Key, step: Key, findings: list[Finding]
) -> Iterator[Axis]:
    if isinstance(value.content, list):
        if element(annotation) is None:
            yield Axis(path, tuple(_choices(value.content, annotation, (*step, *path), findings)))
        return
    if not isinstance(value.content, dict):
        return
    tag, known = discriminator(annotation), models(annotation)
    model = known.get("" if tag is None else text(value, tag) or "")
    for name, item in value.content.items():
        field = model.model_fields.get(name) if model is not None else None
        # A list of kinds, or of names, is refused with the other values of a wrong type.
        if field is not None and name != tag and (path or name != "name"):
            yield from _below(item, annotated(field), (*path, name), step, findings)


def _choices(
    listed: Sequence[Value], annotation: Any, key: Key, findings: list[Finding]
) -> Iterator[Choice]:
    if len(listed) < 2:
        given = "a list of one" if listed else "an empty list"
        findings.append(Finding(key, f"{given} sweeps over nothing", _REMEDY))
    for index, item in enumerate(listed):
        nested = [*_below(item, annotation, (), (*key, index), [])]
        if nested:
            message = "a list in a list of values to sweep over"
            remedy = "Write out each value, or sweep in a step of its own."
            findings.append(Finding((*key, index, *nested[0].key), message, remedy))
        else:
            yield Choice(item, index)
