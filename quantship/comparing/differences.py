"""In what the recipes and the machines of several runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from quantship.comparing.opening import Opened
from quantship.comparing.schema import Differing
from quantship.reporting import formatting

NO_MATTER = ("name", "description")
ABSENT = formatting.DASH
LONGEST = 60


def environment(runs: Sequence[Opened]) -> list[Differing]:
    """Machines and versions of libraries that are not the same in all runs."""
    found = []
    for run in runs:
        env = run.report.environment
        machine = env.model_dump(exclude={"versions", "memory_bytes", "instruction_sets"})
        machine["memory"] = formatting.size(env.memory_bytes)
        machine["instruction_sets"] = ", ".join(env.instruction_sets)
        found.append({key: _text(value) for key, value in {**machine, **env.versions}.items()})
    return _differing(runs, found)


def recipes(runs: Sequence[Opened]) -> list[Differing]:
    """Keys of the recipes that are not the same in all runs; steps go by their names.

    A step that some run does not have is one entry, whatever is in it.
    """
    steps = [_steps(run.report.recipe) for run in runs]
    shared = set.intersection(*(set(found) for found in steps))
    found = []
    for run, own in zip(runs, steps, strict=True):
        recipe = {key: value for key, value in run.report.recipe.items() if key not in NO_MATTER}
        recipe["steps"] = {
            name: step if name in shared else str(step.get("stage")) for name, step in own.items()
        }
        found.append(dict(_flat(recipe)))
    return _differing(runs, found)


def _steps(recipe: dict[str, Any]) -> dict[str, Any]:
    listed = recipe.get("steps")
    steps = listed if isinstance(listed, list) else []
    return {str(step.get("name")): step for step in steps if isinstance(step, dict)}


def _differing(runs: Sequence[Opened], found: Sequence[dict[str, str]]) -> list[Differing]:
    keys = dict.fromkeys(key for one in found for key in one)
    return [
        Differing(
            key=key,
            values={run.label: one.get(key, ABSENT) for run, one in zip(runs, found, strict=True)},
        )
        for key in keys
        if len({one.get(key, ABSENT) for one in found}) > 1
    ]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for place, inner in enumerate(value):
            yield from _flat(inner, f"{path}.{place}")
    else:
        yield path, _text(value)


def _text(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list():
            return ", ".join(map(str, value)) or "none"
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
