"""What the rows of a report say about each other: references, ratios, headlines, warnings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from quantship.reporting import formatting
from quantship.reporting.schema import Benchmark, ModelRow, Report

RUNTIMES = {
    "float": "torch",
    "torchao": "torchao",
    "onnx": "onnxruntime",
    "openvino": "openvino",
}
SIDES = {"float": "torch", "torchao": "torch", "onnx": "onnxruntime", "openvino": "openvino"}
"""What a kind of files is compared with: a float model on the same library; torchao is torch's."""
Speed = Literal["prefill_tokens_per_s", "decode_tokens_per_s"]
SHAPE = ("batch_size", "prompt_tokens", "decode_tokens", "threads")


@dataclass(frozen=True)
class Headline:
    """One number worth a card.

    Args:
        label: What it is.
        value: The number, formatted.
        detail: Which model it belongs to, and against what.
        alarm: True: bad news, to be shown loudly.
    """

    label: str
    value: str
    detail: str
    alarm: bool = False


def runtime(row: ModelRow) -> str:
    """Name of the runtime that runs a row's files."""
    return RUNTIMES[row.kind]


def is_onnx(row: ModelRow) -> bool:
    """Whether a row belongs to onnxruntime's side of the comparison; torchao is torch's."""
    return row.kind == "onnx"


def side(row: ModelRow) -> str:
    """What a row is compared within: the library that runs its files."""
    return SIDES[row.kind]


def is_wrong(row: ModelRow) -> bool:
    """Whether a row's integers are not those of its checkpoint; such a model is best at nothing."""
    return row.parity is not None and row.parity.codes_equal is False


def float_reference(report: Report, row: ModelRow) -> ModelRow | None:
    """The float model of the same runtime that a quantized row is measured against.

    That is the one it was made from; None where it is not among them, and for a float row. Of a
    row that does not say, it is the nearest above it in the report, else the nearest below.
    """
    source = row.float_source
    return _nearest_float(
        report, row, lambda other: source is None or source in (other.name, other.float_source)
    )


def perplexity_change(report: Report, row: ModelRow) -> float | None:
    """Perplexity by that of the float reference, minus 1; None where either is not known."""
    reference = float_reference(report, row)
    if reference is None or reference.metrics is None or row.metrics is None:
        return None
    return row.metrics.perplexity / reference.metrics.perplexity - 1


def speed_ratio(report: Report, row: ModelRow, speed: Speed) -> float | None:
    """Tokens a second by those of the nearest float row of the same runtime; None if unknown.

    Rows that were benchmarked on inputs of another shape are no reference.
    """
    benchmark = row.benchmark
    if benchmark is None:
        return None
    reference = _nearest_float(report, row, lambda other: _same_shape(benchmark, other.benchmark))
    if reference is None or reference.benchmark is None:
        return None
    below = float(getattr(reference.benchmark, speed))
    return float(getattr(benchmark, speed)) / below if below else None


def warnings(report: Report) -> list[str]:
    """What must not be overlooked: models whose integers or results are not those they should be.

    That is, integers that are not the checkpoint's, and products that this machine's kernels spoil.
    """
    wrong = [f"{row.name}: {row.inexact}." for row in report.models if row.inexact is not None]
    return wrong + [
        f"{row.name}: its integer codes or scales are NOT equal to those of "
        f"{row.parity.reference} ({row.parity.tensors_compared} tensors compared). Its numbers "
        "are not those of the model that was trained. Do not ship it."
        for row in report.models
        if row.parity is not None and is_wrong(row)
    ]


def headlines(report: Report) -> list[Headline]:
    """The few numbers that sum a run up; those that were not measured are left out."""
    makers = (_best_compression, _best_perplexity, _best_decode, _best_recovery, _codes)
    return [headline for make in makers if (headline := make(report)) is not None]


