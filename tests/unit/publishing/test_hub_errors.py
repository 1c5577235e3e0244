from __future__ import annotations

import pytest
from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

from quantship.publishing import hub_errors

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return TOKEN


def test_whatever_quotes_the_token_shows_none(token: str) -> None:
    error = hub_errors.failure(ValueError(f"header 'Bearer {token}' is wrong"), "me/it")
    assert token not in str(error)
    assert "Bearer hf_***" in str(error)


def test_what_is_kept_is_said_only_where_something_is(token: str) -> None:
    error = OSError("disk")
    assert "uploads what is missing" in str(hub_errors.failure(error, "me/it"))
    assert "uploads what is missing" not in str(hub_errors.failure(error, "me/it", kept=False))


def test_a_missing_network_is_told_from_a_wrong_token() -> None:
    assert hub_errors.is_unreachable(ConnectionRefusedError())
    assert hub_errors.is_unreachable(OfflineModeIsEnabled("offline"))
    assert not hub_errors.is_unreachable(LocalTokenNotFoundError("none"))
    assert not hub_errors.is_unreachable(KeyError("a bug"))
    assert not hub_errors.is_of_the_network(OfflineModeIsEnabled("offline"))
