from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")


def test_ratios_are_of_one_form_and_above_one_where_onnx_is_faster() -> None:
    from evaluation import Row, ratios

    rows = [
        Row("float", "torch", 4.0, 3.0),
        Row("float", "onnxruntime", 2.0, 6.0),
        Row("w8a8", "torchao", 9.0, 8.0),
        Row("w8a8", "onnxruntime", 1.0, 2.0),
    ]
    assert ratios(rows) == {
        "float": {"likelihood": 2.0, "generation": 0.5},
        "w8a8": {"likelihood": 9.0, "generation": 4.0},
    }


def test_anyone_can_run_it(
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import run

    out = tmp_path / "figures.json"
    options = ("--rounds", "1", "--new-tokens", "2", "--json", str(out))
    monkeypatch.setattr(
        sys, "argv", ["run.py", "evaluation", "--model", str(tiny_model_dir), *options]
    )
    run.main()
    figures = json.loads(out.read_text())
    assert [(row["form"], row["runtime"]) for row in figures["rows"]] == [
        ("float", "torch"),
        ("float", "onnxruntime"),
        ("w8a8", "torchao"),
        ("w8a8", "onnxruntime"),
    ]
    assert all(row["likelihood_s"] > 0 and row["generation_s"] > 0 for row in figures["rows"])
    assert "float on onnxruntime" in capsys.readouterr().out
