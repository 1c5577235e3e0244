from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantship.data import prepare as prepare_module
from quantship.data import templating
from quantship.data.prepare import collate, prepare
from quantship.data.templating import IGNORED
from quantship.errors import DataError
from quantship.tiny import build_tokenizer

TOKENIZER = build_tokenizer(max_length=4096)
SHARED_TMP = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def prepared(sources, **changes):
    options = {
        "max_length": 80,
        "chat_template": None,
        "mask_prompt": True,
        "packing": False,
        "seed": 0,
        "shuffle": False,
    }
    return prepare(sources, TOKENIZER, **{**options, **changes})


def chat(question: str, answer: str) -> dict[str, object]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def flat(dataset, column: str = "input_ids") -> list[int]:
    return list(chain.from_iterable(dataset[column]))


def test_rows_are_the_chats_in_order(source):
    dataset, facts = prepared([source("builtin", num_examples=20)])
    assert facts["sequences"] == len(dataset) == 20
    assert facts["tokens"] == len(flat(dataset))
    assert facts["loss_tokens"] == sum(label != IGNORED for label in flat(dataset, "labels"))
    assert all(
        TOKENIZER.decode(row["input_ids"]).startswith("<|im_start|>user\n") for row in dataset
    )


def test_a_saved_data_set_is_read_back_equal(source, tmp_path):
    import datasets

    dataset, _ = prepared([source("builtin", num_examples=20)])
    dataset.save_to_disk(tmp_path / "train")
    assert datasets.load_from_disk(tmp_path / "train")[:] == dataset[:]


@SHARED_TMP
@given(text=st.text(st.characters(codec="utf-8"), min_size=1), max_length=st.integers(2, 40))
def test_windows_joined_are_the_text(source, tmp_path, text, max_length):
    path = tmp_path / "text.txt"
    path.write_text(text, newline="")
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    if not text.strip() or len(ids) < 2:
        with pytest.raises(DataError, match="nothing to use"):
            prepared([source("wikitext", path=path)], max_length=max_length)
        return
    dataset, facts = prepared([source("wikitext", path=path)], max_length=max_length)
    lengths = [len(row["input_ids"]) for row in dataset]
    lone = len(ids) % max_length == 1  # a single last token predicts nothing
    assert flat(dataset) == flat(dataset, "labels") == (ids[:-1] if lone else ids)
    assert set(lengths[:-1]) <= {max_length}
    [found] = facts["sources"]
    assert found["records"] == found["used"] == 1
    assert found["windows"] == len(lengths)
    assert found["short_windows"] == sum(length < max_length for length in lengths)
    assert found["all_masked"] == lone
    assert facts["loss_tokens"] == facts["tokens"] - facts["sequences"]


def test_chats_over_length_are_left_out_and_counted(write_lines, source):
    path = write_lines(chat("a", "b"), chat("a" * 60, "b"), chat("c", "d" * 60), chat("e", "f"))
    dataset, facts = prepared([source("chat", path=path)])
    assert [TOKENIZER.decode(row["input_ids"])[17] for row in dataset] == ["a", "e"]
    [found] = facts["sources"]
    assert (found["records"], found["used"], found["over_length"]) == (4, 2, 2)
    assert facts["token_lengths"]["max"] > 80


def test_a_chat_of_exactly_max_length_is_used(write_lines, source):
    path = write_lines(chat("a", "b"))
    [length] = [len(row["input_ids"]) for row in prepared([source("chat", path=path)])[0]]
    assert len(prepared([source("chat", path=path)], max_length=length)[0]) == 1
    with pytest.raises(DataError, match=f"1 are over max_length {length - 1}, 0 have no token"):
        prepared([source("chat", path=path)], max_length=length - 1)


