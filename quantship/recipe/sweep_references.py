"""Steps that name swept steps: what they mean by the name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantship.recipe.findings import Finding
from quantship.recipe.language import MODEL
from quantship.recipe.resolve import RESERVED
from quantship.recipe.sweep_axes import Axis, Choice
from quantship.recipe.values import at, items, replace, text
from quantship.recipe.yaml_source import Key, Value

_MODEL_STAGES = ("finetune", "qat", "quantize")
_EXPORT = "export"
_INPUT: Key = ("input",)
_NAMING: dict[Key, str | None] = {_INPUT: None, ("scheme",): "search"}
"""Keys that name a step, and the stage of the only steps that they mean; None: of any."""


@dataclass(frozen=True)
class Made:
    """What a written step became.

    Args:
        called: Its name as it was written.
        stage: Its stage.
        names: Of the steps that it became.
        floats: Of those that leave a float model.
    """

    called: str
    stage: str | None
    names: tuple[str, ...]
    floats: tuple[str, ...]

    @property
    def swept(self) -> bool:
        """Whether its name stands for several steps."""
        return len(self.names) > 1 and self.called not in RESERVED


def note(written: Value, variants: Sequence[Value]) -> Made:
    """What a written step became."""
    stage = text(written, "stage")
    names = tuple(called(variant) or "" for variant in variants)
    floats = tuple(
        name
        for name, variant in zip(names, variants, strict=True)
        if stage == "finetune" or (stage == "qat" and text(variant, "output") == "float")
    )
    return Made(called(written) or "", stage, names, floats)


def called(step: Value) -> str | None:
    """A step's name; None where it has none that is text."""
    name = at(step, ("name",))
    return text(step, "stage" if name is None or name.content is None else "name")


def follow(step: Value, axes: Sequence[Axis], made: Sequence[Made]) -> tuple[Value, list[Axis]]:
    """The step and what it is swept over, with the names of swept steps replaced by their variants.

    An export's input, which may be a list, is left to ``export_all``.

    Args:
        step: As it was written.
        axes: Its own lists.
        made: What the steps before it became.
    """
    stage, found = text(step, "stage"), list(axes)
    if _missing(at(step, _INPUT)):
        names = [Value(name, step.place) for name in _nearest(stage, made)]
        if len(names) > 1 and stage == _EXPORT:
            return replace(step, _INPUT, Value(names, step.place)), found
        if len(names) > 1:
            found = [Axis(_INPUT, tuple(Choice(name, None) for name in names)), *found]
        elif axes:
            # Said here: of the steps that this one becomes, each would take the one before it.
            step = replace(step, _INPUT, names[0])
    for key in _NAMING:
        value = at(step, key)
        if value is not None and key not in [axis.key for axis in found]:
            found.append(Axis(key, (Choice(value, None),)))
    found = [_widened(axis, made) for axis in found if (axis.key, stage) != (_INPUT, _EXPORT)]
    own = [axis.key for axis in axes]
    found = [axis for axis in found if axis.key in own or len(axis.choices) > 1]
    assert isinstance(step.content, dict)
    order = [_INPUT[0], *step.content] if _missing(at(step, _INPUT)) else list(step.content)
    # Parts of names come in the order in which the keys are written.
    return step, sorted(found, key=lambda axis: order.index(str(axis.key[0])))


def _missing(value: Value | None) -> bool:
    return value is None or value.content is None


def _widened(axis: Axis, made: Sequence[Made]) -> Axis:
    """The axis with all variants of each swept step that its values name."""
    if axis.key not in _NAMING:
        return axis
    choices = [
        Choice(meant, choice.item)
        for choice in axis.choices
        for meant in _meant(choice.value, made, _NAMING[axis.key])
    ]
    return Axis(axis.key, tuple(choices))


def export_all(step: Value, made: Sequence[Made]) -> tuple[Value, dict[Key, Key]]:
    """The step with all variants in place of each swept step that it exports.

    Args:
        step: As it was written.
        made: What the steps before it became.

    Returns:
        The step, and the keys as they were written of those below its input, where they differ.
    """
    given = at(step, _INPUT)
    if text(step, "stage") != _EXPORT or given is None:
        return step, {}
    meant = [(index, name) for index, one in enumerate(items(given)) for name in _meant(one, made)]
    if len(meant) == len(items(given)):
        return step, {}
    is_list = isinstance(given.content, list)
    moved: dict[Key, Key] = {
        ("input", place): ("input", index) if is_list else ("input",)
        for place, (index, _) in enumerate(meant)
    }
    return replace(step, _INPUT, Value([name for _, name in meant], given.place)), moved


def settle_teacher(step: Value, key: Key, made: Sequence[Made], findings: list[Finding]) -> Value:
    """The step with a swept teacher's name replaced by that of the variant it starts from.

    Args:
        step: One of the steps that a step became.
        key: Where that stands.
        made: What the steps before became.
        findings: Takes the complaint where the step starts from none of the teacher's variants.
    """
    for path in (("distill", "teacher"), ("distill", "teacher", "step")):
        teacher, source = at(step, path), at(step, _INPUT)
        names = [] if teacher is None else _meant(teacher, made)
        if teacher is None or len(names) < 2:
            continue
        if source is not None and source.content in [name.content for name in names]:
            return replace(step, path, source)
        message = f"'{teacher.content}' is swept and means {len(names)} steps, and a teacher is one"
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        remedy = f"Name one of: {', '.join(str(name.content) for name in names[:4])}{more}."
        finding = Finding((*key, *path), message, remedy)
        findings += [] if finding in findings else [finding]
        return replace(step, path, names[0])
    return step


def _meant(value: Value, made: Sequence[Made], stage: str | None = None) -> list[Value]:
    """The names that a name means: several where it is a swept step's, else itself."""
    for one in made:
        if one.swept and one.called == value.content and stage in (None, one.stage):
            return [Value(name, value.place) for name in one.names]
    return [value]


def _nearest(stage: str | None, made: Sequence[Made]) -> tuple[str, ...]:
    """What a step without an input starts from."""
    for one in reversed(made):
        fitting = one.names if stage == _EXPORT else one.floats
        if fitting and one.stage in _MODEL_STAGES:
            return fitting
    return (MODEL,)
