"""What the models of a run say to the same prompts."""

from __future__ import annotations

from quantship.reporting.evidence_schema import SideBySide
from quantship.reporting.formatting import shortened
from quantship.reporting.task_scores import TaskScores

SHOWN_FOR_THEMSELVES = "generations"
"""Task whose only purpose are the texts, so that all of them are shown."""
MOST_PROMPTS = {SHOWN_FOR_THEMSELVES: 50}
FEW_PROMPTS = 5
LONGEST = 2000
"""Characters of each text; the whole one is in the evaluation's examples.jsonl."""


def collect(scores: TaskScores) -> list[SideBySide]:
    """The first prompts that models have answered in words, with all their answers."""
    asked = scores.any_model
    found = []
    for place, name in enumerate(asked.ids):
        words = asked.words[place]
        answers = {
            model: text
            for model, one in scores.models.items()
            if (text := shortened(one.words[place].answer, LONGEST)) is not None
        }
        if words.prompt is None or not answers:
            continue
        found.append(
            SideBySide(
                task=scores.name,
                id=name,
                prompt=shortened(words.prompt, LONGEST) or "",
                expected=shortened(words.expected, LONGEST),
                answers=answers,
            )
        )
        if len(found) == MOST_PROMPTS.get(scores.task, FEW_PROMPTS):
            break
    return found
