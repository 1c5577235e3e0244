from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quantship.comparing import html, markdown, terminal, words
from quantship.comparing.compare import compare
from quantship.comparing.schema import Comparison

ONE = {"tuned": 1.8, "ptq-rtn": 2.0}
TWO = {"tuned": 1.7, "ptq-rtn": 1.95, "ptq-gptq": 1.85}
OTHER_DATA = {"evaluation_data": {"digest": "cd" * 32, "num_sequences": 60, "num_tokens": 9}}


def shown(comparison: Comparison) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(terminal.render(comparison))
    return capture.get()


def test_models_of_all_runs_are_in_one_order(shelf: Any) -> None:
    found = compare([shelf.put("one", ONE), shelf.put("two", TWO)])
    (group,) = found.groups
    assert group.ranking is not None
    assert [entry.name for entry in group.ranking.entries] == [
        "two/tuned",
        "one/tuned",
        "two/ptq-gptq",
        "two/ptq-rtn",
        "one/ptq-rtn",
    ]
    assert group.ranking.by == "loss"
    gptq = group.ranking.entries[2]
    assert gptq.of_nearest is not None
    assert gptq.of_nearest.nearest == "two/ptq-rtn"  # of its own run, not of another
    assert gptq.of_nearest.share is not None
    assert gptq.of_nearest.share.value == pytest.approx(0.4)
    assert gptq.lost is not None
    assert gptq.lost.value == pytest.approx(0.15)
    assert gptq.behind_best is not None
    assert gptq.behind_best.low is not None
    assert [point.name for point in group.fronts[0].points] == ["two/ptq-gptq", "two/tuned"]
    assert Comparison.model_validate_json(found.model_dump_json()) == found


def test_a_model_that_two_runs_share_stands_once(shelf: Any) -> None:
    first = shelf.put("one", TWO)
    shared = {model: f"one-{model}".ljust(20, "0") for model in ("tuned", "ptq-rtn")}
    losses = {"tuned": 1.7, "ptq-rtn": 1.95, "ptq-awq": 1.90}
    found = compare([first, shelf.put("two", losses, fingerprints=shared)])
    (group,) = found.groups
    assert group.ranking is not None
    assert [entry.name for entry in group.ranking.entries] == [
        "one/tuned",
        "one/ptq-gptq",
        "two/ptq-awq",
        "one/ptq-rtn",
    ]
    awq = group.ranking.entries[2]
    assert awq.source == "one/tuned"
    assert awq.of_nearest is not None
    assert awq.of_nearest.share is not None
    assert awq.of_nearest.share.value == pytest.approx(0.2)
    assert "one/ptq-rtn is one model with two/ptq-rtn." in words.remarks(group)


def test_other_data_is_another_ranking_and_is_told(shelf: Any) -> None:
    runs = [shelf.put("one", ONE), shelf.put("other", TWO, **OTHER_DATA), shelf.put("three", ONE)]
    found = compare(runs)
    assert [group.runs for group in found.groups] == [["one", "three"], ["other"]]
    statement = words.statement(found)
    assert statement is not None
    assert "NOT to be compared" in statement
    assert "other on gsm8k: 60 sequences" in statement
    for text in (shown(found), markdown.render(found), html.render(found)):
        assert "NOT to be compared" in " ".join(text.split())
    assert words.statement(compare(runs[::2])) is None


@pytest.mark.parametrize(
    ("update", "together"),
    [
        ({}, True),
        ({"data": {"eval": {"sources": [{"adapter": "gsm8k", "digests": ["34"]}]}}}, False),
        ({"recipe": {"steps": [], "evaluation": {"limit": 10}}}, False),
        ({"recipe": {"steps": [], "data": {"mask_prompt": True}}}, False),
    ],
)
def test_reports_without_a_digest_are_compared_by_what_makes_the_data(
    shelf: Any, update: dict[str, Any], together: bool
) -> None:
    one = shelf.put("one", ONE)
    other = shelf.put("other", ONE, evaluation_data=None, **update)
    assert len(compare([one, other]).groups) == (1 if together else 2)


def test_without_losses_by_sequence_there_are_no_intervals(shelf: Any) -> None:
    found = compare([shelf.put("one", ONE), shelf.put("two", TWO, steps=False)])
    ranking = found.groups[0].ranking
    assert ranking is not None
    assert ranking.no_intervals is not None
    assert "of two are not at hand" in ranking.no_intervals
    assert len(ranking.entries) == 5


