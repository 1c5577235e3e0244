from __future__ import annotations

from typing import Any

import pytest
from rich.text import Text

from quantship.reporting import comparison, html, markdown, speed_text, terminal
from quantship.reporting.schema import ModelRow, Report

NAME = "qat-w8a8-onnx"


def with_row(report: Report, **changes: Any) -> Report:
    """The report with its 8-bit QAT model changed."""
    return report.model_copy(
        update={
            "models": [
                row.model_copy(update=changes) if row.name == NAME else row for row in report.models
            ]
        }
    )


def row_of(report: Report) -> ModelRow:
    return next(row for row in report.models if row.name == NAME)


def with_speeds(report: Report, **changes: Any) -> Report:
    benchmark = row_of(report).benchmark
    assert benchmark is not None
    return with_row(report, benchmark=benchmark.model_copy(update=changes))


def about(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith(f"{NAME}: ")]


def test_a_quantized_model_slower_than_float_is_told_from_the_numbers(report: Report) -> None:
    base = next(row for row in report.models if row.name == "finetune-onnx").benchmark
    assert base is not None
    assert about(speed_text.sentences(report)) == []
    slow = with_speeds(
        report,
        prefill_tokens_per_s=0.65 * base.prefill_tokens_per_s,
        decode_tokens_per_s=0.17 * base.decode_tokens_per_s,
    )
    prompts, decoding = about(speed_text.of_this_machine(slow))
    assert "reads prompts" in prompts
    assert "0.65×" in prompts
    assert "decodes" in decoding
    assert "0.17×" in decoding
    noise = with_speeds(report, prefill_tokens_per_s=0.96 * base.prefill_tokens_per_s)
    assert about(speed_text.of_this_machine(noise)) == []


def test_torchao_is_not_told_to_be_slow(report: Report) -> None:
    names = {row.name for row in report.models if row.kind == "onnx"}
    assert {line.partition(": ")[0] for line in speed_text.sentences(report)} <= names


def test_what_was_known_beforehand_is_in_every_report(report: Report) -> None:
    known = with_row(
        report, lowering_reason="it has a branch", target="x86", warnings=["holds codes twice"]
    )
    lines = ["integer for x86: it has a branch.", "holds codes twice."]
    assert about(speed_text.sentences(known)) == [f"{NAME}: {line}" for line in lines]
    for text in (markdown.render(known), html.render(known)):
        assert all(line in text for line in lines)
    assert about(speed_text.of_this_machine(known)) == []  # the terminal said it after the export


@pytest.mark.parametrize("benchmarked", [True, False])
def test_wrong_results_are_loud_and_told_once(report: Report, benchmarked: bool) -> None:
    reason = "its results are wrong on a CPU without VNNI"
    wrong = with_row(report, inexact=reason)
    wrong = (
        with_speeds(wrong, warnings=[reason, "made for another"])
        if benchmarked
        else with_row(wrong, benchmark=None)
    )
    assert comparison.warnings(report) == []
    assert comparison.warnings(wrong) == [f"{NAME}: {reason}."]
    assert markdown.render(wrong).count(reason) == html.render(wrong).count(reason) == 1
    caption = terminal.table(wrong).caption
    assert isinstance(caption, Text)
    assert caption.plain.count(reason) == 1
    assert ("made for another" in caption.plain) == benchmarked
