"""Everything in a report besides its models, as plain text: data, training, environment, recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import StringIO

from pydantic import JsonValue
from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from quantship.reporting import formatting
from quantship.reporting.schema import Report, TrainingCurve

DIGEST = re.compile(r"[0-9a-f]{40,}")


@dataclass(frozen=True)
class FactTable:
    """A small table: a header and rows of as many cells."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def data_tables(report: Report) -> list[FactTable]:
    """The data stage's facts: single values first, then one column a mapping, then lists.

    Mappings at the top (``train``, ``eval``) stand side by side; deeper ones become dotted names.
    A list of mappings becomes a table of its own, a row an entry.
    """
    single, mappings, lists = {}, {}, {}
    for key, value in report.data.items():
        if isinstance(value, dict):
            mappings[key] = dict(_flat(value))
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            lists[key] = [dict(_flat(item)) for item in value]
        else:
            single[key] = _text(value)
    tables = []
    if single:
        tables.append(FactTable(("Fact", "Value"), tuple(single.items())))
    if mappings:
        names = _union(mappings.values())
        body = tuple((n, *(m.get(n, formatting.DASH) for m in mappings.values())) for n in names)
        tables.append(FactTable(("Fact", *mappings), body))
    for key, items in lists.items():
        names = _union(items)
        body = tuple(
            (str(place), *(item.get(n, formatting.DASH) for n in names))
            for place, item in enumerate(items, start=1)
        )
        tables.append(FactTable((key, *names), body))
    return tables


def routes_table(report: Report) -> FactTable | None:
    """One row another route to a model's integers; None where none was tried."""
    if not report.routes:
        return None
    header = ("Model", "Route", "Held against", "Codes equal", "Matrices equal", "Perplexity")
    return FactTable(
        header,
        tuple(
            (
                route.model,
                route.route,
                route.reference,
                "all, and scales" if route.codes_equal else f"{route.share_of_codes_equal:.2%}",
                f"{route.tensors_compared - route.tensors_different} of {route.tensors_compared}",
                formatting.DASH
                if route.perplexity is None
                else formatting.number(route.perplexity),
            )
            for route in report.routes
        ),
    )


def training_table(report: Report) -> FactTable | None:
    """One row a training; None where nothing was trained."""
    if not report.training:
        return None
    header = ("Step", "Stage", "Scheme", "Steps", "Loss", "Time", "Tokens/s", "Resumed")
    return FactTable(header, tuple(_training_row(curve) for curve in report.training))


def environment(report: Report) -> list[tuple[str, str]]:
    """The machine and the libraries, as pairs of a name and its value."""
    env = report.environment
    return [
        ("CPU", f"{env.cpu_model}, {env.num_cpus} CPUs"),
        ("Instruction sets", ", ".join(env.instruction_sets) or formatting.DASH),
        ("Memory", formatting.size(env.memory_bytes)),
        ("GPU", env.gpu or "none"),
        ("System", env.os),
        ("Python", env.python),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in env.versions.items())),
    ]


def created(report: Report) -> str:
    """When the report was made, to the minute, with its offset from UTC."""
    return f"{report.created:%Y-%m-%d %H:%M} {report.created:%Z}".rstrip()


def recipe_yaml(report: Report) -> str:
    """The resolved recipe as YAML, in its own order; running it repeats the run."""
    text = StringIO()
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width = 100
    yaml.dump(report.recipe, text)
    return text.getvalue()


class _Representer(RoundTripRepresenter):
    """Writes None as ``null``, where ruamel would leave the value out."""


_Representer.add_representer(
    type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
)


def repeat_command(report: Report) -> str:
    """The command that repeats the run, once the recipe is saved under the run's name."""
    return f"quantship run {report.name}.yaml"


def _training_row(curve: TrainingCurve) -> tuple[str, ...]:
    steps = loss = formatting.DASH
    if curve.points:
        first, last = curve.points[0], curve.points[-1]
        steps = f"{last.step:,}"
        loss = f"{formatting.number(first.loss)} → {formatting.number(last.loss)}"
    resumed = "no" if curve.resumed_from is None else f"from step {curve.resumed_from:,}"
    return (
        curve.step,
        curve.stage,
        curve.scheme or formatting.DASH,
        steps,
        loss,
        formatting.duration(curve.seconds),
        formatting.speed(curve.tokens_per_s),
        resumed,
    )


def _flat(value: JsonValue, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for place, inner in enumerate(value, start=1):
            yield from _flat(inner, f"{path}.{place}")
    elif path:
        yield path, _text(value)


def _text(value: JsonValue) -> str:
    match value:
        case None | [] | {} | "":
            return formatting.DASH
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:g}"
        case str():
            return f"{value[:12]}…" if DIGEST.fullmatch(value) else value
        case list():
            return ", ".join(_text(item) for item in value)
        case _:
            return "; ".join(f"{key}: {text}" for key, text in _flat(value))


def _union(mappings: Iterable[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))
