from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from quantship import hardware, hub, models
from quantship import plan as planning
from quantship.errors import RecipeError, UsageError
from quantship.exporters import lowering, targets
from quantship.job import OUTSIDE, Plan
from quantship.quant.scheme import SCHEMES
from quantship.recipe import load
from quantship.stages import benchmark

RECIPE = """\
model: {tiny: {}}
scheme: w8a8
data:
  train: [{adapter: builtin, num_examples: 8}]
  eval: [{adapter: builtin, split: eval, num_examples: 8}]
steps:
  - {stage: finetune}
  - {stage: quantize, name: ptq, input: finetune}
  - {stage: qat, input: finetune, learning_rate: 1.0e-4}
  - {stage: export, input: [model, finetune, ptq, qat]}
"""
AFTER_QAT = {"qat", "qat-onnx", "evaluate qat", "evaluate qat-onnx", "benchmark"}
OF_MODEL = {"model", "model-onnx", "evaluate model", "evaluate model-onnx"}

Planner = Callable[..., Plan]


@pytest.fixture
def plan(tmp_path: Path) -> Planner:
    """Plan a recipe, changed by ``KEY=VALUE`` settings."""

    def plan(*overrides: str, recipe: str = RECIPE) -> Plan:
        path = tmp_path / "recipe.yaml"
        path.write_text(recipe)
        return planning.make(load(path, overrides=overrides), download=False)

    return plan


def fingerprints(plan: Plan) -> dict[str, str]:
    return {node.name: node.fingerprint for node in plan.nodes}


def changed(one: Plan, other: Plan) -> set[str]:
    """Names of the jobs that two plans do not share."""
    before, after = fingerprints(one), fingerprints(other)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_inputs_come_first_and_names_are_unique(plan: Planner) -> None:
    nodes = plan().nodes
    seen: set[str] = set()
    for node in nodes:
        assert seen.issuperset(node.inputs.values())
        seen.add(node.name)
    assert len(seen) == len(nodes)
    assert len({node.fingerprint for node in nodes}) == len(nodes)


def test_a_recipe_becomes_these_jobs(plan: Planner) -> None:
    models = ["model", "finetune", "ptq", "qat"]
    exports = [f"{name}-onnx" for name in models]
    evaluations = [f"evaluate {name}" for name in (*models, *exports)]
    assert [node.name for node in plan().nodes] == [
        *("model", "data", "finetune", "ptq", "qat"),
        *exports,
        *evaluations,
        "benchmark",
    ]


def test_a_shared_prefix_runs_once(plan: Planner) -> None:
    made = plan()
    stages = [node.stage for node in made.nodes]
    assert stages.count("finetune") == stages.count("data") == stages.count("tiny") == 1
    assert made["ptq"].inputs == {"model": "finetune"}
    assert made["qat"].inputs == {"model": "finetune", "data": "data"}


def test_a_model_is_known_by_what_was_done_to_it(plan: Planner) -> None:
    made = plan()
    groups = {node.name: node.group for node in made.nodes if node.leaves_model}
    assert groups == {
        **dict.fromkeys(("model", "model-onnx"), "baseline"),
        **dict.fromkeys(("finetune", "finetune-onnx"), "finetune"),
        **dict.fromkeys(("ptq", "ptq-onnx"), "ptq"),
        **dict.fromkeys(("qat", "qat-onnx"), "qat"),
    }
    quantized = {node.name: node.scheme for node in made.nodes if node.scheme is not None}
    assert quantized == dict.fromkeys(("ptq", "ptq-onnx", "qat", "qat-onnx"), SCHEMES["w8a8"])


@pytest.mark.parametrize(
    ("step", "names"),
    [
        ("{stage: export}", ["qat-onnx"]),
        ("{stage: export, input: ptq}", ["ptq-onnx"]),
        ("{stage: export, name: small, input: ptq}", ["small"]),
        ("{stage: export, name: small, input: [ptq, qat]}", ["small-ptq", "small-qat"]),
    ],
)
def test_exports_are_named_after_their_inputs(step: str, names: list[str], plan: Planner) -> None:
    made = plan(recipe=RECIPE.replace("{stage: export, input: [model, finetune, ptq, qat]}", step))
    assert [node.name for node in made.nodes if node.stage == "export"] == names


