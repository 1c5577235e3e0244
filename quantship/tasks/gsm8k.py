"""GSM8K: word problems solved step by step, right where the final number is.

In a recipe: ``{task: gsm8k, source: {adapter: gsm8k, path: test.jsonl}, limit: 200}``.

A model with a chat template is given the question as the user's turn, with ``shots`` solved ones as
turns before it; a model without one reads

    Question: Weng earns $12 an hour for babysitting. ...
    Answer:

after so many solved ones. Numbers are found and compared as lm-eval's task of the same name does:
``exact_match`` takes the last number of the answer (lm-eval's flexible-extract), ``strict_match``
the one after ``####`` (strict-match).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from quantship.data import Message, Source, gsm8k
from quantship.data.fields import exchange
from quantship.data.gsm8k import Problem
from quantship.tasks.base import Context, Example, Metric, Outcome, Subject, TaskOptions, known_as
from quantship.tasks.prompting import Request, shortened

METRICS = (
    Metric("exact_match", "higher", "share", judges=True),
    Metric("strict_match", "higher", "share", judges=True),
)
UNTIL = ("Question:", "</s>", "<|im_end|>")
"""Texts that end the answer of a model without a chat template."""
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_LEFT_OUT = (",", r"\$", r"(?s).*#### ", r"\.$")
_NOTHING = "[invalid]"


class Options(TaskOptions):
    """Grade-school maths answered in words: does the final number match?"""

    task: Literal["gsm8k"]
    source: gsm8k.Options = gsm8k.Options(adapter="gsm8k", split="test")
    """The problems; default: the test split of openai/gsm8k."""
    shots: int = Field(default=0, ge=0, le=8)
    """Solved problems to show before each question."""
    shots_source: gsm8k.Options | None = None
    """Where these come from, from its start; default: the train split of the Hub's data set."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer in tokens."""

    @field_validator("source")
    @classmethod
    def _test_split(cls, source: gsm8k.Options) -> gsm8k.Options:
        chosen = "split" in source.model_fields_set
        return source if chosen else source.model_copy(update={"split": "test"})

    @model_validator(mode="after")
    def _has_shots(self) -> Options:
        if self.shots and self.shots_source is None and self.source.path is not None:
            raise ValueError("shots need shots_source where the problems come from a local file")
        return self

    @property
    def examples(self) -> gsm8k.Options:
        """Where solved problems come from."""
        return self.shots_source or self.source.model_copy(update={"split": "train"})

    @property
    def sources(self) -> tuple[Source, ...]:
        """The problems, and the solved ones where there are any."""
        return (self.source, self.examples) if self.shots else (self.source,)


def evaluate(subject: Subject, options: Options, context: Context) -> Outcome:
    """Whether the last number, and the one after ``####``, is the right one."""
    from itertools import islice

    from quantship.tasks import answers

    problems = list(islice(gsm8k.problems(options.source), options.source.limit))
    problems = problems[: options.limit]
    shots = list(islice(gsm8k.problems(options.examples), options.shots)) if options.shots else []
    requests = [_request(problem, shots) for problem in problems]
    found, notes = answers.collect(subject, requests, options.max_new_tokens, context, until=UNTIL)
    return Outcome(
        METRICS,
        [
            Example(
                known_as(problem.origin),
                judge(answer.text, problem.answer),
                prompt=shortened(problem.question),
                expected=last_line(problem.answer),
                answer=answer.text,
            )
            for problem, answer in zip(problems, found, strict=True)
        ],
        notes=notes,
    )


def judge(answer: str, right: str) -> dict[str, float]:
    """Values of both metrics of an answer, where ``right`` is the whole solution."""
    gold = normalized(right)
    return {
        "exact_match": float(normalized(flexible(answer)) == gold),
        "strict_match": float(normalized(strict(answer)) == gold),
    }


def strict(answer: str) -> str:
    """The first number after ``####``."""
    found = _STRICT.search(answer)
    return found.group(1).strip() if found else _NOTHING


def flexible(answer: str) -> str:
    """The last thing that looks like a number."""
    found = _FLEXIBLE.findall(answer)
    return next(part for part in found[-1] if part).strip() if found else _NOTHING


def normalized(text: str) -> str:
    """A number without commas, dollar signs, a full stop at its end and what is before ``####``."""
    for pattern in _LEFT_OUT:
        text = re.sub(pattern, "", text)
    return text.lower()


def last_line(solution: str) -> str:
    """The final number, as ``#### 10`` says it."""
    return solution.rpartition("####")[2].strip()


def _request(problem: Problem, shots: Sequence[Problem]) -> Request:
    messages: list[Message] = []
    parts: list[str] = []
    for shot in shots:
        messages += exchange(shot.question, shot.answer)
        parts.append(f"Question: {shot.question}\nAnswer: {shot.answer}")
    messages.append({"role": "user", "content": problem.question})
    parts.append(f"Question: {problem.question}\nAnswer:")
    return Request(tuple(messages), "\n\n".join(parts), problem.origin)
