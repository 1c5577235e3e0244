"""What only the whole recipe shows: names and inputs filled in, and whether the parts fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from quantship.exporters import formats
from quantship.exporters.lowering import reject
from quantship.quant.scheme import Scheme
from quantship.recipe import model_names, options, schemes, searches
from quantship.recipe.findings import Finding
from quantship.recipe.keys import suggest
from quantship.recipe.language import (
    MODEL,
    AnyStep,
    ExportStep,
    FinetuneStep,
    QatStep,
    QuantizeStep,
    Recipe,
    SearchStep,
    Teacher,
)
from quantship.recipe.model_names import exported_as as exported_as

RESERVED = {
    MODEL: "the model that the recipe starts from",
    "data": "the prepared data",
    "benchmark": "the benchmark",
}
"""Names that no step can have, because a run calls something else so."""


def resolve(
    recipe: Recipe,
    flawed: Collection[str] = frozenset(),
    variants: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Recipe, list[Finding]]:
    """The recipe with every step's name, input and scheme filled in, and what is wrong with it.

    Where something is wrong, the filled-in recipe holds it as it was given.

    Args:
        recipe: As it was written.
        flawed: Names of schemes of its own that could not be read, and are not in it.
        variants: Names of the steps that a swept step became, by its own name.
    """
    variants = variants or {}
    steps = tuple(step.model_copy(update={"name": _name(step)}) for step in recipe.steps)
    findings = list(_name_findings(recipe.steps))
    filled: list[AnyStep] = []
    for index, step in enumerate(steps):
        inputs = _inputs(step) or (_nearest(step, filled),)
        changes: dict[str, object] = {
            "input": inputs if isinstance(step, ExportStep) else inputs[0]
        }
        if isinstance(step, QatStep | QuantizeStep | SearchStep):
            changes["scheme"] = step.scheme or recipe.scheme
        if isinstance(step, QatStep) and step.distill is not None:
            teacher = step.distill.teacher or Teacher(step=inputs[0])
            changes["distill"] = step.distill.model_copy(update={"teacher": teacher})
        filled.append(step.model_copy(update=changes))
        findings += _input_findings(index, inputs, steps, variants)
        findings += _teacher_findings(index, steps, variants)
    resolved = recipe.model_copy(update={"steps": tuple(filled)})
    table = searches.table(resolved)
    findings += schemes.find_problems(resolved, flawed)
    findings += searches.find_problems(resolved, flawed)
    findings += _scheme_findings(resolved, table, flawed)
    findings += options.find_problems(resolved, table)
    findings += _training_findings(resolved, table)
    findings += model_names.find_problems(resolved, variants)
    return model_names.fill_in(resolved, variants), findings


def _name(step: AnyStep) -> str:
    return step.name or step.stage


def _inputs(step: AnyStep) -> tuple[str, ...]:
    """The inputs that a step names."""
    if step.input is None:
        return ()
    return (step.input,) if isinstance(step.input, str) else step.input


def _accepts(step: AnyStep, source: AnyStep | None) -> bool:
    """Whether a step can work on what another leaves; None stands for the model."""
    if isinstance(step, ExportStep):
        return not isinstance(source, ExportStep | SearchStep)
    return source is None or _leaves_float(source)


def _leaves_float(step: AnyStep) -> bool:
    """Whether a step leaves a float model, to train or to quantize further."""
    return isinstance(step, FinetuneStep) or (isinstance(step, QatStep) and step.output == "float")


def _what_is_left(step: AnyStep | None) -> str:
    if isinstance(step, SearchStep):
        return "a scheme"
    return "a quantized model" if isinstance(step, QatStep | QuantizeStep) else "ONNX"


def _nearest(step: AnyStep, before: Sequence[AnyStep]) -> str:
    return next((_name(other) for other in reversed(before) if _accepts(step, other)), MODEL)


def _name_findings(steps: Sequence[AnyStep]) -> Iterator[Finding]:
    taken: dict[str, AnyStep] = {}
    for index, step in enumerate(steps):
        name, key = _name(step), ("steps", index, "name")
        other = taken.setdefault(name, step)
        if name in RESERVED:
            message = f"the name '{name}' means {RESERVED[name]}"
            yield Finding(key, message, "Choose another name.")
        elif other is not step and other.name is None and step.name is None:
            message = f"a second {step.stage} step, and neither has a name"
            yield Finding(("steps", index), message, f"Name them, as `name: {step.stage}-2`.")
        elif other is not step:
            yield Finding(key, f"another step is called '{name}'", "Give each its own name.")


def _input_findings(
    index: int,
    inputs: Sequence[str],
    steps: Sequence[AnyStep],
    variants: Mapping[str, Sequence[str]],
) -> Iterator[Finding]:
    """What is wrong with the inputs of one step."""
    step, key = steps[index], ("steps", index, "input")
    before = {MODEL: None} | {_name(other): other for other in steps[:index]}
    possible = [name for name, other in before.items() if _accepts(step, other)]
    remedy = f"Possible here: {', '.join(possible)}."
    later = [_name(other) for other in steps[index + 1 :]]
    later += variants  # of swept steps before this one, none is left
    if len(set(inputs)) < len(inputs):
        yield Finding(key, "names a step twice", "Name each input once.")
    if step.input == ():
        yield Finding(key, "an export needs at least one input", remedy)
    for name in inputs:
        if name in possible:
            continue
        if name in before:
            made = _what_is_left(before[name])
            wanted = "a model to export" if isinstance(step, ExportStep) else "a float model"
            yield Finding(key, f"'{name}' leaves {made}, and {step.stage} needs {wanted}", remedy)
        elif name == _name(step) or _name(step) in variants.get(name, ()):
            yield Finding(key, f"step '{name}' is its own input", remedy)
        elif name in later:
            circle = _circle(_name(step), name, steps)
            message = (
                f"inputs go in a circle: {' → '.join(circle)}"
                if circle
                else f"step '{name}' comes later"
            )
            yield Finding(key, message, f"A step reads only what earlier ones left. {remedy}")
        else:
            yield Finding(key, f"no step is called '{name}'", suggest(name, possible) + remedy)


def _teacher_findings(
    index: int, steps: Sequence[AnyStep], variants: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """What is wrong with the step that a distillation names as its teacher."""
    step, key = steps[index], ("steps", index, "distill", "teacher")
    distill = step.distill if isinstance(step, QatStep) else None
    name = distill.teacher.step if distill is not None and distill.teacher is not None else None
    before = {MODEL: None} | {_name(other): other for other in steps[:index]}
    possible = [other for other, made in before.items() if _accepts(step, made)]
    if name is None or name in possible:
        return
    remedy = (
        f"Steps that can teach here: {', '.join(possible)}. "
        "Another model is given as {path: ...} or {hub: ...}."
    )
    if name == _name(step) or _name(step) in variants.get(name, ()):
        yield Finding(key, f"step '{name}' is its own teacher", remedy)
    elif name in before:
        made = "ONNX" if isinstance(before[name], ExportStep) else "a quantized model"
        yield Finding(key, f"'{name}' leaves {made}, and a teacher is a float model", remedy)
    elif name in (*map(_name, steps), *variants):
        yield Finding(key, f"step '{name}' comes later", remedy)
    else:
        yield Finding(key, f"no step is called '{name}'", suggest(name, possible) + remedy)


def _circle(start: str, following: str, steps: Sequence[AnyStep]) -> list[str]:
    """The way from a step along its inputs' first inputs back to itself; empty if there is none."""
    inputs = {_name(step): _inputs(step) for step in steps}
    way = [start, following]
    while len(way) <= len(steps) + 1:
        if way[-1] == start:
            return way
        further = inputs.get(way[-1])
        if not further:
            return []
        way.append(start if start in further else further[0])
    return []


