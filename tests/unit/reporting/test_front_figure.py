from __future__ import annotations

from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from quantship.reporting import canvas, figures, html, label_column, svg
from quantship.reporting.labels import Box, Label
from quantship.reporting.schema import Report


def texts(drawing: canvas.Drawing) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(drawing.svg).iter("text")]


@given(st.lists(st.floats(0, 300), min_size=1, max_size=20))
def test_names_of_a_column_keep_their_order_and_their_distance(wanted: list[float]) -> None:
    heights = label_column.spread(np.sort(wanted), 0.0, 300.0)
    assert len(heights) == len(wanted)
    assert all(above - below >= label_column.LINE_PT - 1e-6 for below, above in pairwise(heights))
    assert heights[0] >= 0
    assert heights[-1] <= 300


def test_names_that_stand_free_stay_where_they_are() -> None:
    wanted = np.array([10.0, 50.0, 120.0])
    assert label_column.spread(wanted, 0.0, 300.0) == pytest.approx(wanted)
    assert label_column.spread(np.array([50.0, 50.0]), 0.0, 300.0) == pytest.approx([43.5, 56.5])


@pytest.mark.parametrize("far", [30, 95])
@pytest.mark.parametrize("count", [15, 40])
def test_names_in_a_column_cover_neither_each_other_nor_points(count: int, far: int) -> None:
    figure, axes = canvas.axes(label_column.height_pt(count))
    generator = np.random.default_rng(count)
    marks = [
        Label(float(x), float(y), f"ptq-w4a16-g128-model{place}", svg.INK)
        for place, (x, y) in enumerate(generator.uniform((5, 2), (far, 3), (count, 2)))
    ]
    for mark in marks:
        axes.plot(mark.x, mark.y, "o")
    axes.set_xlim(0, 100)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    label_column.place(axes, marks)
    figure.draw_without_rendering()
    assert len(axes.texts) == count
    boxes = []
    for note in axes.texts:
        extent = Text.get_window_extent(note)  # an annotation's own holds its line
        text = Box(extent.x0 + 1, extent.y0 + 1, extent.width - 2, extent.height - 2)
        boxes.append(text)
    for one, other in combinations(boxes, 2):
        assert one.overlap(other) == 0
    for mark in marks:
        x, y = axes.transData.transform((mark.x, mark.y))
        assert all(Box(x - 2, y - 2, 4, 4).overlap(box) == 0 for box in boxes)
    page = figure.get_window_extent()
    assert all(box.left + box.width <= page.x1 and box.bottom >= page.y0 for box in boxes)


def test_all_models_of_a_large_sweep_are_named(large_sweep: Report) -> None:
    drawing = figures.draw(large_sweep)[0]
    assert len(large_sweep.models) == 36
    assert {row.name for row in large_sweep.models} <= set(texts(drawing))


def test_the_front_is_drawn_told_and_explained(sweep: Report, report: Report) -> None:
    drawing = figures.draw(sweep)[0]
    assert "Pareto front" in texts(drawing)
    assert "Pareto front" in drawing.caption
    description = ElementTree.fromstring(drawing.svg)[1].text or ""
    (front,) = sweep.fronts
    assert description.count("on the front") == len(front.points)
    assert "Pareto front" not in texts(figures.draw(report)[0])  # a report of an earlier version


def test_a_front_s_model_that_is_not_drawn_draws_no_line_to_nowhere(sweep: Report) -> None:
    (front,) = sweep.fronts
    gone = front.points[0].model_copy(update={"name": "left-out"})
    odd = front.model_copy(update={"points": [gone, *front.points[1:]]})
    assert figures.draw(sweep.model_copy(update={"fronts": [odd]}))


def test_ranking_fallbacks_and_seeds_are_on_the_page(sweep: Report) -> None:
    text = html.render(sweep)
    assert ">Ranking</h2>" in text
    assert "its Hessian is not positive definite: rounded to nearest" in text
    assert "Other calibration data" in text
    assert text.count("<table") == text.count('<div class="scroll"') - text.count("<figure>")
