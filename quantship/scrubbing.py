"""Secrets taken out of what is shown and kept: tokens, keys, passwords.

What counts is whatever looks like a token of a service that is used here, credentials in a URL, and
the value of every environment variable whose name holds TOKEN, KEY, SECRET, PASSWORD or the like.
Text leaves through ``errors``, ``console`` and ``pipeline``, which call ``scrub``; ``recipe.load``
refuses recipes that hold a secret, so that nothing derived from one can.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

GONE = "[secret]"
_LEAST_CHARACTERS = 6
"""Shorter values are words and numbers too often to be taken out of every text."""
_NAME = re.compile(r"TOKEN|KEY|SECRET|PASSW|PASSPHRASE|CREDENTIAL", re.IGNORECASE)
_NO_SECRETS = re.compile(r"^TOKENIZERS_PARALLELISM$|_(PATH|FILE|DIR)$", re.IGNORECASE)
_TOKENS = re.compile(
    r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}"
    r"|\bwandb_v\d_[A-Za-z0-9_]{16,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}"
    r"|\bgithub_pat_[A-Za-z0-9_]{20,}"
    r"|\bsk-[A-Za-z0-9_-]{20,}"
    r"|\bAKIA[0-9A-Z]{16}\b"
)
_URL = re.compile(r"(?<=://)[^\s/@'\"]+@(?=[\w\[])")
_QUERY = re.compile(
    r"(?<=[?&])((?:[\w-]*(?:token|key|secret|password|signature|credential)[\w-]*)=)[^&\s'\"]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?<=\b[Bb]earer )[A-Za-z0-9._~+/=-]{6,}")


def scrub(text: str) -> str:
    """The text with every secret replaced."""
    for value in sorted(_values(os.environ), key=len, reverse=True):
        text = text.replace(value, GONE)
    text = _TOKENS.sub(GONE, text)
    text = _URL.sub(f"{GONE}@", text)
    text = _QUERY.sub(rf"\1{GONE}", text)
    return _BEARER.sub(GONE, text)


def is_secret(text: str) -> bool:
    """Whether a text holds a secret."""
    return scrub(text) != text


def scrub_logs() -> None:
    """Scrub whatever is logged from now on, by this package and by libraries."""
    before = logging.getLogRecordFactory()
    if getattr(before, "scrubs", False):
        return

    def scrubbed(*arguments: object, **options: object) -> logging.LogRecord:
        record = before(*arguments, **options)
        try:
            said = record.getMessage()
        except (TypeError, ValueError, KeyError):  # logging itself tells of a wrong format
            return record
        if is_secret(said):
            record.msg, record.args = scrub(said), ()
        return record

    scrubbed.scrubs = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(scrubbed)


def _values(environment: Mapping[str, str]) -> Iterator[str]:
    """Values of variables whose names say that they are secret, as they are and as URLs have them.

    A path, a number of few digits or a switch is none.
    """
    for name, value in environment.items():
        value = value.strip()
        if not _NAME.search(name) or _NO_SECRETS.search(name) or len(value) < _LEAST_CHARACTERS:
            continue
        if value.lower() in ("enabled", "disabled") or (value.isdigit() and len(value) < 12):
            continue
        yield value
        encoded = quote(value, safe="")
        if encoded != value:
            yield encoded
