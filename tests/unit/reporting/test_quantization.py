from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantship.artifact import Artifact
from quantship.reporting import quantization, quantization_text
from quantship.reporting.schema import Report


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "rtn"),
        ({"calibration": {"sequences": 128, "seed": 7}, "packed": False}, "rtn"),
        ({"range": "mse"}, "rtn, range mse"),
        ({"algorithm": "gptq"}, "gptq"),
        ({"algorithm": {"kind": "gptq", "damping": 0.25}}, "gptq, damping 0.25"),
        ({"algorithm": {"kind": "gptq", "act_order": False}}, "gptq, no act order"),
        ({"bias_correction": True}, "rtn, bias correction"),
        ({"calibration": {"range": "mse", "seed": 7}}, "rtn, calibration range mse"),
    ],
)
def test_words_name_what_is_not_the_default(lab: Any, options: dict[str, Any], words: str) -> None:
    step = quantization.options(lab.ptq("ptq", "model", "w8a8-static", **options))
    assert quantization.words(step) == words
    assert quantization.is_plain(step) == (words == "rtn")


def test_facts_of_the_step_are_those_of_its_export(lab: Any) -> None:
    ptq = lab.ptq("ptq", "model", "w8a8", algorithm="gptq", calibration={"seed": 3})
    plan = lab.plan(ptq, lab.export(ptq))
    facts = {
        "calibration_sequences": 128,
        "calibration_tokens": 26_000,
        "seconds": 12.5,
        "peak_rss_bytes": 900,
        "blocks_resumed": 4,
        "bias_corrected": ["a", "b"],
        "notes": ["b: fell back"],
    }
    made = {"ptq": Artifact(Path("ptq"), "quantize", "ptq", facts)}
    found = quantization.of_model(plan["ptq"], plan, made)
    assert found is not None
    assert found.calibration is not None
    assert dict(found.calibration) == {"sequences": 128, "tokens": 26_000, "seed": 3}
    assert (found.seconds, found.peak_rss_bytes, found.remarks) == (12.5, 900, ["b: fell back"])
    assert (found.blocks_resumed, found.bias_corrected, found.plain) == (4, 2, False)
    assert quantization.of_model(plan["ptq-onnx"], plan, made) == found
    assert quantization.of_model(plan["model"], plan, made) is None


def test_an_artifact_of_an_earlier_version_tells_less(lab: Any) -> None:
    plan = lab.plan(lab.ptq("ptq", "model", "w8a8"))
    made = {"ptq": Artifact(Path("ptq"), "quantize", "ptq", {"calibration_sequences": 0})}
    found = quantization.of_model(plan["ptq"], plan, made)
    assert found is not None
    assert (found.calibration, found.seconds, found.remarks) == (None, None, [])


def test_settings_that_change_no_integer_are_left_out(lab: Any) -> None:
    plan = lab.plan(lab.ptq("one", "model", "w8a8", packed=False), lab.ptq("two", "model", "w8a8"))
    made = {name: Artifact(Path(name), "quantize", name, {}) for name in ("one", "two")}
    one, two = (quantization.of_model(plan[name], plan, made) for name in ("one", "two"))
    assert one == two


def test_a_fallback_is_named_and_every_step_has_a_row(sweep: Report) -> None:
    table = quantization_text.table(sweep)
    assert table is not None
    assert len(table.rows) == 14
    assert table.rows[9][:3] == ("ptq-w4a16-g128-gptq-seed1", "gptq", "w4a16-g128")
    assert table.rows[9][3:] == ("128 sequences, 26,112 tokens, seed 1", "1 min 02 s", "912.0")
    assert table.rows[0][3] == "none"
    assert quantization_text.remarks(sweep) == [
        "ptq-w4a16-g128-gptq-seed1: layers.3.mlp.up_proj: its Hessian is not positive definite: "
        "rounded to nearest."
    ]


def test_what_layers_have_in_common_is_said_once(sweep: Report) -> None:
    repeated = [f"layers.{place}.up: dead inputs" for place in range(30)]
    single = [f"layers.0.{place}: reason {place}" for place in range(9)]
    rows = [
        row.model_copy(
            update={
                "quantization": row.quantization.model_copy(
                    update={"remarks": [*repeated, *single, "no layer at all"]}
                )
            }
        )
        for row in sweep.models[1:2]
        if row.quantization is not None
    ]
    lines = quantization_text.remarks(sweep.model_copy(update={"models": rows}))
    assert len(lines) == quantization_text.MOST_REMARKS + 1
    assert lines[0] == ("ptq-w4a16-g32-rtn: dead inputs (30 times, first in layers.0.up).")
    assert lines[1] == "ptq-w4a16-g32-rtn: layers.0.0: reason 0."
    assert lines[-1] == "ptq-w4a16-g32-rtn: 3 more remarks; all of them are in report.json."


def test_an_export_repeats_nothing(sweep: Report) -> None:
    exports = [row.model_copy(update={"kind": "onnx"}) for row in sweep.models]
    both = sweep.model_copy(update={"models": [*sweep.models, *exports]})
    assert quantization_text.table(both) == quantization_text.table(sweep)
    assert quantization_text.remarks(both) == quantization_text.remarks(sweep)


def test_a_run_that_quantizes_nothing_has_no_table(report: Report) -> None:
    assert quantization_text.table(report) is None
    assert quantization_text.remarks(report) == []
