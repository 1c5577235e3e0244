"""What a run read: models that no job made, data, and the commits that these were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from quantship.artifact import Artifact
from quantship.data import Source, hub_dataset
from quantship.job import Node, Plan
from quantship.provenance.lock_schema import LockedModel, LockedSource, Revision
from quantship.recipe.language import MODEL, Model, Recipe


def models(recipe: Recipe, plan: Plan) -> dict[str, LockedModel]:
    """Models that no job of a plan makes, by their names in it; teachers with their commits."""
    teachers = {_node_name(one, one.revision): one for one in _named_models(recipe)}
    found = {}
    for name, artifact in plan.outside.items():
        model = _locked(artifact, teachers.get(name, recipe.model))
        if name in teachers:
            name = _node_name(teachers[name], str(model.commit))
        found[name] = model
    return found


def data(recipe: Recipe, plan: Plan) -> list[LockedSource]:
    """The data that a plan reads, as it was when it was planned."""
    return [
        _source(key, source, tied, digests) for key, source, tied, digests in _read(recipe, plan)
    ]


def revisions(recipe: Recipe, plan: Plan) -> list[Revision]:
    """Every repository on the Hub that a plan reads, each commit once."""
    found = [
        Revision(kind="dataset", id=remote[0], asked=remote[1], commit=tied.revision)
        for _, source, tied, _ in _read(recipe, plan)
        if (remote := hub_dataset(source)) is not None
    ]
    for model in _named_models(recipe):
        commit = _commit(model, plan)
        if commit is not None:
            assert model.hub is not None
            found.append(Revision(kind="model", id=model.hub, asked=model.revision, commit=commit))
    return list(dict.fromkeys(found))


def pinned(recipe: Recipe, plan: Plan) -> Recipe:
    """The recipe with every revision on the Hub replaced by the commit that it was."""
    tied = {key: source for key, _, source, _ in _read(recipe, plan)}
    parts = {
        part: tuple(
            tied.get(f"data.{part}.{index}", source)
            for index, source in enumerate(getattr(recipe.data, part))
        )
        for part in ("train", "eval")
    }
    changes: dict[str, Any] = {
        "data": recipe.data.model_copy(update=parts),
        "model": _pinned_model(recipe.model, plan),
        "steps": tuple(_pinned_step(step, plan) for step in recipe.steps),
    }
    if recipe.evaluation is not None:
        tasks = tuple(
            task.model_copy(update={"source": tied[key]})
            if (key := f"evaluation.tasks.{index}.source") in tied
            else task
            for index, task in enumerate(recipe.evaluation.tasks)
        )
        changes["evaluation"] = recipe.evaluation.model_copy(update={"tasks": tasks})
    return recipe.model_copy(update=changes)


def _read(recipe: Recipe, plan: Plan) -> Iterator[tuple[str, Source, Any, Sequence[str]]]:
    """Key, source as in the recipe, source as it was read, digests of its files."""
    node = next((node for node in plan.nodes if node.stage == "data"), None)
    if node is not None:
        settings: Any = node.settings
        keys = [
            f"data.{part}.{index}"
            for part in ("train", "eval")
            for index in range(len(getattr(recipe.data, part)))
        ]
        asked = (*recipe.data.train, *recipe.data.eval)
        tied = (*settings.data.train, *settings.data.eval)
        yield from zip(keys, asked, tied, settings.file_digests, strict=True)
    if recipe.evaluation is None:
        return
    by_task = {_task_of(node): node for node in plan.nodes if node.stage == "task"}
    for index, task in enumerate(recipe.evaluation.tasks):
        source = getattr(task, "source", None)
        name = task.name or task.task
        if source is not None and name in by_task:
            settings = by_task[name].settings
            key = f"evaluation.tasks.{index}.source"
            yield key, source, settings.task.source, settings.file_digests


def _task_of(node: Node) -> str:
    return node.name.removesuffix(f" of {node.inputs['model']}")


def _source(key: str, asked: Source, tied: Any, digests: Sequence[str]) -> LockedSource:
    remote = hub_dataset(asked)
    path = getattr(asked, "path", None)
    return LockedSource(
        key=key,
        adapter=asked.adapter,
        path=None if path is None else str(path),
        hub=None if remote is None else remote[0],
        commit=None if remote is None else tied.revision,
        files=list(digests),
    )


def _locked(artifact: Artifact, named: Model) -> LockedModel:
    return LockedModel(
        hub=named.hub,
        path=None if named.path is None else str(named.path),
        commit=artifact.facts.get("commit"),
        fingerprint=artifact.fingerprint,
    )


def _node_name(teacher: Model, revision: str) -> str:
    """What a plan calls a teacher that no step makes, where a recipe names this revision."""
    return f"teacher {teacher.path or f'{teacher.hub}@{revision}'}"


def _named_models(recipe: Recipe) -> Iterator[Model]:
    """The models that a recipe names: the one it starts from, and teachers."""
    yield recipe.model
    for step in recipe.steps:
        teacher = _teacher(step)
        if teacher is not None:
            yield teacher


def _teacher(step: Any) -> Model | None:
    distill = getattr(step, "distill", None)
    if distill is None or distill.teacher is None:
        return None
    return cast("Model | None", distill.teacher.outside)


def _pinned_step(step: Any, plan: Plan) -> Any:
    teacher = _teacher(step)
    commit = None if teacher is None else _commit(teacher, plan)
    if commit is None:
        return step
    told = step.distill.teacher.model_copy(update={"revision": commit})
    return step.model_copy(update={"distill": step.distill.model_copy(update={"teacher": told})})


def _pinned_model(model: Model, plan: Plan) -> Model:
    commit = _commit(model, plan)
    return model if commit is None else model.model_copy(update={"revision": commit})


def _commit(model: Model, plan: Plan) -> str | None:
    """The commit that a model on the Hub was read at; None for any other."""
    if model.hub is None:
        return None
    for name in (_node_name(model, model.revision), MODEL, *plan.outside):
        found = plan.outside.get(name)
        if found is not None and found.facts.get("hub") == model.hub:
            return str(found.facts["commit"])
    return None
