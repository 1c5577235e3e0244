"""A recipe whose QAT learns from its float model: through the whole pipeline, killed once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from quantship.artifact import Artifact
    from quantship.pipeline import RunResult

RECIPE = """\
model:
  tiny: {hidden_size: 64, intermediate_size: 96, num_layers: 2, num_heads: 2, num_kv_heads: 1,
         max_positions: 128}
scheme: w2a16-g32
data:
  train: [{adapter: builtin, num_examples: 192}]
  eval: [{adapter: builtin, split: eval, num_examples: 24}]
  max_length: 96
steps:
  - {stage: finetune, max_steps: 40, batch_size: 8, learning_rate: 3.0e-3}
  - {stage: qat, name: alone, max_steps: 24, learning_rate: 1.0e-3}
  - {stage: qat, name: taught, max_steps: 24, learning_rate: 1.0e-3, save_steps: 2,
     distill: {weight: 1.0}}
evaluation: null
benchmark: null
"""
TERMS = {"cross_entropy_nats", "kl_nats"}
TIMEOUT_S = 120

Outcome = Callable[["RunResult"], dict[str, Any]]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "distillation.yaml"
    path.write_text(RECIPE)
    return path


def divergence(data: Artifact, student: Artifact, teacher: Artifact) -> float:
    """Mean divergence of a student from a teacher over the evaluation's tokens, in nats."""
    import torch
    from datasets import load_from_disk
    from transformers import AutoModelForCausalLM

    from quantship.data.prepare import collate

    batch = collate(list(load_from_disk(str(data.path / "eval"))), pad_token_id=0)
    mask = batch.pop("labels")[:, 1:] != -100
    log_q, log_p = (
        AutoModelForCausalLM.from_pretrained(model.path)(**batch)
        .logits[:, :-1][mask]
        .log_softmax(-1)
        for model in (student, teacher)
    )
    kl = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
    return float(kl.detach())


def kill_in_the_middle(runner: Any, recipe: Path, resume: Path) -> None:
    """Start the run in a process of its own and kill it after its training's first checkpoint."""
    runner.recipe = recipe
    process = runner.start()
    deadline = time.monotonic() + TIMEOUT_S
    while not list(resume.glob("checkpoint-*/seal.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.communicate()


def test_a_taught_model_comes_nearer_to_its_teacher_and_survives_a_kill(
    runner: Any, recipe: Path, outcome: Outcome
) -> None:
    result = runner(recipe=recipe)
    made = result.artifacts
    distances = [
        divergence(made["data"], made[name], made["finetune"]) for name in ("taught", "alone")
    ]
    assert 0 < distances[0] < 0.5 * distances[1]

    facts = made["taught"].facts["training"]
    assert facts["distillation"].keys() == TERMS
    assert all(value > 0 for value in facts["distillation"].values())
    assert all(point.keys() >= TERMS for point in facts["points"])
    assert facts["points"][-1]["kl_nats"] < facts["points"][0]["kl_nats"]
    assert "distillation" not in made["alone"].facts["training"]

    taught = made["taught"].path
    shutil.rmtree(taught)
    kill_in_the_middle(runner, recipe, taught.with_name(f"{taught.name}.resume"))
    assert not taught.exists()
    again = runner(recipe=recipe)
    assert runner.happened("finished") == ["taught"]
    resumed = again.artifacts["taught"].facts["training"]
    assert resumed["resumed_from"] >= 2
    assert resumed["distillation"] == facts["distillation"]
    assert outcome(again) == outcome(result)


def test_a_model_from_outside_teaches_and_hidden_states_do(
    runner: Any, recipe: Path, tiny_model_dir: Path
) -> None:
    short = ["steps.finetune.max_steps=2", "steps.alone.max_steps=2", "steps.taught.max_steps=2"]
    result = runner(
        *short,
        f"steps.alone.distill={{teacher: {{path: {tiny_model_dir}}}, weight: 0.5}}",
        "steps.taught.distill={hidden_states: 0.5}",
        recipe=recipe,
    )
    terms = {
        name: result.artifacts[name].facts["training"]["distillation"]
        for name in ("alone", "taught")
    }
    assert terms["alone"].keys() == TERMS
    assert terms["taught"].keys() == {*TERMS, "hidden_states_error"}
    (teacher,) = (name for name in result.artifacts if name.startswith("teacher "))
    assert result.artifacts[teacher].path == tiny_model_dir
    assert [row.name for row in result.report.models] == ["model", "finetune", "alone", "taught"]
    links = runner.root / "runs" / "distillation" / "models"
    assert {link.name for link in links.iterdir()} == {"model", "finetune", "alone", "taught"}
    runner(
        *short,
        f"steps.alone.distill={{teacher: {tiny_model_dir}, weight: 0.25}}",
        "steps.taught.distill={hidden_states: 0.5}",
        recipe=recipe,
    )
    assert runner.happened("finished") == ["alone"], "and another option is another training"
