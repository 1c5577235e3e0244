"""What models say: answers side by side, and the examples that a model has lost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

from quantship.reporting import formatting
from quantship.reporting.evidence_schema import LostExample, Regressions, SideBySide
from quantship.reporting.schema import Report

PIECE = re.compile(r"\s+|\S+")
SUMMARY = 110
"""Characters of a prompt that stand for it while it is closed."""
TEMPLATE_MARK = re.compile(r"<\|[^|<>]*\|>")
FEWEST_WORDS = 4
NOTHING = "(nothing)"


@dataclass(frozen=True)
class Answer:
    """One answer and the models that gave it, letter for letter.

    Args:
        models: Their names; the float model first.
        same: What the answer has in common with the float model's, from the beginning.
        marked: The first word that differs; empty: there is none.
        rest: What comes after it.
        note: How it differs, in a few words.
    """

    models: list[str]
    same: str
    marked: str
    rest: str
    note: str


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Args:
        summary: One line of it.
        id: Where it comes from.
        prompt: What the models were given.
        expected: What is right; may be empty.
        answers: What they said.
    """

    summary: str
    id: str
    prompt: str
    expected: str
    answers: list[Answer]


@dataclass(frozen=True)
class Lost:
    """What one model has lost on one task.

    Args:
        summary: The counts, in a sentence.
        model: Name of the model.
        over: Name of the float model.
        examples: Some of the lost ones.
        more: How many others there are.
    """

    summary: str
    model: str
    over: str
    examples: list[LostExample]
    more: int


def prompts(report: Report) -> list[Prompt]:
    """The prompts of a report, each with the answers that there are to it."""
    if report.evidence is None:
        return []
    sources = {row.name: row.float_source for row in report.models}
    floats = {row.name for row in report.models if row.scheme is None}
    return [_prompt(one, sources, floats) for one in report.evidence.generations]


def lost(report: Report) -> list[Lost]:
    """What models have lost, those first that have lost most."""
    if report.evidence is None:
        return []
    entries = [one for one in report.evidence.regressions if one.num_lost or one.num_won]
    ordered = sorted(entries, key=lambda one: one.num_won - one.num_lost)
    return [_lost(one) for one in ordered]


def compared(answer: str, reference: str) -> tuple[str, str, str]:
    """What an answer has in common with another, its first other word, and what comes after.

    Where it ends while the other goes on, the word is empty, and so is the rest.
    """
    ours, theirs = PIECE.findall(answer), PIECE.findall(reference)
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))
    count = sum(1 for _ in pairs)
    if count < len(ours) and ours[count].isspace() and count + 1 < len(ours):
        count += 1  # a mark on white space alone is not seen
    return "".join(ours[:count]), "".join(ours[count : count + 1]), "".join(ours[count + 1 :])


def _prompt(side: SideBySide, sources: Mapping[str, str | None], floats: set[str]) -> Prompt:
    reference = _reference(side, sources, floats)
    said = side.answers.get(reference, "")
    groups: dict[str, list[str]] = {}
    for model in sorted(side.answers, key=lambda name: name != reference):
        groups.setdefault(side.answers[model], []).append(model)
    return Prompt(
        summary=formatting.shortened(_telling(side), SUMMARY) or side.id,
        id=side.id,
        prompt=side.prompt.strip(),
        expected=(side.expected or "").strip(),
        answers=[_answer(answer, models, said, reference) for answer, models in groups.items()],
    )


def _telling(side: SideBySide) -> str:
    """The last line of a prompt that says something, so neither a role nor a mark of a template."""
    plain = TEMPLATE_MARK.sub("", side.prompt)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    telling = [line for line in lines if len(line.split()) >= FEWEST_WORDS]
    return (telling or lines or [side.id])[-1]


def _reference(side: SideBySide, sources: Mapping[str, str | None], floats: set[str]) -> str:
    """The float model that most of the others come from, of those that have answered."""
    votes = [source for name in side.answers if (source := sources.get(name)) in side.answers]
    others = [vote for vote in votes if vote is not None]
    candidates = [*others, *(name for name in side.answers if name in floats), *side.answers]
    return max(dict.fromkeys(others), key=others.count) if others else candidates[0]


def _answer(answer: str, models: list[str], reference: str, name: str) -> Answer:
    if name in models:
        return Answer(models, answer or NOTHING, "", "", "")
    same, marked, rest = compared(answer, reference)
    if not marked:
        note = f"ends where {name} goes on" if answer else f"{name} says something"
        return Answer(models, same or NOTHING, "", "", note)
    note = (
        f"goes on where {name} ends"
        if same.rstrip() == reference.rstrip()
        else f"differs from {name} at the mark"
    )
    return Answer(models, same, marked, rest, note)


def _lost(entry: Regressions) -> Lost:
    won = f"{entry.num_won:,} won" if entry.num_won else "none won"
    return Lost(
        summary=f"{entry.model} on {entry.task}: {entry.num_lost:,} lost, {won}",
        model=entry.model,
        over=entry.over,
        examples=entry.examples,
        more=entry.num_lost - len(entry.examples),
    )
