from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import quantship
from quantship.mlp.model import build_model
from quantship.quant.convert import convert
from quantship.quant.modules import prepare_qat
from quantship.quant.scheme import SCHEMES
from quantship.runtimes.base import Classifier, classifies, open_classifier
from quantship.runtimes.measure import PROMPTS, measure_classifier
from quantship.runtimes.ort_module import OrtModule
from quantship.tasks import agreement, likelihood

pytestmark = pytest.mark.usefixtures("one_thread")


class Sum(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": left + right, "difference": left - right}


def test_inputs_go_by_place_or_by_name_and_outputs_by_name(tmp_path: Path) -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    quantship.export(Sum(), tmp_path, (torch.zeros(2, 3), torch.zeros(2, 3)))
    runtime = OrtModule(tmp_path, threads=1)
    assert (runtime.inputs, runtime.outputs) == (("left", "right"), ("sum", "difference"))
    found = runtime(rows, right=2 * rows)
    assert np.array_equal(found["sum"], 3 * rows)
    assert np.array_equal(found["difference"], -rows)
    for given in ((rows,), (rows, rows, rows)):
        with pytest.raises(ValueError, match="the model takes left, right"):
            runtime(*given)


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A quantized classifier, and its export."""
    root = tmp_path_factory.mktemp("classifier")
    source, out = root / "torch", root / "onnx"
    source.mkdir()
    convert(prepare_qat(build_model((20, 32, 5), seed=1), SCHEMES["w8a8"]), source)  # type: ignore[arg-type]
    quantship.export(source, out, lowering="integer")
    return source, out


def test_a_classifier_answers_alike_on_both_runtimes(directories: tuple[Path, Path]) -> None:
    assert all(map(classifies, directories))
    reference, exported = map(open_classifier, directories)
    assert isinstance(exported, Classifier)
    assert (reference.name, exported.name) == ("torchao", "onnxruntime")
    generator = torch.Generator().manual_seed(2)
    features = torch.rand(30, 20, generator=generator)
    batch = {
        "features": features,
        "labels": torch.from_numpy(reference.classify({"features": features.numpy()}).argmax(-1)),
        "attention_mask": torch.ones(30, 1, dtype=torch.int64),
    }
    compared = agreement.compare(exported, reference, [batch])
    assert compared["top1_agreement"] == 1
    assert compared["max_abs_logit_diff"] < 1e-5
    metrics = likelihood.evaluate(exported, [batch]).metrics
    assert (metrics["token_accuracy"], metrics["num_tokens"]) == (1, 30)


def test_a_classifier_is_measured_by_samples(directories: tuple[Path, Path]) -> None:
    seen: list[tuple[int, ...]] = []

    class Noted:
        name = "onnxruntime"
        device = "cpu"

        def classify(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
            seen.append(inputs["features"].shape)
            return inner.classify(inputs)

    inner = open_classifier(directories[1])
    measured = measure_classifier(
        Noted(),  # type: ignore[arg-type]
        batch_size=2,
        prompt_tokens=8,
        decode_tokens=3,
        features=20,
        seed=0,
    )
    warmed_up = 1
    assert seen == [(16, 20)] * (warmed_up + PROMPTS) + [(2, 20)] * (warmed_up + 3)
    assert measured["runtime"] == "onnxruntime"
    assert len(measured["prefill_s"]) == PROMPTS
    assert min(measured["prefill_s"]) > 0
    assert len(measured["decode_s"]) == 3
