"""The shipped recipe of evidence, whole, on a tiny model and data made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import quantship
from quantship.pipeline import RunResult
from quantship.recipe.shipped import find

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

MODELS = ["finetune", "ptq", "qat"]
TASKS = {
    "gsm8k": "exact_match",
    "wikitext": "perplexity",
    "sst2": "accuracy",
    "quiz": "acc",
    "from-float": "kl_nats",
    "generations": "ended",
}
QUIZ = """\
task: quiz
dataset_path: json
dataset_kwargs: {data_files: {validation: %s}}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{question}}"
doc_to_target: label
doc_to_choice: [" no", " yes"]
metric_list: [{metric: acc}]
"""


def problems(count: int) -> str:
    rows = (
        {"question": f"What is {n} + {n}?", "answer": f"<<{n}+{n}={2 * n}>>\n#### {2 * n}"}
        for n in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def result(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("evidence")
    texts = {
        "train.jsonl": problems(12),
        "test.jsonl": problems(12),
        "wiki.txt": "".join(f" = {n} = \n After {n} comes {n + 1} . \n" for n in range(12)),
        "dev.tsv": "sentence\tlabel\n" + "a fine film\t1\na dull one\t0\n" * 6,
        "quiz.jsonl": '{"question": "Is it?", "label": 1}\n' * 12,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    definitions = folder / "definitions"
    definitions.mkdir()
    (definitions / "quiz.yaml").write_text(QUIZ % (folder / "quiz.jsonl"))
    tasks = "evaluation.tasks"
    overrides = [
        f"model={tiny_model_dir}",
        *("data.max_length=128", "benchmark=null", "gates=[{codes_equal: true}]"),
        f"data.train.0.path={folder / 'train.jsonl'}",
        f"data.eval.0.path={folder / 'test.jsonl'}",
        f"{tasks}.gsm8k.source.path={folder / 'test.jsonl'}",
        *(f"{tasks}.gsm8k.max_new_tokens=4", f"{tasks}.generations.max_new_tokens=4"),
        f"{tasks}.wikitext.source.path={folder / 'wiki.txt'}",
        f"{tasks}.sst2.source.path={folder / 'dev.tsv'}",
        *(f"{tasks}.3.run=quiz", f"{tasks}.quiz.include_path={definitions}"),
        *(f"steps.{step}.max_steps=2" for step in ("finetune", "qat")),
    ]
    return quantship.run(
        find("smollm2-135m-evidence"),
        profile="smoke",
        overrides=overrides,
        artifacts=folder / "artifacts",
    )


def test_float_ptq_and_qat_are_held_against_each_other_on_torch_and_on_onnx(
    result: RunResult,
) -> None:
    rows = {row.name: row for row in result.report.models}
    for name in [*MODELS, *(f"{model}-onnx" for model in MODELS)]:
        for task, metric in TASKS.items():
            if task == "from-float" and name == "finetune":
                assert task not in rows[name].tasks
                continue
            found = rows[name].tasks[task].metrics[metric]
            assert found.low <= found.value <= found.high


def test_onnx_and_torch_agree(result: RunResult) -> None:
    rows = {row.name: row for row in result.report.models}
    for model in MODELS:
        ours, theirs = (rows[name].tasks["wikitext"].metrics for name in (model, f"{model}-onnx"))
        assert theirs["perplexity"].value == pytest.approx(ours["perplexity"].value, rel=0.01)


def test_a_distance_from_the_float_model_is_not_held_against_it(result: RunResult) -> None:
    assert result.report.evidence is not None
    contrasts = result.report.evidence.contrasts
    distances = [one for one in contrasts if one.task == "from-float"]
    assert {one.why for one in distances} == {"ptq", "source"}
    assert all(one.recovered is None for one in distances)
    assert "float" in {one.why for one in contrasts if one.task == "wikitext"}


def test_what_models_say_lies_side_by_side(result: RunResult) -> None:
    assert result.report.evidence is not None
    shown = result.report.evidence.generations
    asked = [one for one in shown if one.task == "generations"]
    assert len(asked) == 2
    assert {"finetune", "ptq-onnx", "qat-onnx"} <= asked[0].answers.keys()


def test_codes_are_equal_and_the_gate_says_so(result: RunResult) -> None:
    assert result.report.gates
    assert all(gate.passed and gate.value is True for gate in result.report.gates)
