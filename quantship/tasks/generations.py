"""What models say, side by side: greedy answers to a few prompts, for people to read.

In a recipe: ``{task: generations, prompts: ["What is a comet?", "Tell me a joke."]}``, or
``{task: generations, source: {adapter: chat, path: test.jsonl}, limit: 8}``, where each record is
asked up to the assistant's first turn, and running text is gone on with after its first words.
Nothing here is right or wrong: ``ended`` is the share of answers that came to an end before
``max_new_tokens``, which models that have lost their way do not, and ``num_tokens`` their length.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from quantship.data import Example as Record
from quantship.data import Message, Source, rows
from quantship.tasks.base import Context, Example, Metric, Outcome, Subject, TaskOptions, known_as
from quantship.tasks.prompting import Request, shortened

METRICS = (
    Metric("ended", "higher", "share"),
    Metric("num_tokens", "lower", "number"),
)
FIRST_WORDS = 24
"""Words of a running text that are the prompt."""
Prompt = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Options(TaskOptions):
    """Greedy answers to a few prompts, side by side in the report."""

    task: Literal["generations"]
    prompts: tuple[Prompt, ...] = ()
    """What to ask, each as a user's turn; or give a source."""
    source: Source | None = None
    """Where prompts come from; or give them as a list."""
    limit: int | None = Field(default=8, ge=1)
    """Ask at most this many prompts, from the start."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Longest answer in tokens."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Options:
        if bool(self.prompts) == (self.source is not None):
            raise ValueError("give prompts, or a source of prompts")
        return self


def evaluate(subject: Subject, options: Options, context: Context) -> Outcome:
    """The most likely answer to each prompt."""
    from quantship.tasks import answers

    asked = list(islice(_asked(options), options.limit))
    requests = [request for request, _ in asked]
    found, notes = answers.collect(subject, requests, options.max_new_tokens, context)
    return Outcome(
        METRICS,
        [
            Example(
                known_as(request.origin),
                {"ended": float(answer.ended), "num_tokens": float(answer.num_tokens)},
                prompt=shortened(request.text),
                expected=expected,
                answer=answer.text,
            )
            for (request, expected), answer in zip(asked, found, strict=True)
        ],
        notes=notes,
    )


def _asked(options: Options) -> Iterator[tuple[Request, str | None]]:
    """Requests, and what the data say to each."""
    for index, prompt in enumerate(options.prompts):
        yield Request(({"role": "user", "content": prompt},), prompt, f"prompt {index + 1}"), None
    for record in rows(options.source) if options.source is not None else ():
        if record.raw or record.messages[0]["role"] != "assistant":  # else nothing is asked
            yield _request(record)


def _request(record: Record) -> tuple[Request, str | None]:
    if record.raw:
        words = record.messages[0]["content"].split()
        text = " ".join(words[:FIRST_WORDS])
        expected = " ".join(words[FIRST_WORDS : 3 * FIRST_WORDS]) or None
        return Request((), text, record.origin), expected
    before = tuple(takewhile(_is_asked, record.messages))
    answer = record.messages[len(before)]["content"]
    text = "\n\n".join(message["content"] for message in before)
    return Request(before, text, record.origin), shortened(answer)


def _is_asked(message: Message) -> bool:
    return message["role"] != "assistant"
