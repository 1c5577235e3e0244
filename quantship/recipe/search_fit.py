"""Whether the candidates of searches fit the model, and whether their constraints can be met."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from quantship.recipe import schemes
from quantship.recipe.findings import Finding
from quantship.recipe.language import Recipe, SearchStep
from quantship.recipe.searches import candidates_of, provisional

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def searches(recipe: Recipe) -> bool:
    """Whether the recipe searches at all."""
    return any(isinstance(step, SearchStep) for step in recipe.steps)


def find_problems(model: PreTrainedModel, recipe: Recipe) -> Iterator[Finding]:
    """Searches that have nothing to choose for some layer, or that ask for what cannot be.

    Args:
        model: The recipe's, built without weights.
        recipe: With the names, inputs and schemes of its steps filled in.
    """
    from quantship.quant.choices import bits_range, layers_of

    rows = schemes.table(recipe)
    for index, step in enumerate(recipe.steps):
        if not isinstance(step, SearchStep) or provisional(step, rows) is None:
            continue  # what is wrong with it is told elsewhere
        key, candidates = ("steps", index), candidates_of(step, rows)
        base = rows[str(step.scheme)]
        try:
            layers = layers_of(model, base, candidates, embedding=step.embedding)
        except ValueError as error:
            message, _, remedy = str(error).partition("; ")
            remedy = remedy or "Add a candidate whose groups divide it, or one without groups."
            yield Finding((*key, "candidates"), message, f"{remedy[:1].upper()}{remedy[1:]}")
            continue
        if step.embedding and not any(one.is_chosen for one in layers if one.place != "linear"):
            message = "no candidate quantizes the embedding"
            yield Finding((*key, "embedding"), message, "Leave embedding out, or add a candidate.")
        if not any(one.is_chosen for one in layers):
            message = f"no layer is left to choose for: scheme '{base.name}' overrides all"
            yield Finding((*key, "scheme"), message, "Start from another scheme.")
            continue
        least, most = bits_range(layers)
        if step.target_bits is not None and not least <= step.target_bits <= most:
            message = f"an average of {step.target_bits:g} bits cannot be: candidates come to "
            message += f"{least:.3g} to {most:.3g} bits a weight"
            yield Finding((*key, "target_bits"), message, "Ask for one between, or add candidates.")
