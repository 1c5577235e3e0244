from __future__ import annotations

from xml.etree import ElementTree

import samples

from quantship.reporting.page import task_fronts


def test_each_task_is_plotted_against_size_and_speed() -> None:
    found = task_fronts.draw(samples.whole(), but="data")
    assert [one.title for one in found] == [
        "gsm8k exact match",
        "wikitext perplexity",
        "sst2 accuracy",
        "divergence kl",
    ]
    for one in found:
        assert [drawing.title for drawing in one.drawings] == [
            f"{one.title} against size",
            f"{one.title} against decode speed",
        ]


def test_the_front_rises_where_more_is_better_and_falls_where_less_is() -> None:
    gsm8k, wikitext, *_ = task_fronts.draw(samples.whole(), but="data")
    for one, corner in ((gsm8k, "Upper left"), (wikitext, "Lower left")):
        drawing = one.drawings[0]
        assert drawing.caption.startswith(f"{corner} is better")
        spoken = ElementTree.fromstring(drawing.svg)[1].text or ""
        on_front = [part.split(" on ")[0] for part in spoken.split("; ") if "on the front" in part]
        assert on_front == ["finetune", "ptq-w8a8-static", "qat-w4a16-g32"]


def test_a_model_with_wrong_codes_is_on_no_front() -> None:
    report = samples.whole()
    rows = []
    for row in report.models:
        if row.name == "qat-w4a16-g32-onnx":
            assert row.parity is not None
            wrong = row.parity.model_copy(update={"codes_equal": False})
            row = row.model_copy(update={"parity": wrong, "size_bytes": 1})
        rows.append(row)
    one = task_fronts.draw(report.model_copy(update={"models": rows}), but="data")[0]
    spoken = ElementTree.fromstring(one.drawings[0].svg)[1].text or ""
    assert "qat-w4a16-g32-onnx on onnxruntime" in spoken
    parts = [part for part in spoken.split("; ") if part.startswith("qat-w4a16-g32-onnx")]
    assert all("on the front" not in part for part in parts)


def test_one_model_is_no_plot() -> None:
    report = samples.whole()
    alone = report.model_copy(update={"models": report.models[:1]})
    assert task_fronts.draw(alone, but="data") == []
