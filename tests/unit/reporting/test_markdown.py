from __future__ import annotations

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantship.reporting import markdown, table
from quantship.reporting.schema import Report

CELL_BORDER = re.compile(r"(?<!\\)(?:\\\\)*\|")


def model_lines(text: str) -> list[str]:
    block = text.split("## Models\n\n")[1].split("\n\n")[0]
    return block.splitlines()


def test_every_model_has_a_row(report: Report) -> None:
    _, _, *lines = model_lines(markdown.render(report))
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == [
        row.name for row in report.models
    ]


def test_values_stand_beside_their_change(report: Report) -> None:
    (line,) = (li for li in model_lines(markdown.render(report)) if "| qat-w8a8-onnx |" in li)
    assert "| w8a8 (integer) | 136.9 | 3.93× | 6.125 (+0.21 %) | 61.18 |" in line
    assert "| 735 (1.26×) | 105 (2.00×) | 43 | 486.0 | 211/211 | 0.0712 | 99.43 | 4.1e-04 |" in line


def test_all_sections_are_there(report: Report) -> None:
    headings = [li for li in markdown.render(report).splitlines() if li.startswith("#")]
    assert headings == [
        "# smollm2-135m-w8a8-qat",
        "## Models",
        "## Will it be faster here?",
        "## Data",
        "## Training",
        "## Notes",
        "## How to repeat",
    ]


def test_the_unit_is_stated(report: Report) -> None:
    assert "MB is 1,000,000 bytes" in markdown.render(report)


def test_wrong_codes_are_loud(report: Report, broken: Report) -> None:
    text = markdown.render(broken)
    assert "> **WARNING: qat-w4a16-g32-onnx" in text
    assert "⚠️ **NO (of 211)**" in text
    assert "WARNING" not in markdown.render(report)


def test_nothing_measured_is_dashes(bare: Report) -> None:
    for line in model_lines(markdown.render(bare))[2:]:
        assert line.count("–") >= 10


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(name=st.text(min_size=1))
def test_no_name_breaks_the_table(report: Report, name: str) -> None:
    renamed = report.models[0].model_copy(update={"name": name})
    lines = model_lines(
        markdown.render(report.model_copy(update={"models": [renamed, *report.models[1:]]}))
    )
    assert len(lines) == 2 + len(report.models)
    assert {len(CELL_BORDER.findall(line)) for line in lines} == {len(table.COLUMNS) + 1}


def test_a_recipe_cannot_close_its_own_fence(report: Report) -> None:
    text = markdown.render(report.model_copy(update={"recipe": {"description": "a\n```\nb"}}))
    assert text.rstrip().endswith("\n````")


def test_what_was_recovered_has_its_section(report: Report, recovered: Report) -> None:
    text = markdown.render(recovered)
    section = text.split("## Loss recovered by QAT\n\n")[1].split("\n\n## ")[0]
    sentences, rows, explanation, remarks = section.split("\n\n")
    assert len(sentences.splitlines()) == len(recovered.recovery)
    assert len(rows.splitlines()) == 2 + 2 * len(recovered.recovery)
    assert "| qat-w4a16-g32: 6.571 | 77 % (75–80 %) | ptq-w4a16-g32: 8.402, rtn |" in rows
    assert "10,000 resamples of the 400 evaluated sequences" in explanation
    assert "learning_rate is 0.0001 in tune" in remarks
    assert "recovered" not in markdown.render(report)


def test_a_sweep_is_ranked_and_its_fallbacks_are_named(report: Report, sweep: Report) -> None:
    text = markdown.render(sweep)
    ranking = text.split("## Ranking\n\n")[1].split("\n\n## ")[0]
    assert sweep.ranking is not None
    assert ranking.split("\n\n")[0].count("\n") == 1 + len(sweep.ranking.entries)
    (front,) = sweep.fronts
    best = ranking.split("### Best at their size\n\n")[1]
    assert best.count("\n") == 1 + len(front.points)
    made = text.split("## How the integers were found\n\n")[1].split("\n\n## ")[0]
    assert "- ptq-w4a16-g128-gptq-seed1: layers.3.mlp.up_proj: its Hessian" in made
    assert "Ranking" not in markdown.render(report)
