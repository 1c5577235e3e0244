from __future__ import annotations

from xml.etree import ElementTree

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

from quantship.reporting.layers_schema import HeldRange, HeldRanges, Layers, RoundingErrors
from quantship.reporting.page import errors, layer_names, panels, ranges
from quantship.reporting.schema import Report


def with_layers(**changes: object) -> Report:
    report = samples.whole()
    assert report.layers is not None
    return report.model_copy(update={"layers": report.layers.model_copy(update=changes)})


def lines(svg: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter("polyline"))


def inside(svg: str) -> bool:
    """Whether all that is drawn lies on the canvas."""
    corners = [
        tuple(map(float, pair.split(",")))
        for one in ElementTree.fromstring(svg).iter()
        for pair in one.get("points", "").split()
    ]
    return all(0 <= x <= panels.WIDTH and 0 <= y <= panels.HEIGHT for x, y in corners)


def test_each_kind_of_layer_has_a_panel_and_each_scheme_a_set() -> None:
    static, four = errors.sets(samples.whole())
    assert (static.title, four.title) == ("w8a8-static", "w4a16-g32")
    assert [panel.title for panel in four.panels] == list(samples.KINDS)
    assert [entry.names for entry in four.legend] == ["ptq-w4a16-g32", "ptq-w4a16-g32-gptq"]
    for panel in (*static.panels, *four.panels):
        assert len(lines(panel.svg)) == (2 if panel in four.panels else 1)
        assert inside(panel.svg)
        assert ElementTree.fromstring(panel.svg).get("aria-label", "").startswith("Rounding error")


def test_models_with_the_same_errors_share_a_line() -> None:
    layers = {"model.layers.0.mlp": 0.1, "model.layers.1.mlp": 0.2}
    same = [RoundingErrors(model=name, layers=layers) for name in ("one", "two")]
    (found,) = errors.sets(with_layers(errors=same))
    assert [entry.names for entry in found.legend] == ["one, two"]


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=9),
    st.lists(st.floats(0, 10), min_size=1, max_size=9),
)
def test_any_errors_can_be_drawn(one: list[float], other: list[float]) -> None:
    models = [
        RoundingErrors(
            model=name, layers={f"layers.{n}.up": error for n, error in enumerate(found)}
        )
        for name, found in (("one", one), ("two", other))
    ]
    for found in errors.sets(with_layers(errors=models)):
        assert all(inside(panel.svg) for panel in found.panels)


@given(st.lists(st.tuples(st.floats(-1e4, 0), st.floats(0, 1e4)), min_size=1, max_size=9))
def test_any_ranges_can_be_drawn(ends: list[tuple[float, float]]) -> None:
    held = {f"layers.{n}.up": HeldRange(low=low, high=high) for n, (low, high) in enumerate(ends)}
    models = [HeldRanges(model="one", seen=None, layers=held)]
    for found in ranges.sets(with_layers(ranges=models, seen=[])):
        assert all(inside(panel.svg) for panel in found.panels)
        assert all(len(lines(panel.svg)) == 2 for panel in found.panels)


def test_layers_of_one_input_share_a_panel_with_its_band() -> None:
    (found,) = ranges.sets(samples.whole())
    titles = [panel.title for panel in found.panels]
    assert titles == [
        "self_attn.q_proj, k_proj, v_proj, gate_proj, up_proj",
        "self_attn.o_proj",
        "mlp.down_proj",
    ]
    for panel in found.panels:
        assert panel.svg.count('<polygon class="band"') == 2


def test_an_outlier_bends_the_scale_so_that_the_rest_is_seen() -> None:
    (found,) = ranges.sets(samples.whole())
    plain, bent = found.panels[0].svg, found.panels[-1].svg
    assert ">1,000</text>" in bent
    assert ">10</text>" in bent
    assert ">1,000</text>" not in plain


def test_names_are_only_text() -> None:
    evil = 'x"><script>'
    models = [RoundingErrors(model=evil, layers={f"layers.{evil}.0.{evil}": 0.1})]
    (found,) = errors.sets(with_layers(errors=models))
    assert "<script" not in found.panels[0].svg


def test_layers_in_no_block_are_named_instead_of_drawn() -> None:
    models = [RoundingErrors(model="mlp", layers={"fc": 0.1, "out": 0.25})]
    report = with_layers(errors=models)
    assert errors.sets(report) == []
    assert errors.outside(report) == "In no block, and not drawn: fc (10 %), out (25 %)."
    table = errors.table(report)
    assert table is not None
    assert table.rows == (("mlp", "17.5 %", "out 25 %, fc 10 %"),)


def test_nothing_known_is_no_section(report: Report) -> None:
    assert (errors.sets(report), errors.table(report), ranges.sets(report)) == ([], None, [])
    empty = report.model_copy(update={"layers": Layers(errors=[], seen=[], ranges=[])})
    assert (errors.sets(empty), errors.table(empty), ranges.sets(empty)) == ([], None, [])


@pytest.mark.parametrize(
    ("name", "kind", "block"),
    [
        ("model.layers.3.mlp.up_proj", "mlp.up_proj", 3),
        ("transformer.h.11.attn.c_attn", "attn.c_attn", 11),
        ("encoder.4", "encoder", 4),
    ],
)
def test_names_tell_kind_and_block(name: str, kind: str, block: int) -> None:
    assert layer_names.by_kind({name: 1.0}) == {kind: {block: 1.0}}


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_round_numbers_are_two_to_seven_and_inside(low: float, width: float) -> None:
    found = panels.round_numbers(low, low + width)
    slack = 1e-6 * max(abs(low), width)
    assert 1 <= len(found) <= 8
    assert all(low - slack <= one <= low + width + slack for one in found)
