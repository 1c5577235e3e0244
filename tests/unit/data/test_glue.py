from __future__ import annotations

import csv
import io

import pytest

from quantship.data import class_names, labelled, questions
from quantship.data.source import Labelled
from quantship.errors import DataError

# A line of each task as the official archive has it, and what it says.
OFFICIAL = {
    "cola": ("gj04\t1\t\tOur friends won't buy this.", ("Our friends won't buy this.",), 1),
    "sst2": ("sentence\tlabel\nthe charm of the camera \t1", ("the charm of the camera",), 1),
    "mrpc": (
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t70\t71\tHe said "no.\tNo.\r',
        ('He said "no.', "No."),
        1,
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tHow?\tWhy?\t0",
        ("How?", "Why?"),
        0,
    ),
    "mnli": (
        "index\tsentence1_parse\tsentence1\tsentence2\tlabel1\tgold_label\n"
        "0\t(ROOT)\tIt rains.\tIt is wet.\tentailment\tneutral",
        ("It rains.", "It is wet."),
        1,
    ),
    "qnli": (
        "index\tquestion\tsentence\tlabel\n0\tWhen?\tIn May.\tentailment",
        ("When?", "In May."),
        0,
    ),
    "rte": (
        "index\tsentence1\tsentence2\tlabel\n0\tNone.\tSome.\tnot_entailment",
        ("None.", "Some."),
        1,
    ),
    "wnli": ("index\tsentence1\tsentence2\tlabel\n0\tIt is.\tIt was.\t0", ("It is.", "It was."), 0),
}


@pytest.mark.parametrize("task", OFFICIAL)
def test_a_file_of_the_official_archive_is_read(write_lines, source, task):
    text, texts, label = OFFICIAL[task]
    path = write_lines(text, name="train.tsv")
    given = source("glue", task=task, path=path)
    line = len(text.splitlines())
    assert list(labelled(given)) == [Labelled(texts, label, f"{path}:{line}")]
    [question] = questions(given)
    assert all(part in question.prompt for part in texts)
    assert question.answer == label < len(question.choices) == len(class_names(given))
    assert all(choice.startswith(" ") and choice.strip() for choice in question.choices)
    assert question.prompt == question.prompt.strip()


def test_a_record_is_a_chat_with_its_answer_in_a_word(write_lines, read):
    path = write_lines("sentence\tlabel", "so good \t1", "so bad \t0", name="dev.tsv")
    chats = [[m["content"] for m in one.messages] for one in read("glue", task="sst2", path=path)]
    asked = "{}\nQuestion: Is this sentence positive or negative?\nAnswer:"
    assert chats == [
        [asked.format("so good"), "positive"],
        [asked.format("so bad"), "negative"],
    ]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_other_files_with_the_columns_of_the_hub_are_read(tmp_path, write_lines, source, form):
    records = [
        {"premise": 'He said, "yes"\nand left.', "hypothesis": "He left.", "label": 0},
        {"premise": "It rains.", "hypothesis": "It is dry.", "label": 2},
    ]
    path = tmp_path / f"mnli.{form}"
    if form == "jsonl":
        write_lines(*records, name=path.name)
    elif form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
        path.write_text(text.getvalue(), newline="")
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(records), path)
    found = list(labelled(source("glue", task="mnli", path=path)))
    assert [one.texts for one in found] == [
        ('He said, "yes"\nand left.', "He left."),
        ("It rains.", "It is dry."),
    ]
    assert [one.label for one in found] == [0, 2]
    places = {"csv": (":2", ":4"), "jsonl": (":1", ":2"), "parquet": ("[0]", "[1]")}[form]
    assert [one.origin for one in found] == [f"{path}{place}" for place in places]


def test_limit_stops_before_the_next_record_is_read(write_lines, source):
    path = write_lines("sentence\tlabel", "good\t1", "broken", name="dev.tsv")
    given = source("glue", task="sst2", path=path, limit=1)
    assert len(list(labelled(given))) == len(list(questions(given))) == 1


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["sentence\tlabel", "good\t1", "good"], "1 columns, and the file has 2"),
        (["sentence\tlabel", "good\t1", "good\t2"], "'2' is no label; known are 0 (negative), 1"),
        (["sentence\tlabel", "good\t1", "good\t"], "'' is no label"),
        (["sentence\tlabel", "good\t1", "good\t-1"], "kept secret, as in the official test split"),
        (["sentence\tlabel", "good\t1", " \t1"], "'sentence' must be text with something in it"),
        (["sentence\tlabel", "good\t1", b"\xff\t1"], "not UTF-8"),
        (["index\tsentence", "", "0\tgood"], "no 'label' or 'gold_label'"),
        (["text\tlabel", "", "good\t1"], "no 'sentence'; it has 'text', 'label'"),
    ],
)
def test_a_malformed_line_is_named(write_lines, source, lines, says):
    path = write_lines(*lines, name="dev.tsv")
    for read in (labelled, questions):
        with pytest.raises(DataError) as caught:
            list(read(source("glue", task="sst2", path=path)))
        assert caught.value.origin == f"{path}:3"
        assert says in str(caught.value)


def test_a_quote_that_never_ends_is_named_by_the_line_it_opens_in(write_lines, source):
    path = write_lines("sentence,label", "good,1", '"bad,0', "good,1", name="dev.csv")
    with pytest.raises(DataError, match="not separated values") as caught:
        list(labelled(source("glue", task="sst2", path=path)))
    assert caught.value.origin == f"{path}:3"


def test_lines_of_qqp_cut_in_two_are_passed_over(write_lines, source):
    head, whole = OFFICIAL["qqp"][0].splitlines()
    path = write_lines(head, whole, "4\t5\t6\tHow", "come?\tWhy?\t1", whole, name="train.tsv")
    assert len(list(labelled(source("glue", task="qqp", path=path)))) == 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("data.xml", b"<a/>", "cannot tell what '.xml' holds; known endings are .tsv, .txt, .csv"),
        ("data.parquet", b"PAR1 or not", "not Parquet that can be read"),
        ("nothing.tsv", None, "cannot be read: No such file"),
        ("nothing.parquet", None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_something_else_is_named(tmp_path, source, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        list(labelled(source("glue", task="sst2", path=tmp_path / name)))
    assert caught.value.origin == str(tmp_path / name)


@pytest.mark.usefixtures("private_cache")
def test_the_hub_layout_is_read_without_a_path(tmp_path, monkeypatch, source, write_lines):
    folder = tmp_path / "nyu-mll" / "glue" / "sst2"
    folder.mkdir(parents=True)
    (folder.parent / "README.md").write_text(
        "---\nconfigs:\n- config_name: sst2\n  data_files:\n"
        "  - split: validation\n    path: sst2/validation.jsonl\n---\n"
    )
    write_lines(
        {"sentence": "good ", "label": 1, "idx": 0},
        {"sentence": "secret", "label": -1, "idx": 1},
        name="nyu-mll/glue/sst2/validation.jsonl",
    )
    monkeypatch.chdir(tmp_path)
    found = labelled(source("glue", task="sst2", split="validation"))
    assert next(found) == Labelled(("good",), 1, "nyu-mll/glue validation[0]")
    with pytest.raises(DataError, match=r"nyu-mll/glue validation\[1\]: the label is -1"):
        next(found)


def test_sst2_as_others_split_it_is_read_whole(shared_data, source):
    path = shared_data / "glue-sst2" / "test.tsv"
    found = list(labelled(source("glue", task="sst2", path=path)))
    assert [sum(one.label == label for one in found) for label in (0, 1)] == [428, 444]
