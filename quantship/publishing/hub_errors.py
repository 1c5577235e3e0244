"""What the Hub and the network answer, in words that help; the token is in none of them."""

from __future__ import annotations

from quantship.errors import StageError

_LOGIN = "Log in with `hf auth login`, or set HF_TOKEN, with a token that may write to {repo}."
_LOOK = "Check what the Hub says and the network (HF_ENDPOINT, HF_HUB_OFFLINE)."
_LATER = "The Hub asks to wait; try again in some minutes."
_KEPT = "Models and report are kept: the same command uploads what is missing."


def token() -> str:
    """The token, of HF_TOKEN or of huggingface_hub's own login.

    Raises:
        LocalTokenNotFoundError: There is none, or it is none.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import LocalTokenNotFoundError

    found = get_token()
    if found is None:
        raise LocalTokenNotFoundError("there is no token")
    if not (found.isascii() and found.isprintable()):
        # What a terminal adds when pasting. An HTTP library's error would quote the whole token.
        raise LocalTokenNotFoundError("the token holds characters that no token has")
    return found


def failure(error: Exception, repository: str, *, kept: bool = True) -> StageError:
    """An error of the Hub, of the network or of the login, for the user.

    Args:
        error: What was raised.
        repository: What was to be done something to.
        kept: Whether there is work done that stays.
    """
    what, remedy = _in_words(error)
    remedy = remedy.format(repo=repository)
    more = f"\n    {_KEPT}" if kept else ""
    return StageError("push", _clean(f"{repository}: {what}\n    {remedy}{more}"))


def is_unreachable(error: Exception) -> bool:
    """Whether an error says nothing of the token: there is no network, or no Hub behind it."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code == 429
    return isinstance(error, OfflineModeIsEnabled) or is_of_the_network(error)


def is_of_the_network(error: Exception) -> bool:
    """Whether a connection broke, or there was none."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # a download that failed and found nothing in the cache
    if isinstance(error, HfHubHTTPError | OfflineModeIsEnabled):
        return False
    # The client's HTTP library is its own affair, and has been two by now.
    named = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, ConnectionError) or "TransportError" in named


def _clean(text: str) -> str:
    """The text without the token, whoever may have put it there."""
    from huggingface_hub import get_token

    found = get_token()
    return text.replace(found, "hf_***") if found else text


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
    if status == 429:
        return f"the Hub answers {status}: {said}", _LATER
    return f"the Hub answers {status}: {said}", _LOOK
