"""Will it be faster here? What was known of each ONNX model beforehand, and what was measured."""

from __future__ import annotations

from quantship.reporting import comparison, formatting
from quantship.reporting.comparison import Speed
from quantship.reporting.schema import ModelRow, Report

TITLE = "Will it be faster here?"
NOTABLE = 0.95
"""Of the float model's speed; what lies above may be the noise of two equal ones."""
DOES: dict[Speed, str] = {
    "prefill_tokens_per_s": "reads prompts",
    "decode_tokens_per_s": "decodes",
}


def sentences(report: Report) -> list[str]:
    """All that there is to say, model after model."""
    found = []
    for row in report.models:
        if row.lowering is not None and row.lowering_reason is not None:
            found.append(f"{row.name}: {row.lowering} for {row.target}: {row.lowering_reason}.")
        found += [f"{row.name}: {line}." for line in row.warnings]
        found += _found_here(report, row)
    return found


def of_this_machine(report: Report) -> list[str]:
    """What the benchmark has found, for where there is room for the important only."""
    return [line for row in report.models for line in _found_here(report, row)]


def _found_here(report: Report, row: ModelRow) -> list[str]:
    here = row.benchmark.warnings if row.benchmark is not None else []
    known = [f"{row.name}: {line}." for line in here if line != row.inexact]
    return known + measured_slower(report, row)


def measured_slower(report: Report, row: ModelRow) -> list[str]:
    """Where this run found a quantized ONNX model slower than the float32 one."""
    if not comparison.is_onnx(row):
        return []
    found = []
    for speed, does in DOES.items():
        ratio = comparison.speed_ratio(report, row, speed)
        if ratio is not None and ratio < NOTABLE:
            found.append(
                f"{row.name}: it {does} more slowly than float32 on this machine: "
                f"{formatting.ratio(ratio)} its speed in this run."
            )
    return found
