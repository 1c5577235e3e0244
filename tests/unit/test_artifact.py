from __future__ import annotations

import errno
import json
import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantship import artifact, sealed
from quantship.artifact import MANIFEST, Artifact
from quantship.errors import UsageError

KEY = artifact.fingerprint("tiny", 1, {"seed": 0}, {})
OTHER = artifact.fingerprint("tiny", 1, {"seed": 1}, {})
FILES = {"model.bin": b"\x00weights\xff", "train/state.json": b"{}", "empty.txt": b""}

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)
SETTINGS = st.dictionaries(st.text(), VALUES, max_size=4)


def begin(root: Path, key: str = KEY) -> Path:
    """An unfinished artifact with all its files."""
    partial = artifact.begin(artifact.directory(root, "tiny", key))
    for name, content in FILES.items():
        (partial / name).parent.mkdir(exist_ok=True)
        (partial / name).write_bytes(content)
    return partial


def finish(partial: Path, facts: dict[str, Any] | None = None, key: str = KEY) -> Artifact:
    return artifact.finish(
        partial,
        stage="tiny",
        fingerprint=key,
        settings={"seed": 0},
        inputs={"model": OTHER},
        facts=facts if facts is not None else {"loss": 1.5},
        duration_s=0.25,
    )


def make(root: Path) -> Artifact:
    return finish(begin(root))


def find(root: Path) -> Artifact | None:
    return artifact.find(root, "tiny", KEY)