def _nearest_float(
    report: Report, row: ModelRow, accepts: Callable[[ModelRow], bool]
) -> ModelRow | None:
    if row.scheme is None:
        return None
    position = next(index for index, other in enumerate(report.models) if other is row)
    candidates = [*reversed(report.models[:position]), *report.models[position:]]
    for other in candidates:
        if other.scheme is None and side(other) == side(row) and accepts(other):
            return other
    return None


def _same_shape(one: Benchmark, other: Benchmark | None) -> bool:
    return other is not None and all(getattr(one, key) == getattr(other, key) for key in SHAPE)


def _best_compression(report: Report) -> Headline | None:
    best = _best(report, lambda row: row.compression)
    if best is None:
        return None
    value, row = best
    detail = f"{row.name} on {runtime(row)}, {formatting.size(row.size_bytes)}"
    return Headline("Best compression", formatting.ratio(value), detail + _price(report, row))


def _best_perplexity(report: Report) -> Headline | None:
    best = _best(report, lambda row: _negative(perplexity_change(report, row)))
    if best is None:
        return None
    value, row = best
    reference = float_reference(report, row)
    assert reference is not None
    assert reference.metrics is not None
    assert row.metrics is not None
    detail = (
        f"{row.name} on {runtime(row)}, {formatting.number(row.metrics.perplexity)} "
        f"against {formatting.number(reference.metrics.perplexity)} in float"
    )
    return Headline("Best perplexity change", formatting.change(1 - value, 1.0), detail)


def _best_decode(report: Report) -> Headline | None:
    best = _best(
        report,
        lambda row: speed_ratio(report, row, "decode_tokens_per_s") if is_onnx(row) else None,
    )
    if best is None:
        return None
    value, row = best
    assert row.benchmark is not None
    speed = formatting.speed(row.benchmark.decode_tokens_per_s)
    detail = f"{row.name}, {speed} tokens/s"
    return Headline(
        "Best ONNX decode speedup", formatting.ratio(value), detail + _price(report, row)
    )


def _best_recovery(report: Report) -> Headline | None:
    """The QAT model that recovered the largest share for sure: at the interval's lower end.

    Of a small loss the share is large by chance as often as not.
    """
    known = [(entry.recovered.share, entry) for entry in report.recovery]
    shares = [(share, entry) for share, entry in known if share is not None]
    if not shares:
        return None
    share, entry = max(shares, key=lambda pair: pair[0].low)
    detail = f"{entry.qat.name} of what {entry.ptq.name} lost, "
    detail += f"interval {formatting.share_range(share.low, share.high)}"
    control = entry.control.recovered.share if entry.control is not None else None
    if control is not None:
        detail += f"; {formatting.share(control.value)} against a control in float"
    return Headline("Best share of loss recovered", formatting.share(share.value), detail)


def _best(
    report: Report, value_of: Callable[[ModelRow], float | None]
) -> tuple[float, ModelRow] | None:
    """The quantized row of the largest value; of equal ones, that of the least perplexity."""
    known = [
        (value, row)
        for row in report.models
        if row.scheme is not None and not is_wrong(row) and (value := value_of(row)) is not None
    ]
    if not known:
        return None
    return max(known, key=lambda pair: (pair[0], -(perplexity_change(report, pair[1]) or 0.0)))


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _price(report: Report, row: ModelRow) -> str:
    """What a row pays for being best: a small or fast model that is ruined is no good news."""
    cost = perplexity_change(report, row)
    return "" if cost is None else f", perplexity {formatting.change(1 + cost, 1.0)}"


def _codes(report: Report) -> Headline | None:
    parities = [row.parity for row in report.models if row.parity is not None]
    compared = [parity for parity in parities if parity.codes_equal is not None]
    if not compared:
        return None
    equal = sum(bool(parity.codes_equal) for parity in compared)
    tensors = sum(parity.tensors_compared for parity in compared)
    detail = f"{tensors:,} tensors compared bit for bit with their checkpoints"
    alarm = equal < len(compared)
    return Headline("Models with equal codes", f"{equal} of {len(compared)}", detail, alarm)
