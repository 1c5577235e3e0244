"""From a recipe to the jobs that make it: what runs, on what, and what is there already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from quantship import artifact, hub, measurements, models
from quantship.artifact import Artifact
from quantship.data import class_names
from quantship.errors import Problem, RecipeError, UsageError
from quantship.frozen import Frozen
from quantship.job import OUTSIDE, Node, Plan, Waiting
from quantship.quant.scheme import Scheme
from quantship.recipe import exports, fit, options, schemes, tracking_options
from quantship.recipe.language import (
    MODEL,
    AnyStep,
    Distillation,
    ExportStep,
    Model,
    QatStep,
    QuantizeStep,
    Recipe,
    SearchStep,
)
from quantship.recipe.resolve import exported_as
from quantship.recipe.rounding_options import Calibration
from quantship.recipe.teacher import Makeup, mismatch, read_makeup, tiny_makeup
from quantship.recipe.yaml_source import dotted
from quantship.stages import (
    benchmark,
    data,
    evaluate,
    export,
    finetune,
    head,
    mlp,
    online,
    qat,
    quantize,
    search,
    statistics,
    task,
    tiny,
)

STAGES: dict[str, ModuleType] = {
    "tiny": tiny,
    "mlp": mlp,
    "head": head,
    "data": data,
    "finetune": finetune,
    "qat": qat,
    "statistics": statistics,
    "quantize": quantize,
    "search": search,
    "export": export,
    "evaluate": evaluate,
    "task": task,
    "online": online,
    "benchmark": benchmark,
}
"""Every stage: a module with ``REVISION``, which goes up when its results change, and ``run``."""

DATA = "data"


def make(recipe: Recipe, *, download: bool, found: Mapping[str, Scheme] | None = None) -> Plan:
    """Plan a resolved recipe, as far as that can be: what waits for a search waits.

    Args:
        recipe: As ``recipe.load`` returns it: names, inputs and schemes filled in.
        download: Fetch a Hub model now; else only look up its commit.
        found: What searches have found so far, by their names.

    Raises:
        UsageError: A model is not to be had, or a teacher cannot teach.
        RecipeError: A scheme does not fit the layers of a model that was downloaded just now.
    """
    planner = _Planner(recipe, found or {}, download=download)
    if recipe.model.tiny is not None:
        settings = tiny.Settings(dimensions=recipe.model.tiny, seed=recipe.seed)
        planner.add(MODEL, "tiny", settings, {}, group="baseline")
    elif recipe.model.mlp is not None:
        mlp_settings = mlp.Settings(dimensions=recipe.model.mlp, seed=recipe.seed)
        planner.add(MODEL, "mlp", mlp_settings, {}, group="baseline")
    else:
        name = MODEL if recipe.model.head is None else head.BASE
        planner.add_outside(name, recipe.model, group="baseline" if name == MODEL else "")
        if download and recipe.model.hub is not None:  # one that is here was checked before
            _require_fit(recipe, planner.outside[name].path)
        if recipe.model.head is not None:
            head_settings = head.Settings(
                classes=class_names(recipe.data.sources[0]), seed=recipe.seed
            )
            planner.add(MODEL, "head", head_settings, {"model": name}, group="baseline")
    planner.add(DATA, "data", data.settings_of(recipe.data, recipe.seed), {"model": MODEL})
    for step in recipe.steps:
        planner.add_step(step)
    measurements.add(planner, recipe)
    return Plan(tuple(planner.nodes.values()), planner.outside, tuple(planner.waiting.values()))


def _require_fit(recipe: Recipe, directory: Path) -> None:
    found = fit.find_problems(recipe, directory)
    problems = [Problem(one.message, key=dotted(one.key), remedy=one.remedy) for one in found]
    if problems:
        raise RecipeError(problems)


def _from_outside(model: Model, *, download: bool) -> Artifact:
    if model.path is not None:
        return models.from_directory(model.path)
    assert model.hub is not None
    commit = hub.commit(model.hub, model.revision, "model")
    return models.from_hub(model.hub, commit, download=download)


def _export_settings(step: ExportStep, scheme: Scheme | None) -> export.Settings:
    form, target = exports.settle(step, scheme)
    return export.Settings(format=step.format, lowering=form, target=target, scheme=scheme)


class _Planner:
    """Collects nodes, each with the fingerprint of all that goes into it."""

    def __init__(self, recipe: Recipe, found: Mapping[str, Scheme], *, download: bool) -> None:
        self._recipe = recipe
        self._download = download
        self._rows = schemes.table(recipe)
        self._schemes = self._rows | dict(found)
        self.nodes: dict[str, Node] = {}
        self.waiting: dict[str, Waiting] = {}
        self.outside: dict[str, Artifact] = {}

    def add_outside(self, name: str, model: Model, *, group: str = "") -> None:
        """Add a model that no job makes."""
        source = _from_outside(model, download=self._download)
        self.outside[name] = source
        self.nodes[name] = Node(name, OUTSIDE, None, {}, None, group, source.fingerprint)

    def add(
        self,
        name: str,
        stage: str,
        settings: Frozen,
        inputs: Mapping[str, str],
        *,
        scheme: Scheme | None = None,
        group: str = "",
    ) -> None:
        """Add a job, after its inputs."""
        hashes = {role: self.nodes[node].fingerprint for role, node in inputs.items()}
        fingerprint = artifact.fingerprint(
            stage, STAGES[stage].REVISION, describe(settings), hashes
        )
        self.nodes[name] = Node(name, stage, settings, inputs, scheme, group, fingerprint)

    def add_step(self, step: AnyStep) -> None:
        if isinstance(step, ExportStep):
            self._add_exports(step)
            return
        assert step.name is not None
        assert step.input is not None
        awaited = self._awaited(step)
        if awaited is not None:
            self.wait(step.name, step.stage, awaited)
        elif isinstance(step, QatStep):
            self._add_qat(step.name, step, self._schemes[str(step.scheme)])
        elif isinstance(step, QuantizeStep):
            self._add_quantize(step.name, step, self._schemes[str(step.scheme)])
        elif isinstance(step, SearchStep):
            inputs = {"model": step.input, "data": DATA}
            self.add(step.name, "search", search.settings_of(step, self._rows), inputs)
        else:
            settings = finetune.Settings(
                step=step,
                seed=self._training_seed(step.input),
                tracking=tracking_options.run_of(self._recipe, step.name),
            )
            inputs = {"model": step.input, "data": DATA}
            self.add(step.name, "finetune", settings, inputs, group="finetune")

    def _add_qat(self, name: str, step: QatStep, scheme: Scheme) -> None:
        assert step.input is not None
        inputs = {"model": step.input, "data": DATA}
        if step.distill is not None:
            inputs["teacher"] = self._teacher(name, step.distill)
        settings = qat.Settings(
            step=step,
            scheme=scheme,
            seed=self._training_seed(step.input),
            tracking=tracking_options.run_of(self._recipe, name),
        )
        if step.output == "float":
            self.add(name, "qat", settings, inputs, group="finetune")
        else:
            self.add(name, "qat", settings, inputs, scheme=scheme, group="qat")

    def _add_quantize(self, name: str, step: QuantizeStep, scheme: Scheme) -> None:
        assert step.input is not None
        inputs = {"model": step.input}
        if quantize.reads_statistics(step, scheme):
            inputs[quantize.STATISTICS] = self._statistics(step.input, step.calibration)
        elif options.needs_data(step, scheme):
            inputs["data"] = DATA
        else:  # so that a sweep over it makes one model
            step = step.model_copy(update={"calibration": Calibration()})
        settings = quantize.Settings(step=step, scheme=scheme)
        self.add(name, "quantize", settings, inputs, scheme=scheme, group="ptq")

    def _awaited(self, step: AnyStep) -> str | None:
        """The search that a step waits for, itself or through what it starts from."""
        assert not isinstance(step, ExportStep)
        sources = [step.input]
        if isinstance(step, QatStep) and step.distill is not None:
            assert step.distill.teacher is not None
            sources.append(step.distill.teacher.step)
        for source in sources:
            if source in self.waiting:
                return self.waiting[source].search
        scheme = getattr(step, "scheme", None)
        return None if scheme is None or scheme in self._schemes else str(scheme)

    def wait(self, name: str, stage: str, search: str) -> None:
        """Note a job that cannot be planned before a search has found its scheme."""
        self.waiting[name] = Waiting(name, stage, search)

    def _statistics(self, model: str, calibration: Calibration) -> str:
        """Name of the node that looks at a model's inputs; steps that look alike share one."""
        settings = statistics.Settings(sequences=calibration.sequences, seed=calibration.seed)
        name = f"statistics of {model}"
        if settings != statistics.Settings(sequences=Calibration().sequences, seed=None):
            seed = "" if settings.seed is None else f", seed {settings.seed}"
            name += f" ({settings.sequences} sequences{seed})"
        if name not in self.nodes:
            self.add(name, "statistics", settings, {"model": model, "data": DATA})
        return name

    def _teacher(self, step: str, distill: Distillation) -> str:
        """Name of the node whose model teaches, which is added where no step makes it."""
        assert distill.teacher is not None
        model = distill.teacher.outside
        if model is None:
            assert distill.teacher.step is not None
            return distill.teacher.step
        name = f"teacher {model.path or f'{model.hub}@{model.revision}'}"
        if name not in self.nodes:
            self.add_outside(name, model)
        if self._download:  # else the files may not be here
            student = self._recipe.model
            wrong = mismatch(
                tiny_makeup(student.tiny) if student.tiny else self._makeup(MODEL),
                self._makeup(name),
                hidden_states=distill.hidden_states > 0,
            )
            if wrong is not None:
                raise UsageError(f"step '{step}': the teacher {wrong.message}. {wrong.remedy}")
        return name

    def _makeup(self, name: str) -> Makeup:
        return read_makeup(self.outside[name].path)

    def _training_seed(self, source: str) -> int:
        """A seed that differs between trainings that follow each other.

        Otherwise each would begin with the very examples that the one before has just seen.
        """
        node, before = self.nodes[source], 0
        while "model" in node.inputs:
            before += node.stage in ("finetune", "qat")
            node = self.nodes[node.inputs["model"]]
        return self._recipe.seed + before

    def _add_exports(self, step: ExportStep) -> None:
        for source, name in exported_as(step).items():
            if source in self.waiting:
                self.wait(name, "export", self.waiting[source].search)
                continue
            scheme = self.nodes[source].scheme
            self.add(
                name,
                "export",
                _export_settings(step, scheme),
                {"model": source},
                scheme=scheme,
                group=self.nodes[source].group,
            )


def describe(settings: Frozen) -> dict[str, Any]:
    """Settings as JSON values, without what does not change a result.

    That is a step's name, input and teacher, which are known by their own fingerprints, a task's
    name and models, where a local data file lies: its digest says what it is, and whom a training
    is told to.
    """
    values: dict[str, Any] = settings.model_dump(mode="json")
    step, task = values.get("step", {}), values.get("task", {})
    for key in ("name", "input"):
        step.pop(key, None)
    for key in ("name", "models"):
        task.pop(key, None)
    for key in ("source", "shots_source"):
        (task.get(key) or {}).pop("path", None)
    task.pop("include_path", None)
    values.pop("tracking", None)
    if step.get("distill") is not None:
        step["distill"].pop("teacher")
    for sources in (values.get("data", {}).get(split, ()) for split in ("train", "eval")):
        for source in sources:
            source.pop("path", None)
    return values
