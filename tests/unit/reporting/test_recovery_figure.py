from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from quantship.reporting import recovery_figure
from quantship.reporting.recovery_schema import Estimate
from quantship.reporting.schema import Report


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def with_shares(report: Report, share: Estimate | None) -> Report:
    reason = None if share else "nothing was lost"
    entries = [
        entry.model_copy(
            update={
                "recovered": entry.recovered.model_copy(
                    update={"share": share, "undefined": reason}
                ),
                "control": None,
            }
        )
        for entry in report.recovery
    ]
    return report.model_copy(update={"recovery": entries})


def draw(report: Report) -> str:
    drawing = recovery_figure.draw(report)
    assert drawing is not None
    return drawing.svg


def test_every_share_is_drawn_with_its_interval(recovered: Report) -> None:
    labels = texts(draw(recovered))
    for interval in ("95 % (51–163 %)", "85 % (47–135 %)", "77 % (75–80 %)", "77 % (74–79 %)"):
        assert interval in labels
    assert {"PTQ", "float", "against finetune", "against tune"} <= set(labels)


def test_it_describes_itself_and_follows_the_page(recovered: Report) -> None:
    root = ElementTree.fromstring(draw(recovered))
    assert "qat-w4a16-g32 recovers 77 %" in (root[1].text or "")
    for element in root.iter():
        style = element.get("style", "")
        assert style.count("#") == style.count(", #") + style.count("url(#"), style


def test_it_is_the_same_every_time(recovered: Report) -> None:
    assert draw(recovered) == draw(recovered)


@pytest.mark.parametrize(
    "share",
    [
        Estimate(value=14.0, low=3.0, high=90.0),
        Estimate(value=-40.0, low=-90.0, high=-3.0),
        Estimate(value=0.5, low=-30.0, high=30.0),
    ],
)
def test_what_lies_far_off_flattens_nothing(recovered: Report, share: Any) -> None:
    labels = texts(draw(with_shares(recovered, share)))
    assert {"0 %", "100 %"} <= set(labels)
    assert "1,000 %" not in labels
    assert any(label.startswith(f"{share.value * 100:,.0f} % (") for label in labels)


def test_nothing_to_draw_is_no_figure(report: Report, recovered: Report) -> None:
    assert recovery_figure.draw(report) is None
    assert recovery_figure.draw(with_shares(recovered, None)) is None
