"""The recipe's limits at the top of the page: what failed first, and loud."""

from __future__ import annotations

from dataclasses import dataclass

from quantship.reporting.evidence_schema import Gate
from quantship.reporting.schema import Report


@dataclass(frozen=True)
class Verdict:
    """All limits.

    Args:
        title: How many hold.
        failed: Those that do not.
        passed: Those that do.
    """

    title: str
    failed: list[Gate]
    passed: list[Gate]


def verdict(report: Report) -> Verdict | None:
    """The limits of a report; None where its recipe has none."""
    if not report.gates:
        return None
    failed = [gate for gate in report.gates if not gate.passed]
    passed = [gate for gate in report.gates if gate.passed]
    count = len(report.gates)
    if failed:
        title = f"{len(failed)} of {count} gates failed" if count > 1 else "The gate failed"
    else:
        title = f"All {count} gates hold" if count > 1 else "The gate holds"
    return Verdict(title, failed, passed)
