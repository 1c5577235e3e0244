"""What QAT recovered of PTQ's loss, in words and as a table."""

from __future__ import annotations

from dataclasses import dataclass

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
NEAREST = "rounded to nearest"


@dataclass(frozen=True)
class Held:
    """One share of a QAT model.

    Args:
        recovered: The share, and the float model that it is against.
        ptq: The PTQ twin whose loss it is a share of.
        algorithm: How that twin's integers were found; may be empty.
        float_note: A word on what the float model is; may be empty.
    """

    recovered: ShareRecovered
    ptq: ModelLoss
    algorithm: str
    float_note: str = ""


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
            "not defined" if held.recovered.share is None else _share(held.recovered.share),
            ", ".join(filter(None, (_model(held.ptq), held.algorithm))),
            _model(held.recovered.reference) + held.float_note,
            _lost(held.recovered.lost),
            ", ".join(filter(None, (entry.scheme, entry.method))),
        )
        for entry in report.recovery
        for held in shares(entry)
    )
    return FactTable(header, rows)


def shares(entry: Recovery) -> list[Held]:
    """The shares of a QAT model: of the best PTQ's loss, of rounding's, and against its control."""
    found = [Held(entry.recovered, entry.ptq, entry.ptq_algorithm)]
    if entry.nearest is not None and entry.of_nearest is not None:
        found.append(Held(entry.of_nearest, entry.nearest, NEAREST))
    if entry.control is not None:
        control = entry.control.recovered
        found.append(Held(control, entry.ptq, entry.ptq_algorithm, " (control)"))
    return found


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
                f"{entry.qat.name}: {_twin(entry)} is the best of its PTQ twins; the others are "
                f"{', '.join(others)}.{_choice(entry)}"
            )
        lines += [
            f"{entry.qat.name} has no share of {held.ptq.name}'s loss against "
            f"{held.recovered.reference.name}: {held.recovered.undefined}."
            for held in shares(entry)
            if held.recovered.undefined is not None
        ]
        if entry.control is not None:
            lines.append(f"{entry.qat.name}: {_fairness(entry.qat.name, entry.control)}")
    return lines


def _sentence(entry: Recovery) -> str:
    qat, ptq, recovered = entry.qat.name, entry.ptq.name, entry.recovered
    if recovered.share is None:
        text = f"{qat}: the share recovered is not defined, as {recovered.undefined}"
    else:
        best = f", the best of {len(entry.ptq_twins)}" if len(entry.ptq_twins) > 1 else ""
        made = f" ({entry.ptq_algorithm}{best})" if entry.ptq_algorithm else ""
        text = f"{qat} recovers {_share(recovered.share)} of what {ptq}{made} lost"
    if entry.nearest is not None and entry.of_nearest is not None and entry.of_nearest.share:
        text += f"; {_share(entry.of_nearest.share)} of what {entry.nearest.name} ({NEAREST}) lost"
    if entry.control is None or entry.control.recovered.share is None:
        return text
    name = entry.control.recovered.reference.name
    return f"{text}; {_share(entry.control.recovered.share)} against {name}, trained on in float"


def _twin(entry: Recovery) -> str:
    algorithm = entry.ptq_algorithm
    return f"{entry.ptq.name} ({algorithm})" if algorithm else entry.ptq.name


def _choice(entry: Recovery) -> str:
    """What choosing the best twin on the evaluation data does to the numbers."""
    if entry.ptq_best_in is None:
        return ""
    sure = formatting.percent(entry.ptq_best_in).removesuffix(".00")
    return (
        f" It was chosen by its loss on the very sequences that it is compared on, and is the best "
        f"in {sure} % of their resamples; the less sure the choice, the more it favours PTQ."
    )


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
