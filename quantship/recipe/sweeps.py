"""Sweeps: a list where a step wants one value makes a step of each of its values.

Several lists make all combinations. Another step that names a swept step means all that it became:
an export exports them all, and a step that works on one model is itself swept over them. All this
happens on the values of the file, before the language looks at them, so that whatever is wrong is
told at the line of the list's item.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from quantship.recipe import variant_names
from quantship.recipe.findings import Finding
from quantship.recipe.language import Recipe
from quantship.recipe.model_options import STEP_NAME
from quantship.recipe.resolve import RESERVED
from quantship.recipe.sweep_axes import Axis, find_axes, is_step
from quantship.recipe.sweep_references import Made, called, export_all, follow, note, settle_teacher
from quantship.recipe.values import replace
from quantship.recipe.yaml_source import Key, Value

LIMIT = 256
"""Steps that one step may become."""


@dataclass(frozen=True)
class Origin:
    """Where a step comes from.

    Args:
        index: Of the step as it was written.
        items: For each key of the step that is swept over, the item of the list that this step has;
            None where no list was written, but the name of a swept step.
        moved: Keys as they were written, by those of the step, where they differ otherwise.
    """

    index: int
    items: Mapping[Key, int | None] = field(default_factory=dict)
    moved: Mapping[Key, Key] = field(default_factory=dict)


@dataclass(frozen=True)
class Expansion:
    """A recipe's values with each swept step replaced by the steps that it means.

    Args:
        source: The values.
        origins: Of each step, in order; empty where the recipe holds no list of steps.
        names: Of the steps that a swept step became, by its own name.
        findings: What is wrong with the sweeps, at keys as they were written.
    """

    source: Value
    origins: tuple[Origin, ...] = ()
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def written(self, key: Key) -> Key:
        """The key as it was written of one in ``source``."""
        if not self.origins or len(key) < 2 or key[0] != "steps" or not isinstance(key[1], int):
            return key
        origin = self.origins[key[1]]
        moved = origin.moved.get(key[2:4])
        if moved is not None:
            return ("steps", origin.index, *moved, *key[4:])
        found: Key = ("steps", origin.index)
        for end in range(2, len(key)):
            item = origin.items.get(key[2 : end + 1])
            found = (*found, key[end]) if item is None else (*found, key[end], item)
        return found

    def steps_at(self, key: Key) -> list[int]:
        """Indices of the steps in ``source`` that have what is written at a key of one of them."""
        if key[:1] != ("steps",) or len(key) < 2:
            return []
        written = self.written(key)
        alike = (("steps", index, *key[2:]) for index in range(len(self.origins)))
        return [index for index, one in enumerate(alike) if self.written(one) == written]


def expand(source: Value) -> Expansion:
    """Replace each swept step by the steps that it means.

    Args:
        source: The values of a recipe, whatever they are; without a sweep they stay as they are.
    """
    assert isinstance(source.content, dict)
    listed = source.content.get("steps")
    if listed is None or not isinstance(listed.content, list):
        return Expansion(source)
    findings: list[Finding] = []
    steps: list[Value] = []
    origins: list[Origin] = []
    made: list[Made] = []
    for index, step in enumerate(listed.content):
        variants = _variants(index, step, made, findings) if is_step(step) else []
        variants = variants or [(step, Origin(index))]
        steps += [value for value, _ in variants]
        origins += [origin for _, origin in variants]
        made.append(note(step, [value for value, _ in variants]))
    findings += _name_findings(made)
    changed = replace(source, ("steps",), Value(steps, listed.place))
    names = {one.called: one.names for one in made if one.swept}
    return Expansion(changed, tuple(origins), names, tuple(findings))


def find_duplicates(
    recipe: Recipe, expansion: Expansion, broken: Collection[object]
) -> Iterator[Finding]:
    """Values of a list that make the same step as another of them.

    Args:
        recipe: As it was read.
        expansion: Its sweeps.
        broken: Indices of steps that could not be read as a whole.
    """
    seen: dict[tuple[int, str], Origin] = {}
    for index, (step, origin) in enumerate(zip(recipe.steps, expansion.origins, strict=True)):
        said = step.model_copy(update={"name": None}).model_dump_json()
        other = seen.setdefault((origin.index, said), origin)
        if other is origin or index in broken:
            continue
        key = next((key for key, item in origin.items.items() if item != other.items[key]), ())
        message = "means the same as another value of the list"
        yield Finding(("steps", index, *key), message, "Name each value once.")


def told_once(findings: Sequence[Finding], expansion: Expansion) -> list[Finding]:
    """Findings at keys as they were written, one for all steps of a sweep that have it.

    What nobody reads is told only where no other step of the sweep reads it.

    Args:
        findings: At keys of ``expansion.source``.
        expansion: The recipe's sweeps.
    """
    together: dict[tuple[Key, str], list[Finding]] = {}
    for finding in findings:
        together.setdefault((expansion.written(finding.key), finding.remedy), []).append(finding)
    told = []
    for (key, remedy), alike in together.items():
        steps = expansion.steps_at(alike[0].key)
        if alike[0].unread and {finding.key[1] for finding in alike} != set(steps):
            continue
        messages = list(dict.fromkeys(finding.message for finding in alike))
        if len(steps) > 1 and len(messages) > 1:
            messages = [f"{messages[0]} (and {len(messages) - 1} more like it)"]
        told += [Finding(key, message, remedy) for message in messages]
    return told


def _variants(
    index: int, step: Value, made: Sequence[Made], findings: list[Finding]
) -> list[tuple[Value, Origin]]:
    """The steps that a step means, each with where it comes from."""
    key = ("steps", index)
    step, axes = follow(step, find_axes(step, key, findings), made)
    step, moved = export_all(step, made)
    for axis in axes:
        if not axis.choices:
            step = replace(step, axis.key, None)
    axes = [axis for axis in axes if axis.choices]
    number = math.prod(len(axis.choices) for axis in axes)
    if number > LIMIT:
        message = f"its lists come to {number} steps, and {LIMIT} are the most"
        findings.append(Finding(key, message, "Shorten a list, or sweep in several recipes."))
        axes = [Axis(axis.key, axis.choices[:1]) for axis in axes]
    combinations = list(product(*(axis.choices for axis in axes)))
    variants = []
    for name, combination in zip(_names(step, axes), combinations, strict=True):
        variant = step if name is None else _named(step, name)
        for axis, choice in zip(axes, combination, strict=True):
            variant = replace(variant, axis.key, choice.value)
        chosen = {axis.key: one.item for axis, one in zip(axes, combination, strict=True)}
        variant = settle_teacher(variant, key, made, findings)
        variants.append((variant, Origin(index, chosen, moved)))
    return variants


def _named(step: Value, name: str) -> Value:
    assert isinstance(step.content, dict)
    place = step.content["name"].place if "name" in step.content else step.place
    return replace(step, ("name",), Value(name, place))


def _names(step: Value, axes: Sequence[Axis]) -> list[str] | list[None]:
    """A name for each combination; None leaves what is written, a wrong name above all."""
    base = called(step)
    number = math.prod(len(axis.choices) for axis in axes)
    if number == 1 or base is None or not re.search(STEP_NAME, base) or base in RESERVED:
        return [None] * number
    parts = [
        variant_names.parts(axis.key, [choice.value for choice in axis.choices]) for axis in axes
    ]
    return variant_names.names(base, [*product(*parts)])


def _name_findings(made: Sequence[Made]) -> Iterator[Finding]:
    """Steps that share a name with a swept one, so that it could mean either."""
    for index, one in enumerate(made):
        others = [other for other in made[:index] if other.called == one.called]
        if one.called and any(one.swept or other.swept for other in others):
            message = f"another step is called '{one.called}'"
            yield Finding(("steps", index, "name"), message, "Give each its own name.")
