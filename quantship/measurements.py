"""What a recipe measures of its models, as jobs: evaluations, tasks, online rounding, benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from quantship import hardware
from quantship.frozen import Frozen
from quantship.job import Node, Waiting
from quantship.recipe.evaluations import name_of
from quantship.recipe.language import MODEL, Evaluation, Recipe, Task
from quantship.results.evidence import job_name
from quantship.stages import benchmark, evaluate, online, quantize, task

DATA = "data"


class Planner(Protocol):
    """What jobs are added to."""

    nodes: dict[str, Node]
    waiting: dict[str, Waiting]

    def add(self, name: str, stage: str, settings: Frozen, inputs: Mapping[str, str]) -> None:
        """Add a job, after its inputs."""
        ...

    def wait(self, name: str, stage: str, search: str) -> None:
        """Note a job that cannot be planned before a search has found its scheme."""
        ...


def add(planner: Planner, recipe: Recipe) -> None:
    """Add everything that is measured, after the jobs that make the models."""
    models = list(planner.waiting.values())
    if recipe.evaluation is not None:
        _add_evaluations(planner, recipe, recipe.evaluation, models)
        for one in recipe.evaluation.tasks:
            _add_task(planner, recipe, one, models)
        if recipe.evaluation.online:
            _add_online(planner, recipe.evaluation)
    if recipe.benchmark is not None:
        _add_benchmark(planner, recipe)


def _add_evaluations(
    planner: Planner, recipe: Recipe, evaluation: Evaluation, unknown: list[Waiting]
) -> None:
    settings = evaluate.Settings(
        batch_size=evaluation.batch_size,
        limit=evaluation.limit,
        parity_sequences=evaluation.parity_sequences,
    )
    for one in unknown:
        planner.wait(f"evaluate {one.name}", "evaluate", one.search)
    for node in _measured(planner, recipe):
        inputs = {"model": node.name, "data": DATA}
        if node.stage == "export":
            inputs["reference"] = node.inputs["model"]
        planner.add(f"evaluate {node.name}", "evaluate", settings, inputs)


def _add_task(planner: Planner, recipe: Recipe, asked: Task, unknown: list[Waiting]) -> None:
    settings = task.settings_of(asked, recipe)
    wanted = None if asked.models is None else set(asked.models)
    name = name_of(asked)
    for one in unknown:
        if wanted is None or one.name in wanted:
            planner.wait(job_name(name, one.name), "task", one.search)
    for node in _measured(planner, recipe):
        if wanted is not None and node.name not in wanted:
            continue
        inputs = {"model": node.name, "data": DATA}
        if asked.needs_reference:
            reference = _float_source(planner, node)
            if reference is node:
                continue
            inputs["reference"] = reference.name
        planner.add(job_name(name, node.name), "task", settings, inputs)


def _add_online(planner: Planner, evaluation: Evaluation) -> None:
    """Measure what torchao makes of each PTQ step's source when it rounds on loading."""
    for node in [node for node in planner.nodes.values() if node.stage == "quantize"]:
        assert node.scheme is not None
        assert isinstance(node.settings, quantize.Settings)
        if online.reject(node.scheme, node.settings.step) is None:
            settings = online.Settings(
                scheme=node.scheme, batch_size=evaluation.batch_size, limit=evaluation.limit
            )
            inputs = {"model": node.inputs["model"], "checkpoint": node.name, "data": DATA}
            planner.add(f"online {node.name}", "online", settings, inputs)


def _add_benchmark(planner: Planner, recipe: Recipe) -> None:
    assert recipe.benchmark is not None
    settings = benchmark.Settings(
        benchmark=recipe.benchmark,
        threads=recipe.benchmark.threads or hardware.num_threads(),
        seed=recipe.seed,
        machine=_machine(),
    )
    if planner.waiting:
        planner.wait("benchmark", "benchmark", next(iter(planner.waiting.values())).search)
        return
    inputs = {node.name: node.name for node in _measured(planner, recipe)}
    planner.add("benchmark", "benchmark", settings, {benchmark.VOCABULARY: MODEL, **inputs})


def _machine() -> dict[str, str]:
    # PyTorch, which takes seconds to import, is asked only where there is a driver.
    gpu = hardware.gpu() if hardware.installed_gpu() is not None else None
    machine = {"cpu": hardware.cpu_model(), **hardware.versions()}
    return machine if gpu is None else machine | {"gpu": str(gpu)}


def _float_source(planner: Planner, node: Node) -> Node:
    """The float checkpoint that a model's weights come from."""
    while node.scheme is not None or node.group == "qat" or node.stage == "export":
        node = planner.nodes[node.inputs["model"]]
    return node


def _measured(planner: Planner, recipe: Recipe) -> list[Node]:
    skip_baseline = recipe.evaluation is not None and not recipe.evaluation.baseline
    return [
        node
        for node in planner.nodes.values()
        if node.leaves_model and not (skip_baseline and node.group == "baseline")
    ]