def test_a_model_can_be_exported_in_two_forms(plan: Planner) -> None:
    step = "  - {stage: export, name: exact, input: qat, lowering: integer}\n"
    made = plan("steps.3.lowering=nbits", recipe=RECIPE.replace("model, finetune, ", "") + step)
    assert made["exact"].inputs == made["qat-onnx"].inputs
    assert made["exact"].fingerprint != made["qat-onnx"].fingerprint


def test_an_export_is_compared_with_its_source(plan: Planner) -> None:
    made = plan()
    for node in made.nodes:
        if node.stage == "evaluate":
            source = made[node.inputs["model"]]
            assert node.name == f"evaluate {source.name}"
            assert node.inputs.get("reference") == (
                source.inputs["model"] if source.stage == "export" else None
            )


def test_the_benchmark_measures_every_model(plan: Planner) -> None:
    made = plan()
    inputs = dict(made["benchmark"].inputs)
    assert inputs.pop(benchmark.VOCABULARY) == "model"
    assert inputs == {node.name: node.name for node in made.nodes if node.leaves_model}


def test_the_model_as_it_came_need_not_be_measured(plan: Planner) -> None:
    made = plan("evaluation.baseline=false")
    names = fingerprints(made).keys()
    assert {"model", "model-onnx", "evaluate finetune"} <= names
    assert not {"evaluate model", "evaluate model-onnx"} & names
    assert not {"model", "model-onnx"} & made["benchmark"].inputs.keys()


def test_nothing_is_measured_unless_asked_for(plan: Planner) -> None:
    assert not any(node.stage == "evaluate" for node in plan("evaluation=null").nodes)
    assert "benchmark" not in fingerprints(plan("benchmark=null"))


def test_the_same_recipe_makes_the_same_plan(plan: Planner) -> None:
    assert fingerprints(plan()) == fingerprints(plan())


def test_a_changed_setting_changes_its_step_and_what_follows(plan: Planner) -> None:
    every = set(fingerprints(plan()))
    before = plan()
    assert changed(before, plan("steps.qat.learning_rate=2e-4")) == AFTER_QAT
    assert changed(before, plan("steps.finetune.learning_rate=1e-3")) == (
        every - OF_MODEL - {"data"}
    )
    assert changed(before, plan("steps.qat.scheme=w8a16")) == AFTER_QAT
    assert changed(before, plan("schemes={mine: {base: w8a16}}")) == set()
    assert changed(before, plan("data.max_length=100")) == (every - {"model", "model-onnx"})
    assert changed(before, plan("model.tiny.num_layers=3")) == every
    assert changed(before, plan("seed=1")) == every
    assert changed(before, plan("benchmark.rounds=1")) == {"benchmark"}
    assert changed(before, plan("evaluation.limit=4")) == {
        name for name in every if name.startswith("evaluate ")
    }


def test_a_scheme_is_known_by_its_content_and_not_only_by_its_name(plan: Planner) -> None:
    def mine(change: str) -> Plan:
        return plan("steps.qat.scheme=mine", f"schemes={{mine: {{base: w8a8{change}}}}}")

    made = mine("")
    scheme = made["qat"].scheme
    assert scheme == SCHEMES["w8a8"].model_copy(update={"name": "mine"})
    assert made["qat-onnx"].scheme == scheme
    assert fingerprints(made) == fingerprints(mine(", weight: {bits: 8}"))
    for change in (
        ", embedding: float",
        ", weight: {bits: 7}",
        ", activation: {symmetric: true}",
        ', overrides: [{layers: "*.down_proj", weight: float}]',
    ):
        assert changed(made, mine(change)) == AFTER_QAT


def test_training_for_a_later_step_leaves_a_float_model(plan: Planner) -> None:
    steps = "  - {stage: quantize, name: deployed, input: qat}\n"
    made = plan("steps.2.output=float", "steps.3.input=[qat]", recipe=RECIPE + steps)
    assert made["qat"].scheme is None
    assert made["qat"].group == "finetune"
    assert made["qat-onnx"].scheme is None
    assert made["deployed"].inputs == {"model": "qat"}
    assert made["deployed"].scheme == SCHEMES["w8a8"]


