"""Secrets go out of texts, and nothing else does."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantship.console import errors_shown
from quantship.errors import DataError, Problem, QuantshipError, RecipeError, StageError
from quantship.recipe import load
from quantship.scrubbing import GONE, is_secret, scrub, scrub_logs

TOKEN = "hf_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0"


@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        "api_org_" + "x" * 30,
        "ghp_" + "a1" * 18,
        "github_pat_" + "a1" * 20,
        "sk-" + "proj-" + "a1" * 16,
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "wandb_v1_" + "a1" * 20,
    ],
)
def test_tokens_by_their_look(secret: str) -> None:
    assert scrub(f"before {secret}, after") == f"before {GONE}, after"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://me:pass@host/x", f"https://{GONE}@host/x"),
        ("https://me:p%40ss@[::1]:80/x", f"https://{GONE}@[::1]:80/x"),
        ("https://host/x?token=abc&n=1", f"https://host/x?token={GONE}&n=1"),
        ("https://h/x?n=1&X-Amz-Signature=abc", f"https://h/x?n=1&X-Amz-Signature={GONE}"),
        ("Authorization: Bearer abcdefgh.ijk", f"Authorization: Bearer {GONE}"),
    ],
)
def test_credentials_in_urls_and_headers(text: str, clean: str) -> None:
    assert scrub(text) == clean


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "aws_secret_access_key", "DB_PASSWORD", "MY_CREDENTIALS"]
)
@pytest.mark.parametrize("value", ["hunter", "0123456789abcdef" * 2 + "01234567", "a/b+c=d&e"])
def test_values_of_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    from urllib.parse import quote

    monkeypatch.setenv(name, value)
    for form in (value, quote(value, safe="")):
        assert scrub(f"sent '{form}' to the server") == f"sent '{GONE}' to the server"


def test_a_secret_within_another_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "abcdef")
    monkeypatch.setenv("B_TOKEN", "abcdefghij")
    assert scrub("abcdefghij abcdef") == f"{GONE} {GONE}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false"),
        ("HF_TOKEN_PATH", "/run/secrets/token"),
        ("MAX_TOKENS", "1048576"),
        ("SOME_KEY", "yes"),
        ("PLAIN", "a value of its own"),
    ],
)
def test_what_is_no_secret_stays(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert scrub(f"here is {value}.") == f"here is {value}."


@pytest.mark.parametrize(
    "text",
    [
        "hf://datasets/me/data@main/train.jsonl",
        "HuggingFaceTB/SmolLM2-135M-Instruct at 7e27bd9f95328f0f3b08261d1252705110c806f8",
        "sha256:" + "0123456789abcdef" * 4,
        "me@example.org wrote https://example.org/@me and a@b",
        "tokenizer.json, hf_hub_download, sk-learn, risk-averse-and-cautious people",
    ],
)
def test_what_looks_a_little_like_one_stays(text: str) -> None:
    assert scrub(text) == text


@given(st.text())
def test_scrubbing_twice_is_scrubbing_once(text: str) -> None:
    assert scrub(scrub(text)) == scrub(text)


@pytest.mark.parametrize(
    "error",
    [
        QuantshipError(f"no access with {TOKEN}"),
        RecipeError([Problem(f"unknown key '{TOKEN}'", remedy=f"Not {TOKEN}.")]),
        DataError("bad", f"https://me:{TOKEN}@host/x.json"),
        StageError("qat", f"HTTPError: {TOKEN}"),
    ],
)
def test_errors_say_none(error: QuantshipError) -> None:
    assert TOKEN not in str(error)
    assert GONE in str(error)


@pytest.mark.parametrize("debug", [False, True])
def test_neither_messages_nor_tracebacks_show_one(
    debug: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        try:
            raise ValueError(f"401 for https://me:{TOKEN}@host")
        except ValueError as error:
            raise KeyError(TOKEN) from error

    with pytest.raises(BaseException, match="1"), errors_shown(debug):
        fail()
    said = capsys.readouterr().err
    assert TOKEN not in said
    assert GONE in said
    assert ("Traceback" in said) == debug


@pytest.fixture
def factory() -> Iterator[None]:
    """What logging had before."""
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.usefixtures("factory")
def test_what_libraries_log() -> None:
    scrub_logs()
    scrub_logs()
    stream = io.StringIO()
    logger = logging.getLogger("a.library")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        logger.error("GET %s with %d", f"https://me:{TOKEN}@host", 7)
        logger.error("nothing of %s", "note")
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue() == f"GET https://{GONE}@host with 7\nnothing of note\n"


def test_a_recipe_that_holds_one_is_refused_without_saying_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"description: mine is {TOKEN}\nmodel: {{tiny: {{}}}}\nscheme: w8a8\n"
        "data:\n  train: [{adapter: builtin}]\n  eval: [{adapter: builtin, split: eval}]\n"
        "  chat_template: 0123456789abcdef\nsteps: [{stage: qat}]\n"
    )
    with pytest.raises(RecipeError) as caught:
        load(recipe, overrides=[f"data.train.0.adapter={TOKEN}"])
    keys = [problem.key for problem in caught.value.problems if "secret" in problem.message]
    assert sorted(map(str, keys)) == ["data.chat_template", "data.train.0.adapter", "description"]
    assert TOKEN not in str(caught.value)
    assert "0123456789abcdef" not in str(caught.value)


def test_is_secret() -> None:
    assert is_secret(TOKEN)
    assert not is_secret("a recipe")
