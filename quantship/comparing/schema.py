"""What a comparison of runs finds, as ``quantship compare --json`` prints it."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from quantship.reporting.evidence_schema import MetricFacts, TaskResult
from quantship.reporting.ranking_schema import Front, Ranking
from quantship.reporting.recovery_schema import Estimate
from quantship.reporting.schema import ModelRow
from quantship.reporting.section import Count, Section


class Run(Section):
    """One run that is compared."""

    label: str
    """What it is called here: its name, numbered where several have the same."""
    path: str
    """Its report."""
    created: AwareDatetime
    """When its report was made."""
    quantship_version: str
    """Version of quantship that made it."""
    evaluation: str
    """What its models were evaluated on, in words."""


class Model(Section):
    """One model of a run."""

    name: str
    """What it is called here: the run's label, a slash, its name in the run."""
    run: str
    """The run's label."""
    also: list[str]
    """What it is called as a model of the other runs that reused it."""
    row: ModelRow
    """What its run found out about it."""


class Group(Section):
    """Runs whose models were evaluated on the same data, and so can be ranked together."""

    runs: list[str]
    """Their labels."""
    evaluation: str
    """The data, in words."""
    models: list[Model]
    """Their models, each once, in the order of the runs."""
    ranking: Ranking | None
    """Checkpoints, float ones too, by their loss; null: fewer than two were evaluated."""
    fronts: list[Front]
    """Pareto fronts over all models."""
    speeds: str | None
    """Why decode speeds are not compared; null: they are, or none was measured."""


class TaskRow(Section):
    """One model on a task."""

    model: str
    """What it is called here: the run's label, a slash, its name in the run."""
    result: TaskResult
    """What its run found out."""
    behind: Estimate | None
    """How far the headline metric is from the best model's, paired by example; of perplexities the
    quotient less 1; null: it is the best, or that is not known."""


class ComparedTask(Section):
    """A task that models of several runs were evaluated on, on the same examples."""

    name: str
    """Name in the first of these runs."""
    task: str
    """Which task it is, as a recipe calls it."""
    digest: str
    """SHA-256 over the examples."""
    num_examples: Count
    """Examples that every model was given."""
    metrics: list[MetricFacts]
    """What it gives, the headline first."""
    runs: list[str]
    """Labels of the runs."""
    rows: list[TaskRow]
    """Models, the best by the headline first."""
    unpaired: str | None
    """Why models are not compared example by example; null: they are."""


class Differing(Section):
    """One thing in which the runs differ."""

    key: str
    """What it is, as ``steps.ptq.algorithm.kind``."""
    values: dict[str, str]
    """What it is in each run, as text, by the run's label."""


class Comparison(Section):
    """Everything that several runs say about each other."""

    schema_version: Literal[1] = 1
    """Version of this layout."""
    runs: list[Run]
    """The runs, in the order given."""
    groups: list[Group]
    """Runs that can be compared with each other, together."""
    tasks: list[ComparedTask] = Field(default_factory=list)
    """Tasks that several runs have on the same examples."""
    environment: list[Differing] = Field(default_factory=list)
    """Machines and versions that differ."""
    recipes: list[Differing] = Field(default_factory=list)
    """Keys of the recipes that differ."""
