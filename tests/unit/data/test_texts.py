from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from encoders import build_tokenizer, sentences, write_sst2

from quantship.data import glue
from quantship.data.collating import collate
from quantship.data.parts import Part, Reading
from quantship.data.source import Labelled
from quantship.data.texts import Reader, prepare_texts
from quantship.errors import DataError, QuantshipError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROWS = sentences(40, seed=0)
CLASSES = ("negative", "positive")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer([text for text, _ in ROWS], num_words=256)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_sst2(tmp_path / "train.tsv", ROWS)


def reader(
    tokenizer: PreTrainedTokenizerFast,
    max_length: int = 64,
    *,
    has_segments: bool = True,
    classes: tuple[str, ...] = CLASSES,
) -> Reader:
    return Reader(tokenizer, max_length, has_segments, classes)


def readings(path: Path) -> list[Reading]:
    return [Reading(Part(glue.Options(adapter="glue", task="sst2", path=path)))]


def test_every_record_is_a_row_with_its_class(
    tokenizer: PreTrainedTokenizerFast, file: Path
) -> None:
    dataset, facts = prepare_texts(readings(file), reader(tokenizer), seed=0, shuffle=False)
    assert set(dataset.column_names) == {"input_ids", "token_type_ids", "labels"}
    words = [tokenizer.decode(ids, skip_special_tokens=True) for ids in dataset["input_ids"]]
    assert list(zip(words, dataset["labels"], strict=True)) == ROWS
    assert facts["texts"] == facts["sources"][0]["records"] == 40
    assert facts["texts_by_class"] == {"negative": 20, "positive": 20}
    assert facts["tokens"] == sum(map(len, dataset["input_ids"]))
    assert facts["sources"][0]["cut"] == 0


def test_the_seed_decides_the_order(tokenizer: PreTrainedTokenizerFast, file: Path) -> None:
    plain, one, other, again = (
        prepare_texts(readings(file), reader(tokenizer), seed=seed, shuffle=mix)[0].to_list()
        for seed, mix in ((0, False), (1, True), (2, True), (1, True))
    )
    assert one == again
    assert one != other
    assert one != plain
    assert sorted(map(str, one)) == sorted(map(str, plain))


def test_long_texts_are_cut_and_counted(tokenizer: PreTrainedTokenizerFast, file: Path) -> None:
    short = reader(tokenizer, max_length=8)
    dataset, facts = prepare_texts(readings(file), short, seed=0, shuffle=False)
    lengths = [len(ids) for ids in dataset["input_ids"]]
    assert max(lengths) == 8
    assert {ids[-1] for ids in dataset["input_ids"]} == {tokenizer.sep_token_id}
    whole = [len(tokenizer(text)["input_ids"]) for text, _ in ROWS]
    assert facts["sources"][0]["cut"] == sum(length > 8 for length in whole) > 0
    assert lengths == [min(length, 8) for length in whole]


def test_no_text_is_longer_than_the_tokenizer_allows(tokenizer: PreTrainedTokenizerFast) -> None:
    record = Labelled(("film " * 500,), 0, "x:1")
    ((_, row, was_cut),) = reader(tokenizer, max_length=10**6).rows([record])
    assert was_cut
    assert len(row["input_ids"]) == tokenizer.model_max_length == 64


def test_a_pair_is_told_apart_where_the_model_has_segments(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    pair = Labelled(("the film", "a plot"), 1, "x:1")
    ((_, row, _),) = reader(tokenizer).rows([pair])
    assert row["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert tokenizer.decode(row["input_ids"]) == "[CLS] the film [SEP] a plot [SEP]"
    ((_, bare, _),) = reader(tokenizer, has_segments=False).rows([pair])
    assert bare == {"input_ids": row["input_ids"]}


def test_labels_are_the_models_own(tokenizer: PreTrainedTokenizerFast, file: Path) -> None:
    turned = reader(tokenizer, classes=("POSITIVE", "NEGATIVE"))
    dataset, facts = prepare_texts(readings(file), turned, seed=0, shuffle=False)
    assert dataset["labels"][:] == [1 - label for _, label in ROWS]
    assert facts["texts_by_class"] == {"POSITIVE": 20, "NEGATIVE": 20}


def test_other_classes_than_the_models_are_refused(
    tokenizer: PreTrainedTokenizerFast, file: Path
) -> None:
    three = reader(tokenizer, classes=("a", "b", "c"))
    with pytest.raises(QuantshipError, match=r"are negative, positive, and the model tells a, b"):
        prepare_texts(readings(file), three, seed=0, shuffle=False)


def test_no_record_at_all_is_an_error(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    empty = write_sst2(tmp_path / "empty.tsv", [])
    with pytest.raises(DataError, match="there is no record"):
        prepare_texts(readings(empty), reader(tokenizer), seed=0, shuffle=False)


def test_texts_are_padded_on_the_right(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [{"input_ids": [5, 6, 7], "labels": 1}, {"input_ids": [8], "labels": 0}]
    batch = collate(rows, pad_token_id=3)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 3, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert "token_type_ids" not in batch
    rows = [{**row, "token_type_ids": [1] * len(row["input_ids"])} for row in rows]  # type: ignore[arg-type]
    assert collate(rows, pad_token_id=3)["token_type_ids"].tolist() == [[1, 1, 1], [1, 0, 0]]