@pytest.mark.parametrize("long", ["a" * 200, "多" * 101])
def test_a_chat_of_too_many_characters_is_left_out_untokenized(
    write_lines, source, monkeypatch, long
):
    monkeypatch.setattr(prepare_module, "LONGEST_CHARACTERS", 100)
    monkeypatch.setattr(prepare_module, "LONGEST_TOKEN", 1)
    path = write_lines(chat("a", "b"), chat(long, "b"), chat("a" * 60, "b"))
    dataset, facts = prepared([source("chat", path=path)])
    [found] = facts["sources"]
    assert (len(dataset), found["over_length"], found["untokenized"]) == (1, 2, 1)
    assert facts["token_lengths"]["max"] < 200


def test_a_chat_of_more_turns_than_tokens_fit_is_left_out_untokenized(write_lines, source):
    path = write_lines(chat("a", "b"), {"messages": chat("a", "b")["messages"] * 41})
    [found] = prepared([source("chat", path=path)])[1]["sources"]
    assert (found["over_length"], found["untokenized"]) == (1, 1)


@SHARED_TMP
@given(words=st.lists(st.text("ab\n多", min_size=1, max_size=12), max_size=20))
@pytest.mark.parametrize("piece", [1, 5, 40])
def test_running_text_in_pieces_is_the_text(source, tmp_path, monkeypatch, words, piece):
    text = "x" + " ".join(words) + "y"
    (tmp_path / "text.txt").write_text(text, newline="")
    given_source = source("wikitext", path=tmp_path / "text.txt")
    whole = prepared([given_source], max_length=7)[0][:]
    with monkeypatch.context() as patch:
        patch.setattr(templating, "LONGEST_PIECE", piece)
        assert prepared([given_source], max_length=7)[0][:] == whole


def test_chats_with_nothing_to_learn_are_left_out_and_counted(write_lines, source):
    silent = "{% for m in messages %}{{ m.content if m.content != 'b' else '' }}{% endfor %}"
    path = write_lines(chat("a", "b"), chat("aa", "cc"))
    dataset, facts = prepared([source("chat", path=path)], chat_template=silent)
    assert [TOKENIZER.decode(row["input_ids"]) for row in dataset] == ["aacc"]
    [found] = facts["sources"]
    assert (found["records"], found["used"], found["all_masked"]) == (2, 1, 1)


def test_data_that_is_all_masked_is_refused(write_lines, source):
    path = write_lines(chat("a", "b"), chat("aa", "cc"))
    silent = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    wrong = "nothing to use in 2 records: 0 are over max_length 80, 2 have no token to predict"
    with pytest.raises(DataError, match=rf"{wrong}\n    data\.mask_prompt leaves assistant turns"):
        prepared([source("chat", path=path)], chat_template=silent)
    with pytest.raises(DataError, match=r"1 are over .*\n    Raise data\.max_length"):
        prepared([source("chat", path=write_lines(chat("a", "b")))], max_length=3)


def test_sources_are_counted_apart_and_read_in_order(write_lines, source):
    text = write_lines("words " * 50, name="text.txt")
    chats = write_lines(chat("a", "b"), chat("a" * 99, "b"))
    sources = [source("chat", path=chats), source("wikitext", path=text)]
    dataset, facts = prepared(sources)
    assert [found["adapter"] for found in facts["sources"]] == ["chat", "wikitext"]
    assert [found["records"] for found in facts["sources"]] == [2, 1]
    assert [found["over_length"] for found in facts["sources"]] == [1, 0]
    assert [len(found["digests"]) for found in facts["sources"]] == [1, 1]
    assert TOKENIZER.decode(dataset[0]["input_ids"]).startswith("<|im_start|>user\na<")


