"""Upload finished models and their report to the Hugging Face Hub, each in a commit of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quantship.artifact import MANIFEST, Artifact
from quantship.errors import StageError
from quantship.recipe.language import Push

REPORT_FILES = ("report.json", "report.md", "report.html")

_LOGIN = "Log in with `hf auth login`, or set HF_TOKEN, with a token that may write to {repo}."
_LOOK = "Check what the Hub says and the network (HF_ENDPOINT, HF_HUB_OFFLINE)."
_KEPT = "Models and report are kept: the same command uploads what is missing."


def upload(options: Push, made: Mapping[str, Artifact], report_dir: Path) -> str:
    """Create the repository where it is missing and upload models and report.

    The token comes from HF_TOKEN or from huggingface_hub's own login, and from nowhere else.
    Files that the repository has already are not uploaded again.

    Returns:
        The repository's address.

    Raises:
        StageError: No token, no permission, or the Hub cannot be reached.
    """
    try:
        return _upload(options, made, report_dir)
    except Exception as error:
        what, remedy = _in_words(error)
        remedy = remedy.format(repo=options.repo)
        raise StageError("push", f"{options.repo}: {what}\n    {remedy}\n    {_KEPT}") from error


def _upload(options: Push, made: Mapping[str, Artifact], report_dir: Path) -> str:
    from huggingface_hub import HfApi

    _check_token()
    api = HfApi(token=True)  # not only where the user lets huggingface_hub send it unasked
    address = api.create_repo(options.repo, private=options.private, exist_ok=True)
    for name in options.models:
        api.upload_folder(
            repo_id=options.repo,
            folder_path=made[name].path,
            path_in_repo=name,
            ignore_patterns=[MANIFEST, "*.log"],
            commit_message=f"Upload {name}",
        )
    api.upload_folder(
        repo_id=options.repo,
        folder_path=report_dir,
        allow_patterns=list(REPORT_FILES),
        commit_message="Upload the report",
    )
    return str(address)


def _check_token() -> None:
    from huggingface_hub import get_token
    from huggingface_hub.errors import LocalTokenNotFoundError

    token = get_token()
    if token is None:
        raise LocalTokenNotFoundError("there is no token")
    if not (token.isascii() and token.isprintable()):
        # What a terminal adds when pasting. An HTTP library's error would quote the whole token.
        raise LocalTokenNotFoundError("the token holds characters that no token has")


def _in_words(error: Exception) -> tuple[str, str]:
    """What went wrong, and what to do about it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if isinstance(error, LocalTokenNotFoundError):
        return str(error), _LOGIN
    if not isinstance(error, HfHubHTTPError):
        why = f" {error.__cause__}" if error.__cause__ and type(error) is RuntimeError else ""
        return f"{constants.ENDPOINT}: {type(error).__name__}: {error}{why}", _LOOK
    said = error.server_message or str(error).partition("\n")[0]
    status = error.response.status_code
    if status == 401:
        return f"the Hub does not accept the token ({status}): {said}", _LOGIN
    if status == 403:
        return f"the token may not do this ({status}): {said}", _LOGIN
    return f"the Hub answers {status}: {said}", _LOOK
