from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from quantship.reporting import html, markdown, search_figure, search_text
from quantship.reporting.schema import Report
from quantship.reporting.search_schema import Choice, FrontPoint, Search, SearchedLayer

KINDS = ("self_attn.q_proj", "mlp.down_proj")


def choice(candidate: str | None, bits: float, kl: float) -> Choice:
    return Choice(
        candidate=candidate, bits=bits, cost=bits, predicted_nats=kl, kl_nats=kl, loss_nats=kl / 2
    )


def layer(name: str, candidate: str | None, bits: int) -> SearchedLayer:
    return SearchedLayer(
        name=name,
        candidate=candidate,
        code_bits=bits,
        group_size=32,
        weights=1024,
        predicted_nats=1e-3,
    )


@pytest.fixture
def search() -> Search:
    layers = [layer("model.embed_tokens", None, 8)]
    layers += [
        layer(f"model.layers.{block}.{kind}", "fine" if block else "<coarse>", 8 if block else 4)
        for block in range(3)
        for kind in KINDS
    ]
    return Search(
        name="mixed",
        constraint="target_bits",
        limit=5.0,
        unit="bits a weight",
        runtime="onnxruntime",
        measure="fisher",
        sequences=16,
        tokens=1500,
        size_bytes=None,
        result=choice(None, 4.9, 0.02),
        uniform=[choice("fine", 8.0, 0.001), choice("<coarse>", 4.5, 0.1)],
        front=[FrontPoint(cost=4.5, harm=0.1), FrontPoint(cost=8.0, harm=0.001)],
        bound=0.02,
        gap=0.0,
        attempts=[],
        layers=layers,
    )


@pytest.fixture
def report(recovered: Report, search: Search) -> Report:
    return recovered.model_copy(update={"searches": [search]})


def texts(svg: str) -> list[str]:
    return [(element.text or "").strip() for element in ElementTree.fromstring(svg).iter("text")]


def test_layers_are_drawn_by_block_and_kind(search: Search) -> None:
    bits, front = search_figure.draw(search)
    labels = texts(bits.svg)
    assert {*KINDS, "0", "1", "2", "fine", "<coarse>"} <= set(labels)
    assert "embed_tokens" not in bits.svg
    assert {"mixed", "fine", "<coarse>"} <= set(texts(front.svg))


def test_a_model_without_blocks_has_no_picture_of_them(search: Search) -> None:
    flat = [one.model_copy(update={"name": "first"}) for one in search.layers[1:2]]
    drawings = search_figure.draw(search.model_copy(update={"layers": flat}))
    assert len(drawings) == 1


def test_a_table_sets_what_was_found_beside_uniform_choices(report: Report) -> None:
    table = search_text.table(report)
    assert table is not None
    assert [row[1] for row in table.rows] == ["found", "<coarse>", "fine"]
    assert table.rows[0][2] == "4.90"
    (remark,) = search_text.remarks(report)
    assert "at most 5 bits a weight" in remark
    assert "4 × fine, 2 × <coarse>" in remark


@pytest.mark.parametrize(
    ("constraint", "unit", "limit", "words"),
    [
        ("max_bytes", "bytes", 90e6, "at most 90.0 MB on onnxruntime"),
        ("max_latency_ms", "ms a token", 12.5, "at most 12.5 ms a token on onnxruntime"),
        ("max_perplexity_increase", "bytes", 0.02, "perplexity at most 0.02 of itself higher"),
    ],
)
def test_every_bound_is_told(
    search: Search, constraint: Any, unit: str, limit: float, words: str
) -> None:
    changes = {"constraint": constraint, "unit": unit, "limit": limit}
    assert search_text.limit(search.model_copy(update=changes)) == words


def test_the_report_shows_it_in_all_its_forms(report: Report) -> None:
    page, text = html.render(report), markdown.render(report)
    for written in (page, text):
        assert "Bits by layer" in written
        assert "mixed" in written
    assert 'id="bits-mixed' in page or "bits-mixed" in page
    assert "&lt;coarse&gt;" in page
    assert "<coarse>" not in page
    assert search_text.table(report.model_copy(update={"searches": []})) is None
