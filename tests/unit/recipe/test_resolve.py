from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantship.recipe import Recipe, load
from quantship.recipe.language import Teacher
from quantship.recipe.resolve import RESERVED, exported_as

Write = Callable[..., Path]
Complaints = Callable[..., str]
HEAD = """\
model: {tiny: {}}
data: {train: [{adapter: builtin}], eval: [{adapter: builtin}]}
"""


def recipe_of(*steps: str) -> str:
    return HEAD + "scheme: w8a8\nsteps:\n" + "".join(f"  - {{{step}}}\n" for step in steps)


def links(recipe: Recipe) -> list[tuple[str | None, object]]:
    return [(step.name, step.input) for step in recipe.steps]


def test_names_inputs_and_schemes_are_filled_in(write: Write) -> None:
    recipe = load(
        write(
            recipe_of(
                "stage: export, name: first",
                "stage: quantize, name: early",
                "stage: finetune",
                "stage: quantize",
                "stage: qat, scheme: w8a16",
                "stage: export",
                "stage: export, name: both, input: [finetune, quantize]",
                "stage: export, name: one, input: qat",
            )
        )
    )
    assert links(recipe) == [
        ("first", ("model",)),
        ("early", "model"),
        ("finetune", "model"),
        ("quantize", "finetune"),
        ("qat", "finetune"),
        ("export", ("qat",)),
        ("both", ("finetune", "quantize")),
        ("one", ("qat",)),
    ]
    schemes = [getattr(step, "scheme", None) for step in recipe.steps]
    assert schemes == [None, "w8a8", None, "w8a8", "w8a16", None, None, None]


def test_a_teacher_is_the_steps_own_input_unless_another_is_named(write: Write) -> None:
    recipe = load(
        write(
            recipe_of(
                "stage: finetune",
                "stage: qat, name: a, distill: true",
                "stage: qat, name: b, input: model, distill: {weight: 0.25}",
                "stage: qat, name: c, distill: {teacher: model}",
                "stage: qat, name: d, input: model, distill: {teacher: finetune}",
                "stage: qat, name: e, distill: {teacher: me/it}",
                "stage: qat, name: f, distill: false",
            )
        )
    )
    distills = [step.distill for step in recipe.steps[1:]]  # type: ignore[union-attr]
    teachers = [distill and distill.teacher for distill in distills]
    assert teachers == [
        Teacher(step="finetune"),
        Teacher(step="model"),
        Teacher(step="model"),
        Teacher(step="finetune"),
        Teacher(hub="me/it"),
        None,
    ]
    assert distills[1].weight == 0.25  # type: ignore[union-attr]


def test_what_is_trained_to_be_quantized_later_is_a_float_model(write: Write) -> None:
    steps = [
        "stage: qat, name: clean, output: float",
        "stage: quantize",
        "stage: qat, distill: {teacher: clean}",
        "stage: finetune, input: clean",
        "stage: export, input: [clean, quantize, qat]",
        "stage: export, name: float, input: clean, lowering: float",
    ]
    recipe = load(write(recipe_of(*steps) + "push: {repo: me/it, models: [clean, float]}\n"))
    assert [step.input for step in recipe.steps[:4]] == ["model", "clean", "clean", "clean"]


