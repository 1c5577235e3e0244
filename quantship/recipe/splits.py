"""Whether a recipe has something to evaluate on, of its own or held out of its training data."""

from __future__ import annotations

from collections.abc import Iterator

from quantship.recipe.findings import Finding
from quantship.recipe.language import Recipe


def find_problems(recipe: Recipe) -> Iterator[Finding]:
    """Data without a side to evaluate on, and a share held out of nothing."""
    data = recipe.data
    if data.holdout is not None and not data.train:
        remedy = "Give data.train a list of sources, or leave data.holdout out."
        yield Finding(("data", "train"), "nothing to hold out of, and data.holdout would", remedy)
    elif not data.eval and data.holdout is None:
        remedy = "Give data.eval a list of sources"
        remedy += ", or data.holdout a share of data.train, as 0.1." if data.train else "."
        yield Finding(("data", "eval"), "nothing to evaluate on", remedy)
