from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantship.job import Job
from quantship.stages import evaluate, task
from quantship.tasks import divergence, perplexity, scores

pytestmark = pytest.mark.usefixtures("one_thread")


def settings(asked: perplexity.Options | divergence.Options) -> task.Settings:
    return task.Settings(
        task=asked,
        file_digests=(),
        versions={},
        chat_template=None,
        max_length=128,
        batch_size=4,
        seed=0,
    )


def test_perplexity_on_the_recipes_data_is_what_is_always_measured(
    job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    inputs = {"model": tiny_model_dir, "data": data_dir}
    always = evaluate.Settings(batch_size=4, limit=None, parity_sequences=3)
    expected = evaluate.run(job(always, "always", **inputs))["metrics"]
    done = job(settings(perplexity.Options(task="perplexity")), **inputs)
    facts = task.run(done)
    assert facts["metrics"]["perplexity"] == pytest.approx(expected["perplexity"], rel=1e-9)
    assert facts["metrics"]["token_accuracy"] == pytest.approx(expected["token_accuracy"])
    assert sum(one.weight for one in scores.read(done.out)) == expected["num_tokens"]


def test_a_model_diverges_from_another_and_not_from_itself(
    job: Callable[..., Job], tiny_model_dir: Path, quantized_dir: Path, data_dir: Path
) -> None:
    asked = settings(divergence.Options(task="divergence"))
    inputs = {"reference": tiny_model_dir, "data": data_dir}
    itself = task.run(job(asked, "itself", model=tiny_model_dir, **inputs))["metrics"]
    rounded = task.run(job(asked, "rounded", model=quantized_dir, **inputs))["metrics"]
    assert itself == {"kl_nats": 0, "top1_agreement": 1}
    assert rounded["kl_nats"] > 0


def test_facts_describe_metrics_and_examples(
    job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    asked = settings(perplexity.Options(task="perplexity", limit=3))
    facts = task.run(job(asked, model=tiny_model_dir, data=data_dir))
    assert facts["num_examples"] == 3
    assert [one["name"] for one in facts["about"]] == list(facts["metrics"])
    assert facts["runtime"] == "torch"
    assert facts["seconds"] > 0
