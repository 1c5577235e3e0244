"""What quantship's exports of SmolLM2-135M are held to, and whether a run reached it.

The bars are for two cores with AVX2 and nothing else running; elsewhere they are figures to read.
A bar that is missed fails nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from contestants import BASE, Contestant, Family, Made
from serving import Served

Key = Literal["decode_tokens_per_s", "prefill_tokens_per_s", "perplexity"]
DECODE: Key = "decode_tokens_per_s"
PREFILL: Key = "prefill_tokens_per_s"
PERPLEXITY: Key = "perplexity"
Q8_0, Q4_0 = "llama.cpp Q8_0", "llama.cpp Q4_0"
GENAI = "onnxruntime-genai int4"


@dataclass(frozen=True)
class Bar:
    """One bar.

    Args:
        what: Words for it; also its key among the figures.
        limit: What is to be reached.
        at_least: Whether more is better; else the limit is the most that is allowed.
        strict: Whether the limit itself is not enough.
    """

    what: str
    limit: float
    at_least: bool
    strict: bool = False

    def is_met(self, figure: float) -> bool:
        """Whether a figure reaches it."""
        if figure == self.limit:
            return not self.strict
        return (figure > self.limit) == self.at_least

    @property
    def demand(self) -> str:
        """The limit with its sign."""
        signs = {(True, False): "≥", (True, True): ">", (False, False): "≤", (False, True): "<"}
        return f"{signs[self.at_least, self.strict]} {self.limit:g}"


BARS = (
    Bar("int8: decode by float32 ONNX", 2.4, at_least=True),
    Bar("int8: prefill by float32 ONNX, the same model", 1.3, at_least=True),
    Bar("int8: perplexity by float32 ONNX, best form", 1.01, at_least=False),
    Bar("int8: perplexity by float32 ONNX, worst form", 1.035, at_least=False),
    Bar("int8: bytes by float32 ONNX", 0.27, at_least=False),
    Bar("int4: decode by float32 ONNX", 3.0, at_least=True),
    Bar("int4: prefill by float32 ONNX, the same model", 1.05, at_least=True),
    Bar("int4: bytes by float32 ONNX", 0.165, at_least=False),
    Bar(f"int8: decode by {Q8_0}", 1.0, at_least=True),
    Bar(f"int8: prefill by {Q8_0}", 1.0, at_least=True),
    Bar(f"int8: perplexity by {Q8_0}", 1.0, at_least=False),
    Bar(f"int4: decode by {Q4_0}", 1.0, at_least=True),
    Bar(f"int4: prefill by {Q4_0}", 1.0, at_least=True),
    Bar(f"int4: perplexity by {Q4_0}", 1.0, at_least=False),
    Bar(f"int4: decode by {GENAI}", 1.0, at_least=True),
    Bar(f"int4: prefill by {GENAI}", 1.0, at_least=True),
    Bar(f"int4: perplexity by {GENAI}", 1.0, at_least=False, strict=True),
    Bar("export: seconds of the slowest", 10.0, at_least=False),
    Bar("export: peak memory by float32 weights", 2.5, at_least=False),
    Bar("int8: decode by the memory floor", 0.5, at_least=True),
)
SPEED_BARS: dict[Family, tuple[float, float]] = {"int8": (2.4, 1.3), "int4": (3.0, 1.05)}
"""Decode and prefill by float32 ONNX; which model is a family's champion hangs on both."""


@dataclass(frozen=True)
class Judgement:
    """A bar and what was measured; no figure: ``reason`` says why."""

    bar: Bar
    figure: float | None
    reason: str = ""

    @property
    def verdict(self) -> str:
        """``met``, ``not met``, or why it is not known."""
        if self.figure is None:
            return f"not measured: {self.reason}"
        return "met" if self.bar.is_met(self.figure) else "not met"


def judge(figures: Mapping[str, float], reason: str) -> list[Judgement]:
    """Every bar beside its figure.

    Args:
        figures: By the words of the bars; those that are missing were not measured.
        reason: Why they were not.
    """
    known = {bar.what for bar in BARS}
    assert figures.keys() <= known, figures.keys() - known
    return [Judgement(bar, figures.get(bar.what), reason) for bar in BARS]


def champion(served: Iterable[Served], family: Family) -> Served:
    """The model of ours that comes nearest to both speed bars of its family, or is furthest past.

    One artifact has to reach both, so the lesser of the two counts.
    """
    rows = list(served)
    base = next(row for row in rows if row.name == BASE)
    decode, prefill = SPEED_BARS[family]
    return max(
        (row for row in rows if row.ours and row.family == family),
        key=lambda row: min(
            row.decode_tokens_per_s / base.decode_tokens_per_s / decode,
            row.prefill_tokens_per_s / base.prefill_tokens_per_s / prefill,
        ),
    )


def serving_figures(served: list[Served]) -> dict[str, float]:
    """Figures of the bars that serving tells."""
    rows = {row.name: row for row in served}
    base, int8, int4 = rows[BASE], champion(served, "int8"), champion(served, "int4")
    figures: dict[str, float | None] = {
        "int8: decode by float32 ONNX": _ratio(int8, base, DECODE),
        "int8: prefill by float32 ONNX, the same model": _ratio(int8, base, PREFILL),
        "int8: bytes by float32 ONNX": int8.size_bytes / base.size_bytes,
        "int4: decode by float32 ONNX": _ratio(int4, base, DECODE),
        "int4: prefill by float32 ONNX, the same model": _ratio(int4, base, PREFILL),
        "int4: bytes by float32 ONNX": int4.size_bytes / base.size_bytes,
        "int8: decode by the memory floor": int8.share_of_memory_floor,
    }
    forms = [
        ratio
        for row in served
        if row.ours and row.family == "int8" and (ratio := _ratio(row, base, PERPLEXITY))
    ]
    if forms:
        figures["int8: perplexity by float32 ONNX, best form"] = min(forms)
        figures["int8: perplexity by float32 ONNX, worst form"] = max(forms)
    for family, ours, peer in (("int8", int8, Q8_0), ("int4", int4, Q4_0), ("int4", int4, GENAI)):
        if peer in rows:
            for word, key in (("decode", DECODE), ("prefill", PREFILL), ("perplexity", PERPLEXITY)):
                if ratio := _ratio(ours, rows[peer], key):
                    figures[f"{family}: {word} by {peer}"] = ratio
    return {what: value for what, value in figures.items() if value is not None}


def export_figures(
    contestants: Iterable[Contestant], made: Mapping[str, Made], float32_bytes: int
) -> dict[str, float]:
    """Figures of the bars that exporting tells: the worst of ours."""
    exports = [made[one.name] for one in contestants if one.ours and one.exports]
    return {
        "export: seconds of the slowest": max(one.seconds or 0.0 for one in exports),
        "export: peak memory by float32 weights": max(one.peak_rss_bytes or 0 for one in exports)
        / float32_bytes,
    }


def _ratio(one: Served, other: Served, key: Key) -> float | None:
    value, by = getattr(one, key), getattr(other, key)
    return None if value is None or by is None else value / by
