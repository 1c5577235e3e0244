from __future__ import annotations

from ruamel.yaml import YAML

from quantship.reporting import facts
from quantship.reporting.schema import Report


def test_splits_stand_side_by_side(report: Report) -> None:
    single, splits, sources = facts.data_tables(report)
    assert single.rows == (("digest", "9f86d081884c…"),)
    assert splits.header == ("Fact", "train", "eval")
    assert ("tokens", "1,512,233", "280,114") in splits.rows
    assert ("masked_share", "–", "0.312") in splits.rows
    assert sources.rows[1] == ("2", "gsm8k", "test", "1,319", "1,319")


def test_no_fact_is_lost_however_deep(report: Report) -> None:
    deep = {"train": {"sources": [{"path": "a.jsonl", "lost": {"bad": 3, "long": [4, 5]}}]}}
    (table,) = facts.data_tables(report.model_copy(update={"data": deep}))
    assert {name: text for name, text in table.rows} == {
        "sources.1.path": "a.jsonl",
        "sources.1.lost.bad": "3",
        "sources.1.lost.long": "4, 5",
    }


def test_every_row_is_as_wide_as_its_header(report: Report) -> None:
    training = facts.training_table(report)
    assert training is not None
    for table in [training, *facts.data_tables(report)]:
        assert {len(row) for row in table.rows} == {len(table.header)}


def test_a_resumed_training_says_so(report: Report) -> None:
    training = facts.training_table(report)
    assert training is not None
    assert [row[-1] for row in training.rows] == ["no", "no", "from step 100"]


def test_a_training_without_points_has_a_row(report: Report) -> None:
    silent = report.training[0].model_copy(update={"points": []})
    training = facts.training_table(report.model_copy(update={"training": [silent]}))
    assert training is not None
    assert training.rows[0][3:5] == ("–", "–")


def test_the_recipe_reads_back_as_it_was(report: Report) -> None:
    assert YAML(typ="safe", pure=True).load(facts.recipe_yaml(report)) == report.recipe
