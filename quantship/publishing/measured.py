"""The measured results of models as a model card states them: for programs and in a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from quantship.data import Source, hub_dataset
from quantship.data.source import FileOptions
from quantship.reporting import formatting
from quantship.reporting.comparison import float_reference, runtime
from quantship.reporting.evidence_schema import MetricFacts
from quantship.reporting.recovery_schema import Estimate
from quantship.reporting.schema import ModelRow, Report

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

DATA = "data"
"""What a report calls the recipe's own evaluation data among its tasks."""
PERPLEXITY = MetricFacts(name="perplexity", better="lower", kind="perplexity", judges=False)
ACCURACY = MetricFacts(name="token_accuracy", better="higher", kind="share", judges=False)
_TYPES = {"token_accuracy": "accuracy"}
"""What the Hub calls a metric, where that is not its own name."""
_SOURCES: TypeAdapter[Source] = TypeAdapter(Source)


@dataclass(frozen=True)
class Result:
    """One number of one model.

    Args:
        task: Name of the task in the report.
        metric: What was measured.
        estimate: The number and its interval.
        has_interval: Whether there is one.
        model: Name of the model.
    """

    task: str
    metric: MetricFacts
    estimate: Estimate
    has_interval: bool
    model: str


def results(report: Report, row: ModelRow) -> Iterator[Result]:
    """Everything that was measured of a model's accuracy, its own evaluation data first."""
    facts = {one.name: one for one in report.evidence.tasks} if report.evidence else {}
    if row.metrics is not None and DATA not in row.tasks:
        for metric, value in (
            (PERPLEXITY, row.metrics.perplexity),
            (ACCURACY, row.metrics.token_accuracy),
        ):
            yield Result(DATA, metric, _exactly(value), False, row.name)
    for task, found in row.tasks.items():
        known = {one.name: one for one in facts[task].metrics} if task in facts else {}
        for name, estimate in found.metrics.items():
            if name in known:
                certain = estimate.low == estimate.high
                yield Result(task, known[name], estimate, not certain, row.name)


def datasets_of(values: Any) -> list[Source]:
    """Data sources as a recipe's dump holds them; what this version cannot read is left out."""
    found = []
    for value in values or ():
        try:
            found.append(_SOURCES.validate_python(value))
        except ValidationError:
            continue
    return found


def hub_id(source: Source) -> str | None:
    """The data set on the Hub that a source is, wherever its files lie; None: it is on none."""
    if isinstance(source, FileOptions):
        return source.hub
    found = hub_dataset(source)
    return None if found is None else found[0]


def evaluations(report: Report, row: ModelRow, task_type: str) -> list[EvalResult]:
    """A model's results for the ``model-index`` of its card."""
    from huggingface_hub import EvalResult

    confidence = report.evidence.confidence if report.evidence else None
    found = []
    for result in results(report, row):
        sources = _sources(report, result.task)
        ids = [hub_id(source) or source.adapter for source in sources]
        name = _title(result)  # results of one data set stand together, whatever the task
        if result.has_interval and confidence is not None:
            name += f" ({_interval_words(result, confidence)})"
        single = len(sources) == 1
        found.append(
            EvalResult(
                task_type=task_type,
                task_name=task_type.replace("-", " ").capitalize(),
                dataset_type=" + ".join(ids) or result.task,
                dataset_name=" + ".join(ids) or result.task,
                dataset_config=getattr(sources[0], "config", None) if single else None,
                dataset_split=getattr(sources[0], "split", None) if single else None,
                metric_type=_TYPES.get(result.metric.name, result.metric.name),
                metric_value=result.estimate.value,
                metric_name=name,
            )
        )
    return found


def shown(report: Report, names: Sequence[str]) -> list[ModelRow]:
    """The models of a card's table: those that are uploaded, and the float ones beside them."""
    wanted = set(names)
    for row in report.models:
        if row.name in names:
            reference = float_reference(report, row)
            wanted |= {reference.name} if reference is not None else set()
            wanted |= {row.float_source} if row.float_source else set()
    return [row for row in report.models if row.name in wanted]


def table(report: Report, rows: Sequence[ModelRow]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of the table of results: accuracy with intervals, sizes, speeds."""
    columns: dict[tuple[str, str], str] = {}
    cells: dict[str, dict[tuple[str, str], str]] = {}
    for row in rows:
        for result in results(report, row):
            key = result.task, result.metric.name
            columns.setdefault(key, _title(result))
            cells.setdefault(row.name, {})[key] = in_words(result)
    titles = ["Model", "Runtime", "Scheme", "Size, MB", *columns.values()]
    timed = any(row.benchmark for row in rows)
    titles += ["Prefill, tokens/s", "Decode, tokens/s"] if timed else []
    lines = []
    for row in rows:
        line = [row.name, runtime(row), row.scheme or "float"]
        line.append(formatting.megabytes(row.size_bytes))
        line += [cells.get(row.name, {}).get(key, formatting.DASH) for key in columns]
        if timed:
            speeds = row.benchmark
            line.append(formatting.speed(speeds.prefill_tokens_per_s if speeds else None))
            line.append(formatting.speed(speeds.decode_tokens_per_s if speeds else None))
        lines.append(line)
    return titles, lines


def in_words(result: Result) -> str:
    """A number with its interval: ``41.2 % (38.0 to 44.4)``, ``17.31 (17.02 to 17.63)``."""
    estimate = result.estimate
    is_share = result.metric.kind == "share"
    text = formatting.percent if is_share else formatting.number
    value = text(estimate.value) + (" %" if is_share else "")
    if not result.has_interval:
        return value
    return f"{value} ({text(estimate.low)} to {text(estimate.high)})"


def _interval_words(result: Result, confidence: float) -> str:
    low, high = result.estimate.low, result.estimate.high
    return f"{formatting.share(confidence)} interval {low:.4g} to {high:.4g}"


def _title(result: Result) -> str:
    metric = result.metric.name.replace("_", " ")
    return metric.capitalize() if result.task == DATA else f"{result.task}: {metric}"


def _exactly(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value)


def _sources(report: Report, task: str) -> list[Source]:
    """The data behind a task; the recipe's own where it names none."""
    evaluation: Any = report.recipe.get("evaluation") or {}
    for asked in evaluation.get("tasks") or ():
        if (asked.get("name") or asked["task"]) == task:
            if "source" not in asked:  # its data are its own
                return []
            if asked["source"] is not None:
                return datasets_of([asked["source"]])
    data: Any = report.recipe.get("data") or {}
    return datasets_of(data.get("eval"))
