"""What a run says of the share of PTQ's loss that QAT recovered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantship.reporting.schema import Report
from quantship.tasks.likelihood import SEQUENCES

RECIPE = """\
model:
  tiny: {hidden_size: 64, intermediate_size: 96, num_layers: 2, num_heads: 2, num_kv_heads: 1,
         max_positions: 128}
data:
  train: [{adapter: builtin, num_examples: 800}]
  eval: [{adapter: builtin, split: eval, num_examples: 40}]
  max_length: 96
  mask_prompt: false
scheme: w2a16-g32
steps:
  - {stage: finetune, max_steps: 200, learning_rate: 3.0e-3, batch_size: 8}
  - {stage: quantize, name: ptq, input: finetune}
  - {stage: finetune, name: control, input: finetune, max_steps: 30, learning_rate: 2.0e-4,
     batch_size: 8}
  - {stage: qat, input: finetune, max_steps: 30, learning_rate: 5.0e-4, batch_size: 8}
  - {stage: export, input: [finetune, qat]}
evaluation: {parity_sequences: 4, baseline: false}
benchmark: null
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Any:
    """The run of a recipe whose PTQ has much to lose, at two bits."""
    from quantship import pipeline
    from quantship.recipe import load

    folder = tmp_path_factory.mktemp("recovery")
    recipe = folder / "recovery.yaml"
    recipe.write_text(RECIPE)
    return pipeline.run(load(recipe), folder / "artifacts")


def losses(result: Any, name: str) -> tuple[list[float], list[int]]:
    columns = json.loads((result.artifacts[f"evaluate {name}"].path / SEQUENCES).read_text())
    return columns["nll_nats"], columns["num_tokens"]


def test_qat_recovers_a_share_that_its_sequences_add_up_to(result: Any) -> None:
    (entry,) = result.report.recovery
    mean = {
        name: sum(losses(result, name)[0]) / sum(losses(result, name)[1])
        for name in ("finetune", "ptq", "qat", "control")
    }
    assert (entry.scheme, entry.method, entry.ptq_twins) == ("w2a16-g32", "", ["ptq"])
    share = entry.recovered.share
    assert share.value == pytest.approx(
        (mean["ptq"] - mean["qat"]) / (mean["ptq"] - mean["finetune"])
    )
    assert 0 < share.low < share.value < share.high
    against = entry.control.recovered
    assert against.share.value == pytest.approx(
        (mean["ptq"] - mean["qat"]) / (mean["ptq"] - mean["control"])
    )
    assert against.reference.mean_loss == pytest.approx(mean["control"])
    assert entry.num_sequences == len(losses(result, "qat")[0]) == 40
    assert entry.num_tokens == sum(losses(result, "qat")[1])


def test_its_losses_are_those_of_the_table(result: Any) -> None:
    rows = {row.name: row for row in result.report.models}
    (entry,) = result.report.recovery
    for model in (entry.qat, entry.ptq, entry.recovered.reference):
        assert model.perplexity == pytest.approx(rows[model.name].metrics.perplexity)


def test_the_control_saw_what_qat_saw(result: Any) -> None:
    control = result.report.recovery[0].control
    assert control.equal_data
    assert control.training.num_steps == 30
    assert control.differences == ["learning_rate is 0.0002 in control and 0.0005 in qat"]


def test_rows_say_which_float_model_they_come_from(result: Any) -> None:
    sources = {row.name: row.float_source for row in result.report.models}
    assert sources.pop("control") == "control"
    assert sources.pop("model") == "model"
    assert set(sources.values()) == {"finetune"}


def test_all_forms_of_the_report_tell_it(result: Any) -> None:
    folder: Path = result.report_dir
    read = Report.model_validate_json((folder / "report.json").read_text())
    assert read.recovery == result.report.recovery
    assert "qat recovers " in (folder / "report.md").read_text()
    assert "Loss recovered by QAT</h2>" in (folder / "report.html").read_text()


def test_a_float_model_that_is_not_evaluated_is_noted(tmp_path: Path, one_thread: None) -> None:
    from quantship import pipeline
    from quantship.recipe import load

    recipe = tmp_path / "recovery.yaml"
    steps = "  - {stage: quantize}\n  - {stage: qat, max_steps: 2}\n"
    before, after = (
        RECIPE.split("  - {stage: finetune, max", 1)[0],
        RECIPE.split("[finetune, qat]}\n")[1],
    )
    recipe.write_text(before + steps + after)
    report = pipeline.run(load(recipe), tmp_path / "artifacts").report
    assert report.recovery == []
    assert "What qat recovered is not known: model was not evaluated." in report.notes