def test_runs_that_were_not_evaluated_are_not_ranked(shelf: Any) -> None:
    directory = shelf.put("one", ONE)
    text = (directory / "report.json").read_text()
    bare = re.sub(r'"metrics":\{[^}]*\}', '"metrics":null', text)
    (directory / "report.json").write_text(bare)
    found = compare([directory, shelf.put("two", TWO)])
    first, second = found.groups
    assert (first.evaluation, first.ranking, first.fronts) == ("not evaluated", None, [])
    assert second.ranking is not None
    assert words.statement(found) is None
    assert "one: the models were not evaluated, and are not ranked." in shown(found)
    html.render(found)


BENCHMARK = {
    "runtime": "torchao",
    "prefill_tokens_per_s": 100.0,
    "decode_tokens_per_s": 10.0,
    "latency_ms_p50": 100.0,
    "latency_ms_p95": 110.0,
    "peak_rss_bytes": 1_000_000,
    "batch_size": 1,
    "prompt_tokens": 256,
    "decode_tokens": 32,
    "threads": 2,
    "rounds": 3,
}


def measured(directory: Path, cpu_model: str | None = None, **shape: int) -> Path:
    """The same run, benchmarked."""
    report = json.loads((directory / "report.json").read_text())
    for place, row in enumerate(report["models"]):
        row["benchmark"] = {**BENCHMARK, "decode_tokens_per_s": 10.0 + place, **shape}
    report["environment"]["cpu_model"] = cpu_model or report["environment"]["cpu_model"]
    (directory / "report.json").write_text(json.dumps(report))
    return directory


def test_speeds_are_compared_on_one_machine_and_one_shape_only(shelf: Any) -> None:
    one = measured(shelf.put("one", ONE))
    same = compare([one, measured(shelf.put("two", TWO))]).groups[0]
    assert same.speeds is None
    assert [front.cost for front in same.fronts] == ["size_bytes", "decode_tokens_per_s"]
    elsewhere = compare([one, measured(shelf.put("three", TWO), "M1")])
    (group,) = elsewhere.groups
    assert group.speeds == "decode speeds were measured on different machines"
    assert [front.cost for front in group.fronts] == ["size_bytes"]
    assert html.render(elsewhere).count("<svg") == 1
    assert [item.key for item in elsewhere.environment] == ["cpu_model"]
    longer = compare([one, measured(shelf.put("four", TWO), prompt_tokens=512)]).groups[0]
    assert longer.speeds == "decode speeds were measured on inputs of different shape"


def test_only_what_differs_is_listed(shelf: Any) -> None:
    steps = [{"name": "tuned", "lr": 1e-4, "deep": {"a": [1, 2]}}, {"name": "ptq", "stage": "x"}]
    other = [{"name": "tuned", "lr": 2e-4, "deep": {"a": [1, 2]}}]
    one = shelf.put("one", ONE, recipe={"name": "one", "seed": 0, "steps": steps})
    two = shelf.put("two", ONE, recipe={"name": "two", "seed": 0, "steps": other})
    found = compare([one, two])
    assert {item.key: item.values for item in found.recipes} == {
        "steps.tuned.lr": {"one": "0.0001", "two": "0.0002"},
        "steps.ptq": {"one": "x", "two": "–"},
    }
    assert found.environment == []
    assert words.environment(found) is None
    (group,) = compare([one]).groups
    assert compare([one]).recipes == []
    assert group.ranking is not None


def test_text_from_outside_is_escaped(shelf: Any) -> None:
    evil = "<script>x</script>|[a](b)"
    directory = shelf.put("one", {"tuned": 1.8, "ptq-rtn": 2.0})
    text = (directory / "report.json").read_text().replace('"ptq-rtn"', f'"{evil}"')
    (directory / "report.json").write_text(text)
    found = compare([directory])
    assert "<script>" not in html.render(found)
    assert "\\<script\\>x\\</script\\>\\|" in markdown.render(found)
    assert "<script>x" in shown(found)


def test_a_page_is_whole_and_loads_nothing(shelf: Any) -> None:
    found = compare([shelf.put("one", ONE), shelf.put("two", TWO, **OTHER_DATA)])
    text = html.render(found)
    assert text.count("<svg") == 2
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert "http" not in text.replace("http-equiv", "")
    assert html.render(found) == text
    tables = re.findall(r'<div class="scroll"[^>]*tabindex[^>]*>\s*<table', text)
    assert text.count("<table") == len(tables)
