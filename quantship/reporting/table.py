"""The table of models as cells of text, the same for Markdown, HTML and the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from quantship.reporting import formatting
from quantship.reporting.comparison import (
    Speed,
    float_reference,
    runtime,
    speed_ratio,
)
from quantship.reporting.schema import Metrics, ModelRow, Parity, Report


@dataclass(frozen=True)
class Cell:
    """One value.

    Args:
        text: The value, formatted; an en dash where it is missing.
        note: What stands beside it: the change or the ratio; empty: nothing.
        alarm: True: bad news, to be shown loudly.
    """

    text: str
    note: str = ""
    alarm: bool = False


@dataclass(frozen=True)
class Row:
    """One model's cells, by column."""

    group: str
    cells: dict[str, Cell]

    @property
    def origin(self) -> str:
        """Runtime, scheme and lowering in one line, for tables that stack them under the name."""
        scheme = self.cells["Scheme"]
        parts = (self.cells["Runtime"].text, scheme.text, scheme.note)
        return " · ".join(part for part in parts if part and part != formatting.DASH)


COLUMNS = {
    "Model": "Name of the model.",
    "Runtime": "What ran it.",
    "Scheme": "Quantization scheme, and the form of its layers in ONNX.",
    "Size": f"Weights on disk; {formatting.MB_STATEMENT}.",
    "Compression": "Size of the float32 model in the same kind of file, by this size.",
    "Perplexity": "Lower is better; change against the float model of the same runtime.",
    "Token accuracy": "Share of tokens predicted right.",
    "Prefill": "Prompt tokens a second; × against the float model of the same runtime.",
    "Decode": "Generated tokens a second; × against the float model of the same runtime.",
    "Of memory floor": (
        "Time that reading the weights from memory takes, by the time of a decoded token: 100 is "
        "as fast as memory allows."
    ),
    "Peak memory": "Resident memory of a process that runs this model alone.",
    "Codes equal": "Quantized tensors equal to the checkpoint's, to the bit, of those compared.",
    "Max |Δlogit|": "Largest difference of any logit from the model it was made from.",
    "Top-1": "Share of positions where both find the same token most likely.",
    "KL": "Divergence of the predictions from those of that model, in nats a token.",
}
"""What each column holds, in order."""

UNITS = {
    "Size": "MB",
    "Token accuracy": "%",
    "Prefill": "tokens/s",
    "Decode": "tokens/s",
    "Of memory floor": "%",
    "Peak memory": "MB",
    "Top-1": "%",
    "KL": "nats",
}


def rows(report: Report) -> list[Row]:
    """One row a model, in the report's order; every row has every column."""
    return [Row(row.group, _cells(report, row)) for row in report.models]


def footnotes(report: Report) -> list[str]:
    """What a row's numbers rest on, a line for each model that has something to say."""
    lines = []
    for row in report.models:
        facts = []
        if row.lowering is not None:
            facts.append(f"lowered as {row.lowering}")
        if row.activation_arithmetic is not None:
            facts.append(f"activations: {row.activation_arithmetic}")
        if row.parity is not None:
            facts.append(f"compared with {row.parity.reference}")
        facts += row.hardware_needs
        if row.benchmark is not None and row.benchmark.peak_gpu_bytes is not None:
            memory = formatting.size(row.benchmark.peak_gpu_bytes)
            facts.append(f"PyTorch held up to {memory} of tensors on the GPU")
        if facts:
            lines.append(f"{row.name} on {runtime(row)}: {'; '.join(facts)}")
    return lines


def _cells(report: Report, row: ModelRow) -> dict[str, Cell]:
    memory = row.benchmark.peak_rss_bytes if row.benchmark else None
    floor = row.benchmark.share_of_memory_floor if row.benchmark else None
    cells = (
        Cell(row.name),
        Cell(runtime(row)),
        Cell(row.scheme or formatting.DASH, row.lowering or ""),
        Cell(formatting.megabytes(row.size_bytes)),
        Cell(formatting.ratio(row.compression)),
        *_accuracy(report, row),
        _speed(report, row, "prefill_tokens_per_s"),
        _speed(report, row, "decode_tokens_per_s"),
        Cell(formatting.DASH if floor is None else formatting.whole_percent(floor)),
        Cell(formatting.megabytes(memory)),
        *_parity(row.parity),
    )
    return dict(zip(COLUMNS, cells, strict=True))


def _accuracy(report: Report, row: ModelRow) -> tuple[Cell, Cell]:
    metrics: Metrics | None = row.metrics
    if metrics is None:
        return Cell(formatting.DASH), Cell(formatting.DASH)
    reference = float_reference(report, row)
    note = ""
    if reference is not None and reference.metrics is not None:
        note = formatting.change(metrics.perplexity, reference.metrics.perplexity)
    accuracy = Cell(formatting.percent(metrics.token_accuracy))
    return Cell(formatting.number(metrics.perplexity), note), accuracy


def _speed(report: Report, row: ModelRow, speed: Speed) -> Cell:
    if row.benchmark is None:
        return Cell(formatting.DASH)
    relative = speed_ratio(report, row, speed)
    note = "" if relative is None else formatting.ratio(relative)
    return Cell(formatting.speed(getattr(row.benchmark, speed)), note)


def _parity(parity: Parity | None) -> tuple[Cell, Cell, Cell, Cell]:
    if parity is None:
        missing = Cell(formatting.DASH)
        return missing, missing, missing, missing
    compared = parity.tensors_compared
    codes = Cell(formatting.DASH)
    if parity.codes_equal is not None:
        equal = parity.codes_equal
        codes = Cell(f"{compared}/{compared}") if equal else Cell("NO", f"of {compared}", True)
    return (
        codes,
        Cell(formatting.small(parity.max_abs_logit_diff)),
        Cell(formatting.percent(parity.top1_agreement)),
        Cell(formatting.small(parity.kl_nats)),
    )
