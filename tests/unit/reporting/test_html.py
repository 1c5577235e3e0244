from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import samples

from quantship.reporting import html
from quantship.reporting.schema import Report

VOID = {"meta", "link", "br", "hr", "img", "input"}
LOADS = re.compile(
    r"""(?:src|href|srcset|data|action|poster)\s*=\s*["']?\s*(?:https?:)?//|"""
    r"""url\(\s*["']?(?!\#)|@import|<script""",
    re.IGNORECASE,
)


class Page(HTMLParser):
    """Collects what a browser would see, and fails on tags that do not balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.content: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.content.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.content)


def test_tags_balance_and_every_model_is_shown(report: Report) -> None:
    page = Page(html.render(report))
    for row in report.models:
        assert row.name in page.content
    assert page.tags.count("svg") == 4


def test_nothing_is_loaded_from_anywhere(report: Report) -> None:
    text = html.render(report)
    assert LOADS.search(text) is None
    assert "http:" not in text
    assert "https:" not in text
    assert "default-src 'none'" in text


def test_the_search_for_loads_finds_them() -> None:
    for bad in (
        '<img src="https://x.example/a.png">',
        "<link href=//x.example/a.css>",
        "a { background: url(https://x.example/a.png) }",
        "@import 'a.css'",
        "<script>",
    ):
        assert LOADS.search(bad), bad


def test_ids_are_unique(report: Report) -> None:
    ids = [value for key, value in Page(html.render(report)).attributes if key == "id"]
    assert len(ids) == len(set(ids))


def test_text_from_outside_is_escaped(report: Report) -> None:
    evil = """<script>alert("x")</script><img src=//x.example onerror='alert(1)'>"""
    models = [
        row.model_copy(update={"name": evil, "group": evil, "scheme": evil, "lowering": evil})
        for row in report.models
    ]
    poisoned = report.model_copy(
        update={
            "name": evil,
            "models": models,
            "notes": [evil],
            "recipe": {"description": evil},
            "data": {evil: evil, "train": {evil: evil}},
            "training": [report.training[0].model_copy(update={"step": evil, "stage": evil})],
        }
    )
    text = html.render(poisoned)
    page = Page(text)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not any(key.startswith("on") for key, _ in page.attributes)
    assert page.content.count(evil) >= len(models)


def test_the_contents_lead_to_every_section(report: Report) -> None:
    for one in (report, samples.whole()):
        text = html.render(one)
        assert re.findall(r'<li><a href="#([^"]+)">', text) == re.findall(
            r'<section aria-labelledby="([a-z]+)">\s*<h2 id="\1"', text
        )
        linked = re.findall(r'<li><a href="[^"]+">([^<]+)</a>', text)
        headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", text)
        assert linked == [title for title in headings if "gates" not in title]


def test_everything_that_was_measured_is_shown_and_loads_nothing() -> None:
    whole = samples.whole()
    text = html.render(whole)
    page = Page(text)
    assert LOADS.search(text) is None
    ids = [value for key, value in page.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    assert whole.evidence is not None
    for task in whole.evidence.tasks[1:]:
        assert task.name in page.content
    for side in whole.evidence.generations:
        assert side.prompt.strip() in page.content
    assert "34 lost, 5 won" in text
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", text)
    assert headings[:6] == [
        "1 of 4 gates failed",
        "Models",
        "Accuracy, size and speed",
        "Tasks",
        "Answers side by side",
        "Examples lost against the float model",
    ]
    assert {"Rounding error by layer", "Input ranges by layer"} < set(headings)


def test_what_models_say_is_only_text() -> None:
    evil = "</p><script>alert(1)</script> <img src=//x.example onerror='alert(1)'>"
    whole = samples.whole()
    text = html.render(
        Report.model_validate_json(
            whole.model_dump_json().replace("clips in", json.dumps(evil)[1:-1])
        )
    )
    page = Page(text)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert "<mark>*</mark>" in text


def test_light_and_dark_and_phone(report: Report) -> None:
    text = html.render(report)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    for table in re.findall(r'<div class="scroll"[^>]*>\s*<table', text):
        assert "tabindex" in table
    assert text.count("<table") == len(re.findall(r'<div class="scroll"[^>]*>\s*<table', text))


def test_all_sections_are_there(report: Report) -> None:
    text = html.render(report)
    assert re.findall(r"<h2[^>]*>([^<]+)</h2>", text) == [
        "Models",
        "Accuracy, size and speed",
        "Speed",
        "Training",
        "Data",
        "Notes",
        "Environment",
        "How to repeat",
    ]
    assert "MB is 1,000,000 bytes" in text
    assert "adapter: gsm8k" in text


def test_wrong_codes_are_loud(report: Report, broken: Report) -> None:
    text = html.render(broken)
    assert 'role="alert"' in text
    assert '<td class="alarm">NO<small>of 211</small></td>' in text
    assert 'role="alert"' not in html.render(report)


def test_nothing_measured_breaks_nothing(bare: Report) -> None:
    page = Page(html.render(bare))
    assert "svg" not in page.tags
    assert "finetune-onnx" in page.content
    Page(html.render(bare.model_copy(update={"models": [], "recipe": {}})))


def test_the_same_report_is_the_same_page(report: Report) -> None:
    assert html.render(report) == html.render(report)


def test_what_was_recovered_is_shown_as_figure_and_table(recovered: Report) -> None:
    text = html.render(recovered)
    page = Page(text)
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", text)
    assert headings[:3] == ["Models", "Accuracy, size and speed", "Loss recovered by QAT"]
    assert page.tags.count("svg") == 5
    section = text.split("Loss recovered by QAT</h2>")[1].split("</section>")[0]
    assert section.count("<tr>") == 1 + 2 * len(recovered.recovery)
    assert "<td>77 % (75–80 %)</td>" in section
    assert LOADS.search(text) is None
    ids = [value for key, value in page.attributes if key == "id"]
    assert len(ids) == len(set(ids))


def test_a_share_that_is_not_defined_is_said_and_not_drawn(recovered: Report) -> None:
    reason = {"share": None, "undefined": "ptq lost <b>nothing</b>"}
    entries = [
        entry.model_copy(
            update={"recovered": entry.recovered.model_copy(update=reason), "control": None}
        )
        for entry in recovered.recovery
    ]
    text = html.render(recovered.model_copy(update={"recovery": entries}))
    assert "ptq lost &lt;b&gt;nothing&lt;/b&gt;" in text
    assert "<td>not defined</td>" in text
    assert Page(text).tags.count("svg") == 4
