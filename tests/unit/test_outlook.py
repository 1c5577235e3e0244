from __future__ import annotations

from pathlib import Path

import pytest

from quantship import hardware, outlook
from quantship.recipe import Recipe, load

HEAD = """\
model: {tiny: {}}
data: {eval: [{adapter: builtin}]}
steps:
  - {stage: quantize, scheme: w8a8}
"""
EXPORTS = """\
  - {stage: export, input: [model, quantize], target: x86-vnni}
  - {stage: export, name: slow, input: quantize, lowering: nbits, target: x86}
"""


def recipe(folder: Path, text: str) -> Recipe:
    path = folder / "my.yaml"
    path.write_text(text)
    return load(path)


@pytest.fixture
def old_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """An x86 without VNNI in place of this machine."""
    monkeypatch.setattr(hardware, "is_arm", lambda: False)
    monkeypatch.setattr(hardware, "instruction_sets", lambda: ("avx2",))
    monkeypatch.setattr(hardware, "installed_gpu", lambda: None)


def test_nothing_is_said_where_nothing_is_exported(tmp_path: Path) -> None:
    without = recipe(tmp_path, HEAD)
    assert outlook.full(without) is None
    assert outlook.short(without) is None


@pytest.mark.usefixtures("old_cpu")
def test_each_export_has_its_lowering_why_and_what_to_beware_of(tmp_path: Path) -> None:
    found = outlook.full(recipe(tmp_path, HEAD + EXPORTS))
    assert found is not None
    machine, plain, best, *more = found.plain.splitlines()
    assert machine == "This machine: x86: AVX2, no AVX-512, no VNNI, no AMX, no NVIDIA GPU"
    assert plain == "model-onnx: float for x86-vnni: a float model has no integers to lower"
    assert best.startswith("quantize-onnx: w8a8 as hybrid for x86-vnni: ")
    slow = next(place for place, line in enumerate(more) if line.startswith("slow: "))
    assert any("wrong on a CPU without VNNI" in line for line in more[:slow])
    assert "the recipe asks for it; auto is hybrid for x86" in more[slow]
    assert "0.65 ×" in more[slow + 1]
    warnings = [*more[:slow], *more[slow + 1 :]]
    assert all(line.startswith("  ! ") for line in warnings)


@pytest.mark.usefixtures("old_cpu")
def test_in_short_warnings_are_counted(tmp_path: Path) -> None:
    found = outlook.short(recipe(tmp_path, HEAD + EXPORTS))
    assert found is not None
    assert found.plain.splitlines() == [
        "model-onnx: float for x86-vnni",
        "quantize-onnx: w8a8 as hybrid for x86-vnni  2 warnings; quantship check shows them",
        "slow: w8a8 as nbits for x86  1 warning; quantship check shows them",
    ]


PACKED = """\
model: {tiny: {}}
data: {train: [{adapter: builtin}], eval: [{adapter: builtin}]}
steps:
  - {stage: qat, scheme: w4a16-g32, max_steps: 1, packed: true}
"""
RTX_3090 = hardware.Gpu("NVIDIA GeForce RTX 3090", (8, 6))
P100 = hardware.Gpu("Tesla P100", (6, 0))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(hardware, "installed_gpu", lambda: RTX_3090.name)
    monkeypatch.setattr(hardware, "gpu", lambda: RTX_3090)
    return monkeypatch


@pytest.mark.usefixtures("card")
def test_codes_that_this_gpu_cannot_run_are_told_of_before_they_are_trained(
    tmp_path: Path,
) -> None:
    found = outlook.full(recipe(tmp_path, PACKED))
    assert found is not None
    _, step, line = found.plain.splitlines()
    assert step == "qat:"
    assert line.startswith("  ! ")
    assert "RTX 3090 (compute capability 8.6)" in line
    short = outlook.short(recipe(tmp_path, PACKED))
    assert short is not None
    assert short.plain == "qat:  1 warning; quantship check shows them"
    for harmless in ("packed: true}", "scheme: w4a16-g32"):
        other = {"packed: true}": "packed: false}", "scheme: w4a16-g32": "scheme: w8a8"}[harmless]
        assert outlook.full(recipe(tmp_path, PACKED.replace(harmless, other))) is None


@pytest.mark.usefixtures("old_cpu")
def test_codes_that_a_cpu_cannot_run_are_told_of(tmp_path: Path) -> None:
    found = outlook.full(recipe(tmp_path, PACKED))
    assert found is not None
    assert "on a CPU; quantship.load can" in found.plain


def test_a_gpu_that_pytorch_cannot_use_is_told_of(tmp_path: Path, card: pytest.MonkeyPatch) -> None:
    card.setattr(hardware, "gpu", lambda: None)
    found = outlook.full(recipe(tmp_path, PACKED.replace("packed: true", "packed: false")))
    assert found is not None
    assert "PyTorch cannot use the NVIDIA GeForce RTX 3090" in found.plain


def test_an_old_gpu_is_told_of_only_what_the_recipe_asks_of_it(
    tmp_path: Path, card: pytest.MonkeyPatch
) -> None:
    card.setattr(hardware, "gpu", lambda: P100)
    plain = PACKED.replace("packed: true", "packed: false")
    for text, number in (
        (plain, 1),
        (plain + "benchmark: {compile: true}\n", 2),
        (plain.replace("max_steps", "compile: true, max_steps"), 2),
    ):
        found = outlook.full(recipe(tmp_path, text))
        assert found is not None
        assert found.plain.count("  ! ") == number


def test_without_the_cuda_provider_an_export_for_cuda_is_warned_of(
    tmp_path: Path, card: pytest.MonkeyPatch
) -> None:
    text = HEAD + "  - {stage: export, input: quantize, target: cuda}\n"
    for there, expected in ((False, True), (True, False)):
        card.setattr(outlook, "_has_onnxruntime_gpu", lambda here=there: here)
        found = outlook.full(recipe(tmp_path, text))
        assert found is not None
        assert ("install onnxruntime-gpu" in found.plain) == expected
