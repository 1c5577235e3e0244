"""How a model of a run was made, step by step, in sentences for a model card."""

from __future__ import annotations

from quantship.reporting import formatting
from quantship.reporting.schema import ModelRow, Report, TrainingCurve


def making(report: Report, row: ModelRow) -> list[str]:
    """What was done to the base model, in order, and what was verified of the result."""
    by_name = {one.name: one for one in report.models}
    lines = []
    source = by_name.get(row.float_source or "")
    if source is not None and source.group == "finetune":
        lines += _training(report, source.name, "Fine-tuned")
    checkpoint = _checkpoint(row, by_name)
    if row.group == "qat":
        name = checkpoint.name if checkpoint is not None else row.name
        lines += _training(report, name, "Trained under fake quantization (QAT)")
        if row.method:
            lines.append(f"QAT used {row.method}.")
    elif row.quantization is not None:
        lines.append(_quantized(row))
    if row.lowering is not None:
        why = f": {row.lowering_reason}" if row.lowering_reason else ""
        lines.append(f"Lowered to ONNX as {row.lowering} for {row.target}{why}.")
    if row.parity is not None and row.parity.codes_equal:
        lines.append(
            f"Integer codes and scales of all {row.parity.tensors_compared} quantized tensors are "
            f"equal to the bit to those of {row.parity.reference}; greedy predictions agree at "
            f"{formatting.percent(row.parity.top1_agreement)} % of positions."
        )
    return lines


def _checkpoint(row: ModelRow, by_name: dict[str, ModelRow]) -> ModelRow | None:
    """The checkpoint that a model was exported from; the model itself where it is one."""
    if row.kind in ("float", "torchao"):
        return row
    return by_name.get(row.parity.reference) if row.parity is not None else None


def _training(report: Report, step: str, what: str) -> list[str]:
    found = [curve for curve in report.training if curve.step == step]
    return [f"{what} for {_amount(found[0])}."] if found else [f"{what}."]


def _amount(curve: TrainingCurve) -> str:
    steps = curve.points[-1].step if curve.points else 0
    time = formatting.duration(curve.seconds)
    return f"{steps:,} optimizer steps ({time})" if steps else time


def _quantized(row: ModelRow) -> str:
    made = row.quantization
    assert made is not None
    text = f"Quantized after training (PTQ) with {made.words}"
    if made.calibration is not None:
        text += f", calibrated on {made.calibration.sequences:,} sequences of the training data"
    return f"{text}."
