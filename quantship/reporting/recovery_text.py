"""What QAT recovered of PTQ's loss, in words and as a table."""

from __future__ import annotations

from quantship.reporting import formatting
from quantship.reporting.facts import FactTable
from quantship.reporting.recovery_schema import (
    Control,
    Estimate,
    ModelLoss,
    Recovery,
    ShareRecovered,
)
from quantship.reporting.schema import Report

TITLE = "Loss recovered by QAT"


def sentences(report: Report) -> list[str]:
    """One line a QAT model: ``qat recovers 63 % (55–70 %) of what ptq lost against tuned``."""
    return [_sentence(entry) for entry in report.recovery]


def table(report: Report) -> FactTable | None:
    """One row a QAT model and float reference; None where there is nothing to compare."""
    if not report.recovery:
        return None
    header = ("QAT", "Share recovered", "PTQ", "Float", "PTQ lost, nats", "Scheme")
    rows = tuple(
        (
            _model(entry.qat),
            "not defined" if recovered.share is None else _share(recovered.share),
            _model(entry.ptq),
            _model(recovered.reference) + note,
            _lost(recovered.lost),
            ", ".join(filter(None, (entry.scheme, entry.method))),
        )
        for entry in report.recovery
        for recovered, note in references(entry)
    )
    return FactTable(header, rows)


def references(entry: Recovery) -> list[tuple[ShareRecovered, str]]:
    """What a QAT model is held against, each with a word on what it is; may be empty."""
    control = [(entry.control.recovered, " (control)")] if entry.control else []
    return [(entry.recovered, ""), *control]


def explanation(report: Report) -> str:
    """How the numbers are to be read."""
    first = report.recovery[0]
    text = (
        "Perplexities stand beside the names, and beside a scheme what QAT did beyond plain "
        "training. The share is (PTQ - QAT) / (PTQ - float), in mean losses over all tokens: "
        "0 % is no better than PTQ, 100 % as good as the float model. In brackets: "
        f"{formatting.share(first.confidence)} intervals, from "
        f"{first.num_resamples:,} resamples of the {first.num_sequences:,} evaluated sequences "
        f"({first.num_tokens:,} tokens), the same ones for all models. How much another seed of "
        "the training would change is not in them."
    )
    if any(entry.control for entry in report.recovery):
        text += (
            " A control is the float model trained on without quantization: against it, what more "
            "training alone gives does not count as recovered."
        )
    return text


def remarks(report: Report) -> list[str]:
    """What makes a comparison less than fair, or was chosen: twins, controls, missing shares."""
    lines = []
    for entry in report.recovery:
        others = [name for name in entry.ptq_twins if name != entry.ptq.name]
        if others:
            lines.append(
                f"{entry.qat.name}: {entry.ptq.name} is the best of its PTQ twins; the others are "
                f"{', '.join(others)}."
            )
        lines += [
            f"{entry.qat.name} has no share against {recovered.reference.name}: "
            f"{recovered.undefined}."
            for recovered, _ in references(entry)
            if recovered.undefined is not None
        ]
        if entry.control is not None:
            lines.append(f"{entry.qat.name}: {_fairness(entry.qat.name, entry.control)}")
    return lines


def _sentence(entry: Recovery) -> str:
    qat, ptq, recovered = entry.qat.name, entry.ptq.name, entry.recovered
    if recovered.share is None:
        text = f"{qat}: the share recovered is not defined, as {recovered.undefined}"
    else:
        text = f"{qat} recovers {_share(recovered.share)} of what {ptq} lost"
    if entry.control is None or entry.control.recovered.share is None:
        return text
    name = entry.control.recovered.reference.name
    return f"{text}; {_share(entry.control.recovered.share)} against {name}, trained on in float"


def _share(share: Estimate) -> str:
    return f"{formatting.share(share.value)} ({formatting.share_range(share.low, share.high)})"


def _lost(lost: Estimate | None) -> str:
    return formatting.DASH if lost is None else formatting.nats(lost.value, lost.low, lost.high)


def _model(model: ModelLoss) -> str:
    return f"{model.name}: {formatting.number(model.perplexity)}"


def _fairness(qat: str, control: Control) -> str:
    name = control.recovered.reference.name
    one, other = control.training, control.qat_training
    ours = f"{one.num_steps:,} optimizer steps of {one.sequences_per_step:,} sequences"
    if one.num_tokens is not None:
        ours += f" ({one.num_tokens:,} tokens)"
    if control.equal_data:
        text = f"its control {name} was trained on the same data in the same order, {ours}."
    else:
        theirs = f"{other.num_steps:,} of {other.sequences_per_step:,}"
        if other.num_tokens is not None:
            theirs += f" ({other.num_tokens:,} tokens)"
        text = f"its control {name} was NOT trained on the same data: {ours}, {qat} {theirs}."
    if control.differences:
        text += f" Their settings differ: {'; '.join(control.differences)}."
    return text
