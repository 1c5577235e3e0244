"""The token sequences that a task predicts: of its own source, or of the recipe's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantship.data import Source
from quantship.tasks.base import Context, Subject

if TYPE_CHECKING:
    from datasets import Dataset


def load(
    subject: Subject, source: Source | None, context: Context, limit: int | None
) -> tuple[Dataset, list[str]]:
    """Tokenized sequences as ``data.prepare`` makes them, and what each of them is called.

    Args:
        subject: Whose tokenizer is used.
        source: What to read; None: the recipe's prepared evaluation data.
        context: What the recipe says of templates and lengths.
        limit: Sequences at most; None: all.
    """
    from datasets import load_from_disk

    from quantship.data.prepare import prepare

    if source is None:
        dataset, name = load_from_disk(str(context.data)), "data"
    else:
        assert subject.tokenizer is not None
        dataset, _ = prepare(
            (source,),
            subject.tokenizer,
            max_length=context.max_length,
            chat_template=context.chat_template,
            mask_prompt=True,
            packing=False,
            seed=context.seed,
            shuffle=False,
        )
        name = source.adapter
    dataset = dataset.select(range(min(len(dataset), limit or len(dataset))))
    return dataset, [f"{name}[{index}]" for index in range(len(dataset))]
