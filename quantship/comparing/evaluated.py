"""What the models of a run were evaluated on: in words, and as a key to compare runs by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from quantship.comparing.opening import Opened
from quantship.reporting.schema import Report

WHAT_MATTERS = ("max_length", "chat_template", "mask_prompt")
NOTHING = "not evaluated"


def groups(runs: Sequence[Opened]) -> list[list[Opened]]:
    """Runs of the same evaluation data together, in their order.

    The digest over all tokens and labels decides. Where some run does not have one, as reports of
    earlier versions do not, the digests of the data's files and all that is done to them do.
    """
    measured = [run for run in runs if _num_tokens(run.report) is not None]
    exact = all(run.report.evaluation_data is not None for run in measured)
    found: dict[str, list[Opened]] = {}
    for run in runs:
        found.setdefault(_key(run.report, exact=exact), []).append(run)
    return list(found.values())


def words(report: Report) -> str:
    """The evaluation data of a run: ``gsm8k: 123 sequences, 12,355 predicted tokens``."""
    num_tokens = _num_tokens(report)
    if num_tokens is None:
        return NOTHING
    names = ", ".join(dict.fromkeys(str(one.get("adapter")) for one in _sources(report)))
    text = f"{names}: " if names else ""
    if report.evaluation_data is None:
        return f"{text}{num_tokens:,} predicted tokens"
    data = report.evaluation_data
    return (
        f"{text}{data.num_sequences:,} sequences, {num_tokens:,} predicted tokens "
        f"(digest {data.digest[:12]})"
    )


def _key(report: Report, *, exact: bool) -> str:
    num_tokens = _num_tokens(report)
    if num_tokens is None:
        return NOTHING
    if exact and report.evaluation_data is not None:
        return report.evaluation_data.digest
    data, evaluation = (_mapping(report.recipe.get(key)) for key in ("data", "evaluation"))
    facts = {
        "tokens": num_tokens,
        "eval": report.data.get("eval"),
        "limit": evaluation.get("limit"),
        **{key: data.get(key) for key in WHAT_MATTERS},
    }
    return json.dumps(facts, sort_keys=True)


def _num_tokens(report: Report) -> int | None:
    counts = (row.metrics.num_tokens for row in report.models if row.metrics is not None)
    return next(counts, None)


def _sources(report: Report) -> list[dict[str, Any]]:
    sources = _mapping(report.data.get("eval")).get("sources")
    return [one for one in sources if isinstance(one, dict)] if isinstance(sources, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
