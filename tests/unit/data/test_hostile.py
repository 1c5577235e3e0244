"""Files that are wrong somewhere: named by file and line, memory bounded, nothing half used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import quantship
from quantship.artifact import Artifact, Facts, begin, directory, find, finish
from quantship.data import files
from quantship.errors import DataError
from quantship.job import Job
from quantship.recipe.language import Data
from quantship.stages import data

FINGERPRINT = "f" * 64

GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
BROKEN = {
    "not JSON": (b'{"messages": [', "not JSON"),
    "not UTF-8": (b'{"messages": "\xc3("}', "not UTF-8: byte 0xc3 at position 15"),
    "half a surrogate": (
        rb'{"messages": [{"role": "assistant", "content": "\ud800"}]}',
        "half a surrogate pair",
    ),
    "a key is missing": ({"messages": [{"role": "user"}]}, "key 'content' is missing"),
    "another key": ({"text": "a"}, "key 'messages' is missing"),
    "no messages": ({"messages": []}, "no assistant turn"),
    "an empty message": (
        {"messages": [*GOOD["messages"][:1], {"role": "assistant", "content": " "}]},
        "the content of the assistant turn is blank",
    ),
    "an unknown role": (
        {"messages": [{"role": "tool", "content": "a"}]},
        "unknown role 'tool'; known are system, user, assistant",
    ),
    "a number": (b"1", "must be an object, not a whole number"),
    "endless digits": (b"[" + b"9" * 5000 + b"]", "not JSON that can be read"),
    "endless brackets": (b"[" * 100_000, "not JSON"),
}
LONG: list[dict[str, object]] = [
    {"messages": [{"role": "assistant", "content": "ab " * 3_333_333}]},
    {"messages": [{"role": "assistant", "content": "\u4e2d\u6587" * 5_000_000}]},
    {"messages": GOOD["messages"] * 50_000},
]
# Prints what became of a data stage, and how much memory that took beyond what was there before.
MEASURED = """
import json, resource, sys
from pathlib import Path
from test_hostile import stage
import datasets, quantship.data.prepare, quantship.data.texts, transformers

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
facts = stage(json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"facts": facts, "grown_bytes": grown * 1024}))
"""


def stage(given: dict[str, Any], model: Path, out: Path) -> Facts:
    """Prepare data as a run does, up to the finished artifact."""
    settings = data.Settings(data=Data.model_validate(given), seed=0, file_digests=())
    partial = begin(out)
    facts = data.run(Job(settings, {"model": Artifact(model, "model", "0", {})}, partial, partial))
    parts = {"stage": "data", "fingerprint": FINGERPRINT, "settings": {}, "inputs": {}}
    finish(partial, facts=facts, duration_s=0.0, **parts)
    return facts


def measured(given: dict[str, Any], model: Path, out: Path) -> dict[str, Any]:
    """The same in a process of its own, with the memory it took in bytes."""
    places = [str(Path(quantship.__file__).parents[1]), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, json.dumps(given), str(model), str(out)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places), "MALLOC_ARENA_MAX": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def chats(count: int) -> Iterator[dict[str, object]]:
    """Chats of about a thousand characters, no two of them the same."""
    for index in range(count):
        words = " ".join(f"word{index * 7 % 1000 + place}" for place in range(110))
        turns = [{"role": "user", "content": words}, {"role": "assistant", "content": str(index)}]
        yield {"messages": turns}


def write_chats(path: Path, count: int, at: int | None = None, broken: bytes = b"") -> Path:
    with path.open("wb") as file:
        for index, chat in enumerate(chats(count)):
            file.write(broken if index == at else json.dumps(chat).encode())
            file.write(b"\n")
    return path


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_line_in_the_middle_is_named(write_lines, read, name):
    line, says = BROKEN[name]
    path = write_lines(*[GOOD] * 50, line, *[GOOD] * 50)
    with pytest.raises(DataError) as caught:
        read("chat", path=path)
    assert caught.value.origin.startswith(f"{path}:51")
    assert says in str(caught.value)


@pytest.mark.parametrize("adapter", ["chat", "gsm8k", "mbpp", "alpaca", "sharegpt", "wikitext"])
def test_a_file_without_line_ends_is_not_read_into_memory(tmp_path, monkeypatch, read, adapter):
    monkeypatch.setattr(files, "LONGEST_LINE_BYTES", 10_000)
    path = tmp_path / "data"
    path.write_bytes(b"\n" + b"a" * 20_000)
    with pytest.raises(DataError, match="the line has more than 10,000 bytes") as caught:
        read(adapter, path=path)
    assert caught.value.origin == f"{path}:2"


def test_a_line_as_long_as_may_be_is_read(tmp_path, monkeypatch, read):
    line = json.dumps(GOOD)
    monkeypatch.setattr(files, "LONGEST_LINE_BYTES", len(line) + 1)
    path = tmp_path / "data.jsonl"
    path.write_text(f"{line}\n{line}")
    assert len(read("chat", path=path)) == 2


@pytest.mark.parametrize("where", ["start", "middle", "end"])
def test_what_was_written_before_a_bad_line_is_never_used(tmp_path, tiny_model_dir, where):
    count = 300
    at = {"start": 0, "middle": 150, "end": 299}[where]
    path = write_chats(tmp_path / "data.jsonl", count, at, b'{"messages": 3}')
    given = {
        "train": [{"adapter": "builtin", "num_examples": 50}],
        "eval": [{"adapter": "chat", "path": str(path)}],
        "max_length": 2048,
    }
    out = directory(tmp_path, "data", FINGERPRINT)
    with pytest.raises(DataError, match="'messages' must be a list") as caught:
        stage(given, tiny_model_dir, out)
    assert caught.value.origin == f"{path}:{at + 1}"
    assert not out.exists()
    assert find(tmp_path, "data", FINGERPRINT) is None
    assert not (out.with_name(out.name + ".partial") / "eval").exists()

    write_chats(path, count)
    stage(given, tiny_model_dir, out)
    artifact = find(tmp_path, "data", FINGERPRINT)
    assert artifact is not None
    assert artifact.facts["eval"]["sequences"] == count
    left = {file.name for file in out.rglob("*")} - {"artifact.json", "train", "eval"}
    assert left == {"data-00000-of-00001.arrow", "dataset_info.json", "state.json"}


def test_a_template_that_raises_names_the_record(tmp_path, tiny_model_dir):
    path = write_chats(tmp_path / "data.jsonl", 20)
    template = "{% if messages[-1].content == '7' %}{{ raise_exception('no sevens') }}{% endif %}x"
    given = {"eval": [{"adapter": "chat", "path": str(path)}], "chat_template": template}
    with pytest.raises(DataError, match="the chat template fails: no sevens") as caught:
        stage({**given, "mask_prompt": False}, tiny_model_dir, tmp_path / "out")
    assert caught.value.origin == f"{path}:8"


@pytest.mark.slow
def test_records_of_ten_million_characters_are_left_out_and_counted(tmp_path, tiny_model_dir):
    path = tmp_path / "data.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for record in (GOOD, *LONG, GOOD):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    given = {"eval": [{"adapter": "chat", "path": str(path)}]}
    found = measured(given, tiny_model_dir, tmp_path / "out")
    [source] = found["facts"]["eval"]["sources"]
    counts = {key: source[key] for key in ("records", "used", "over_length", "untokenized")}
    assert counts == {"records": 5, "used": 2, "over_length": 3, "untokenized": 3}
    assert found["grown_bytes"] < 300e6


@pytest.mark.slow
def test_a_line_of_ten_million_characters_of_running_text_becomes_windows(tmp_path, tiny_model_dir):
    text = "".join(f"word{index} " for index in range(1_100_000))[:10_000_000]
    path = tmp_path / "data.txt"
    path.write_text(text)
    given = {"eval": [{"adapter": "wikitext", "path": str(path)}]}
    found = measured(given, tiny_model_dir, tmp_path / "out")
    facts = found["facts"]["eval"]
    assert facts["tokens"] == len(text)  # a token is a byte
    assert facts["sequences"] == -(-len(text) // 512)
    assert found["grown_bytes"] < 1.2e9


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path, tiny_model_dir):
    grown = {}
    for megabytes in (5, 50):
        path = write_chats(tmp_path / "data.jsonl", megabytes * 1000)
        assert abs(path.stat().st_size / 1e6 / megabytes - 1) < 0.1
        given = {
            "train": [{"adapter": "chat", "path": str(path)}],
            "eval": [{"adapter": "builtin", "split": "eval"}],
            "max_length": 2048,
            "packing": True,
            "mask_prompt": False,
            "holdout": 0.01,
        }
        found = measured(given, tiny_model_dir, tmp_path / f"out{megabytes}")
        train, held_out = found["facts"]["train"], found["facts"]["eval"]["sources"][1]
        assert train["sources"][0]["records"] + held_out["records"] == megabytes * 1000
        assert train["tokens"] > megabytes * 0.85e6
        grown[megabytes] = found["grown_bytes"]
    assert grown[50] < grown[5] + 30e6
    assert grown[50] < 300e6