def _scheme_findings(
    recipe: Recipe, table: Mapping[str, Scheme], flawed: Collection[str]
) -> Iterator[Finding]:
    """Steps without a scheme, and exports whose lowering cannot carry the scheme."""
    made: dict[str, Scheme | None] = {MODEL: None}
    for index, step in enumerate(recipe.steps):
        if isinstance(step, ExportStep):
            yield from _lowering_findings(index, step, made)
            continue
        if isinstance(step, QatStep | QuantizeStep | SearchStep) and step.scheme is None:
            offered = schemes.offered([*recipe.schemes, *flawed])
            remedy = f"Give `scheme:` here or for the whole recipe. {offered}"
            yield Finding(("steps", index, "scheme"), "no scheme is given", remedy)
        elif _leaves_float(step):
            made[_name(step)] = None
        elif isinstance(step, QatStep | QuantizeStep) and step.scheme in table:
            made[_name(step)] = table[str(step.scheme)]


def _lowering_findings(
    index: int, step: ExportStep, schemes: dict[str, Scheme | None]
) -> Iterator[Finding]:
    for name in _inputs(step):
        if name not in schemes:
            continue
        if step.format == "onnx":
            reason, key = reject(schemes[name], step.lowering), "lowering"
        else:
            reason, key = formats.reject(schemes[name], step.lowering, step.format), "format"
        if reason:
            message = f"cannot export '{name}': {reason}"
            remedy = f"Choose another {key}, or export this model in a step of its own."
            yield Finding(("steps", index, key), message, remedy)


def _training_findings(recipe: Recipe, table: Mapping[str, Scheme]) -> Iterator[Finding]:
    """Steps that need training data where there is none."""
    needs: dict[str, list[str]] = {"train": [], "calibrate": [], "search": []}
    for step in recipe.steps:
        if isinstance(step, FinetuneStep | QatStep):
            needs["train"].append(_name(step))
        elif isinstance(step, SearchStep):
            needs["search"].append(_name(step))
        elif isinstance(step, QuantizeStep):
            scheme = table.get(step.scheme or "")
            reads = scheme is not None and options.needs_data(step, scheme)
            needs["calibrate"] += [_name(step)] if reads else []
    for verb, names in needs.items():
        if names and not recipe.data.train:
            more = [f"{len(names) - 2} more"] if len(names) > 3 else []
            who = " and ".join([*names[:2], *more] if more else names)
            message = f"nothing to {verb} on, and {who} would {verb}"
            yield Finding(("data", "train"), message, "Give data.train a list of sources.")