def test_finetuning_continues_from_the_last_finetuning(write: Write) -> None:
    recipe = load(write(recipe_of("stage: finetune, name: a", "stage: finetune, name: b")))
    assert links(recipe) == [("a", "model"), ("b", "a")]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["stage: qat", "stage: qat"], "steps.1: a second qat step, and neither has a name"),
        (
            ["stage: qat", "stage: finetune, name: qat"],
            "steps.1.name: another step is called 'qat'",
        ),
        (["stage: qat, name: model"], "steps.0.name: the name 'model' means the model"),
        (["stage: qat, name: data"], "steps.0.name: the name 'data' means the prepared data"),
        (
            ["stage: qat", "stage: quantize, name: qat-onnx", "stage: export, input: qat"],
            "steps.2: exports a model as 'qat-onnx', which is the name of another",
        ),
        (
            [
                "stage: export, name: a-model, input: model",
                "stage: export, name: a, input: [b, model]",
            ],
            "steps.1: exports a model as 'a-model'",
        ),
        (["stage: qat, name: a.b"], "steps.0.name: the text 'a.b' is not a valid value"),
        (["stage: qat, input: qat"], "steps.0.input: step 'qat' is its own input"),
        (["stage: qat, input: finetune", "stage: finetune"], "step 'finetune' comes later"),
        (["stage: qat, input: fintune"], "no step is called 'fintune'\n    Possible here: model."),
        (
            ["stage: finetune", "stage: qat, input: fintune"],
            "called 'fintune'\n    Did you mean finetune? Possible here: model, finetune",
        ),
        (
            ["stage: finetune, name: a, input: b", "stage: finetune, name: b, input: a"],
            "inputs go in a circle: a → b → a",
        ),
        (
            [
                "stage: finetune, name: a, input: c",
                "stage: finetune, name: b, input: a",
                "stage: finetune, name: c, input: b",
            ],
            "inputs go in a circle: a → c → b → a",
        ),
        (
            ["stage: qat, name: q", "stage: quantize, input: q"],
            "'q' leaves a quantized model, and quantize needs a float model",
        ),
        (
            ["stage: quantize", "stage: finetune, input: quantize"],
            "'quantize' leaves a quantized model, and finetune needs a float model",
        ),
        (
            ["stage: export", "stage: qat, input: export"],
            "'export' leaves ONNX, and qat needs a fl",
        ),
        (
            ["stage: export, name: a", "stage: export, name: b, input: a"],
            "'a' leaves ONNX, and export needs a model to export",
        ),
        (
            ["stage: qat, output: float", "stage: export, lowering: nbits"],
            "steps.1.lowering: cannot export 'qat': a float model has no integers",
        ),
        (
            ["stage: finetune", "stage: qat, distill: {teacher: fintune}"],
            "steps.1.distill.teacher: no step is called 'fintune'\n    Did you mean finetune? "
            "Steps that can teach here: model, finetune. Another model is given as {path: ...}",
        ),
        (
            ["stage: quantize", "stage: qat, distill: {teacher: quantize}"],
            "'quantize' leaves a quantized model, and a teacher is a float model",
        ),
        (
            ["stage: export", "stage: qat, distill: {teacher: {step: export}}"],
            "steps.1.distill.teacher: 'export' leaves ONNX, and a teacher is a float model",
        ),
        (["stage: qat, distill: {teacher: qat}"], "step 'qat' is its own teacher"),
        (
            ["stage: qat, input: model, distill: {teacher: finetune}", "stage: finetune"],
            "steps.0.distill.teacher: step 'finetune' comes later",
        ),
        (["stage: export, input: []"], "an export needs at least one input"),
        (["stage: export, input: [model, model]"], "names a step twice"),
        (
            ["stage: qat, scheme: w8a16", "stage: export, lowering: integer"],
            "steps.1.lowering: cannot export 'qat': the lowering 'integer'",
        ),
        (
            ["stage: qat", "stage: export, input: [model, qat], lowering: nbits"],
            "steps.1.lowering: cannot export 'model': a float model has no integers",
        ),
        (
            ["stage: qat", "stage: export, format: openvino, lowering: nbits"],
            "steps.1.format: cannot export 'qat': the lowering 'nbits' is a form of ONNX graphs",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    write: Write, complaints: Complaints, steps: list[str], said: str
) -> None:
    assert said in complaints(write(recipe_of(*steps)))


def test_a_scheme_must_be_given_somewhere(write: Write, complaints: Complaints) -> None:
    text = HEAD + "steps: [{stage: quantize}, {stage: qat, scheme: w8a8}]\n"
    said = complaints(write(text))
    assert "steps.0.scheme: no scheme is given" in said
    assert "steps.1" not in said


def test_training_needs_training_data(write: Write, complaints: Complaints) -> None:
    text = recipe_of("stage: finetune", "stage: qat").replace("[{adapter: builtin}]", "[]", 1)
    assert "data.train: nothing to train on, and finetune and qat would" in complaints(write(text))


def test_quantizing_needs_no_training_data(write: Write) -> None:
    text = recipe_of("stage: quantize").replace("train: [{adapter: builtin}], ", "")
    assert load(write(text)).data.train == ()


def test_pushing_needs_models_of_the_recipe(write: Write, complaints: Complaints) -> None:
    text = recipe_of("stage: qat", "stage: export")
    said = complaints(write(text + "push: {repo: me/it, models: [qat, qat-onx]}\n"))
    assert "push.models.1: no model is called 'qat-onx'\n    Did you mean qat-onnx" in said
    assert "models.0" not in said
    load(write(text + "push: {repo: me/it, models: [qat, qat-onnx]}\n"))


def test_models_are_called_as_a_run_calls_them(write: Write) -> None:
    from quantship import plan

    recipe = load(
        write(
            recipe_of(
                "stage: finetune",
                "stage: qat",
                "stage: export",
                "stage: export, name: both, input: [finetune, qat]",
                "stage: export, name: alone, input: model",
            )
        )
    )
    nodes = {node.name for node in plan.make(recipe, download=False).nodes}
    names = [name for step in recipe.steps[2:] for name in exported_as(step).values()]  # type: ignore[arg-type]
    assert names == ["qat-onnx", "both-finetune", "both-qat", "alone"]
    assert nodes >= {*names, *RESERVED, "finetune", "qat"}
