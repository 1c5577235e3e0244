"""A list where a step wants one value makes a step of each."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantship.recipe import Recipe, check, load, sweeps
from quantship.recipe.layers import read_chain
from quantship.recipe.model_options import STEP_NAME
from quantship.recipe.shipped import find, names
from quantship.recipe.variant_names import LONGEST, parts
from quantship.recipe.yaml_source import Place, Value, parse, plain, read

Write = Callable[..., Path]
Complaints = Callable[..., str]
HEAD = """\
model: {tiny: {}}
data: {train: [{adapter: builtin}], eval: [{adapter: builtin}]}
"""


def recipe_of(*steps: str) -> str:
    return HEAD + "scheme: w8a8\nsteps:\n" + "".join(f"  - {{{step}}}\n" for step in steps)


def called(recipe: Recipe) -> list[str | None]:
    return [step.name for step in recipe.steps]


def inputs(recipe: Recipe) -> list[object]:
    return [step.input for step in recipe.steps]


# What a sweep becomes


def test_several_lists_make_all_combinations(write: Write) -> None:
    sweep = (
        "stage: quantize, name: ptq, input: finetune, scheme: [w8a8, w4a16-g32], "
        "algorithm: [rtn, gptq, {kind: awq, clip: false}], calibration: {seed: [0, 1, 2]}"
    )
    recipe = load(write(recipe_of("stage: finetune", sweep)))
    assert called(recipe) == ["finetune"] + [
        f"ptq-{scheme}-{algorithm}-seed-{seed}"
        for scheme in ("w8a8", "w4a16-g32")
        for algorithm in ("rtn", "gptq", "awq-clip-false")
        for seed in (0, 1, 2)
    ]
    last: Any = recipe.steps[-1]
    assert (last.scheme, last.algorithm.kind, last.algorithm.clip) == ("w4a16-g32", "awq", False)
    assert (last.calibration.seed, last.input) == (2, "finetune")


def test_a_sweep_is_the_steps_it_stands_for(write: Write) -> None:
    swept = load(write(recipe_of("stage: quantize, name: a, scheme: [w8a8, w8a16]")))
    apart = ["stage: quantize, name: a-w8a8, scheme: w8a8"]
    apart += ["stage: quantize, name: a-w8a16, scheme: w8a16"]
    assert swept == load(write(recipe_of(*apart)))


@pytest.mark.parametrize(
    ("step", "made"),
    [
        ("stage: quantize, range: [mse, minmax]", ["quantize-mse", "quantize-minmax"]),
        (
            "stage: finetune, learning_rate: [1e-5, 0.00025, 2]",
            [f"finetune-learning_rate-{rate}" for rate in ("1e-5", "0_00025", "2")],
        ),
        ("stage: qat, name: q, lora: {rank: [4, 8]}", ["q-rank-4", "q-rank-8"]),
        ("stage: qat, lora: [true, false]", ["qat-lora-true", "qat-lora-false"]),
        ("stage: qat, lora: [true, {rank: 8}]", ["qat-lora-true", "qat-lora-rank-8"]),
        ("stage: qat, max_steps: [null, 8]", ["qat-max_steps-null", "qat-max_steps-8"]),
        (
            "stage: quantize, algorithm: {kind: gptq, damping: [0.1, 0.01]}",
            ["quantize-damping-0_1", "quantize-damping-0_01"],
        ),
        (
            "stage: quantize, scheme: w8a8-static, calibration: {range: [mse, minmax]}",
            ["quantize-range-mse", "quantize-range-minmax"],
        ),
        (
            "stage: qat, distill: [true, {teacher: HuggingFaceTB/SmolLM2-360M-Instruct}]",
            ["qat-distill-true", "qat-distill-2"],
        ),
        ("stage: export, lowering: [float, auto]", ["export-float", "export-auto"]),
    ],
)
def test_names_say_what_is_swept(write: Write, step: str, made: list[str]) -> None:
    assert called(load(write(recipe_of(step)))) == made


def test_variants_do_not_start_from_each_other(write: Write) -> None:
    recipe = load(write(recipe_of("stage: finetune, epochs: [1, 2]")))
    assert inputs(recipe) == ["model", "model"]


def test_a_swept_input_makes_a_step_of_each(write: Write) -> None:
    steps = ["stage: finetune, name: a", "stage: finetune, name: b, input: model"]
    recipe = load(write(recipe_of(*steps, "stage: quantize, input: [a, b, model]")))
    assert called(recipe)[2:] == ["quantize-a", "quantize-b", "quantize-model"]
    assert inputs(recipe)[2:] == ["a", "b", "model"]


# Steps that name a swept step


@pytest.mark.parametrize("given", ["", ", input: ft", ", input: [model, ft]"])
def test_what_starts_from_a_swept_step_starts_from_all_of_it(write: Write, given: str) -> None:
    steps = ["stage: finetune, name: ft, epochs: [1, 2]", f"stage: qat{given}"]
    recipe = load(write(recipe_of(*steps)))
    models = ["ft-epochs-1", "ft-epochs-2"]
    expected = ["model", *models] if "model" in given else models
    assert inputs(recipe)[2:] == expected
    assert called(recipe)[2:] == [f"qat-{name}" for name in expected]


@pytest.mark.parametrize("given", ["", ", input: ptq", ", input: [model, ptq]"])
def test_an_export_exports_all_of_a_sweep(write: Write, given: str) -> None:
    steps = ["stage: quantize, name: ptq, scheme: [w8a8, w8a16]", f"stage: export{given}"]
    recipe = load(write(recipe_of(*steps)))
    models = ("ptq-w8a8", "ptq-w8a16")
    assert inputs(recipe)[2:] == [("model", *models) if "model" in given else models]


def test_one_variant_can_be_named(write: Write) -> None:
    steps = ["stage: finetune, epochs: [1, 2]", "stage: qat, input: finetune-epochs-2"]
    recipe = load(write(recipe_of(*steps, "stage: export, input: [qat, finetune-epochs-1]")))
    assert inputs(recipe)[2:] == ["finetune-epochs-2", ("qat", "finetune-epochs-1")]


def test_a_swept_qat_lends_its_float_models_only(write: Write) -> None:
    steps = ["stage: qat, output: [quantized, float]", "stage: quantize"]
    recipe = load(write(recipe_of(*steps)))
    assert (called(recipe)[2:], inputs(recipe)[2:]) == (["quantize"], ["qat-float"])


def test_a_teacher_that_is_swept_teaches_what_starts_from_it(write: Write) -> None:
    steps = ["stage: finetune, epochs: [1, 2]", "stage: qat, distill: {teacher: finetune}"]
    recipe = load(write(recipe_of(*steps)))
    taught: Any = recipe.steps[2:]
    assert [step.distill.teacher.step for step in taught] == [step.input for step in taught]


def test_a_teacher_that_could_be_several_is_refused(write: Write, complaints: Complaints) -> None:
    steps = ["stage: finetune, epochs: [1, 2]", "stage: qat, input: model, scheme: [w8a8, w4a8]"]
    said = complaints(write(recipe_of(steps[0], f"{steps[1]}, distill: {{teacher: finetune}}")))
    assert said.count("steps.1.distill.teacher: 'finetune' is swept and means 2 steps") == 1
    assert "Name one of: finetune-epochs-1, finetune-epochs-2." in said


def test_everything_of_a_sweep_is_pushed(write: Write) -> None:
    steps = ["stage: qat, scheme: [w8a8, w8a16]", "stage: export", "stage: export, name: onnx"]
    push = "push: {repo: me/it, models: [qat, qat-onnx, onnx, qat-w8a8], layout: folders}\n"
    recipe = load(write(recipe_of(*steps) + push))
    assert recipe.push is not None
    models = ["qat-w8a8", "qat-w8a16"]
    assert list(recipe.push.models) == [
        *models,
        *(f"{model}-onnx" for model in models),
        *(f"onnx-{model}" for model in models),
    ]


def test_a_later_step_takes_each_scheme_of_a_swept_search(write: Write) -> None:
    search = "stage: search, name: mix, target_bits: [5, 6], candidates: [w8a16, w4a16-g32]"
    later = "stage: quantize, name: ptq, scheme: [w8a16, mix]"
    recipe = load(write(recipe_of(search + ", scheme: w8a16", later)))
    schemes = [getattr(step, "scheme", None) for step in recipe.steps[2:]]
    assert schemes == ["w8a16", "mix-target_bits-5", "mix-target_bits-6"]


# Layers below


def test_settings_and_profiles_come_before_sweeps(write: Write) -> None:
    text = recipe_of("stage: quantize, name: ptq, algorithm: [rtn, gptq, hqq]", "stage: qat")
    path = write(text + "profiles: {few: {steps.ptq: {algorithm: [rtn, awq]}, seed: 3}}\n")
    assert called(load(path, profile="few")) == ["ptq-rtn", "ptq-awq", "qat"]
    setting = ["steps.ptq.algorithm=[gptq,rtn]", "steps.qat.epochs=[1,2]"]
    made = ["ptq-gptq", "ptq-rtn", "qat-epochs-1", "qat-epochs-2"]
    assert called(load(path, overrides=setting)) == made
    assert called(load(path, overrides=["steps.ptq.algorithm=gptq"])) == ["ptq", "qat"]


def test_an_item_is_called_by_its_kind(write: Write) -> None:
    path = write(recipe_of("stage: quantize, algorithm: [{kind: gptq}, {kind: awq}]"))
    step: Any = load(path, overrides=["steps.quantize.algorithm.gptq.damping=0.5"]).steps[0]
    assert step.algorithm.damping == 0.5


def test_a_profiles_mapping_replaces_a_list_of_words(write: Write) -> None:
    text = recipe_of("stage: quantize, algorithm: [rtn, gptq]")
    profile = "profiles: {one: {steps.quantize.algorithm: {kind: gptq, damping: 0.5}}}\n"
    assert called(load(write(text + profile), profile="one")) == ["quantize"]


# What is wrong


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("stage: qat, scheme: []", "steps.0.scheme: an empty list sweeps over nothing"),
        ("stage: qat, scheme: [w8a8]", "steps.0.scheme: a list of one sweeps over nothing"),
        ("stage: qat, lora: {rank: []}", "steps.0.lora.rank: an empty list sweeps over nothing"),
        (
            "stage: qat, scheme: [w8a8, [w8a16]]",
            "steps.0.scheme.1: a list in a list of values to sweep over",
        ),
        (
            "stage: quantize, algorithm: [rtn, {kind: awq, clip: [true, false]}]",
            "steps.0.algorithm.1.clip: a list in a list of values to sweep over",
        ),
        (
            "stage: qat, scheme: [w8a8, w8a16, w8a8]",
            "steps.0.scheme.2: means the same as another value of the list",
        ),
        (
            "stage: qat, epochs: [1, 1.0]",
            "steps.0.epochs.1: means the same as another value of the list",
        ),
        (
            "stage: quantize, algorithm: [{kind: gptq}, gptq]",
            "steps.0.algorithm.1: means the same as another value of the list",
        ),
        (
            f"stage: qat, max_steps: {[*range(1, 130)]}, seed: 0, scheme: [w8a8, w8a16]",
            "steps.0: its lists come to 258 steps, and 256 are the most",
        ),
        ("stage: qat, scheme: [w8a8, w8a9]", "steps.0.scheme.1: unknown scheme 'w8a9'"),
        ("stage: qat, epochs: [1, x]", "steps.0.epochs.1: expected number, above 0, got the text"),
        ("stage: qat, epochs: [2, true]", "steps.0.epochs.1: expected a number, got true"),
        ("stage: qat, name: [a, b]", "steps.0.name: expected text, or null, got a list"),
        ("stage: qat, name: a b, epochs: [1, 2]", "steps.0.name: the text 'a b' is not a valid"),
        ("stage: qat, name: data, epochs: [1, 2]", "steps.0.name: the name 'data' means the pre"),
        ("stage: qat, input: qat, epochs: [1, 2]", "steps.0.input: step 'qat' is its own input"),
        ("stage: [qat, finetune]", "steps.0.stage: expected a word, got a list"),
        ("stage: export, input: [model, [model]]", "steps.0.input.1: expected text, got a list"),
    ],
)
def test_a_sweep_that_is_none_is_refused(
    write: Write, complaints: Complaints, step: str, said: str
) -> None:
    text = complaints(write(recipe_of(step)))
    assert f"recipe.yaml:5: {said}" in text
    assert text.count("steps.0") == 1 or "seed" in step


def test_the_line_of_the_item_is_named(write: Write, complaints: Complaints) -> None:
    text = HEAD + "steps:\n  - stage: qat\n    scheme:\n      - w8a8\n      - w8a9\n"
    assert "recipe.yaml:7: steps.0.scheme.1: unknown scheme" in complaints(write(text))


def test_a_setting_is_named_as_one(write: Write, complaints: Complaints) -> None:
    said = complaints(write(), overrides=["steps.qat.scheme=[w8a8,w8a9]"])
    assert "steps.1.scheme.1: unknown scheme 'w8a9' (from --set)" in said


def test_what_is_wrong_with_every_step_of_a_sweep_is_told_once(
    write: Write, complaints: Complaints
) -> None:
    steps = ["stage: quantize, scheme: [w8a8, w8a16, w4a8]", "stage: qat, input: quantize"]
    said = complaints(write(recipe_of(*steps)))
    assert said.count("steps.1.input") == 1
    assert "needs a float model (and 2 more like it)" in said


def test_keys_behind_a_sweep_are_as_they_were_written(write: Write, complaints: Complaints) -> None:
    sweep = "stage: quantize, scheme: [w8a8, w8a16]"
    steps = [sweep, "stage: export, input: [quantize, 5]", "stage: qat, epochs: 0"]
    said = complaints(write(recipe_of(*steps)))
    assert "recipe.yaml:6: steps.1.input.1: expected text, got the number 5" in said
    assert "recipe.yaml:7: steps.2.epochs: expected number" in said


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["stage: qat, name: a", "stage: qat, name: a, epochs: [1, 2]"], "called 'a'"),
        (["stage: qat, name: a, epochs: [1, 2]", "stage: qat, name: a"], "called 'a'"),
        (["stage: qat, epochs: [1, 2]", "stage: qat"], "called 'qat'"),
        (["stage: qat, epochs: [1, 2]", "stage: qat, name: qat-epochs-2"], "'qat-epochs-2'"),
        (["stage: qat, input: ft", "stage: finetune, name: ft, epochs: [1, 2]"], "comes later"),
    ],
)
def test_a_name_has_one_meaning(
    write: Write, complaints: Complaints, steps: list[str], said: str
) -> None:
    assert said in complaints(write(recipe_of(*steps)))


def test_what_some_steps_of_a_sweep_read_may_stand(write: Write, complaints: Complaints) -> None:
    step = "stage: quantize, algorithm: [rtn, {}], calibration: {{seed: 3}}"
    load(write(recipe_of(step.format("gptq"))))
    said = complaints(write(recipe_of(step.format("hqq"))))
    assert "steps.0.calibration: calibration finds static input ranges" in said


# Properties

SINGLE: dict[str, list[Any]] = {
    "scheme": ["w8a8", "w8a16", "w4a8", "w4a16-g32"],
    "algorithm": ["rtn", "hqq", {"kind": "hqq", "norm": 0.5}, {"kind": "gptq", "act_order": True}],
    "range": ["minmax", "mse", "outermost"],
    "bias_correction": [True, False],
    "packed": [False, True],
}
STEPS = st.fixed_dictionaries(
    {}, optional={key: st.lists(st.sampled_from(v), min_size=2) for key, v in SINGLE.items()}
).map(lambda step: {key: list(distinct(items)) for key, items in step.items()})


def distinct(items: list[Any]) -> list[Any]:
    return [item for index, item in enumerate(items) if item not in items[:index]]


def value(content: Any) -> Value:
    return parse(json.dumps(content), None, [])


@settings(max_examples=60, deadline=None)
@given(step=STEPS, name=st.sampled_from([None, "ptq", "4bit"]))
def test_a_sweep_has_as_many_steps_as_combinations_each_of_its_own_name(
    step: dict[str, list[Any]], name: str | None
) -> None:
    single = {key: items[0] if len(items) == 1 else items for key, items in step.items()}
    given_step = {"stage": "quantize", **({"name": name} if name else {}), **single}
    found = sweeps.expand(value({"steps": [given_step]}))
    made = plain(found.source)["steps"]
    assert not found.findings
    assert len(made) == len(found.origins) == math.prod(map(len, step.values()))
    if len(made) > 1:
        called = [one["name"] for one in made]
        assert len(set(called)) == len(called)
        assert all(re.search(STEP_NAME, one) for one in called)
        assert all(one.startswith(name or "quantize") for one in called)
        assert found.names == {name or "quantize": tuple(called)}
    settled = [{key: one[key] for key in step} for one in made]
    assert len(distinct(settled)) == len(settled)
    assert all(one[key] in items for one in settled for key, items in step.items())


@settings(max_examples=60, deadline=None)
@given(step=STEPS)
def test_keys_lead_back_to_the_item_that_was_written(step: dict[str, list[Any]]) -> None:
    written = {"steps": [{"stage": "quantize", **step}]}
    found = sweeps.expand(value(written))
    for index, one in enumerate(plain(found.source)["steps"]):
        for key in step:
            here: Any = written
            for part in found.written(("steps", index, key)):
                here = here[part]
            assert here == one.get(key, here)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@settings(max_examples=100, deadline=None)
@given(
    items=st.lists(SCALARS | st.dictionaries(st.sampled_from("abc"), SCALARS), max_size=6),
    key=st.sampled_from([("scheme",), ("lora", "rank")]),
)
def test_any_values_have_names_of_their_own(items: list[Any], key: tuple[str, ...]) -> None:
    found = parts(key, [value(item) for item in items])
    assert len(set(found)) == len(items)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_-]*", part) for part in found)
    assert all(len(part) < LONGEST + 20 for part in found)


def test_a_step_more_renames_none() -> None:
    few, more = (parts(("a",), [value(x) for x in xs]) for xs in (["x", 5], ["x", 5, True]))
    assert more[:2] == few


# What holds no sweep


@pytest.mark.parametrize("name", names())
def test_recipes_without_sweeps_stay_as_they_are(name: str) -> None:
    source = Value(read_chain(find(name), []), Place(find(name), 1))
    swept = any(
        isinstance(item, list)
        for step in plain(source)["steps"]
        for key, item in step.items()
        if key not in ("input", "candidates")
    )
    assert (sweeps.expand(source).source == source) is not swept


@pytest.mark.parametrize("content", [{}, {"steps": 5}, {"steps": None}, {"steps": [5, [], None]}])
def test_what_is_no_list_of_steps_stays_as_it_is(content: Any) -> None:
    source = value(content)
    assert sweeps.expand(source).source == source


def test_fingerprints_are_those_of_the_steps_written_out(write: Write) -> None:
    from quantship import plan

    def prints(*steps: str) -> dict[str, str]:
        recipe = load(write(recipe_of("stage: finetune", *steps)))
        return {node.name: node.fingerprint for node in plan.make(recipe, download=False).nodes}

    swept = prints("stage: quantize, scheme: [w8a8, w4a16-g32], algorithm: [rtn, gptq]")
    apart = prints(
        *(
            f"stage: quantize, name: quantize-{scheme}-{kind}, input: finetune, "
            f"scheme: {scheme}, algorithm: {kind}"
            for scheme in ("w8a8", "w4a16-g32")
            for kind in ("rtn", "gptq")
        )
    )
    assert swept == apart
    assert len(set(swept.values())) == len(swept)


def test_what_a_step_does_not_look_at_makes_no_other_model(write: Write) -> None:
    from quantship import plan

    sweep = "stage: quantize, algorithm: [rtn, gptq], calibration: {seed: [0, 1]}"
    nodes = plan.make(load(write(recipe_of(sweep))), download=False).nodes
    made = {node.name: node.fingerprint for node in nodes if node.stage == "quantize"}
    assert made["quantize-rtn-seed-0"] == made["quantize-rtn-seed-1"]
    assert made["quantize-gptq-seed-0"] != made["quantize-gptq-seed-1"]


def test_check_and_load_agree(write: Write) -> None:
    path = write(recipe_of("stage: quantize, scheme: [w8a8, w8a16]", "stage: export"))
    assert check(path) == load(path)


def test_a_place_is_kept(write: Write) -> None:
    source = read(write(recipe_of("stage: quantize, scheme: [w8a8, w8a16]")), [])
    made: Any = sweeps.expand(source).source.content["steps"].content  # type: ignore[union-attr,call-overload,index]
    places = {one.content["scheme"].place for one in made}
    assert places == {Place(write().with_name("recipe.yaml"), 5)}


def test_more_than_can_be_counted_out_is_refused_at_once() -> None:
    many = [*range(1, 200)]
    step = {"stage": "qat", "max_steps": many, "epochs": many, "save_steps": many, "alpha": many}
    found = sweeps.expand(value({"steps": [step, {"stage": "export", "input": "qat"}]}))
    assert len(found.origins) == 2
    (finding,) = found.findings
    assert finding.message.startswith(f"its lists come to {199**3} steps")
