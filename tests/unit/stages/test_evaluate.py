from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_from_disk

from quantship.artifact import Artifact
from quantship.job import Job
from quantship.models import load_float
from quantship.quant.scheme import SCHEMES
from quantship.stages import evaluate, export
from quantship.tasks import likelihood

pytestmark = pytest.mark.usefixtures("one_thread")


def settings(batch_size: int = 4, limit: int | None = None) -> evaluate.Settings:
    return evaluate.Settings(batch_size=batch_size, limit=limit, parity_sequences=3)


def test_metrics_are_those_of_the_model_one_sequence_at_a_time(
    job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    facts = evaluate.run(job(settings(), model=tiny_model_dir, data=data_dir))
    model: Any = load_float(tiny_model_dir).eval()
    total, num_tokens = 0.0, 0
    for row in load_from_disk(str(data_dir / "eval")):
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        num = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=labels).loss) * num
        num_tokens += num
    assert facts["metrics"]["num_tokens"] == num_tokens
    assert facts["metrics"]["mean_loss"] == pytest.approx(total / num_tokens, rel=1e-5)
    assert "parity" not in facts


def test_losses_of_every_sequence_are_kept_in_the_order_of_the_data(
    job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    done = job(settings(), model=tiny_model_dir, data=data_dir)
    metrics = evaluate.run(done)["metrics"]
    kept = likelihood.read_sequences(done.out)
    labels = load_from_disk(str(data_dir / "eval"))["labels"]
    assert kept.num_tokens.tolist() == [sum(x != -100 for x in row[1:]) for row in labels]
    assert kept.nll_nats.sum() / kept.num_tokens.sum() == metrics["mean_loss"]


def test_batching_changes_nothing(
    job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    one, many = (
        evaluate.run(job(settings(size), str(size), model=tiny_model_dir, data=data_dir))["metrics"]
        for size in (1, 7)
    )
    assert one == pytest.approx(many, rel=1e-5)


def test_a_limit_takes_the_first_sequences(
    job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    facts = evaluate.run(job(settings(limit=2), model=tiny_model_dir, data=data_dir))
    labels = load_from_disk(str(data_dir / "eval"))[:2]["labels"]
    expected = sum(label != -100 for row in labels for label in row[1:])
    assert facts["metrics"]["num_tokens"] == expected
    again = evaluate.run(job(settings(limit=99), "all", model=tiny_model_dir, data=data_dir))
    assert again["metrics"]["num_tokens"] > expected


def test_a_model_is_at_parity_with_itself(
    job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    inputs = {"model": tiny_model_dir, "reference": tiny_model_dir, "data": data_dir}
    parity = evaluate.run(job(settings(), **inputs))["parity"]
    assert parity["max_abs_logit_diff"] == 0
    assert parity["top1_agreement"] == 1
    assert parity["kl_nats"] == 0
    assert (parity["codes_equal"], parity["tensors_compared"]) == (None, 0)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_an_export_is_held_against_its_checkpoint(
    format: str, job: Callable[..., Job], quantized_dir: Path, data_dir: Path
) -> None:
    if format == "openvino":
        pytest.importorskip("openvino", reason="pip install 'quantship[openvino]'")
    lowering = "integer" if format == "onnx" else None
    chosen = {"format": format, "lowering": lowering, "target": "x86", "scheme": SCHEMES["w8a8"]}
    done = job(export.Settings.model_validate(chosen), format, model=quantized_dir)
    model = Artifact(done.out, "export", "", export.run(done))
    facts = evaluate.run(job(settings(), model=model, reference=quantized_dir, data=data_dir))
    assert facts["parity"]["codes_equal"] is True
    assert facts["parity"]["tensors_compared"] == 2 * 7 + 1
    assert 0 < facts["parity"]["max_abs_logit_diff"] < 0.1
