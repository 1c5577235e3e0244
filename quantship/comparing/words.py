"""A comparison of runs as tables of text, the same for all its forms."""

from __future__ import annotations

from collections.abc import Sequence

from quantship.comparing.evaluated import NOTHING
from quantship.comparing.schema import ComparedTask, Comparison, Differing, Group
from quantship.reporting import evidence_text, ranking
from quantship.reporting.facts import FactTable
from quantship.reporting.formatting import DASH

TITLE = "Comparison of runs"
RUNS_TITLE = "Runs"
ENVIRONMENT_TITLE = "Machines and versions that differ"
RECIPES_TITLE = "Recipes: what differs"
MOST_KEYS = 40


def runs(comparison: Comparison) -> FactTable:
    """One row a run."""
    return FactTable(
        ("Run", "Evaluated on", "Made", "quantship", "Report"),
        tuple(
            (
                run.label,
                run.evaluation,
                f"{run.created:%Y-%m-%d %H:%M}",
                run.quantship_version,
                run.path,
            )
            for run in comparison.runs
        ),
    )


def statement(comparison: Comparison) -> str | None:
    """Why there are several rankings; None where there is one."""
    measured = [group for group in comparison.groups if group.evaluation != NOTHING]
    if len(measured) < 2:
        return None
    return (
        f"These runs were not evaluated on the same data, so there are {len(measured)} rankings, "
        "and their losses are NOT to be compared with one another: "
        + "; ".join(f"{', '.join(group.runs)} on {group.evaluation}" for group in measured)
        + "."
    )


def title(group: Group) -> str:
    """What a group's section is called."""
    return ", ".join(group.runs)


def remarks(group: Group) -> list[str]:
    """What else is to be known of a group's models."""
    lines = []
    if group.evaluation == NOTHING:
        lines.append(f"{', '.join(group.runs)}: the models were not evaluated, and are not ranked.")
    elif group.ranking is None:
        lines.append("There are fewer than two evaluated checkpoints to rank.")
    if group.speeds is not None:
        lines.append(f"The {group.speeds}, and are not compared.")
    lines += [
        f"{model.name} is one model with {', '.join(model.also)}."
        for model in group.models
        if model.also and model.row.kind in ("float", "torchao") and model.row.metrics is not None
    ]
    return lines


def algorithms(group: Group) -> dict[str, str]:
    """How the integers of a group's models were found, by the name of the model."""
    return {model.name: ranking.contender(model.row).algorithm for model in group.models}


def task_title(task: ComparedTask) -> str:
    """What the table of a task is called."""
    return f"{task.name}: {task.num_examples:,} examples (digest {task.digest[:12]})"


def task(task: ComparedTask) -> FactTable:
    """One row a model, the best first."""
    header = ("Model", *(evidence_text.titled(one) for one in task.metrics), "Behind the best")
    headline = task.metrics[0]
    return FactTable(
        header,
        tuple(
            (
                row.model,
                *(
                    evidence_text.in_words(one, row.result.metrics[one.name], task.num_examples)
                    for one in task.metrics
                ),
                DASH if row.behind is None else evidence_text.difference(headline, row.behind),
            )
            for row in task.rows
        ),
    )


def task_remark(task: ComparedTask) -> str:
    """How the intervals of a task are to be read."""
    if task.unpaired is not None:
        return f"Not compared example by example: {task.unpaired}."
    return f"Intervals by the paired bootstrap. {evidence_text.OVER_EXAMPLES}"


def environment(comparison: Comparison) -> FactTable | None:
    """One row a fact in which the machines differ; None where none does."""
    return _table(comparison, "What", comparison.environment)


def recipes(comparison: Comparison) -> FactTable | None:
    """One row a key in which the recipes differ, the first ones; None where none does."""
    return _table(comparison, "Key", comparison.recipes[:MOST_KEYS])


def left_out(comparison: Comparison) -> str | None:
    """How many keys are not in the table of the recipes; None: all are."""
    more = len(comparison.recipes) - MOST_KEYS
    return f"{more} more keys differ; --json lists all of them." if more > 0 else None


def _table(comparison: Comparison, first: str, found: Sequence[Differing]) -> FactTable | None:
    if not found:
        return None
    labels = [run.label for run in comparison.runs]
    body = tuple((one.key, *(one.values[label] for label in labels)) for one in found)
    return FactTable((first, *labels), body)
