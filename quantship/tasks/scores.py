"""An evaluation on disk: one line an example, and the means over them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from quantship.tasks.base import Example, Kind, Metric

EXAMPLES = "examples.jsonl"
"""File in an evaluation's directory that holds what ``write`` was given."""


def write(examples: Sequence[Example], directory: Path) -> None:
    """Keep all examples; ``read`` gives them back to the bit."""
    with (directory / EXAMPLES).open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            file.write(json.dumps(asdict(example), allow_nan=False) + "\n")


def read(directory: Path) -> list[Example]:
    """The examples that ``write`` left in a directory."""
    with (directory / EXAMPLES).open(encoding="utf-8") as file:
        return [Example(**json.loads(line)) for line in file]


def mean(metric: Metric, examples: Sequence[Example]) -> float:
    """A metric over all examples."""
    total = math.fsum(example.values[metric.name] for example in examples)
    return of_mean(metric.kind, total / math.fsum(example.weight for example in examples))


def of_mean(kind: Kind, value: float) -> float:
    """The metric that a mean over examples becomes."""
    return math.exp(value) if kind == "perplexity" else value


def digest(examples: Sequence[Example]) -> str:
    """SHA-256 over what the examples are, whatever a model made of them; in hexadecimal."""
    whole = sha256()
    for example in examples:
        text = json.dumps([example.id, example.weight, example.prompt, example.expected])
        whole.update(text.encode() + b"\n")
    return whole.hexdigest()
