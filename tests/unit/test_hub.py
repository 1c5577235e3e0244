"""What the Hub's commits are pinned to, and what is said where they cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantship import hub
from quantship.errors import UsageError


def test_a_token_file_of_somebody_else_is_named_and_no_network_blamed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Root reads every file, so the refusal is one that the file system would give to others."""
    token = tmp_path / "token"
    token.write_text("secret")
    monkeypatch.setenv("HF_TOKEN_PATH", str(token))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(token))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    read = Path.read_text

    def refuse(path: Path, *arguments: Any, **options: Any) -> str:
        if path == token:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(UsageError, match=r"token.* cannot be read") as caught:
        hub.commit("me/model", "main", "model")
    assert "--user" in str(caught.value)