def test_facts_are_json(source, write_lines):
    import json

    sources = [source("chat", path=write_lines(chat("a", "b"))), source("builtin", num_examples=9)]
    _, facts = prepared(sources, packing=True, shuffle=True)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(1, 60),
    max_length=st.integers(75, 300),
    shuffle=st.booleans(),
    mask_prompt=st.booleans(),
)
def test_packing_conserves_tokens_and_labels(source, count, max_length, shuffle, mask_prompt):
    options = {"max_length": max_length, "shuffle": shuffle, "mask_prompt": mask_prompt}
    sources = [source("builtin", num_examples=count)]
    loose, _ = prepared(sources, **options)
    packed, facts = prepared(sources, packing=True, **options)
    rest = facts["unpacked_tokens"]
    assert flat(packed) == flat(loose)[: len(flat(loose)) - rest]
    assert flat(packed, "labels") == flat(loose, "labels")[: len(flat(loose)) - rest]
    assert all(label == IGNORED for label in flat(loose, "labels")[len(flat(loose)) - rest :][1:])
    lengths = [len(row["input_ids"]) for row in packed]
    assert set(lengths[:-1]) <= {max_length}
    assert lengths[-1] <= max_length
    assert any(label != IGNORED for label in packed[-1]["labels"][1:])


def test_a_last_block_with_nothing_to_predict_is_left_out_and_counted(source):
    sources = [source("builtin", num_examples=3)]
    total = len(flat(prepared(sources)[0]))
    # The last token is the line end after the end marker: masked, and alone in its block.
    dataset, facts = prepared(sources, packing=True, max_length=total - 1)
    assert [len(row["input_ids"]) for row in dataset] == [total - 1]
    assert facts["unpacked_tokens"] == 1
    assert facts["tokens"] == total - 1


def test_equal_seeds_give_equal_orders(source):
    def order(seed: int, shuffle: bool = True) -> list[list[int]]:
        sources = [source("builtin", num_examples=50)]
        return list(prepared(sources, seed=seed, shuffle=shuffle)[0]["input_ids"])

    assert order(1) == order(1) != order(2)
    assert order(1, shuffle=False) == order(2, shuffle=False)
    assert sorted(order(1)) == sorted(order(2, shuffle=False))


@pytest.mark.parametrize("sources", [[], ["empty"]])
def test_nothing_to_use_says_why(sources, write_lines, source):
    given = [source("chat", path=write_lines("", name=f"{name}.jsonl")) for name in sources]
    with pytest.raises(DataError, match="nothing to use in 0 records"):
        prepared(given)


def test_a_template_that_fails_names_the_record(write_lines, source):
    path = write_lines(chat("a", "b"), chat("a", "c"))
    refuses_c = "{% if messages[-1].content == 'c' %}{{ raise_exception('no c') }}{% endif %}x"
    with pytest.raises(DataError, match="no c") as caught:
        prepared([source("chat", path=path)], chat_template=refuses_c, mask_prompt=False)
    assert caught.value.origin == f"{path}:2"


def test_nothing_is_written_outside_the_artifact(source, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    dataset, _ = prepared([source("builtin", num_examples=20)], packing=True, shuffle=True)
    assert dataset.cache_files == []
    assert not (tmp_path / "cache").exists()


def test_a_batch_is_padded_on_the_right():
    rows = [
        {"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]},
        {"input_ids": [8], "labels": [8]},
    ]
    batch = collate(rows, pad_token_id=3)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7], [8, 3, 3]],
        "labels": [[IGNORED, 6, 7], [8, IGNORED, IGNORED]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_padding_is_the_inverse_of_unpadding_for_prepared_rows(source):
    dataset, _ = prepared([source("builtin", num_examples=16)])
    batch = collate(list(dataset), pad_token_id=0)
    for row, ids, labels, mask in zip(dataset, *batch.values(), strict=True):
        kept = mask.bool()
        assert ids[kept].tolist() == row["input_ids"]
        assert labels[kept].tolist() == row["labels"]
        assert (labels[~kept] == IGNORED).all()


def test_gsm8k_is_used_but_for_what_is_too_long(shared_data, source):
    path = shared_data / "gsm8k" / "test.jsonl"
    dataset, facts = prepared([source("gsm8k", path=path)], max_length=1024)
    [found] = facts["sources"]
    assert found["records"] == 1319
    assert found["used"] == len(dataset) == 1319 - found["over_length"]
    assert found["digests"] == ["3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14"]
