"""Numbers as text, one way in all forms of the report. A missing value is an en dash."""

from __future__ import annotations

DASH = "–"
MB = 1_000_000
MB_STATEMENT = "MB is 1,000,000 bytes"


def size(num_bytes: int) -> str:
    """Bytes with their unit: ``135.8 MB``."""
    return f"{megabytes(num_bytes)} MB"


def megabytes(num_bytes: int | None) -> str:
    """Bytes in units of 1e6: ``1,420``, ``135.8``, ``0.84``."""
    if num_bytes is None:
        return DASH
    value = num_bytes / MB
    digits = next((d for limit, d in ((1000, 0), (10, 1)) if value >= limit), 2)
    return f"{value:,.{digits}f}"


def ratio(value: float | None) -> str:
    """A factor: ``3.96×``."""
    if value is None:
        return DASH
    return f"{value:,.0f}×" if value >= 100 else f"{value:.2f}×"


def change(value: float | None, reference: float | None) -> str:
    """Relative change against a reference, always signed: ``+0.31 %``."""
    if value is None or not reference:
        return DASH
    percent_change = 100 * (value / reference - 1)
    digits = 2 if abs(percent_change) < 100 else 0
    rounded = round(percent_change, digits) + 0.0  # the sum turns -0.0 into 0.0
    return f"{rounded:+,.{digits}f} %"


def percent(share: float | None) -> str:
    """A share from 0 to 1 in per cent, the sign left out: ``61.25``. Never rounded up to 100."""
    if share is None:
        return DASH
    text = f"{100 * share:.2f}"
    return "99.99" if text == "100.00" and share < 1 else text


def whole_percent(share: float) -> str:
    """A share that may lie outside 0 to 1 in whole per cent, the sign left out: ``63``."""
    return f"{round(100 * share):,}"


def share(value: float) -> str:
    """A share that may lie outside 0 to 1, in whole per cent: ``63 %``, ``-4 %``."""
    return f"{whole_percent(value)} %"


def share_range(low: float, high: float) -> str:
    """The interval of such a share: ``55–70 %``, ``-4 to 12 %``."""
    between = " to " if low < 0 else "–"
    return f"{whole_percent(low)}{between}{whole_percent(high)} %"


def number(value: float | None) -> str:
    """A plain quantity in about four digits: ``1,195,515``, ``128.4``, ``25.49``, ``1.254``."""
    if value is None:
        return DASH
    digits = next((d for limit, d in ((1000, 0), (100, 1), (10, 2)) if abs(value) >= limit), 3)
    return f"{value:,.{digits}f}"


def speed(tokens_per_s: float | None) -> str:
    """Tokens a second in three digits: ``735``, ``52.1``, ``9.04``."""
    if tokens_per_s is None:
        return DASH
    digits = next((d for limit, d in ((100, 0), (10, 1)) if tokens_per_s >= limit), 2)
    return f"{tokens_per_s:,.{digits}f}"


def small(value: float | None) -> str:
    """A difference that ought to be near zero: ``0``, ``3.1e-06``, ``0.0124``."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.4f}"


def nats(value: float, low: float, high: float) -> str:
    """A difference of losses, always signed, and its interval: ``+0.318 (0.301 to 0.335)``."""
    ends = (f"{end:.4f}" if abs(value) < 0.01 else f"{end:.3f}" for end in (value, low, high))
    middle, first, last = ends
    sign = "" if middle.startswith("-") else "+"
    return f"{sign}{middle} ({first} to {last})"


def duration(seconds: float) -> str:
    """Seconds as ``42 s``, ``4 min 12 s`` or ``2 h 05 min``."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    if hours:
        return f"{hours} h {rest // 60:02d} min"
    return f"{rest // 60} min {rest % 60:02d} s" if rest >= 60 else f"{whole} s"


def shortened(text: str | None, longest: int) -> str | None:
    """A text of so many characters at most, the last one an ellipsis where some were left out."""
    if text is None or len(text) <= longest:
        return text
    return text[: longest - 1].rstrip() + "…"
