"""Pages as a browser shows them: at the widths of a phone and a desk, in light and in dark."""

from __future__ import annotations

from pathlib import Path

import looks
import pytest
from devtools import Browser, Theme

PAGES = ("gate-failed", "gates-hold", "long-names", "comparison")
WIDTHS = (390, 1280)
THEMES: tuple[Theme, ...] = ("light", "dark")
BAD = """<!DOCTYPE html><html><body style="background: #fff">
<div style="width: 3000px">wide</div>
<p style="color: #aaa">pale</p><p id="a"></p><p id="a"></p><a href="#nowhere">x</a>
<svg width="9" height="9"></svg><img src="nothing.png">
<script>console.error("a complaint")</script></body></html>"""


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_loads_nothing_complains_of_nothing_and_can_be_read(
    chromium: Browser, written: dict[str, Path], name: str, width: int, theme: Theme
) -> None:
    file = written[name]
    with chromium.page(file, width=width, theme=theme) as page:
        assert page.ask("innerWidth") == width
        assert page.ask(looks.OVERFLOW) == []
        page.ask(looks.UNFOLD)
        assert page.ask(looks.OVERFLOW) == []
        contrast = page.ask(looks.CONTRAST)
        assert contrast["seen"] > 100
        assert contrast["found"] == []
        assert page.ask(looks.NAMELESS) == []
        assert page.ask(looks.DEAD_LINKS) == []
        assert page.ask(looks.SAME_IDS) == []
        assert page.requests == [file.resolve().as_uri()]
        assert page.complaints == []


def test_these_checks_find_what_they_look_for(chromium: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(BAD)
    with chromium.page(bad, width=390) as page:
        assert page.ask(looks.OVERFLOW)
        assert page.ask(looks.CONTRAST)["found"] == ["2.32: pale"]
        assert len(page.ask(looks.NAMELESS)) == 2
        assert page.ask(looks.DEAD_LINKS)
        assert page.ask(looks.SAME_IDS) == ["a"]
        assert (tmp_path / "nothing.png").as_uri() in page.requests
        assert any("a complaint" in one for one in page.complaints)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_theme_is_the_reader_s(chromium: Browser, written: dict[str, Path], width: int) -> None:
    backgrounds = {}
    for theme in THEMES:
        with chromium.page(written["gates-hold"], width=width, theme=theme) as page:
            paper = page.ask("getComputedStyle(document.body).backgroundColor")
            backgrounds[theme] = sum(map(int, paper.removeprefix("rgb(")[:-1].split(",")))
    assert backgrounds["light"] > 600 > 150 > backgrounds["dark"]


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
@pytest.mark.parametrize("name", ["gate-failed", "gates-hold"])
def test_the_verdict_is_on_the_first_screen(
    chromium: Browser, written: dict[str, Path], name: str, width: int, height: int
) -> None:
    with chromium.page(written[name], width=width, height=height) as page:
        bottoms = page.ask(
            "['.gates', '.card .value'].map(one => "
            "document.querySelector(one).getBoundingClientRect().bottom)"
        )
        assert max(bottoms) <= height


def test_a_screen_reader_is_given_every_figure_by_name(
    chromium: Browser, written: dict[str, Path]
) -> None:
    with chromium.page(written["gate-failed"], width=1280) as page:
        page.ask(looks.UNFOLD)
        figures = page.ask("document.querySelectorAll('svg[role=img]').length")
        images = [
            node
            for node in page.tree()
            if not node.get("ignored") and node["role"]["value"] in ("image", "img")
        ]
        assert len(images) == figures > 20
        assert all(node["name"]["value"].strip() for node in images)


def test_what_is_long_is_folded_and_opens(chromium: Browser, written: dict[str, Path]) -> None:
    with chromium.page(written["gate-failed"], width=1280) as page:
        before = page.ask("document.documentElement.scrollHeight")
        closed = page.ask("document.querySelectorAll('details:not([open])').length")
        page.ask(looks.UNFOLD)
        assert closed > 10
        assert page.ask("document.documentElement.scrollHeight") > 1.5 * before


def test_a_failed_gate_is_loud(chromium: Browser, written: dict[str, Path]) -> None:
    asked = "[...document.querySelectorAll('[role=alert]')].map(one => one.innerText).join()"
    with chromium.page(written["gate-failed"], width=1280) as page:
        said = page.ask(asked)
    assert "1 of 4 gates failed" in said
    assert "34.99 % above" in said
    assert "at most 2 % above finetune" in said
    with chromium.page(written["gates-hold"], width=1280) as page:
        assert page.ask(asked) == ""
        assert "All 3 gates hold" in page.ask("document.querySelector('.gates').innerText")
