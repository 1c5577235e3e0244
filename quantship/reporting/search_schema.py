"""What ``report.json`` says of searches: what each layer became, and what else there was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from quantship.artifact import Artifact
from quantship.job import Plan
from quantship.reporting.section import Amount, Count, Section


class Choice(Section):
    """A format for each layer: the search's, or one candidate for all of them."""

    candidate: str | None
    """Candidate that all linear layers have; null: what the search has chosen."""
    bits: Amount
    """Bits a weight, scales and zero points included, over all weights that are chosen for."""
    cost: Amount
    """What the constraint is about, in its unit."""
    predicted_nats: float
    """Sum over layers of what rounding each alone does, in nats a token."""
    kl_nats: float
    """Measured divergence from the float model's predictions of the calibration data."""
    loss_nats: float
    """Measured rise of the loss on the calibration data, in nats a token."""


class FrontPoint(Section):
    """A point of the Pareto front: at this cost no allocation is predicted to do less harm."""

    cost: Amount
    """In the constraint's unit."""
    harm: float
    """Predicted, in nats a token."""


class Attempt(Section):
    """An allocation that was tried for a perplexity."""

    predicted: float
    """Harm that was allowed by prediction, in nats a token."""
    measured: float
    """What the loss rose by, in nats a token."""
    cost: Amount
    """In the constraint's unit."""


class SearchedLayer(Section):
    """What became of one layer."""

    name: str
    """Of its module."""
    candidate: str | None
    """Candidate whose format it has; null: nothing was chosen for it."""
    code_bits: Annotated[int, Field(ge=2, le=8)]
    """Bits of a code."""
    group_size: Count | None
    """Weights that share a scale; null: a row or the whole matrix."""
    weights: Count
    """Numbers in its matrix."""
    predicted_nats: float
    """What rounding it alone does, in nats a token."""


class Search(Section):
    """One search for mixed precision."""

    name: str
    """Of the step, and of the scheme that it found."""
    constraint: Literal["target_bits", "max_bytes", "max_latency_ms", "max_perplexity_increase"]
    """Key of the recipe that bounds it."""
    limit: Amount
    """The bound: in ``unit``, or the share that perplexity may rise by."""
    unit: str
    """What ``cost`` is counted in."""
    runtime: str
    """Whose files and times the constraint is about."""
    measure: Literal["fisher", "kl", "loss"]
    """How the harm of a layer was found."""
    sequences: Count
    """Calibration sequences."""
    tokens: Count
    """Tokens that were predicted in them."""
    size_bytes: Count | None
    """Size of the file that was made to keep a bound on bytes; null: none was made."""
    result: Choice
    """What was found."""
    uniform: list[Choice]
    """One format for all layers, for each candidate that fits them all."""
    front: list[FrontPoint]
    """The Pareto front, from the least cost to the greatest."""
    bound: float
    """What no allocation within the limit gets below: predicted harm, or cost of a perplexity."""
    gap: Amount
    """Share by which what was found may be above that."""
    attempts: list[Attempt]
    """Allocations that were tried for a perplexity, in order."""
    layers: list[SearchedLayer]
    """Every quantized layer, in the order of the model."""


def collect(plan: Plan, made: Mapping[str, Artifact]) -> list[Search]:
    """The searches of a run, in the order of the recipe."""
    return [
        Search(name=node.name, **made[node.name].facts)
        for node in plan.nodes
        if node.stage == "search"
    ]
