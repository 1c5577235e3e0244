"""Gates in words: what a limit asks, what was measured, and how the two compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quantship.reporting import formatting
from quantship.reporting.evidence_schema import Gate
from quantship.reporting.facts import FactTable

Kind = Literal["bytes", "share", "nats", "factor", "speed", "number"]

TITLE = "Gates"
PASSED, FAILED = "✓", "✗"
KINDS: dict[str, Kind] = {
    "perplexity": "number",
    "token_accuracy": "share",
    "kl": "nats",
    "top1_agreement": "share",
    "size": "bytes",
    "compression": "factor",
    "prefill_speed": "speed",
    "decode_speed": "speed",
    "prefill_speedup": "factor",
    "decode_speedup": "factor",
    "peak_memory": "bytes",
}
"""What the numbers of a metric are; those of tasks say so themselves."""


@dataclass(frozen=True)
class Rule:
    """One bound of a gate.

    Args:
        metric: What is limited.
        kind: What its numbers are.
        bound: Key of the bound, as ``max_increase``.
        limit: The bound.
        over: Model that it is relative to.
        by_other: Whether the number is divided by the other model's.
        confidence: Of the bound that has to keep to it; None: the number itself.
    """

    metric: str
    kind: Kind
    bound: str
    limit: float
    over: str | None
    by_other: bool
    confidence: float | None

    @property
    def relative(self) -> bool:
        """Whether another model's number is needed."""
        return self.bound not in ("min", "max")


def rule(rule: Rule) -> str:
    """What a gate asks: ``at most 2 % above finetune, 95 % sure``."""
    most = "at least" if rule.bound.startswith("min") else "at most"
    text = f"{most} {_amount(rule, rule.limit, exact=True)}"
    if rule.over is not None:
        text += f" {_preposition(rule)} {rule.over}"
    return text if rule.confidence is None else f"{text}, {_plain(100 * rule.confidence)} % sure"


def measured(rule: Rule, value: float, bound: float | None) -> str:
    """What was measured: ``1.91 % above, surely at most 2.30 % above``."""
    if bound is not None:
        return f"{term(rule, value)}, {sure(rule, bound)}"
    return term(rule, value) + ("" if rule.confidence is None else ", not for sure")


def term(rule: Rule, value: float) -> str:
    """A number in the terms of a limit: ``1.91 % above``, ``135.8 MB``, ``0.25 ×``."""
    if rule.bound not in ("max_increase", "max_decrease"):
        return _amount(rule, value)
    return f"{_amount(rule, abs(value))} {_side(rule, value)}"


def sure(rule: Rule, bound: float) -> str:
    """The confidence bound: ``surely at most 2.30 % above``."""
    least = "at least" if rule.bound.startswith("min") else "at most"
    if rule.bound in ("max_increase", "max_decrease"):
        least = "at most" if bound >= 0 else "at least"  # 3 % below and more is at least 3 % below
    return f"surely {least} {term(rule, bound)}"


def reason(
    rule_: Rule,
    model: str,
    one: float | None,
    other: float | None,
    value: float | None,
    bound: float | None,
) -> str:
    """The figure and the limit in a sentence, without its full stop."""
    assert one is not None
    assert value is not None
    text = f"{rule_.metric} of {model} is {shown(rule_.kind, one)}"
    if other is not None:
        link = "that of " if rule_.bound in ("min_ratio", "max_ratio") else ""
        text += f", {term(rule_, value)} {link}{rule_.over} ({shown(rule_.kind, other)})"
    if bound is not None:
        text += f", {sure(rule_, bound)}"
    return f"{text}; the limit is {rule(rule_)}"


def table(gates: list[Gate]) -> FactTable | None:
    """One row a gate; None where the recipe has none."""
    if not gates:
        return None
    return FactTable(
        ("", "Model", "Metric", "Measured", "Limit"),
        tuple(
            (
                PASSED if gate.passed else FAILED,
                gate.model,
                gate.metric,
                gate.measured or "not measured",
                gate.rule,
            )
            for gate in gates
        ),
    )


def failures(gates: list[Gate], most: int | None = None) -> list[str]:
    """What each failed gate says; of more than ``most`` of them, how many more there are."""
    found = [gate.reason for gate in gates if not gate.passed]
    if most is None or len(found) <= most:
        return found
    return [*found[:most], f"and {len(found) - most} more, which the report lists"]


def summary(gates: list[Gate]) -> str:
    """How many gates hold: ``58 of 60 gates pass``."""
    passed = sum(gate.passed for gate in gates)
    return f"{passed} of {len(gates)} gates pass"


def shown(kind: Kind, value: float) -> str:
    """A number of a metric with its unit."""
    match kind:
        case "bytes":
            return formatting.size(round(value))
        case "share":
            return f"{formatting.percent(value)} %"
        case "nats":
            return f"{formatting.small(value)} nats"
        case "factor":
            return formatting.ratio(value)
        case "speed":
            return f"{formatting.speed(value)} tokens/s"
    return formatting.number(value)


def _amount(rule: Rule, value: float, *, exact: bool = False) -> str:
    """A number in the terms of a limit, without its sign where it is a difference."""
    if rule.bound in ("min_ratio", "max_ratio"):
        return f"{_plain(value) if exact else f'{value:.3g}'} ×"
    if rule.by_other:
        return f"{_plain(100 * value) if exact else f'{100 * value:.2f}'} %"
    if rule.kind == "share" and rule.relative:
        return f"{_plain(100 * value) if exact else f'{100 * value:.2f}'} points"
    if exact and rule.kind in ("number", "share"):
        return _plain(value) if rule.kind == "number" else f"{_plain(100 * value)} %"
    return shown(rule.kind, value)


def _side(rule: Rule, value: float) -> str:
    """Where a difference in the terms of a limit puts a number: ``above`` or ``below``."""
    increases = rule.bound == "max_increase"
    return "above" if (value >= 0) == increases else "below"


def _preposition(rule: Rule) -> str:
    return {"max_increase": "above", "max_decrease": "below"}.get(rule.bound, "that of")


def _plain(value: float) -> str:
    """A number as somebody has written it."""
    return f"{value:.6g}"
