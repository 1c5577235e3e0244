"""Scores of a classification that are no mean over examples: F1 and Matthews correlation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from quantship.data import Source

_OFFICIAL = {
    ("glue", "cola"): ("matthews",),
    ("glue", "mrpc"): ("f1",),
    ("glue", "qqp"): ("f1",),
    ("superglue", "cb"): ("f1_macro",),
    ("superglue", "multirc"): ("f1",),
}
"""Tasks whose own score is another than accuracy."""


def official(source: Source, expected: Sequence[int], found: Sequence[int]) -> Mapping[str, float]:
    """The scores that a task of GLUE or SuperGLUE is ranked by, where accuracy is not all.

    Args:
        source: The data.
        expected: The right class of each example.
        found: The class that a model took it for.
    """
    chosen: Any = source
    names = _OFFICIAL.get((source.adapter, getattr(chosen, "task", "")), ())
    return {name: _SCORES[name](expected, found) for name in names}


def f1(expected: Sequence[int], found: Sequence[int], positive: int = 1) -> float:
    """Harmonic mean of precision and recall of one class; 0 where it is neither there nor found."""
    both = sum(a == b == positive for a, b in zip(expected, found, strict=True))
    either = sum(a == positive for a in expected) + sum(b == positive for b in found)
    return 2 * both / either if either else 0.0


def f1_macro(expected: Sequence[int], found: Sequence[int]) -> float:
    """Mean of F1 over the classes that are there or were found."""
    classes = sorted({*expected, *found})
    return math.fsum(f1(expected, found, one) for one in classes) / len(classes)


def matthews(expected: Sequence[int], found: Sequence[int]) -> float:
    """Matthews correlation of two classes, from -1 to 1; 0 where one side knows one class only.

    Source: B. W. Matthews, Comparison of the predicted and observed secondary structure of T4
    phage lysozyme, 1975.
    """
    pairs = list(zip(expected, found, strict=True))
    tp, tn = pairs.count((1, 1)), pairs.count((0, 0))
    fp, fn = pairs.count((0, 1)), pairs.count((1, 0))
    scale = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / scale if scale else 0.0


_SCORES = {"f1": f1, "f1_macro": f1_macro, "matthews": matthews}
