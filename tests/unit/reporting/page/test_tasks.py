from __future__ import annotations

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

from quantship.reporting.evidence_schema import MetricFacts
from quantship.reporting.page import axis, metric_text, tasks
from quantship.reporting.page.axis import Axis
from quantship.reporting.recovery_schema import Estimate
from quantship.reporting.schema import Report

SHARE = MetricFacts(name="exact_match", better="higher", kind="share", judges=True)
PERPLEXITY = MetricFacts(name="perplexity", better="lower", kind="perplexity", judges=False)
KL = MetricFacts(name="kl_nats", better="lower", kind="nats", judges=False)
NUMBERS = st.floats(0.01, 1e5)


def certain(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value)


@given(st.lists(NUMBERS, min_size=1, max_size=6), st.booleans())
def test_an_axis_holds_every_interval_in_its_order(values: list[float], relative: bool) -> None:
    metric = PERPLEXITY if relative else KL
    scale = axis.of(metric, [certain(value) for value in values])
    assert scale.low <= min(values)
    assert scale.high >= max(values)
    places = [scale.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert 0 <= places[0] <= places[-1] <= 100


@given(NUMBERS, st.floats(1.1, 1e5), st.booleans())
def test_ticks_are_few_in_order_and_inside(low: float, ratio: float, log: bool) -> None:
    scale = Axis(low, low * ratio, log=log)
    ticks = scale.ticks()
    assert len(ticks) <= 7
    assert ticks == sorted(set(ticks))
    slack = 1e-6 * low * ratio
    assert all(low - slack <= tick <= low * ratio + slack for tick in ticks)
    assert ticks or log


def test_a_ruined_model_does_not_flatten_the_rest() -> None:
    scale = axis.of(PERPLEXITY, [certain(value) for value in (6.0, 7.0, 2e6)])
    assert scale.log
    assert scale.place(7.0) - scale.place(6.0) > 0.5
    assert not axis.of(PERPLEXITY, [certain(6.0), certain(7.0)]).log


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (SHARE, 0.0125, "+1.25 points"),
        (SHARE, -0.1, "-10.00 points"),
        (PERPLEXITY, 0.0191, "+1.91 %"),
        (PERPLEXITY, 1e-9, "0 %"),
        (KL, 0.0124, "+0.0124 nats"),
        (KL, -3.1e-6, "-3.1e-06 nats"),
    ],
)
def test_differences_have_a_sign_and_a_unit(metric: MetricFacts, value: float, text: str) -> None:
    assert metric_text.difference(metric, certain(value)) == text


def test_worse_is_down_where_higher_is_better_and_up_where_lower_is() -> None:
    assert metric_text.is_worse(SHARE, certain(-0.1))
    assert not metric_text.is_worse(SHARE, certain(0.1))
    assert metric_text.is_worse(PERPLEXITY, certain(0.1))


def test_every_model_of_a_task_has_a_line_against_its_float_model() -> None:
    report = samples.whole()
    for task in tasks.tasks(report):
        assert task.headline is not None
        names = [line.name for line in task.headline.lines]
        assert len(names) == (8 if task.title == "divergence" else len(report.models))
    gsm8k = tasks.tasks(report)[1].headline
    assert gsm8k is not None
    finetune = next(line for line in gsm8k.lines if line.name == "finetune")
    assert finetune.strip.reference is None
    assert finetune.strip.hollow
    for line in gsm8k.lines:
        assert line.strip.low <= line.strip.dot <= line.strip.high
        if "ptq" in line.name or "qat" in line.name:
            assert line.strip.reference == finetune.strip.dot
            assert line.change.endswith("points")
    assert gsm8k.over == "Against finetune"


def test_what_is_not_sure_is_not_loud() -> None:
    report = samples.whole()
    assert report.evidence is not None
    unsure = [
        one.model_copy(update={"difference": Estimate(value=-0.01, low=-0.03, high=0.01)})
        for one in report.evidence.contrasts
    ]
    evidence = report.evidence.model_copy(update={"contrasts": unsure})
    found = tasks.tasks(report.model_copy(update={"evidence": evidence}))[1].headline
    assert found is not None
    assert not any(line.sure for line in found.lines)


def test_few_examples_have_no_interval_and_no_difference() -> None:
    report = samples.whole()
    assert report.evidence is not None
    few = [task.model_copy(update={"num_examples": 3}) for task in report.evidence.tasks]
    evidence = report.evidence.model_copy(update={"tasks": few, "contrasts": []})
    found = tasks.tasks(report.model_copy(update={"evidence": evidence}))[1].headline
    assert found is not None
    assert found.over == ""
    assert {line.interval for line in found.lines} == {""}


def test_the_overview_has_a_dash_where_a_model_was_not_asked() -> None:
    found = tasks.overview(samples.whole())
    assert found is not None
    cells = {row.name: row.cells[-1][0] for row in found.rows}
    assert cells["finetune"] == "–"
    assert cells["qat-w4a16-g32"] == "0.0107"


def test_a_report_without_tasks_has_none(report: Report) -> None:
    assert tasks.tasks(report) == []
    assert tasks.overview(report) is None


def test_many_models_leave_later_plots_closed(report: Report) -> None:
    opened = [task.open for task in tasks.tasks(samples.whole())]
    assert opened == [False, True, True, True, False]
