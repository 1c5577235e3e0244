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