def test_trainings_that_follow_each_other_see_the_data_in_different_orders(plan: Planner) -> None:
    steps = """\
  - {stage: qat, name: again, input: finetune}
  - {stage: finetune, name: more, input: finetune}
  - {stage: qat, name: last, input: more}
"""
    made = plan("seed=5", recipe=RECIPE + steps)
    seeds = {
        node.name: node.settings.seed  # type: ignore[union-attr]
        for node in made.nodes
        if node.stage in ("finetune", "qat")
    }
    assert seeds == {"finetune": 5, "qat": 6, "again": 6, "more": 6, "last": 7}


def test_a_description_and_a_name_change_nothing_that_is_made(plan: Planner) -> None:
    before = plan("benchmark=null")
    other = RECIPE.replace("stage: qat", "stage: qat, name: longer").replace(
        "ptq, qat", "ptq, longer"
    )
    after = plan("benchmark=null", "description=another", "name=other", recipe=other)
    renamed = {name.replace("longer", "qat"): key for name, key in fingerprints(after).items()}
    assert renamed == fingerprints(before)


@pytest.mark.parametrize("stage", planning.STAGES)
def test_a_stage_whose_results_change_is_run_again(
    stage: str, plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan()
    monkeypatch.setattr(planning.STAGES[stage], "REVISION", 99)
    after = plan()
    follows: set[str] = set()
    for node in before.nodes:
        if node.stage == stage or follows.intersection(node.inputs.values()):
            follows.add(node.name)
    assert changed(before, after) == follows


def test_speed_is_of_this_machine_and_nothing_else_is(
    plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan()
    monkeypatch.setattr(hardware, "cpu_model", lambda: "another CPU")
    assert changed(before, plan()) == {"benchmark"}
    monkeypatch.undo()
    monkeypatch.setattr(hardware, "versions", lambda: {"torch": "99"})
    assert changed(before, plan()) == {"benchmark"}
    monkeypatch.undo()
    monkeypatch.setattr(hardware, "num_threads", lambda: 99)
    assert changed(before, plan()) == {"benchmark"}
    assert changed(plan("benchmark.threads=2"), plan("benchmark.threads=2")) == set()


@pytest.mark.parametrize("has_vnni", [True, False])
def test_auto_is_the_form_it_stands_for_here(
    has_vnni: bool, plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_vnni", lambda: has_vnni)
    form = lowering.choose(SCHEMES["w8a8"], targets.resolve("this-machine"))
    recipe = RECIPE.replace("[model, finetune, ptq, qat]", "[ptq, qat]")
    made = plan(recipe=recipe)
    assert made["qat-onnx"].settings.lowering == form  # type: ignore[union-attr]
    assert changed(made, plan(f"steps.export.lowering={form}", recipe=recipe)) == set()


def test_a_format_beside_onnx_is_the_same_for_every_machine(
    plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantship.exporters.formats.find_spec", lambda name: object())
    made = plan("steps.export.format=openvino")
    exports = {node.name for node in made.nodes if node.stage == "export"}
    assert exports == {f"{name}-openvino" for name in ("model", "finetune", "ptq", "qat")}
    other = not hardware.has_vnni()
    monkeypatch.setattr(hardware, "has_vnni", lambda: other)
    again = plan("steps.export.format=openvino", "steps.export.target=arm")
    assert changed(made, again) == set()


CHATS = RECIPE.replace(
    "{adapter: builtin, num_examples: 8}",
    "{adapter: chat, path: CHATS}, {adapter: chat, path: MORE}",
)


def test_data_is_known_by_its_content(plan: Planner, tmp_path: Path) -> None:
    def chats(folder: str, first: str, second: str) -> str:
        paths = [tmp_path / folder / name for name in ("1.jsonl", "2.jsonl")]
        paths[0].parent.mkdir()
        for path, answer in zip(paths, (first, second), strict=True):
            messages = [{"role": "assistant", "content": answer}]
            path.write_text(json.dumps({"messages": messages}) + "\n")
        return CHATS.replace("CHATS", str(paths[0])).replace("MORE", str(paths[1]))

    before = plan(recipe=chats("here", "yes", "no"))
    assert changed(before, plan(recipe=chats("elsewhere", "yes", "no"))) == set()
    depends = set(fingerprints(before)) - {"model", "model-onnx"}
    assert changed(before, plan(recipe=chats("changed", "yes", "NO"))) == depends
    assert changed(before, plan(recipe=chats("swapped", "no", "yes"))) == depends


def test_the_same_data_is_not_the_same_for_training_and_for_evaluation(
    plan: Planner, tmp_path: Path
) -> None:
    """Files move from train to eval: all digests are there still, in the same order."""
    for name in ("1", "2", "3"):
        messages = [{"role": "assistant", "content": name}]
        (tmp_path / name).write_text(json.dumps({"messages": messages}))
    one, two, three = (f"{{adapter: chat, path: {tmp_path / name}}}" for name in ("1", "2", "3"))
    eval_ = "eval: [{adapter: builtin, split: eval, num_examples: 8}]"
    train = "train: [{adapter: builtin, num_examples: 8}]"
    recipes = [
        RECIPE.replace(train, f"train: [{left}]").replace(eval_, f"eval: [{right}]")
        for left, right in ((f"{one}, {two}", three), (one, f"{two}, {three}"))
    ]
    assert "data" in changed(plan(recipe=recipes[0]), plan(recipe=recipes[1]))


def test_a_model_is_known_by_its_content(plan: Planner, tmp_path: Path) -> None:
    def model(folder: str, weights: bytes) -> str:
        path = tmp_path / folder
        path.mkdir()
        (path / "config.json").write_text('{"model_type": "gpt2", "n_embd": 24, "n_layer": 1}')
        (path / "model.safetensors").write_bytes(weights)
        return RECIPE.replace("{tiny: {}}", f"{{path: {path}}}")

    before = plan(recipe=model("here", b"1"))
    assert before["model"].stage == OUTSIDE
    assert before.outside["model"].path == tmp_path / "here"
    assert before["model"].settings is None
    assert changed(before, plan(recipe=model("elsewhere", b"1"))) == set()
    assert changed(before, plan(recipe=model("changed", b"2"))) == set(fingerprints(before))


def test_a_model_on_the_hub_is_known_by_its_commit(
    plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE.replace("{tiny: {}}", "{hub: me/model, revision: main}")

    def at(commit: str) -> Plan:
        monkeypatch.setattr(hub, "commit", lambda repo, revision, kind: commit)
        return plan(recipe=recipe)

    before = at("1111")
    assert changed(before, at("2222")) == set(fingerprints(before))
    assert changed(before, at("1111")) == set()


def taught(teacher: str, recipe: str = RECIPE) -> str:
    return recipe.replace(
        "stage: qat, input: finetune", f"stage: qat, input: finetune, distill: {{{teacher}}}"
    )


def test_a_teacher_is_an_input_of_its_own(plan: Planner) -> None:
    before = plan()
    itself, other = plan(recipe=taught("")), plan(recipe=taught("teacher: model"))
    assert itself["qat"].inputs == {"model": "finetune", "data": "data", "teacher": "finetune"}
    assert other["qat"].inputs == {"model": "finetune", "data": "data", "teacher": "model"}
    assert changed(before, itself) == changed(itself, other) == AFTER_QAT
    assert changed(itself, plan(recipe=taught("teacher: finetune"))) == set()
    for option in ("temperature: 3", "weight: 0.25", "hidden_states: 1"):
        assert changed(itself, plan(recipe=taught(option))) == AFTER_QAT


def test_a_teacher_from_outside_is_known_by_its_content(
    plan: Planner, tiny_model_dir: Path, tmp_path: Path
) -> None:
    def at(folder: Path) -> Plan:
        # Two steps that learn from one teacher; it is looked at once.
        second = f"  - {{stage: qat, name: again, distill: {{teacher: {folder}}}}}\n"
        return plan(recipe=taught(f"teacher: {{path: {folder}}}") + second)

    made = at(tiny_model_dir)
    (teacher,) = (node for node in made.nodes if node.stage == OUTSIDE)
    assert made["qat"].inputs["teacher"] == made["again"].inputs["teacher"] == teacher.name
    assert made.outside == {teacher.name: models.from_directory(tiny_model_dir)}
    assert not teacher.leaves_model
    assert [node.name for node in made.nodes].index(teacher.name) < [
        node.name for node in made.nodes
    ].index("qat")
    copies = [Path(shutil.copytree(tiny_model_dir, tmp_path / name)) for name in ("1", "2")]
    assert at(copies[0])["qat"].fingerprint == made["qat"].fingerprint
    (copies[1] / "README.md").write_text("another\n")
    assert at(copies[1])["qat"].fingerprint != made["qat"].fingerprint


def test_a_teacher_on_the_hub_is_known_by_its_commit(
    plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def at(commit: str, revision: str = "main") -> Plan:
        def answer(repo: str, revision: str, kind: str) -> str:
            asked.append((repo, revision, kind))
            return commit

        monkeypatch.setattr(hub, "commit", answer)
        return plan(recipe=taught(f"teacher: {{hub: me/teacher, revision: {revision}}}"))

    before = at("1111")
    assert asked == [("me/teacher", "main", "model")]
    assert changed(before, at("2222")) >= AFTER_QAT
    assert before["qat"].fingerprint == at("1111", "v1")["qat"].fingerprint


def test_a_teacher_from_the_hub_that_cannot_teach_is_refused_once_it_is_here(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(tiny_model_dir, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    monkeypatch.setattr(hub, "commit", lambda *_: "1111")
    monkeypatch.setattr(models, "from_hub", lambda *_, **__: models.from_directory(other))
    path = tmp_path / "recipe.yaml"
    path.write_text(taught("teacher: me/teacher"))
    planning.make(load(path), download=False)
    with pytest.raises(UsageError, match="step 'qat': the teacher has another vocabulary: it has"):
        planning.make(load(path), download=True)


def test_a_model_from_the_hub_that_no_scheme_fits_is_refused_once_it_is_here(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "commit", lambda *_: "1111")
    monkeypatch.setattr(models, "from_hub", lambda *_, **__: models.from_directory(tiny_model_dir))
    path = tmp_path / "recipe.yaml"
    mine = "schemes: {mine: {weight: {bits: 4, group_size: 256}}}\n"
    path.write_text(RECIPE.replace("{tiny: {}}", "me/model").replace("w8a8", "mine") + mine)
    planning.make(load(path), download=False)
    with pytest.raises(
        RecipeError, match=r"^schemes\.mine: scheme 'mine' cuts weights into groups"
    ):
        planning.make(load(path), download=True)


def test_data_on_the_hub_is_known_by_its_commit(
    plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE.replace("{adapter: builtin, num_examples: 8}", "{adapter: gsm8k}")
    asked = []

    def at(commit: str) -> Plan:
        def answer(repo: str, revision: str, kind: str) -> str:
            asked.append((repo, revision, kind))
            return commit

        monkeypatch.setattr(hub, "commit", answer)
        return plan(recipe=recipe)

    before = at("1111")
    assert asked == [("openai/gsm8k", "main", "dataset")]
    assert changed(before, at("2222")) == set(fingerprints(before)) - {"model", "model-onnx"}
    described = planning.describe(before["data"].settings)  # type: ignore[arg-type]
    assert described["data"]["train"][0]["revision"] == "1111"


def test_a_model_that_is_not_to_be_had_is_the_users_error(
    plan: Planner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = RECIPE.replace("{tiny: {}}", "{hub: nobody/such-model}")
    with pytest.raises(UsageError, match="nobody/such-model"):
        plan(recipe=recipe)


def test_torchao_rounds_online_what_it_can_round_so(plan: Planner) -> None:
    def measured(*overrides: str) -> bool:
        nodes = plan("evaluation={online: true}", *overrides).nodes
        return any(node.name == "online ptq" for node in nodes)

    assert measured()
    assert not measured("steps.ptq.range=mse")
    assert not measured("steps.ptq.algorithm=gptq")
    assert not measured("steps.ptq.bias_correction=true")
    assert not measured("steps.ptq.scheme=w8a8-static")
