"""Run a recipe: every job finds its artifact or makes it, and the report is written at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from quantship import artifact, holding, lockstep, making, models, processes
from quantship import plan as planning
from quantship.artifact import Artifact
from quantship.errors import GateError
from quantship.estimate import mlp_parameters, needs, tiny_parameters
from quantship.job import OUTSIDE, Node, Plan
from quantship.making import Event as Event
from quantship.making import Making, Notify
from quantship.provenance.lock import write_made
from quantship.provenance.record import record
from quantship.quant.scheme import Scheme
from quantship.recipe import consent
from quantship.recipe.language import MODEL, Recipe
from quantship.reporting import gate_words, unchanged
from quantship.reporting.schema import Report
from quantship.stages import head, push, report, search

MOST_REASONS = 10
"""Failed gates whose reasons an error gives; the report has all."""


@dataclass(frozen=True)
class RunResult:
    """What a run leaves.

    Args:
        report_dir: Directory with report.json, report.md, report.html and links to the models.
        report: The report.
        artifacts: Finished directories by the name of the job.
    """

    report_dir: Path
    report: Report
    artifacts: dict[str, Artifact]


@dataclass(frozen=True)
class PlannedStep:
    """One line of ``--plan``.

    Args:
        name: Name of the job.
        stage: Its stage.
        reused: Whether its artifact is there already.
        path: Where its artifact lies or will lie; None: not known before the search.
        disk_bytes: Roughly what it will write; None where that is not known.
        memory_bytes: Roughly what it will need at its peak; None where that is not known.
        search: Search that has to find a scheme before more can be said; None: all is known.
    """

    name: str
    stage: str
    reused: bool
    path: Path | None
    disk_bytes: int | None
    memory_bytes: int | None
    search: str | None = None


def run(
    recipe: Recipe,
    root: Path,
    notify: Notify = lambda event: None,
    *,
    allow_code: bool = False,
) -> RunResult:
    """Run a recipe from start to end, reusing whatever is there.

    Args:
        recipe: As ``recipe.load`` returns it.
        root: Where artifacts and reports land.
        notify: Told of every job.
        allow_code: Run tasks that run code of others.

    Raises:
        UsageError: Another run uses ``root``, it cannot be written to, the model is not to be had,
            or code would run that is not allowed.
        RecipeError: A scheme does not fit the layers of a model from the Hub.
        StageError: A stage failed.
        GateError: A limit of the recipe does not hold: the report is there, nothing was pushed.
        KeyboardInterrupt: The user stopped it; the same call goes on from there.
    """
    consent.require(recipe, allowed=allow_code)
    began = time.monotonic()
    with processes.together(), ExitStack() as held, holding.explained(root):
        processes.first_does(lambda: held.enter_context(holding.alone(root, recipe.name)))
        processes.in_step(lambda: lockstep.require_shares(recipe))
        lockstep.require_shared(root)
        made: dict[str, Artifact] = {}
        jobs = lockstep.agree_on(lambda: planning.make(recipe, download=True))
        if recipe.push is not None:
            processes.first_does(lambda: _check_push(recipe, jobs, notify))
        _make_all(recipe, jobs, made, root, notify)
        while jobs.waiting:
            found = _found(jobs, made)
            jobs = lockstep.agree_on(partial(planning.make, recipe, download=True, found=found))
            _make_all(recipe, jobs, made, root, notify)
        result = processes.first_does(lambda: _report(recipe, jobs, made, root, began))
        finished = RunResult(root / "runs" / result.name, result, made)
        processes.in_step(lambda: _pass_gates(finished, pushes=recipe.push is not None))
        if recipe.push is not None:
            processes.first_does(lambda: _push(recipe, finished, notify))
    return finished


def _report(
    recipe: Recipe, jobs: Plan, made: Mapping[str, Artifact], root: Path, began: float
) -> Report:
    """Write the report of a run, and the record of how it came about."""
    result = report.build(recipe, jobs, made, root, duration_s=time.monotonic() - began)
    result = unchanged.settled(result, root / "runs" / result.name)
    report_dir = report.save(result, jobs, made, root)
    record(recipe, jobs, made, result, report_dir)
    return result


def _push(recipe: Recipe, finished: RunResult, notify: Notify) -> None:
    assert recipe.push is not None
    notify(Event("started", "push", "push"))
    for pushed in push.upload(recipe.push, finished.report_dir):
        notify(Event("finished", "push", "push", detail=str(pushed), warnings=pushed.remarks))


def _check_push(recipe: Recipe, jobs: Plan, notify: Notify) -> None:
    """Find out now, not after hours, whether what is about to be made can be pushed."""
    makes_its_own = recipe.model.tiny is not None or recipe.model.mlp is not None
    base = None if makes_its_own else next(iter(jobs.outside.values())).path
    access = push.check(recipe, base)
    detail = "" if access.user is None else f"{access.user} may write"
    notify(Event("finished", "access to the Hub", "push", None, detail, access.warnings))


def _pass_gates(result: RunResult, *, pushes: bool) -> None:
    number = sum(not gate.passed for gate in result.report.gates)
    if not number:
        return
    which = "1 gate fails" if number == 1 else f"{number} gates fail"
    kept = "nothing was pushed; models and report are kept" if pushes else "the models are kept"
    said = gate_words.failures(result.report.gates, MOST_REASONS)
    lines = "".join(f"\n    {reason}" for reason in said)
    raise GateError(f"{which} ({kept}):{lines}", result)


def plan(recipe: Recipe, root: Path) -> list[PlannedStep]:
    """What ``run`` would do, without doing any of it."""
    jobs = planning.make(recipe, download=False)
    if jobs.waiting:  # a search that was made before says what comes after it
        there = {
            node.name: found
            for node in jobs.nodes
            if node.stage == "search"
            and (found := artifact.find(root, node.stage, node.fingerprint)) is not None
        }
        jobs = planning.make(recipe, download=False, found=_found(jobs, there))
    known = _num_parameters(recipe, jobs)
    lines = []
    for node in jobs.nodes:
        if node.stage == OUTSIDE:
            continue
        needed = needs(node, known) if known is not None else None
        lines.append(
            PlannedStep(
                name=node.name,
                stage=node.stage,
                reused=artifact.find(root, node.stage, node.fingerprint) is not None,
                path=artifact.directory(root, node.stage, node.fingerprint),
                disk_bytes=needed.disk_bytes if needed else None,
                memory_bytes=needed.memory_bytes if needed else None,
            )
        )
    for one in jobs.waiting:
        lines.append(PlannedStep(one.name, one.stage, False, None, None, None, one.search))
    return lines


def _make_all(
    recipe: Recipe,
    jobs: Plan,
    made: dict[str, Artifact],
    root: Path,
    notify: Notify,
) -> None:
    """Find or make every job of a plan that is not made yet."""
    known = _num_parameters(recipe, jobs)

    def making_of(node: Node) -> Making:
        inputs = {role: made[name] for role, name in node.inputs.items()}
        needed_bytes = needs(node, known).disk_bytes if known is not None else None
        return Making(node, inputs, root, partial(write_made, recipe, jobs, node), needed_bytes)

    if processes.current() is not None:
        made.update(jobs.outside)
        lockstep.make_all(jobs.nodes, made, root, notify, making_of)
        return
    for node in jobs.nodes:
        if node.stage == OUTSIDE:
            made[node.name] = jobs.outside[node.name]
        elif node.name not in made:
            found = making.find(node, root, notify)
            made[node.name] = found or making.make(making_of(node), notify)


def _found(jobs: Plan, made: Mapping[str, Artifact]) -> dict[str, Scheme]:
    """What the searches that are made have found."""
    done = [node.name for node in jobs.nodes if node.stage == "search" and node.name in made]
    return {name: search.read_scheme(made[name].path, name) for name in done}


def _num_parameters(recipe: Recipe, jobs: Plan) -> int | None:
    if recipe.model.tiny is not None:
        return tiny_parameters(recipe.model.tiny)
    if recipe.model.mlp is not None:
        return mlp_parameters(recipe.model.mlp)
    source = jobs.outside[MODEL if recipe.model.head is None else head.BASE].path
    return models.num_parameters(source) if source.is_dir() else None
