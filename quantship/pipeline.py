"""Run a recipe: every job finds its artifact or makes it, and the report is written at the end."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from quantship import artifact, hardware, models
from quantship import plan as planning
from quantship.artifact import Artifact, Facts
from quantship.errors import GateError, QuantshipError, StageError, UsageError
from quantship.estimate import mlp_parameters, needs, tiny_parameters
from quantship.exporters import advice
from quantship.job import OUTSIDE, Job, Node, Plan
from quantship.plan import STAGES
from quantship.provenance.lock import write_made
from quantship.provenance.record import record
from quantship.quant.scheme import Scheme
from quantship.recipe import consent
from quantship.recipe.language import MODEL, Recipe
from quantship.reporting import gate_words, unchanged
from quantship.reporting.schema import Report
from quantship.runtimes.built_for import BuiltFor
from quantship.stages import head, push, report, search

MOST_REASONS = 10
"""Failed gates whose reasons an error gives; the report has all."""
EventKind = Literal["reused", "started", "finished", "failed"]


@dataclass(frozen=True)
class Event:
    """Something to tell the user while a recipe runs.

    Args:
        kind: What happened.
        step: Name of the job.
        stage: Its stage.
        seconds: How long it took; None before it has ended.
        detail: More, in words; may be empty.
        warnings: What to beware of in the model that it left.
    """

    kind: EventKind
    step: str
    stage: str
    seconds: float | None = None
    detail: str = ""
    warnings: tuple[str, ...] = ()


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
    notify: Callable[[Event], None] = lambda event: None,
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
    lock = FileLock(root / ".lock")
    try:
        root.mkdir(parents=True, exist_ok=True)
        held = lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"another run is using {root}; wait for it, or give --artifacts"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"artifacts cannot be kept in {root}: {reason}") from error
    with held:
        made: dict[str, Artifact] = {}
        jobs = planning.make(recipe, download=True)
        if recipe.push is not None:
            _check_push(recipe, jobs, notify)
        _make_all(recipe, jobs, made, root, notify)
        while jobs.waiting:
            jobs = planning.make(recipe, download=True, found=_found(jobs, made))
            _make_all(recipe, jobs, made, root, notify)
        result = report.build(recipe, jobs, made, root, duration_s=time.monotonic() - began)
        result = unchanged.settled(result, root / "runs" / result.name)
        report_dir = report.save(result, jobs, made, root)
        record(recipe, jobs, made, result, report_dir)
        _pass_gates(RunResult(report_dir, result, made), pushes=recipe.push is not None)
        if recipe.push is not None:
            notify(Event("started", "push", "push"))
            for pushed in push.upload(recipe.push, report_dir):
                notify(
                    Event("finished", "push", "push", detail=str(pushed), warnings=pushed.remarks)
                )
    return RunResult(report_dir, result, made)


def _check_push(recipe: Recipe, jobs: Plan, notify: Callable[[Event], None]) -> None:
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
            if (found := artifact.find(root, node.stage, node.fingerprint)) is not None
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
    notify: Callable[[Event], None],
) -> None:
    """Find or make every job of a plan that is not made yet."""
    for node in jobs.nodes:
        if node.stage == OUTSIDE:
            made[node.name] = jobs.outside[node.name]
        elif node.name not in made:
            seal = partial(write_made, recipe, jobs, node)
            made[node.name] = _make(node, made, root, notify, seal)


def _found(jobs: Plan, made: Mapping[str, Artifact]) -> dict[str, Scheme]:
    """What the searches that are made have found."""
    done = [node.name for node in jobs.nodes if node.stage == "search" and node.name in made]
    return {name: search.read_scheme(made[name].path, name) for name in done}


def _make(
    node: Node,
    made: dict[str, Artifact],
    root: Path,
    notify: Callable[[Event], None],
    seal: Callable[[Path, Facts], object],
) -> Artifact:
    final = artifact.directory(root, node.stage, node.fingerprint)
    resume = final.with_name(final.name + ".resume")
    found = artifact.find(root, node.stage, node.fingerprint)
    if found is not None:
        shutil.rmtree(resume, ignore_errors=True)  # of a run killed right after its last rename
        notify(Event("reused", node.name, node.stage))
        return found
    notify(Event("started", node.name, node.stage))
    inputs = {role: made[name] for role, name in node.inputs.items()}
    unfinished = artifact.begin(final)
    began = time.monotonic()
    assert node.settings is not None
    try:
        facts = STAGES[node.stage].run(Job(node.settings, inputs, unfinished, resume))
        seconds = time.monotonic() - began
        seal(unfinished, facts)
        finished = artifact.finish(
            unfinished,
            stage=node.stage,
            fingerprint=node.fingerprint,
            settings=planning.describe(node.settings),
            inputs={role: item.fingerprint for role, item in inputs.items()},
            facts=facts,
            duration_s=seconds,
        )
    except Exception as error:
        with suppress(OSError):  # a full disk is reported as itself
            (unfinished / "error.log").write_text(traceback.format_exc())
        notify(Event("failed", node.name, node.stage, time.monotonic() - began))
        raise StageError(node.name, _in_words(error), unfinished) from error
    shutil.rmtree(resume, ignore_errors=True)  # only now is there nothing left to resume
    detail, warnings = _advice(facts)
    notify(Event("finished", node.name, node.stage, seconds, detail, warnings))
    return finished


def _advice(facts: Facts) -> tuple[str, tuple[str, ...]]:
    """What was decided about an exported model, and what to beware of on its target and here."""
    if "lowering_reason" not in facts:
        return "", ()
    built = BuiltFor(facts["lowering"], facts["target"], facts["signed_weights"])
    detail = f"{built.lowering} for {built.target}"
    return detail, (*facts["warnings"], *advice.elsewhere(built, hardware.kind()))


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, QuantshipError) else f"{type(error).__name__}: {error}"


def _num_parameters(recipe: Recipe, jobs: Plan) -> int | None:
    if recipe.model.tiny is not None:
        return tiny_parameters(recipe.model.tiny)
    if recipe.model.mlp is not None:
        return mlp_parameters(recipe.model.mlp)
    source = jobs.outside[MODEL if recipe.model.head is None else head.BASE].path
    return models.num_parameters(source) if source.is_dir() else None
