"""From an example to token ids and labels: rendering, tokenizing, masking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from quantship.data.source import Example, Message
from quantship.errors import DataError, QuantshipError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that the loss leaves out, as torch's cross entropy has it."""
LONGEST_PIECE = 1_000_000
"""Characters of running text that are tokenized at once, or at most twice as many."""
# A template is a program: it may raise on purpose, or trip over what it did not expect.
_TEMPLATE_FAILURES = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Encoded:
    """One sequence of tokens.

    Args:
        input_ids: Token ids.
        labels: The same ids, IGNORED where the loss looks away; not shifted.
    """

    input_ids: list[int]
    labels: list[int]

    @property
    def predicts(self) -> bool:
        """Whether some token's label is predicted by the token before it."""
        return any(label != IGNORED for label in self.labels[1:])

    @property
    def num_learnt(self) -> int:
        """Tokens that are not masked."""
        return len(self.labels) - self.labels.count(IGNORED)


def encode(
    example: Example,
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None,
    mask_prompt: bool,
) -> Encoded:
    """Render a chat and tokenize it as one text; running text is tokenized as it stands.

    No token is added to what the template writes, nor to running text. With ``mask_prompt``, a
    label is kept where its token starts inside an assistant turn: its content and its end marker,
    not the header before nor the line end after. Control tokens spelled out in a content are
    tokenized as such. Running text keeps all labels.

    Args:
        example: What to encode.
        tokenizer: A fast tokenizer, which knows the place of its tokens in the text.
        chat_template: Jinja template; None: the tokenizer's own.
        mask_prompt: Keep the labels of assistant turns only.

    Raises:
        DataError: The template fails, or writes a chat's beginning differently once the chat goes
            on; names the example's origin.
        QuantshipError: ``mask_prompt`` with a tokenizer that does not know where its tokens are.
    """
    if example.raw:
        return _all(tokenizer, example.messages[0]["content"])
    text = _render(example, len(example.messages), tokenizer, chat_template)
    if not mask_prompt:
        return _all(tokenizer, text)
    if not tokenizer.is_fast:
        raise QuantshipError("mask_prompt needs a fast tokenizer (tokenizer.json)")
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans = _assistant_spans(example, text, tokenizer, chat_template)
    input_ids = list(encoding["input_ids"])
    labels = _masked(input_ids, encoding["offset_mapping"], spans)
    return Encoded(input_ids, labels)


def encode_text(example: Example, tokenizer: PreTrainedTokenizerBase) -> Iterator[Encoded]:
    """Tokenize running text; in pieces, cut before a white space, where it is very long.

    So memory stays bounded. A tokenizer that adds something before a text adds it to every piece.
    """
    text = example.messages[0]["content"]
    start = 0
    while len(text) - start > 2 * LONGEST_PIECE:
        cut = max(text.rfind(space, start + 1, start + LONGEST_PIECE) for space in " \n")
        end = cut if cut > start else start + LONGEST_PIECE
        yield _all(tokenizer, text[start:end])
        start = end
    yield _all(tokenizer, text[start:] if start else text)


def _all(tokenizer: PreTrainedTokenizerBase, text: str) -> Encoded:
    input_ids = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    return Encoded(input_ids, list(input_ids))


def _masked(
    input_ids: list[int], offsets: Sequence[tuple[int, int]], spans: list[tuple[int, int]]
) -> list[int]:
    labels = [IGNORED] * len(input_ids)
    remaining = iter(spans)
    first, last = next(remaining, (0, 0))
    for index, (start, end) in enumerate(offsets):
        # Tokenizers that trim offsets give a lone space no width, at the place where it ends.
        start = start if end > start else start - 1
        while start >= last > 0:
            first, last = next(remaining, (0, 0))
        if first <= start < last:
            labels[index] = input_ids[index]
    return labels


def _assistant_spans(
    example: Example,
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None,
) -> list[tuple[int, int]]:
    """Start and end, in characters of ``text``, of what the model is to say itself."""
    spans: list[tuple[int, int]] = []
    for index, message in enumerate(example.messages):
        if message["role"] != "assistant":
            continue
        is_last = index == len(example.messages) - 1
        before = _render(example, index, tokenizer, chat_template, for_generation=True)
        after = text if is_last else _render(example, index + 1, tokenizer, chat_template)
        if not (after.startswith(before) and text.startswith(after)):
            raise DataError(
                f"the chat template writes the chat up to message {index} differently once the "
                "chat goes on, so assistant turns cannot be found in it; use mask_prompt: false, "
                "single-turn chats or another chat_template",
                example.origin,
            )
        said = _without_line_end(after[len(before) :], message["content"])
        spans.append((len(before), len(before) + len(said)))
    return spans


def _without_line_end(turn: str, content: str) -> str:
    """A rendered turn up to its end marker; unchanged where only white space ends the turn.

    What follows the marker is never generated, so it is nothing to learn.
    """
    body = content.strip()
    place = turn.find(body)
    marker = turn[place + len(body) :] if place >= 0 else turn
    return turn.rstrip() if marker.strip() else turn


def render_prompt(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None,
    origin: str,
) -> str:
    """Messages as the template writes them, up to where the assistant begins to answer.

    Args:
        messages: What was said before.
        tokenizer: The model's.
        chat_template: Jinja template; None: the tokenizer's own.
        origin: Where the record came from, for errors.

    Raises:
        DataError: The template fails.
    """
    return _written(messages, tokenizer, chat_template, origin, for_generation=True)


def _render(
    example: Example,
    count: int,
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None,
    *,
    for_generation: bool = False,
) -> str:
    """The first ``count`` messages as the template writes them."""
    messages = example.messages[:count]
    return _written(
        messages, tokenizer, chat_template, example.origin, for_generation=for_generation
    )


def _written(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None,
    origin: str,
    *,
    for_generation: bool,
) -> str:
    turns = [{"role": str(one["role"]), "content": one["content"]} for one in messages]
    try:
        rendered = tokenizer.apply_chat_template(
            [turns],  # a batch of one: a chat alone must not be empty
            chat_template=chat_template,
            tokenize=False,
            add_generation_prompt=for_generation,
        )
    except _TEMPLATE_FAILURES as error:
        raise DataError(f"the chat template fails: {error}", origin) from error
    return str(rendered[0])
