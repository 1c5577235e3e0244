"""What perplexity is measured on: sequences of token ids and labels, the same for everyone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WINDOW = 512
Text = dict[str, list[list[int]]]
"""``input_ids`` and ``labels`` of some sequences; a label of -100 is not predicted."""


def prepared(data: Path, tokens: int) -> Text:
    """The first sequences of a run's evaluation data, about so many tokens.

    Args:
        data: Directory ``steps/data-*`` of a run.
        tokens: Sequences are taken until they hold this many.
    """
    from datasets import load_from_disk

    found: Text = {"input_ids": [], "labels": []}
    held = 0
    for row in load_from_disk(str(data / "eval")):
        if held >= tokens:
            break
        found["input_ids"].append(row["input_ids"])
        found["labels"].append(row["labels"])
        held += len(row["input_ids"])
    return found


def plain(model: Path, file: Path, tokens: int) -> Text:
    """The first windows of a text file in a model's tokens, every one of which is predicted."""
    from quantship import models

    ids = models.load_tokenizer(model)(file.read_text(), verbose=False)["input_ids"][:tokens]
    windows = [ids[start : start + WINDOW] for start in range(0, len(ids), WINDOW)]
    windows = [window for window in windows if len(window) > 1]
    return {"input_ids": windows, "labels": windows}


def gather(model: Path, data: Path | None, text: Path | None, tokens: int) -> dict[str, Text]:
    """Both by their names, those that are given."""
    found = {}
    if data is not None:
        found["task"] = prepared(data, tokens)
    if text is not None:
        found["text"] = plain(model, text, tokens)
    return found


def calibration(data: Path, sequences: int, seed: int | None) -> list[list[int]]:
    """The token ids of the sequences that a step with this seed looks at."""
    from quantship.data.calibration import sequences as chosen

    return [batch["input_ids"][0].tolist() for batch in chosen(data, sequences, seed)]


def losses(runtime: Any, texts: Mapping[str, Text], batch: int = 4) -> dict[str, dict[str, float]]:
    """Perplexity and mean loss in nats of a runtime on each text, by quantship's evaluation."""
    from quantship.tasks import likelihood

    return {
        name: likelihood.evaluate(runtime, _batches(text, batch)).metrics
        for name, text in texts.items()
    }


def _batches(text: Text, size: int) -> list[dict[str, Any]]:
    from quantship.data.prepare import collate

    rows = [
        {"input_ids": ids, "labels": labels}
        for ids, labels in zip(text["input_ids"], text["labels"], strict=True)
    ]
    return [collate(rows[at : at + size], pad_token_id=0) for at in range(0, len(rows), size)]


def digest(texts: Mapping[str, Text]) -> str:
    """Tells texts apart."""
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]


def num_tokens(sequences: Sequence[Sequence[int]]) -> int:
    """Tokens of all sequences."""
    return sum(map(len, sequences))
