from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from quantship.reporting import figures, svg
from quantship.reporting.labels import Box
from quantship.reporting.schema import Report

IN_A_NEW_PROCESS = """
import sys
from quantship.reporting.figures import draw
from quantship.reporting.schema import Report
print("".join(figure.svg for figure in draw(Report.model_validate_json(sys.stdin.read()))), end="")
"""


def texts(drawing: figures.Drawing) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(drawing.svg).iter("text")]


def test_all_figures_of_a_whole_run(report: Report) -> None:
    titles = [drawing.title for drawing in figures.draw(report)]
    assert titles == [
        "Accuracy against size",
        "Accuracy against decode speed",
        "Speed on each runtime",
        "Training loss",
    ]


def test_figures_are_the_same_in_every_process(report: Report) -> None:
    there = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS],
        input=report.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONIOENCODING": "utf-8"},
    ).stdout
    assert there == "".join(drawing.svg for drawing in figures.draw(report))


def test_figures_name_and_describe_themselves(report: Report) -> None:
    for drawing in figures.draw(report):
        root = ElementTree.fromstring(drawing.svg)
        title, description = root[0], root[1]
        assert (title.tag, title.text) == ("title", drawing.title)
        assert description.tag == "desc"
        assert "qat-w8a8" in (description.text or "")
        assert root.get("role") == "img"
        assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"


def test_ids_are_unique_on_a_page_and_references_resolve(report: Report) -> None:
    roots = [ElementTree.fromstring(drawing.svg) for drawing in figures.draw(report)]
    elements = [element for root in roots for element in root.iter()]
    ids = [element.get("id") for element in elements if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in elements:
        if href := element.get("href"):
            assert href.removeprefix("#") in ids
        for reference in svg.REFERENCE.findall(" ".join(element.attrib.values())):
            assert reference in ids


def test_colours_follow_the_page(report: Report) -> None:
    for drawing in figures.draw(report):
        assert "var(--c" in drawing.svg
        assert "currentColor" in drawing.svg
        for element in ElementTree.fromstring(drawing.svg).iter():
            # Every colour left is the fallback inside a variable.
            style = element.get("style", "")
            assert style.count("#") == style.count(", #") + style.count("url(#"), style


def test_every_compared_model_is_labelled(report: Report) -> None:
    labels = texts(figures.draw(report)[0])
    for row in report.models:
        assert (row.name in labels) == (row.group != "baseline")


def test_ptq_and_qat_of_one_scheme_differ_in_colour(report: Report) -> None:
    places = figures.colours(report)
    assert len({places["ptq"], places["qat"], places["finetune"]}) == 3


def test_labels_do_not_cover_one_another(report: Report) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

    from quantship.reporting.labels import Label, place

    figure = Figure(figsize=(9, 5), dpi=72)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    place(axes, [Label(5, 5 + step / 5, f"model-number-{step}", svg.INK) for step in range(6)])
    boxes = []
    for note in axes.texts:
        assert isinstance(note, Annotation)
        extent = note.get_window_extent()
        x, y = note.get_position()
        origin = axes.transData.transform(note.xy)
        boxes.append(Box(origin[0] + x, origin[1] + y, extent.width, extent.height))
    assert len(boxes) == 6
    for one, other in combinations(boxes, 2):
        assert one.overlap(other) == pytest.approx(0, abs=1e-6)


def test_a_ruined_model_does_not_flatten_the_rest(report: Report) -> None:
    *others, last = report.models
    assert last.metrics is not None
    ruined = last.model_copy(
        update={"metrics": last.metrics.model_copy(update={"perplexity": 1_195_515.0})}
    )
    labels = texts(figures.draw(report.model_copy(update={"models": [*others, ruined]}))[0])
    assert "1,000,000" in labels  # a logarithmic axis
    assert "10" in labels


def test_speeds_are_written_on_the_bars(report: Report) -> None:
    labels = texts(figures.draw(report)[2])
    assert {"2.00×", "1.26×", "0.20×"} <= set(labels)


def test_mathematics_in_a_name_is_only_a_name(report: Report) -> None:
    name = r"a_b $\frac{ <i> & x"
    models = [row.model_copy(update={"name": name, "group": f"_{name}"}) for row in report.models]
    training = [curve.model_copy(update={"step": name}) for curve in report.training]
    renamed = report.model_copy(update={"models": models, "training": training})
    for drawing in figures.draw(renamed):
        assert any(name in text for text in texts(drawing))


def test_nothing_measured_draws_nothing(bare: Report) -> None:
    assert figures.draw(bare) == []


def test_a_single_float_model_is_a_figure(report: Report) -> None:
    alone = report.model_copy(update={"models": report.models[:1], "training": []})
    (drawing,) = figures.draw(alone)
    assert "baseline" in texts(drawing)
