"""Whether a push can succeed at all, asked before the work that would be pushed is begun."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from quantship.publishing import hub_errors


@dataclass(frozen=True)
class Access:
    """What is known of the right to write before anything is uploaded.

    Args:
        user: Whose token it is; None: not known.
        warnings: What could not be checked, in sentences.
    """

    user: str | None
    warnings: tuple[str, ...] = ()


def check(repositories: Iterable[str]) -> Access:
    """Ask the Hub whether the token may write to repositories; nothing is written.

    Raises:
        StageError: There is no token, the Hub does not accept it, or it may not write there.
    """
    from huggingface_hub import HfApi

    names = list(repositories)
    try:
        hub_errors.token()
        api = HfApi(token=True)
        who = api.whoami()
        for name in names:
            _require_right(api, who, name)
    except Exception as error:
        if hub_errors.is_unreachable(error):
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
            return Access(
                None,
                (f"Whether the token may write is not known: the Hub is not reached ({why}).",),
            )
        raise hub_errors.failure(error, ", ".join(names), kept=False) from error
    return Access(str(who.get("name")), tuple(_doubts(who, names)))


def _require_right(api: Any, who: dict[str, Any], name: str) -> None:
    from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError

    if _role(who) == "read":
        raise LocalTokenNotFoundError("the token may only read")
    with suppress(RepositoryNotFoundError):  # it will be created
        api.auth_check(name, write=True)


def _role(who: dict[str, Any]) -> str | None:
    token = (who.get("auth") or {}).get("accessToken") or {}
    role: str | None = token.get("role")
    return role


def _doubts(who: dict[str, Any], names: Iterable[str]) -> list[str]:
    """Repositories in a namespace that is neither the user's nor of an organization of theirs."""
    own = {who.get("name"), *(one.get("name") for one in who.get("orgs") or ())}
    return [
        f"{name} is neither {who.get('name')}'s nor of an organization of theirs: whether the "
        "token may create it is not known."
        for name in names
        if name.partition("/")[0] not in own
    ]