def snapshot(root: Path) -> dict[str, bytes | None]:
    """Everything below a directory."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def test_what_is_finished_is_found(tmp_path: Path) -> None:
    made = make(tmp_path)
    assert find(tmp_path) == made
    assert made.path == artifact.directory(tmp_path, "tiny", KEY)
    assert made.facts == {"loss": 1.5}
    for name, content in FILES.items():
        assert (made.path / name).read_bytes() == content
    assert [path.name for path in (tmp_path / "steps").iterdir()] == [made.path.name]


def test_another_fingerprint_finds_nothing(tmp_path: Path) -> None:
    make(tmp_path)
    assert artifact.find(tmp_path, "tiny", OTHER) is None
    assert artifact.find(tmp_path, "data", KEY) is None
    assert artifact.find(tmp_path / "elsewhere", "tiny", KEY) is None


def test_nothing_is_found_before_the_end(tmp_path: Path) -> None:
    partial = begin(tmp_path)
    assert find(tmp_path) is None
    # Killed between the manifest and the rename: complete, and still not to be trusted.
    (partial / MANIFEST).write_text(json.dumps({"fingerprint": KEY, "files": {}, "facts": {}}))
    assert find(tmp_path) is None


def test_beginning_again_starts_from_nothing(tmp_path: Path) -> None:
    left = begin(tmp_path)
    again = artifact.begin(artifact.directory(tmp_path, "tiny", KEY))
    assert again == left
    assert list(again.iterdir()) == []


def _truncate(path: Path) -> None:
    content = (path / MANIFEST).read_bytes()
    (path / MANIFEST).write_bytes(content[: len(content) // 2])


def _change_a_byte(path: Path) -> None:
    (path / "model.bin").write_bytes(b"\x01" + FILES["model.bin"][1:])


def _make_a_directory_of_the_manifest(path: Path) -> None:
    (path / MANIFEST).unlink()
    (path / MANIFEST).mkdir()


def _make_a_directory_of_a_file(path: Path) -> None:
    (path / "model.bin").unlink()
    (path / "model.bin").mkdir()


def _claim(path: Path, fingerprint: str) -> None:
    _edit(path, lambda manifest: manifest | {"fingerprint": fingerprint})


def _edit(path: Path, change: Callable[[Any], Any]) -> None:
    manifest = sealed.loads((path / MANIFEST).read_bytes())
    (path / MANIFEST).write_text(sealed.dumps(change(manifest)))


def _say_otherwise(path: Path) -> None:
    text = (path / MANIFEST).read_text()
    assert "1.5" in text
    (path / MANIFEST).write_text(text.replace("1.5", "1.4"))


def _without(key: str) -> Callable[[Path], None]:
    return lambda path: _edit(path, lambda m: {k: v for k, v in m.items() if k != key})


def _make_a_link(path: Path, *, gone: bool = False) -> None:
    elsewhere = path.parents[2] / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    if gone:
        elsewhere.unlink()


def _make_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no manifest": lambda path: (path / MANIFEST).unlink(),
    "empty manifest": lambda path: (path / MANIFEST).write_bytes(b""),
    "truncated manifest": _truncate,
    "manifest is binary": lambda path: (path / MANIFEST).write_bytes(b"\xff\xfe\x00"),
    "manifest is a list": lambda path: (path / MANIFEST).write_text("[]"),
    "manifest is null": lambda path: (path / MANIFEST).write_text("null"),
    "manifest is an empty object": lambda path: (path / MANIFEST).write_text("{}"),
    "manifest is a directory": _make_a_directory_of_the_manifest,
    "manifest without files": _without("files"),
    "manifest without facts": _without("facts"),
    "manifest without fingerprint": _without("fingerprint"),
    "files is a list": lambda path: _edit(path, lambda m: m | {"files": list(m["files"])}),
    "foreign fingerprint": lambda path: _claim(path, OTHER),
    "fingerprint of the same beginning": lambda path: _claim(path, KEY[:16] + OTHER[16:]),
    "later schema": lambda path: _edit(path, lambda m: m | {"schema_version": 3}),
    "earlier schema": lambda path: _edit(path, lambda m: m | {"schema_version": 1}),
    "other facts": _say_otherwise,
    "foreign stage": lambda path: _edit(path, lambda m: m | {"stage": "data"}),
    "no seal": lambda path: (path / MANIFEST).write_text(
        json.dumps(sealed.loads((path / MANIFEST).read_bytes()))
    ),
    "file outside is listed": lambda path: _edit(
        path, lambda m: m | {"files": m["files"] | {"../x": m["files"]["empty.txt"]}}
    ),
    "file is a link to itself moved": lambda path: _make_a_link(path / "model.bin"),
    "folder is a link": lambda path: _make_a_link(path / "train"),
    "manifest is a link": lambda path: _make_a_link(path / MANIFEST),
    "link to nowhere": lambda path: _make_a_link(path / "model.bin", gone=True),
    "file is a pipe": lambda path: _make_a_pipe(path / "model.bin"),
    "manifest is a pipe": lambda path: _make_a_pipe(path / MANIFEST),
    "missing file": lambda path: (path / "empty.txt").unlink(),
    "missing folder": lambda path: shutil.rmtree(path / "train"),
    "changed byte": _change_a_byte,
    "longer file": lambda path: (path / "empty.txt").write_bytes(b"\n"),
    "file is a directory": _make_a_directory_of_a_file,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_damaged_is_never_trusted_but_made_anew(
    damage: Callable[[Path], object], tmp_path: Path
) -> None:
    damage(make(tmp_path).path)
    before = snapshot(tmp_path)
    assert find(tmp_path) is None
    assert snapshot(tmp_path) == before, "looking changes nothing"
    made = make(tmp_path)
    assert find(tmp_path) == made
    assert {name: content for name, content in snapshot(made.path).items() if name in FILES} == (
        FILES
    )
    assert list((tmp_path / "steps").iterdir()) == [made.path]


@pytest.mark.parametrize("what", ["file", "link", "link to a folder"])
@pytest.mark.parametrize("end", ["", ".partial", ".replaced"])
def test_whatever_is_in_the_place_of_an_artifact_gives_way(
    what: str, end: str, tmp_path: Path
) -> None:
    path = artifact.directory(tmp_path, "tiny", KEY)
    path = path.with_name(path.name + end)
    path.parent.mkdir()
    kept = tmp_path / "kept"
    if what == "file":
        path.write_text("")
    else:
        path.symlink_to(kept)
    if what == "link to a folder":
        kept.mkdir()
        (kept / "theirs").write_text("")
    assert find(tmp_path) is None
    made = make(tmp_path)
    assert find(tmp_path) == made
    assert list((tmp_path / "steps").iterdir()) == [made.path]
    assert not made.path.is_symlink()
    assert kept.is_dir() == (what == "link to a folder")
    assert what != "link to a folder" or (kept / "theirs").is_file()


def test_a_moved_artifact_may_be_linked_to(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.path.rename(tmp_path / "other disk")
    made.path.symlink_to(tmp_path / "other disk")
    assert find(tmp_path) == made


@pytest.mark.parametrize(
    "name", ["model-00002.safetensors", "adapter_config.json", "train/cache-1.arrow", "new/x.py"]
)
def test_a_sound_artifact_with_other_files_in_it_is_not_used_and_not_lost(
    name: str, tmp_path: Path
) -> None:
    made = make(tmp_path)
    stray = made.path / name
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("{}")
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match=rf"not its own: {name}\n") as caught:
        find(tmp_path)
    assert str(made.path) in str(caught.value)
    assert snapshot(tmp_path) == before
    stray.unlink()
    assert find(tmp_path) == made
    stray.symlink_to(made.path / "model.bin")
    with pytest.raises(UsageError, match=name):
        find(tmp_path)


def test_hidden_files_and_empty_folders_are_nobodys(tmp_path: Path) -> None:
    made = make(tmp_path)
    (made.path / ".nfs0001").write_text("")
    (made.path / ".cache").mkdir()
    (made.path / ".cache" / "x").write_text("")
    (made.path / "empty").mkdir()
    assert find(tmp_path) == made


def test_no_more_than_a_few_strays_are_named(tmp_path: Path) -> None:
    made = make(tmp_path)
    for number in range(8):
        (made.path / f"note-{number}").touch()
    with pytest.raises(UsageError, match="note-0, note-1, note-2, note-3, note-4 and 3 more"):
        find(tmp_path)


def test_what_cannot_be_read_is_no_reason_to_make_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path)

    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(artifact, "digest_file", refuse)
        with pytest.raises(UsageError, match=r"cannot be read: Permission denied"):
            find(tmp_path)
    assert find(tmp_path) == made


def test_a_stage_that_leaves_a_link_leaves_nothing(tmp_path: Path) -> None:
    partial = begin(tmp_path)
    (partial / "link").symlink_to(partial / "model.bin")
    with pytest.raises(ValueError, match="link is no plain file"):
        finish(partial)
    assert find(tmp_path) is None


def test_digests_are_of_what_the_manifest_lists(tmp_path: Path) -> None:
    made = make(tmp_path)
    digests = artifact.digests(made.path)
    digests.pop(MANIFEST)
    assert digests == made.files
    assert list(digests) == sorted(FILES)


def test_no_prefix_of_a_manifest_passes_for_it(tmp_path: Path) -> None:
    manifest = make(tmp_path).path / MANIFEST
    whole = manifest.read_bytes()
    for length in range(len(whole)):
        manifest.write_bytes(whole[:length])
        assert find(tmp_path) is None, length
    manifest.write_bytes(whole)
    assert find(tmp_path) is not None


@pytest.mark.parametrize("name", [name for name, content in FILES.items() if content])
def test_every_byte_of_every_file_counts(name: str, tmp_path: Path) -> None:
    file = make(tmp_path).path / name
    whole = file.read_bytes()
    for index in range(len(whole)):
        changed = bytearray(whole)
        changed[index] ^= 1
        file.write_bytes(changed)
        assert find(tmp_path) is None, index


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_facts_that_json_cannot_hold_are_refused(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        finish(begin(tmp_path), {"points": [{"loss": value}]})
    assert find(tmp_path) is None
    assert not artifact.directory(tmp_path, "tiny", KEY).exists()


def test_facts_are_those_that_a_later_run_reads(tmp_path: Path) -> None:
    made = finish(begin(tmp_path), {"pair": (1, 2), "by_number": {1: None}})
    assert made.facts == {"pair": [1, 2], "by_number": {"1": None}}
    assert find(tmp_path) == made


def test_a_moved_root_keeps_everything(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new" / "home"
    made = make(old)
    assert str(tmp_path) not in (made.path / MANIFEST).read_text()
    new.parent.mkdir()
    old.rename(new)
    found = find(new)
    assert found is not None
    assert found.path == artifact.directory(new, "tiny", KEY)
    assert (found.fingerprint, found.facts) == (made.fingerprint, made.facts)


def test_the_manifest_says_what_went_in_and_what_came_out(tmp_path: Path) -> None:
    manifest = json.loads((make(tmp_path).path / MANIFEST).read_text())
    assert manifest["stage"] == "tiny"
    assert manifest["settings"] == {"seed": 0}
    assert manifest["inputs"] == {"model": OTHER}
    assert manifest["duration_s"] == 0.25
    assert manifest["files"].keys() == FILES.keys()


def test_size_is_that_of_the_files(tmp_path: Path) -> None:
    assert artifact.size_bytes(make(tmp_path).path) == sum(map(len, FILES.values()))


def _reordered(value: Any, order: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, _reordered(item, order)) for key, item in value.items()]
        order.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return [_reordered(item, order) for item in value]
    return value


@given(SETTINGS, st.dictionaries(st.text(), st.text()), st.randoms(use_true_random=False))
def test_the_order_of_keys_means_nothing(
    settings: dict[str, Any], inputs: dict[str, str], order: random.Random
) -> None:
    first = artifact.fingerprint("qat", 1, settings, inputs)
    assert first == artifact.fingerprint(
        "qat", 1, _reordered(settings, order), _reordered(inputs, order)
    )


@given(SETTINGS, SETTINGS)
def test_different_settings_have_different_fingerprints(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    fingerprints = {artifact.fingerprint("qat", 1, settings, {}) for settings in (one, other)}
    assert len(fingerprints) == 2 or one == other


def test_whatever_goes_in_changes_the_fingerprint() -> None:
    every = [
        artifact.fingerprint("qat", 1, {"a": 1}, {"model": "x"}),
        artifact.fingerprint("finetune", 1, {"a": 1}, {"model": "x"}),
        artifact.fingerprint("qat", 2, {"a": 1}, {"model": "x"}),
        artifact.fingerprint("qat", 1, {"a": 2}, {"model": "x"}),
        artifact.fingerprint("qat", 1, {"a": "1"}, {"model": "x"}),
        artifact.fingerprint("qat", 1, {"b": 1}, {"model": "x"}),
        artifact.fingerprint("qat", 1, {"a": 1}, {"model": "y"}),
        artifact.fingerprint("qat", 1, {"a": 1}, {"data": "x"}),
        artifact.fingerprint("qat", 1, {"a": 1}, {"model": "x", "data": "x"}),
        artifact.fingerprint("qat", 1, {"a": 1}, {}),
        artifact.fingerprint("qat", 1, {}, {"model": "x"}),
    ]
    assert len(set(every)) == len(every)


def test_a_tree_is_known_by_its_names_and_contents(tmp_path: Path) -> None:
    def digest(files: dict[str, str], folder: str) -> str:
        for name, content in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return artifact.digest_tree(tmp_path / folder)

    one = digest({"a": "1", "b/c": "2"}, "one")
    assert digest({"b/c": "2", "a": "1"}, "another folder") == one
    assert digest({"a": "1", "b/c": "2", ".cache/x": "3", ".lock": ""}, "hidden") == one
    others = [
        digest({"a": "1", "b/c": "3"}, "content"),
        digest({"a": "1", "c": "2"}, "name"),
        digest({"a": "1"}, "fewer"),
        digest({"a": "2", "b/c": "1"}, "swapped"),
        digest({"a": "1", "b/c": "2", "d": ""}, "more"),
    ]
    assert len({one, *others}) == 6
