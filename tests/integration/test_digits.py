"""The worked example: handwritten digits, as a recipe and from Python."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import quantship
from quantship.data.digits import Options
from quantship.pipeline import RunResult
from quantship.quant.differences import differing
from quantship.quant.modules import codes_of
from quantship.quant.tensors import codes_in

sklearn = pytest.importorskip(
    "sklearn", reason="scikit-learn is not installed; install quantship[examples]"
)
pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = "recipes/digits-mlp.yaml"


@pytest.fixture(scope="module")
def result(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    root = tmp_path_factory.mktemp("digits")
    return quantship.run(repository / RECIPE, artifacts=root)


def test_the_recipe_takes_the_classifier_to_eight_and_two_bits(result: RunResult) -> None:
    rows = {row.name: row for row in result.report.models}
    steps = ["model", "finetune", "ptq-w8a8", "qat-w8a8", "ptq-w2", "qat-w2"]
    assert list(rows) == [*steps, "qat-w8a8-onnx", "qat-w2-onnx"]
    metrics = {name: row.metrics for name, row in rows.items()}
    assert all(one is not None and one.num_tokens == 347 for one in metrics.values())
    accuracy = {name: one.token_accuracy for name, one in metrics.items() if one}
    assert accuracy["model"] < 0.3
    assert all(accuracy[name] > 0.85 for name in rows if name != "model")
    for name in ("ptq-w8a8", "qat-w8a8", "ptq-w2", "qat-w2"):
        parity = rows[name].parity
        assert parity is not None
        assert (parity.codes_equal, parity.tensors_compared) == (True, 2)
        assert parity.max_abs_logit_diff == 0
        assert (rows[name].compression or 0) > 3.9


def test_the_exports_carry_the_integers_and_answer_alike(result: RunResult) -> None:
    rows = {row.name: row for row in result.report.models}
    for name in ("qat-w8a8", "qat-w2"):
        exported, source = rows[f"{name}-onnx"], rows[name]
        parity = exported.parity
        assert parity is not None
        assert (parity.codes_equal, parity.tensors_compared) == (True, 2)
        assert (parity.top1_agreement or 0) > 0.98
        assert exported.metrics is not None
        assert source.metrics is not None
        accuracy = exported.metrics.token_accuracy
        assert accuracy == pytest.approx(source.metrics.token_accuracy, abs=0.02)
        assert (exported.compression or 0) > 3.5
    arithmetic = result.artifacts["qat-w8a8-onnx"].facts["activation_arithmetic"]
    assert arithmetic.startswith("int8, asymmetric, static")


def test_the_report_says_how_to_read_it(result: RunResult) -> None:
    assert any("classify samples" in note for note in result.report.notes)
    facts = result.report.data["eval"]
    assert isinstance(facts, dict)
    assert facts["samples"] == 347
    assert (result.report_dir / "report.html").is_file()


def test_a_second_run_reuses_everything(result: RunResult, repository: Path) -> None:
    from quantship import pipeline

    root = result.report_dir.parents[1]
    planned = pipeline.plan(quantship.check(repository / RECIPE), root)
    assert {step.reused for step in planned} == {True}


def test_a_checkpoint_of_the_recipe_loads_from_python(result: RunResult) -> None:
    model = quantship.load(result.artifacts["qat-w2"].path)
    features, labels = digits("test")
    with torch.inference_mode():
        accuracy = (model(features).logits.argmax(-1) == labels).float().mean().item()
    row = next(row for row in result.report.models if row.name == "qat-w2")
    assert row.metrics is not None
    assert accuracy == pytest.approx(row.metrics.token_accuracy)


def digits(split: str) -> tuple[Tensor, Tensor]:
    from quantship.data import samples

    found = list(samples(Options(adapter="digits", split=split)))  # type: ignore[arg-type]
    features = torch.stack([torch.from_numpy(one.features) for one in found])
    return features, torch.tensor([one.label for one in found])


def train(module: nn.Module, features: Tensor, labels: Tensor, epochs: int) -> None:
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    module.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(64):
            loss = nn.functional.cross_entropy(module(features[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    module.eval()


@pytest.mark.parametrize("scheme", ["w8a8-static", "w8a8", "w8a16"])
def test_a_plain_module_goes_the_same_way_from_python(scheme: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    features, labels = digits("train")
    module = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))
    train(module, features, labels, epochs=4)
    calibration = features[:256].split(64)
    fake = quantship.prepare_qat(module, scheme, calibration)
    train(fake, features, labels, epochs=1)
    quantized = quantship.convert(fake)
    assert differing(codes_of(fake), codes_in(quantized)) == []

    test_features, test_labels = digits("test")
    out = tmp_path / "comparison.json"
    compared = quantship.compare(
        module, fake, quantized, test_features, test_labels, out=out, rounds=2
    )
    original, trained, shipped = compared.rows
    assert original.size_bytes > 3.9 * shipped.size_bytes
    assert min(row.accuracy or 0 for row in compared.rows) > 0.85
    assert (trained.accuracy, trained.output_mse) == (shipped.accuracy, shipped.output_mse)
    assert out.is_file()

    quantship.save(quantized, tmp_path / "digits.safetensors")
    loaded = quantship.load_into(module, tmp_path / "digits.safetensors")
    assert torch.equal(loaded(test_features), quantized(test_features))


def test_a_convolutional_network_learns_digits_and_leaves_in_eight_bits() -> None:
    torch.manual_seed(0)
    features, labels = digits("train")
    images = features.view(-1, 1, 28, 28)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(400, 10),
    )
    train(module, images, labels, epochs=2)
    test_images, test_labels = digits("test")
    test_images = test_images.view(-1, 1, 28, 28)
    quantized = quantship.quantize(module, "w8a8-static", images[:128].split(32))
    compared = quantship.compare(module, None, quantized, test_images, test_labels, rounds=1)
    original, shipped = compared.rows
    assert original.accuracy is not None
    assert shipped.accuracy is not None
    assert original.accuracy > 0.85
    assert shipped.accuracy > original.accuracy - 0.03
    assert original.size_bytes > 3 * shipped.size_bytes
