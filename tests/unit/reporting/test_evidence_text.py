"""Tasks and gates in words: every form of the report shows them, and shows them right."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from quantship.reporting import evidence_terminal, evidence_text, gate_words, markdown, terminal
from quantship.reporting.evidence_schema import (
    Contrast,
    Evidence,
    Gate,
    LostExample,
    MetricFacts,
    Regressions,
    TaskFacts,
    TaskResult,
)
from quantship.reporting.gate_words import Rule
from quantship.reporting.recovery_schema import Estimate
from quantship.reporting.schema import Report

MATCH = MetricFacts(name="exact_match", better="higher", kind="share", judges=True)
PERPLEXITY = MetricFacts(name="perplexity", better="lower", kind="perplexity", judges=False)


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high)


def task(name: str, metric: MetricFacts, num_examples: int = 200) -> TaskFacts:
    return TaskFacts(
        name=name,
        task=name,
        metrics=[metric],
        num_examples=num_examples,
        digest="0123456789abcdef",
        notes=["Two questions had no answer."],
    )


def contrast(over: str, why: Any, metric: str = "exact_match", **more: Any) -> Contrast:
    found = {"difference": estimate(-0.02, -0.05, 0.01), **more}
    return Contrast(task="gsm8k", metric=metric, model="qat-w8a8", over=over, why=why, **found)


def gate(passed: bool = True, model: str = "qat-w8a8") -> Gate:
    return Gate(
        model=model,
        metric="size",
        over=None,
        rule="at most 100 MB",
        limit=1e8,
        value=1.358e8,
        measured="135.8 MB",
        bound=None,
        confidence=None,
        passed=passed,
        reason=f"size of {model} is 135.8 MB; the limit is at most 100 MB",
    )


@pytest.fixture
def evident(report: Report) -> Report:
    """A run with two tasks, of which one has few examples."""
    results = {
        "gsm8k": TaskResult(
            metrics={"exact_match": estimate(0.6125, 0.58, 0.645)},
            extra={"f1": 0.7},
            runtime="torch",
            seconds=3.0,
        ),
        "wikitext": TaskResult(
            metrics={"perplexity": estimate(25.494, 25.494, 25.494)},
            extra={},
            runtime="torch",
            seconds=1.0,
        ),
    }
    models = [
        row.model_copy(update={"tasks": results if row.name == "qat-w8a8" else {}})
        for row in report.models
    ]
    evidence = Evidence(
        tasks=[task("gsm8k", MATCH), task("wikitext", PERPLEXITY, 4)],
        contrasts=[
            contrast("finetune", "float"),
            contrast("ptq-w8a8", "ptq", recovered=estimate(0.63, 0.55, 0.7)),
            contrast("qat", "source", tolerance=0.01, within=False),
        ],
        regressions=[
            Regressions(
                task="gsm8k",
                metric="exact_match",
                model="qat-w8a8",
                over="finetune",
                num_lost=12,
                num_won=5,
                examples=[
                    LostExample(id="test[7]", prompt="?", expected="4", before="4", after="5")
                ],
            )
        ],
        generations=[],
        confidence=0.95,
        num_resamples=10_000,
    )
    return report.model_copy(update={"models": models, "evidence": evidence})


def printed(*parts: Any) -> str:
    console = Console(width=120, record=True, file=StringIO())
    for part in parts:
        console.print(part)
    return console.export_text()


def test_markdown_has_tasks_contrasts_regressions_and_how_to_read_them(evident: Report) -> None:
    text = markdown.render(evident)
    for words in (
        "## Tasks",
        "gsm8k (task gsm8k): 200 examples",
        "61.25 (58.00 to 64.50)",
        "Two questions had no answer.",
        "-2.00 points (-5.00 to +1.00)",
        "63 % (55–70 %)",
        "12 | 5",
        "±1 points",
        "over examples only",
    ):
        assert words in text, words


def test_few_examples_are_shown_without_an_interval(evident: Report) -> None:
    text = markdown.render(evident)
    assert "| 25.49 |" in text
    assert "25.49 to" not in text


def test_the_terminal_shows_headlines_and_says_little_else(evident: Report) -> None:
    found = evidence_terminal.tasks(evident)
    text = printed(found)
    assert "61.25" in text
    assert "58.00 to 64.50" in text
    assert "qat-w8a8 recovers 63 % (55–70 %) of what ptq-w8a8 lost on gsm8k" in text
    assert "qat-w8a8 lost 12 examples of gsm8k" in text
    assert "not over seeds" in text
    assert len(text.splitlines()) < 20


def test_without_tasks_and_gates_nothing_is_shown(report: Report) -> None:
    assert evidence_terminal.tasks(report) is None
    assert evidence_terminal.gates(report) is None
    assert len(list(terminal.parts(report))) == 1
    text = markdown.render(report)
    assert "## Tasks" not in text
    assert "## Gates" not in text


def test_an_export_too_far_from_its_checkpoint_is_told_everywhere(evident: Report) -> None:
    (warning,) = evidence_text.warnings(evident)
    assert all(word in warning for word in ("qat-w8a8", "exact_match", "±1 points"))
    assert warning in evidence_text.notes(evident)
    shown = printed(terminal.table(evident))
    assert "than the two may be by how" in " ".join(shown.split())
    assert "| NO |" in markdown.render(evident)


def test_gates_are_a_table_with_what_failed(report: Report) -> None:
    judged = report.model_copy(update={"gates": [gate(), gate(passed=False, model="ptq-w8a8")]})
    text = printed(evidence_terminal.gates(judged))
    assert "✓" in text
    assert "✗" in text
    assert "1 of 2 gates pass" in text
    page = markdown.render(judged)
    assert "## Gates" in page
    assert "- size of ptq-w8a8 is 135.8 MB; the limit is at most 100 MB" in page


def test_of_many_gates_the_terminal_shows_those_that_fail(report: Report) -> None:
    many = [gate(model=f"model-{place}", passed=place != 7) for place in range(40)]
    text = printed(evidence_terminal.gates(report.model_copy(update={"gates": many})))
    assert "model-7" in text
    assert "model-8" not in text
    assert "39 of 40 gates pass" in text


def rule(bound: str, limit: float, **more: Any) -> Rule:
    given = {"metric": "m", "kind": "number", "over": None, "by_other": False, "confidence": None}
    return Rule(bound=bound, limit=limit, **{**given, **more})


def up(limit: float, **more: Any) -> Rule:
    return rule("max_increase", limit, over="a", by_other=True, **more)


def down(limit: float) -> Rule:
    return rule("max_decrease", limit, over="a", kind="share")


@pytest.mark.parametrize(
    ("made", "value", "asked", "said"),
    [
        (rule("max", 20), 21.5, "at most 20", "21.50"),
        (rule("min", 0.9, kind="share"), 0.8, "at least 90 %", "80.00 %"),
        (rule("max", 2e8, kind="bytes"), 1e8, "at most 200.0 MB", "100.0 MB"),
        (rule("min", 1.5, kind="factor"), 1.7, "at least 1.50×", "1.70×"),
        (rule("max_ratio", 0.3, over="a"), 0.25, "at most 0.3 × that of a", "0.25 ×"),
        (up(0.02), 0.0191, "at most 2 % above a", "1.91 % above"),
        (up(0.02), -0.03, "at most 2 % above a", "3.00 % below"),
        (down(0.02), 0.01, "at most 2 points below a", "1.00 points below"),
        (down(0.02), -0.01, "at most 2 points below a", "1.00 points above"),
        (up(0.02, confidence=0.95), 0.01, "at most 2 % above a, 95 % sure", "1.00 % above"),
    ],
)
def test_rules_and_numbers_are_in_the_same_terms(
    made: Rule, value: float, asked: str, said: str
) -> None:
    assert gate_words.rule(made) == asked
    assert gate_words.term(made, value) == said


@pytest.mark.parametrize(
    ("bound", "value", "said"),
    [
        ("max_increase", 0.03, "surely at most 3.00 % above"),
        ("max_increase", -0.03, "surely at least 3.00 % below"),
        ("max_decrease", 0.03, "surely at most 3.00 % below"),
        ("max_decrease", -0.03, "surely at least 3.00 % above"),
    ],
)
def test_bounds_say_on_which_side_they_are(bound: str, value: float, said: str) -> None:
    made = rule(bound, 0.02, over="a", by_other=True, confidence=0.9)
    assert gate_words.sure(made, value) == said
