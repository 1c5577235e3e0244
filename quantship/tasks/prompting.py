"""What a model is asked, as tokens, and the tokens that end its answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantship.data import Message
from quantship.tasks.base import Context, Subject

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT_CHARACTERS = 600
"""Longest prompt that is kept with an example."""


@dataclass(frozen=True)
class Request:
    """One thing to ask, in both forms that models understand.

    Args:
        messages: Turns up to the answer, for models with a chat template; empty: the text is to be
            gone on with, whatever the model.
        text: The same as running text up to the answer, for models without.
        origin: Where it comes from, as ``test.jsonl:7``.
    """

    messages: tuple[Message, ...]
    text: str
    origin: str


def takes_turns(subject: Subject, context: Context) -> bool:
    """Whether a model is asked through a chat template."""
    assert subject.tokenizer is not None
    return (context.chat_template or subject.tokenizer.chat_template) is not None


def encode(request: Request, subject: Subject, context: Context) -> list[int]:
    """Tokens that ask a model, through the chat template where there is one.

    Raises:
        DataError: The template fails.
    """
    from quantship.data.templating import render_prompt

    tokenizer = subject.tokenizer
    assert tokenizer is not None
    in_turns = bool(request.messages) and takes_turns(subject, context)
    text = request.text
    if in_turns:
        text = render_prompt(request.messages, tokenizer, context.chat_template, request.origin)
    # A template writes what a text begins with itself.
    return list(tokenizer(text, add_special_tokens=not in_turns, verbose=False)["input_ids"])


def stop_tokens(subject: Subject, context: Context) -> frozenset[int]:
    """Tokens that end an answer: the model's, the tokenizer's, and the one that ends a turn."""
    tokenizer = subject.tokenizer
    assert tokenizer is not None
    found = {tokenizer.eos_token_id, *_declared(subject.path)}
    if takes_turns(subject, context):
        found.add(_turn_end(tokenizer, context.chat_template))
    return frozenset(token for token in found if token is not None)


def context_length(path: Path) -> int | None:
    """Most tokens that a model directory says its model reads; None: it does not say."""
    config: dict[str, Any] = json.loads((path / "config.json").read_bytes())
    config = config.get("text_config") or config
    length = next(
        (config[key] for key in ("max_position_embeddings", "n_positions") if key in config), None
    )
    return length if isinstance(length, int) and length > 0 else None


def shortened(text: str) -> str:
    """A prompt, its middle left out where it is long."""
    if len(text) <= PROMPT_CHARACTERS:
        return text
    half = PROMPT_CHARACTERS // 2
    return f"{text[:half]} … {text[-half:]}"


def _declared(path: Path) -> list[int]:
    """Tokens that end a text, as the files of a model directory have them."""
    declared: Any = None
    for name in ("generation_config.json", "config.json"):
        if declared is None and (path / name).is_file():
            declared = json.loads((path / name).read_bytes()).get("eos_token_id")
    if declared is None:
        return []
    return list(declared) if isinstance(declared, list) else [declared]


def _turn_end(tokenizer: PreTrainedTokenizerBase, chat_template: str | None) -> int | None:
    """The special token that a template ends the assistant's turns with; None: there is none."""
    from quantship.data.templating import render_prompt

    asked: Message = {"role": "user", "content": "?"}
    answered: Message = {"role": "assistant", "content": "!"}
    origin = "the chat template"
    before = render_prompt((asked,), tokenizer, chat_template, origin)
    after = render_prompt((asked, answered, asked), tokenizer, chat_template, origin)
    rest = after.removeprefix(before).partition("!")[2]
    tokens = list(tokenizer(rest, add_special_tokens=False, verbose=False)["input_ids"])
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return tokens[0] if tokens and tokens[0] in special else None
