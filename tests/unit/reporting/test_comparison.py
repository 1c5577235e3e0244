from __future__ import annotations

import pytest

from quantship.reporting import comparison
from quantship.reporting.schema import ModelRow, Report


def row(report: Report, name: str) -> ModelRow:
    return next(row for row in report.models if row.name == name)


def with_row(report: Report, name: str, **update: object) -> Report:
    models = [r.model_copy(update=update) if r.name == name else r for r in report.models]
    return report.model_copy(update={"models": models})


@pytest.mark.parametrize(
    ("name", "reference"), [("qat-w8a8", "finetune"), ("qat-w8a8-onnx", "finetune-onnx")]
)
def test_the_reference_is_the_nearest_float_of_the_same_runtime(
    report: Report, name: str, reference: str
) -> None:
    found = comparison.float_reference(report, row(report, name))
    assert found is row(report, reference)


def test_openvino_is_a_side_of_its_own(report: Report) -> None:
    alone = with_row(report, "qat-w8a8-onnx", kind="openvino")
    assert comparison.float_reference(alone, row(alone, "qat-w8a8-onnx")) is None
    both = with_row(alone, "finetune-onnx", kind="openvino")
    found = comparison.float_reference(both, row(both, "qat-w8a8-onnx"))
    assert found is row(both, "finetune-onnx")
    assert comparison.runtime(found) == "openvino"


def test_a_float_model_has_no_reference(report: Report) -> None:
    assert comparison.float_reference(report, row(report, "finetune")) is None


def test_a_reference_below_serves_where_none_is_above(report: Report) -> None:
    models = [row(report, "qat-w8a8"), row(report, "finetune"), row(report, "baseline")]
    turned = report.model_copy(update={"models": models})
    assert comparison.float_reference(turned, models[0]) is models[1]


def test_perplexity_is_never_compared_with_an_older_model(report: Report) -> None:
    unmeasured = with_row(report, "finetune", metrics=None)
    assert comparison.perplexity_change(unmeasured, row(unmeasured, "qat-w8a8")) is None


def test_speed_ratio_divides_by_the_float_row(report: Report) -> None:
    ratio = comparison.speed_ratio(report, row(report, "qat-w8a8-onnx"), "decode_tokens_per_s")
    assert ratio == pytest.approx(104.6 / 52.31)


def test_speeds_on_inputs_of_another_shape_are_not_compared(report: Report) -> None:
    benchmark = row(report, "qat-w8a8-onnx").benchmark
    assert benchmark is not None
    other = with_row(
        report, "qat-w8a8-onnx", benchmark=benchmark.model_copy(update={"threads": 16})
    )
    assert comparison.speed_ratio(other, row(other, "qat-w8a8-onnx"), "decode_tokens_per_s") is None


def test_headlines_name_value_and_price(report: Report) -> None:
    cards = {card.label: card for card in comparison.headlines(report)}
    assert cards["Best compression"].value == "6.24×"
    # PTQ and QAT are equally small there: the one that costs less perplexity is the better.
    assert "qat-w4a16-g32-onnx" in cards["Best compression"].detail
    assert "perplexity +7.63 %" in cards["Best compression"].detail
    assert cards["Best perplexity change"].value == "+0.10 %"
    assert cards["Best ONNX decode speedup"].value == "2.55×"
    assert cards["Models with equal codes"].value == "4 of 4"
    assert not any(card.alarm for card in cards.values())


def test_wrong_codes_are_an_alarm_and_best_at_nothing(broken: Report) -> None:
    cards = {card.label: card for card in comparison.headlines(broken)}
    assert cards["Models with equal codes"].alarm
    assert cards["Models with equal codes"].value == "3 of 4"
    assert not any("qat-w4a16-g32-onnx" in card.detail for card in cards.values())


def test_warnings_are_of_wrong_codes_only(report: Report, broken: Report) -> None:
    assert comparison.warnings(report) == []
    (warning,) = comparison.warnings(broken)
    assert "qat-w4a16-g32-onnx" in warning
    assert "NOT equal" in warning


def test_nothing_measured_makes_no_headline(bare: Report) -> None:
    assert comparison.headlines(bare) == []


def test_a_row_that_says_what_it_was_made_from_is_held_against_that(report: Report) -> None:
    """A control that stands between a fine-tuned model and what was made of it is no reference."""
    sources = {"baseline": "baseline", "baseline-onnx": "baseline"}
    models = [
        r.model_copy(update={"float_source": sources.get(r.name, "finetune")})
        for r in report.models
    ]
    tuned = [
        r.model_copy(update={"name": name, "float_source": "tune"})
        for r, name in zip(models[2:4], ("tune", "tune-onnx"), strict=True)
    ]
    mixed = report.model_copy(update={"models": [*models[:4], *tuned, *models[4:]]})
    for name, reference in (("qat-w8a8", "finetune"), ("qat-w8a8-onnx", "finetune-onnx")):
        found = comparison.float_reference(mixed, row(mixed, name))
        assert found is row(mixed, reference)


def test_a_row_whose_float_model_is_not_there_has_no_reference(report: Report) -> None:
    orphan = with_row(report, "qat-w8a8", float_source="gone")
    assert comparison.float_reference(orphan, row(orphan, "qat-w8a8")) is None
    assert comparison.perplexity_change(orphan, row(orphan, "qat-w8a8")) is None


def test_the_headline_share_is_the_surest_not_the_largest(recovered: Report) -> None:
    eight, four = (entry.recovered.share for entry in recovered.recovery)
    assert eight is not None
    assert four is not None
    assert eight.value > four.value
    assert eight.low < four.low
    (card,) = (c for c in comparison.headlines(recovered) if "recovered" in c.label)
    assert card.value == "77 %"
    assert "qat-w4a16-g32 of what ptq-w4a16-g32 lost, interval 75–80 %" in card.detail
    assert "77 % against a control in float" in card.detail
