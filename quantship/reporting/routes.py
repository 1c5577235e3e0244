"""Other routes to a model's integers, set beside the route that its checkpoint took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from quantship.artifact import Artifact
from quantship.job import Plan
from quantship.reporting.section import Count, Section, Share


class Route(Section):
    """How far another route leads to the integers that a training or a checkpoint has."""

    model: str
    """Quantized model."""
    route: Literal["two-step", "online"]
    """two-step: the integers of a later PTQ step, held against those that were trained before the
    model was written in float; online: the integers that torchao finds while it loads the float
    model, held against the checkpoint's."""
    reference: str
    """Model whose integers it is held against."""
    codes_equal: bool
    """Whether all codes and scales are equal to the bit."""
    tensors_compared: Count
    """Quantized matrices."""
    tensors_different: Count
    """Of these, matrices with a code or scale that differs."""
    share_of_codes_equal: Share
    """Share of all codes that are equal, from 0 to 1."""
    perplexity: Annotated[float, Field(gt=0)] | None = None
    """Perplexity of the model that was quantized online; null: see the model's own row."""


def collect(plan: Plan, made: Mapping[str, Artifact]) -> list[Route]:
    """What a run found of other routes, in the order of the recipe."""
    routes: list[Route] = []
    for node in plan.nodes:
        found = made[node.name].facts
        if "handoff" in found:
            routes.append(
                Route(
                    model=node.name,
                    route="two-step",
                    reference=node.inputs["model"],
                    **found["handoff"],
                )
            )
        if node.stage == "online":
            model = node.inputs["checkpoint"]
            perplexity = found["metrics"]["perplexity"]
            routes.append(
                Route(
                    model=model,
                    route="online",
                    reference=model,
                    perplexity=perplexity,
                    **found["codes"],
                )
            )
    return routes
