"""SQuAD: questions on passages, answered in the passage's own words.

In a recipe: ``{task: squad, source: {adapter: squad, path: dev-v1.1.json}, limit: 200}``.

A model with a chat template is given passage and question as the user's turn; one without reads

    Context: The Panthers defense gave up just 308 points, ...

    Question: How many points did the Panthers defense surrender?

    Answer:

and its answer ends with the line. An answer is compared with every right one as SQuAD's own script
does: without case, punctuation, articles and spare spaces; the best of them counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

from pydantic import Field, field_validator

from quantship.data import squad
from quantship.data.squad import Asked
from quantship.tasks.base import Context, Example, Metric, Outcome, Subject, TaskOptions, known_as
from quantship.tasks.prompting import Request, shortened

METRICS = (
    Metric("f1", "higher", "share"),
    Metric("exact_match", "higher", "share", judges=True),
)
_ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Options(TaskOptions):
    """Reading comprehension: words shared with the right answers, and exact matches."""

    task: Literal["squad"]
    source: squad.Options = squad.Options(adapter="squad", split="validation")
    """Passages and questions; default: the validation split of rajpurkar/squad."""
    max_new_tokens: int = Field(default=48, ge=1)
    """Longest answer in tokens."""

    @field_validator("source")
    @classmethod
    def _validation_split(cls, source: squad.Options) -> squad.Options:
        chosen = "split" in source.model_fields_set
        return source if chosen else source.model_copy(update={"split": "validation"})


def evaluate(subject: Subject, options: Options, context: Context) -> Outcome:
    """F1 over words, and equality, of each answer with the nearest of the right ones."""
    from itertools import islice

    from quantship.tasks import answers

    asked = list(islice(squad.asked(options.source), options.source.limit))[: options.limit]
    requests = [_request(one) for one in asked]
    found, notes = answers.collect(
        subject, requests, options.max_new_tokens, context, until=("\n",)
    )
    return Outcome(
        METRICS,
        [
            Example(
                known_as(one.origin),
                judge(answer.text.strip(), one.answers),
                prompt=shortened(one.prompt),
                expected=" | ".join(dict.fromkeys(one.answers)),
                answer=answer.text.strip(),
            )
            for one, answer in zip(asked, found, strict=True)
        ],
        notes=notes,
    )


def judge(answer: str, right: Iterable[str]) -> dict[str, float]:
    """Values of both metrics of an answer."""
    right = tuple(right)
    return {"f1": _best(f1, answer, right), "exact_match": _best(exact, answer, right)}


def normalized(text: str) -> str:
    """Without case, punctuation, articles and spare spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(answer: str, right: str) -> float:
    """1 where both are the same once normalized, else 0."""
    return float(normalized(answer) == normalized(right))


def f1(answer: str, right: str) -> float:
    """Harmonic mean of precision and recall over normalized words, each as often as it occurs."""
    said, wanted = normalized(answer).split(), normalized(right).split()
    shared = (Counter(said) & Counter(wanted)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(said), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _best(measure: Callable[[str, str], float], answer: str, right: tuple[str, ...]) -> float:
    return max(measure(answer, one) for one in right)


def _request(one: Asked) -> Request:
    text = f"Context: {one.context}\n\nQuestion: {one.question}\n\nAnswer:"
    return Request(({"role": "user", "content": one.prompt},), text, one.origin)
