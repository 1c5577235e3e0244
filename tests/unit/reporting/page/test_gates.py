from __future__ import annotations

import samples

from quantship.reporting.page import gates
from quantship.reporting.schema import Report


def test_failed_gates_are_counted_and_come_first() -> None:
    found = gates.verdict(samples.whole())
    assert found is not None
    assert found.title == "1 of 4 gates failed"
    assert [gate.model for gate in found.failed] == ["ptq-w4a16-g32"]
    assert len(found.passed) == 3


def test_a_single_gate_is_not_counted() -> None:
    report = samples.whole()
    titles = []
    for gate in (report.gates[0], report.gates[2]):
        found = gates.verdict(report.model_copy(update={"gates": [gate]}))
        assert found is not None
        titles.append(found.title)
    assert titles == ["The gate holds", "The gate failed"]


def test_a_report_without_gates_has_no_verdict(report: Report) -> None:
    assert gates.verdict(report) is None
