from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from quantship.reporting import table as model_table
from quantship.reporting import terminal
from quantship.reporting.schema import Report


def shown(report: Report, width: int) -> str:
    console = Console(width=width, file=StringIO(), color_system=None)
    console.print(terminal.table(report))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [100, 130, 160])
def test_every_model_and_value_fits(report: Report, width: int) -> None:
    text = shown(report, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for row in model_table.rows(report):
        for title, cell in row.cells.items():
            if title not in ("Runtime", "Scheme"):  # these may be wrapped
                assert cell.text in text
            assert cell.note in text


def test_runtime_and_scheme_stand_under_the_name(report: Report) -> None:
    assert "onnxruntime · w8a8 · integer" in shown(report, 130)


def test_the_memory_floor_stands_under_the_decoded_tokens(report: Report) -> None:
    cells = [str(cell) for cell in terminal.table(report).columns[5].cells]
    assert cells[1] == "52.3\n85 %"
    assert cells[0] == "17.8\n–"
    assert "of the speed at which memory can be read" in " ".join(shown(report, 160).split())


def test_wrong_codes_are_loud(report: Report, broken: Report) -> None:
    text = shown(broken, 100)
    assert "WARNING: qat-w4a16-g32-onnx" in text
    assert "NO\n" not in shown(report, 100)
    *_, codes = terminal.table(broken).columns[7].cells
    assert isinstance(codes, Text)
    assert str(codes) == "NO\nof 211"
    assert codes.spans[0].style == terminal.LOUD


def test_names_are_not_markup(report: Report) -> None:
    renamed = report.models[0].model_copy(update={"name": "[red]x[/red]"})
    text = shown(report.model_copy(update={"models": [renamed]}), 120)
    assert "[red]x[/red]" in text


def test_nothing_measured_is_dashes(bare: Report) -> None:
    assert "finetune-onnx" in shown(bare, 100)
    assert shown(bare, 100).count("–") >= 9 * len(bare.models)


def test_what_was_recovered_is_a_line_a_qat_model(report: Report, recovered: Report) -> None:
    text = shown(recovered, 130)
    for entry in recovered.recovery:
        assert f"\n{entry.qat.name} recovers " in text
    assert "recovers 77 % (75–80 %) of what ptq-w4a16-g32 (rtn) lost; 77 %" in text
    assert "recovers" not in shown(report, 130)


def test_a_ranking_fits_and_says_what_its_numbers_are(sweep: Report) -> None:
    assert sweep.ranking is not None
    console = Console(width=120, file=StringIO())
    with console.capture() as capture:
        console.print(terminal.ranking(sweep.ranking, "sweep: ranking"))
    lines = capture.get().splitlines()
    for entry in sweep.ranking.entries:
        assert any(entry.name in line for line in lines)
    assert max(len(line.rstrip()) for line in lines) <= 120
    assert "10,000 resamples of the 400 evaluated" in " ".join(" ".join(lines).split())
    assert any("3 seeds of calibration data" in line for line in lines)


def test_fallbacks_stand_below_the_models(sweep: Report) -> None:
    assert "its Hessian is not positive definite" in " ".join(shown(sweep, 120).split())
