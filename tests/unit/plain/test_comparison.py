from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from quantship import Comparison, compare, convert, prepare_qat, quantize, save
from quantship.plain import measuring


@pytest.fixture
def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 10))


@pytest.fixture
def compared(layers: nn.Module) -> Comparison:
    fake = prepare_qat(layers, "w4a16-g32")
    inputs = torch.randn(64, 128)
    labels = layers(inputs).argmax(-1)
    return compare(layers, fake, convert(fake), inputs, labels, rounds=3)


def test_every_form_has_a_row_of_plausible_numbers(compared: Comparison, layers: nn.Module) -> None:
    original, fake, quantized = compared.rows
    assert [row.name for row in compared.rows] == ["original", "fake quantized", "quantized"]
    num_bytes = sum(one.nbytes for one in layers.parameters())
    assert original.size_bytes == fake.size_bytes == num_bytes
    # Half a byte a code, scales of 2 bytes and zero points of 1 for 32 codes, biases in float32.
    codes = 128 * 256 + 256 * 10
    assert quantized.size_bytes == codes // 2 + 3 * codes // 32 + 4 * (256 + 10)
    assert original.accuracy == 1
    assert fake.accuracy == quantized.accuracy
    assert original.output_mse == 0
    assert 0 < fake.output_mse == quantized.output_mse < 0.1
    for row in compared.rows:
        assert row.latency_ms > 0
        assert row.samples_per_s > 0
        assert row.peak_memory_bytes > 0
    assert (compared.num_samples, compared.device, compared.rounds) == (64, "cpu", 3)


def test_the_size_is_that_of_the_file_without_its_header(layers: nn.Module, tmp_path: Path) -> None:
    for name in ("w8a8", "w4a16-g32", "w8a16"):
        quantized = quantize(layers, name)
        save(quantized, tmp_path / "model.safetensors")
        content = (tmp_path / "model.safetensors").read_bytes()
        header = int.from_bytes(content[:8], "little")
        assert measuring.stored_bytes(quantized) == len(content) - 8 - header


def test_peak_memory_is_the_module_and_what_a_run_keeps_at_once(layers: nn.Module) -> None:
    inputs = torch.randn(64, 128)
    original = compare(layers, None, layers, inputs, rounds=1).rows[0]
    held = sum(one.nbytes for one in layers.parameters())
    hidden = 64 * 256 * 4  # before the ReLU, and once more behind it
    assert original.peak_memory_bytes == held + 2 * hidden


def test_what_is_let_go_of_counts_no_more() -> None:
    def run() -> Tensor:
        made = torch.ones(1000)
        for _ in range(5):
            made = made + 1
        return made.view(10, 100)

    assert measuring.peak_allocated_bytes(run) == 2 * 4000


def test_without_labels_there_is_no_accuracy_and_without_a_fake_no_row(
    layers: nn.Module,
) -> None:
    compared = compare(layers, None, quantize(layers, "w8a8"), torch.randn(4, 128), rounds=1)
    assert [row.name for row in compared.rows] == ["original", "quantized"]
    assert {row.accuracy for row in compared.rows} == {None}


def test_inputs_may_be_named_and_outputs_may_be_hugging_face_s(tiny_model: nn.Module) -> None:
    tokens = torch.randint(250, (2, 8))
    quantized = quantize(tiny_model, "w8a8")
    compared = compare(tiny_model, None, quantized, {"input_ids": tokens}, tokens, rounds=1)
    assert compared.num_samples == 2
    assert compared.rows[1].output_mse > 0


def test_modes_are_put_back(layers: nn.Module) -> None:
    fake = prepare_qat(layers.train(), "w8a8")
    quantized = convert(fake)
    compare(layers, fake, quantized, torch.randn(4, 128), rounds=1)
    assert (layers.training, fake.training, quantized.training) == (True, True, False)


def test_the_file_holds_every_number(layers: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    compared = compare(
        layers, None, quantize(layers, "w8a8"), torch.randn(4, 128), out=path, rounds=1
    )
    stored = json.loads(path.read_text())
    assert [row["name"] for row in stored["rows"]] == ["original", "quantized"]
    for row, written in zip(compared.rows, stored["rows"], strict=True):
        assert vars(row) == written
    assert stored["memory"] == compared.memory


def test_the_table_fits_a_terminal_and_shows_every_column(compared: Comparison) -> None:
    text = StringIO()
    compared.show(Console(file=text, width=80))
    shown = text.getvalue()
    for part in ("original", "fake quantized", "Size", "Latency", "Samples", "Peak", "100.00%"):
        assert part in shown
    assert "…" not in shown


def test_labels_that_fit_no_output_are_refused(layers: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"labels of shape \(3,\) for predictions of shape \(4,\)"):
        compare(layers, None, layers, torch.randn(4, 128), torch.zeros(3, dtype=torch.int64))


def test_outputs_that_are_no_tensors_are_refused(layers: nn.Module) -> None:
    class Named(nn.Module):
        def forward(self, input: Tensor) -> str:
            return "four"

    with pytest.raises(ValueError, match="returns a str"):
        compare(Named(), None, Named(), torch.randn(4, 128))
