from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu

    from quantship.quant import compiling
    from quantship.runtimes.compiled import CompiledRuntime

    monkeypatch.setattr(compiling, "BACKEND", compiling.BACKEND)
    monkeypatch.setattr(CompiledRuntime, "backend", CompiledRuntime.backend)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    out = tmp_path / "gpu.md"
    assert gpu.main(["--device", "cpu", "--tiny", "--budget-s", "3000", "--out", str(out)]) == 0
    text = out.read_text()
    assert capsys.readouterr().out == text
    assert "Left out" not in text
    for name in gpu.TRAININGS:
        assert f"| {name}, bfloat16 |" in text
    for model in ("float", "w8a16", "w4a16-g32", "w8a8-symmetric"):
        for how in ("compiled", "eager"):
            assert f"| {model}, {how}, cpu |" in text
    for model in ("float", "w4a16-g32"):
        assert f"| {model}, onnxruntime, cpu |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows if "compiled, cpu" in row}) == 1


def bench(folder: Path, budget_s: float) -> Any:
    import gpu

    return gpu.Bench(gpu.LLAMA, folder, device="cpu", budget_s=budget_s)


def test_what_there_is_no_time_for_is_named(tmp_path: Path) -> None:
    import gpu

    late = bench(tmp_path, -1)
    gpu.run_all(late)
    assert late.left_out == {"model": "out of time"}
    assert "- Left out: model: out of time" in gpu.report(late, "a machine")


def test_a_part_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    import gpu

    failing = bench(tmp_path, 300)
    nowhere = str(tmp_path / "nowhere")
    assert failing.run("serve x", "serve", path=nowhere, compiled=False, prompt=1, decode=1) is None
    assert "nowhere" in failing.left_out["serve x"]
    assert "- Left out: serve x: " in gpu.report(failing, "a machine")


def test_without_a_gpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import gpu

    from quantship import hardware

    monkeypatch.setattr(hardware, "gpu", lambda: None)
    assert gpu.main([]) == gpu.NO_GPU
    assert "no CUDA device" in capsys.readouterr().err
