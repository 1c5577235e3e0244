"""What a model says to many prompts; a killed evaluation goes on after the answers it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

from quantship import lines
from quantship.errors import QuantshipError
from quantship.tasks import prompting
from quantship.tasks.base import Context, Subject

if TYPE_CHECKING:
    from quantship.runtimes.base import Runtime
    from quantship.tasks.prompting import Request

FILE = "answers.jsonl"
"""File in the directory that survives a kill: a line an answer, in the order of their ends."""
TAIL = 32
"""Last tokens of an answer that are searched for a text that ends it."""


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Args:
        index: Which request it answers.
        text: The answer, without what ended it.
        num_tokens: How long it is.
        ended: Whether it came to an end, rather than to the limit.
    """

    index: int
    text: str
    num_tokens: int
    ended: bool


def collect(
    subject: Subject,
    requests: Sequence[Request],
    max_new_tokens: int,
    context: Context,
    *,
    until: Sequence[str] = (),
) -> tuple[list[Answer], list[str]]:
    """The most likely answer to each request, and what a reader should know of them.

    Args:
        subject: A model of text.
        requests: What to ask; the same for every run that shares ``context.resume``.
        max_new_tokens: Longest answer.
        context: How to ask, and where finished answers are kept.
        until: Texts that end an answer of a model without a chat template.

    Raises:
        QuantshipError: The model reads no text, or too little of it.
    """
    from quantship import progress
    from quantship.runtimes.generation import continuations

    tokenizer = subject.tokenizer
    if tokenizer is None or not hasattr(subject.runtime, "prefill"):
        raise QuantshipError(f"{subject.path.name} writes no text, so it cannot be asked")
    runtime = cast("Runtime", subject.runtime)
    ends = () if prompting.takes_turns(subject, context) else tuple(until)
    prompts = [prompting.encode(request, subject, context) for request in requests]
    prompts, room, notes = _fitted(prompts, max_new_tokens, subject)

    def said(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(list(tokens), skip_special_tokens=True))

    def enough(tokens: Sequence[int]) -> bool:
        tail = said(tokens[-TAIL:])
        return any(end in tail for end in ends)

    journal = context.resume / FILE
    found = {one["index"]: Answer(**one) for one in lines.read(journal)}
    with progress.bar("answering", len(requests)) as bar:
        bar.move_to(len(found))
        for index, tokens in continuations(
            runtime,
            prompts,
            room,
            prompting.stop_tokens(subject, context),
            batch_size=context.batch_size,
            enough=enough if ends else None,
            known=set(found),
        ):
            text, ended = said(tokens), len(tokens) < room
            for end in ends:
                text, mark, _ = text.partition(end)
                ended = ended or bool(mark)
            answer = Answer(index, text, len(tokens), ended)
            lines.append([asdict(answer)], journal)
            found[answer.index] = answer
            bar.move_to(len(found))
    return [found[index] for index in range(len(requests))], notes


def _fitted(
    prompts: Sequence[list[int]], max_new_tokens: int, subject: Subject
) -> tuple[list[list[int]], int, list[str]]:
    """Prompts and answers no longer together than the model reads."""
    length = prompting.context_length(subject.path)
    if length is None:
        return list(prompts), max_new_tokens, []
    room = min(max_new_tokens, length // 2)
    notes = []
    if room < max_new_tokens:
        notes.append(f"the model reads {length} tokens, so that answers end after {room}")
    most = length - room
    too_long = sum(len(prompt) > most for prompt in prompts)
    if too_long:
        notes.append(
            f"{too_long} of {len(prompts)} prompts are longer than {most} tokens and lost their "
            "beginning"
        )
    return [prompt[-most:] for prompt in prompts], room, notes
