"""A Hub that stumbles, answers late, cuts connections or lets a token expire amid a push.

Whatever goes wrong, the push either comes through or ends with an error that says what happened,
and the next one sends only what is missing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_api import BUSY, EXPIRE, STUMBLE, Fault, Hub
from local_hub import serve
from pushing import MODELS, READER, REPO, WRITER, push

Push = Callable[..., subprocess.CompletedProcess[str]]
NUM_LARGE = 5
"""A checkpoint, and graph and weights of two ONNX models."""
STEPS = ("create", "info", "tree", "validate", "preupload", "batch", "put", "verify", "commit")
CUT_BODY, CUT_ANSWER = Fault(cut="body"), Fault(cut="answer")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve({WRITER: True, READER: False}) as running:
        yield running


@pytest.fixture
def pushed(hub: Hub, finished_run: Path, tmp_path: Path) -> Push:
    def call(**options: str) -> subprocess.CompletedProcess[str]:
        return push(finished_run, hub.url, tmp_path / "home", **options)  # type: ignore[arg-type]

    return call


def arrived(hub: Hub, finished_run: Path) -> bool:
    """Whether everything is there, in one commit."""
    repository = hub.repositories[REPO]
    weights = (finished_run / "models" / "qat" / "model.safetensors").read_bytes()
    return (
        repository.files.get("model.safetensors") == weights
        and "SHA256SUMS" in repository.files
        and repository.commits == [f"Upload {', '.join(MODELS)} with quantship"]
    )


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "the same command uploads what is missing" in done.stderr
    return done.stderr


@pytest.mark.parametrize("fault", [STUMBLE, BUSY], ids=["500", "429"])
@pytest.mark.parametrize("kind", STEPS)
def test_a_hub_that_stumbles_is_asked_again(
    hub: Hub, pushed: Push, finished_run: Path, kind: str, fault: Fault
) -> None:
    hub.fail(kind, fault)
    done = pushed()
    assert done.returncode == 0, done.stderr
    assert hub.pending == 0
    assert arrived(hub, finished_run)
    assert hub.count("put") == NUM_LARGE + (kind == "put")


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("put", CUT_BODY),
        ("put", CUT_ANSWER),
        ("preupload", CUT_ANSWER),
        ("commit", CUT_BODY),
        ("commit", CUT_ANSWER),
        ("create", CUT_ANSWER),
    ],
    ids=lambda value: value if isinstance(value, str) else value.cut,
)
def test_a_cut_connection_is_opened_again(
    hub: Hub, pushed: Push, finished_run: Path, kind: str, fault: Fault
) -> None:
    """Also where the Hub has done as asked and the answer is lost: there is one commit."""
    hub.fail(kind, fault)
    done = pushed()
    assert done.returncode == 0, done.stderr
    assert hub.pending == 0
    assert arrived(hub, finished_run)


def test_a_slow_hub_is_waited_for(hub: Hub, pushed: Push, finished_run: Path) -> None:
    for kind in ("preupload", "put", "commit"):
        hub.fail(kind, Fault(wait_s=1.5))
    done = pushed()
    assert done.returncode == 0, done.stderr
    assert arrived(hub, finished_run)
    assert hub.count("put") == NUM_LARGE


def test_a_token_that_expires_amid_a_push_is_named_and_the_next_push_goes_on(
    hub: Hub, pushed: Push, finished_run: Path
) -> None:
    hub.fail("commit", EXPIRE)
    message = refusal(pushed())
    assert "does not accept the token (401)" in message
    assert "hf auth login" in message
    assert hub.repositories[REPO].commits == []
    assert hub.count("put") == NUM_LARGE
    hub.may_write[WRITER] = True  # a new token
    done = pushed()
    assert done.returncode == 0, done.stderr
    assert arrived(hub, finished_run)
    assert hub.count("put") == NUM_LARGE


def test_a_push_that_was_cut_goes_on_where_it_stopped(
    hub: Hub, pushed: Push, finished_run: Path
) -> None:
    hub.fail("put", *[Fault(status=403)] * NUM_LARGE, after=2)
    message = refusal(pushed())
    assert "403" in message
    kept = len(hub.large)
    assert 0 < kept < NUM_LARGE
    assert hub.repositories[REPO].commits == []
    hub.faults.clear()
    before = hub.count("put")
    done = pushed()
    assert done.returncode == 0, done.stderr
    assert hub.count("put") - before == NUM_LARGE - kept
    assert arrived(hub, finished_run)


def test_a_file_that_cannot_be_stored_is_named(hub: Hub, pushed: Push) -> None:
    hub.fail("put", *[STUMBLE] * 200)
    message = refusal(pushed())
    assert "500" in message
    assert "Error while uploading" in message
    assert hub.repositories[REPO].commits == []


def test_a_hub_that_does_not_recover_is_quoted(hub: Hub, pushed: Push) -> None:
    hub.fail("commit", *[STUMBLE] * 10)
    message = refusal(pushed())
    assert "the Hub answers 500: Internal Error" in message
    assert hub.count("commit") == 3


def test_a_hub_that_asks_to_wait_long_is_not_waited_for(hub: Hub, pushed: Push) -> None:
    hub.fail("commit", Fault(429, {"Retry-After": "3600"}))
    message = refusal(pushed())
    assert "429" in message
    assert "try again" in message


def test_rights_that_are_missing_are_not_asked_for_again(hub: Hub, pushed: Push) -> None:
    hub.fail("commit", Fault(403))
    assert "may not do this (403)" in refusal(pushed())
    assert hub.count("commit") == 1


def test_large_files_in_parts_arrive_whole(finished_run: Path, tmp_path: Path) -> None:
    with serve({WRITER: True}, part_bytes=20_000) as hub:
        hub.fail("part", STUMBLE, CUT_BODY, after=2)
        hub.fail("complete", STUMBLE)
        done = push(finished_run, hub.url, tmp_path / "home")
        assert done.returncode == 0, done.stderr
        assert hub.pending == 0
        assert hub.count("part") > 2 * NUM_LARGE
        assert arrived(hub, finished_run)
        puts = hub.count("part")
        assert push(finished_run, hub.url, tmp_path / "home").returncode == 0
        assert hub.count("part") == puts
