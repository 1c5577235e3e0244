from __future__ import annotations

from typing import Any

from quantship.reporting import recovery_text
from quantship.reporting.recovery_schema import Recovery
from quantship.reporting.schema import Report


def with_entry(report: Report, **update: Any) -> Report:
    entry = report.recovery[0].model_copy(update=update)
    return report.model_copy(update={"recovery": [entry]})


def undefined(entry: Recovery) -> dict[str, Any]:
    reason = {"share": None, "undefined": "ptq-w8a8 lost nothing measurable against finetune"}
    return {"recovered": entry.recovered.model_copy(update=reason)}


def test_a_sentence_says_who_recovered_how_much_of_what(recovered: Report) -> None:
    first, second = recovery_text.sentences(recovered)
    assert first.startswith("qat-w8a8 recovers 95 % (51–163 %) of what ptq-w8a8 (rtn) lost; ")
    assert second == (
        "qat-w4a16-g32 recovers 77 % (75–80 %) of what ptq-w4a16-g32 (rtn) lost; "
        "77 % (74–79 %) against tune, trained on in float"
    )


def test_a_sentence_without_a_control_ends_there(recovered: Report) -> None:
    (sentence,) = recovery_text.sentences(with_entry(recovered, control=None))
    assert sentence == "qat-w8a8 recovers 95 % (51–163 %) of what ptq-w8a8 (rtn) lost"


def test_where_there_is_no_share_there_is_no_number(recovered: Report) -> None:
    entry = recovered.recovery[0]
    report = with_entry(recovered, control=None, **undefined(entry))
    (sentence,) = recovery_text.sentences(report)
    assert sentence == (
        "qat-w8a8: the share recovered is not defined, as ptq-w8a8 lost nothing measurable "
        "against finetune"
    )
    table = recovery_text.table(report)
    assert table is not None
    assert table.rows[0][1] == "not defined"
    assert recovery_text.remarks(report) == [
        "qat-w8a8 has no share of ptq-w8a8's loss against finetune: ptq-w8a8 lost nothing "
        "measurable against finetune."
    ]


def test_a_share_against_the_control_is_told_even_alone(recovered: Report) -> None:
    (sentence,) = recovery_text.sentences(with_entry(recovered, **undefined(recovered.recovery[0])))
    assert sentence.endswith("against finetune; 85 % (47–135 %) against tune, trained on in float")


def test_every_row_names_its_models_and_their_perplexities(recovered: Report) -> None:
    table = recovery_text.table(recovered)
    assert table is not None
    assert [row[0] for row in table.rows[::2]] == [row[0] for row in table.rows[1::2]]
    assert table.rows[3] == (
        "qat-w4a16-g32: 6.571",
        "77 % (74–79 %)",
        "ptq-w4a16-g32: 8.402, rtn",
        "tune: 6.098 (control)",
        "+0.321 (0.312 to 0.330)",
        "w4a16-g32",
    )


def test_how_qat_was_trained_stands_beside_the_scheme(recovered: Report) -> None:
    table = recovery_text.table(with_entry(recovered, method="lora, distill"))
    assert table is not None
    assert {row[-1] for row in table.rows} == {"w8a8, lora, distill"}


def test_a_choice_among_twins_is_told(recovered: Report) -> None:
    twins = ["rtn", "ptq-w8a8", "awq"]
    chosen = {"ptq_twins": twins, "ptq_algorithm": "gptq", "ptq_best_in": 0.9712}
    (remark,) = recovery_text.remarks(with_entry(recovered, **chosen, control=None))
    assert remark == (
        "qat-w8a8: ptq-w8a8 (gptq) is the best of its PTQ twins; the others are rtn, awq. It was "
        "chosen by its loss on the very sequences that it is compared on, and is the best in "
        "97.12 % of their resamples; the less sure the choice, the more it favours PTQ."
    )


def test_the_share_of_the_best_and_of_rounding_stand_side_by_side(recovered: Report) -> None:
    entry = recovered.recovery[1]
    chosen = {
        "ptq_twins": ["ptq-w4a16-g32", "rtn"],
        "ptq_algorithm": "gptq, damping 0.1",
        "nearest": entry.ptq.model_copy(update={"name": "rtn"}),
        "of_nearest": entry.recovered,
    }
    report = with_entry(recovered, **{**dict(entry), **chosen})
    (sentence,) = recovery_text.sentences(report)
    assert sentence == (
        "qat-w4a16-g32 recovers 77 % (75–80 %) of what ptq-w4a16-g32 (gptq, damping 0.1, the best "
        "of 2) lost; 77 % (75–80 %) of what rtn (rounded to nearest) lost; 77 % (74–79 %) against "
        "tune, trained on in float"
    )
    table = recovery_text.table(report)
    assert table is not None
    assert [row[2] for row in table.rows] == [
        "ptq-w4a16-g32: 8.402, gptq, damping 0.1",
        "rtn: 8.402, rounded to nearest",
        "ptq-w4a16-g32: 8.402, gptq, damping 0.1",
    ]


def test_an_unequal_control_is_told_loudly(recovered: Report) -> None:
    control = recovered.recovery[0].control
    assert control is not None
    (fair,) = recovery_text.remarks(with_entry(recovered))
    assert "same data in the same order, 200 optimizer steps of 4 sequences." in fair
    amounts = {
        "training": control.training.model_copy(update={"num_steps": 1500, "num_tokens": 9000}),
        "qat_training": control.qat_training.model_copy(update={"num_tokens": 1200}),
        "equal_data": False,
        "differences": [],
    }
    unfair = with_entry(recovered, control=control.model_copy(update=amounts))
    assert recovery_text.remarks(unfair) == [
        "qat-w8a8: its control tune was NOT trained on the same data: 1,500 optimizer steps of 4 "
        "sequences (9,000 tokens), qat-w8a8 200 of 4 (1,200 tokens)."
    ]


def test_the_explanation_says_what_an_interval_is(recovered: Report) -> None:
    text = recovery_text.explanation(recovered)
    tokens = recovered.recovery[0].num_tokens
    assert (
        f"95 % intervals, from 10,000 resamples of the 400 evaluated sequences ({tokens:,}" in text
    )
    assert "another seed" in text
    assert "control" in text
    assert "control" not in recovery_text.explanation(with_entry(recovered, control=None))


def test_nothing_recovered_is_no_table(report: Report) -> None:
    assert recovery_text.table(report) is None
    assert recovery_text.sentences(report) == []
    assert recovery_text.remarks(report) == []
