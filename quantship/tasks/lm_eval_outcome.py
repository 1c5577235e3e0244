"""From what lm-eval returns to metrics that are means over examples, and examples.

A metric stays one only where the mean over its examples is the number that lm-eval prints; what is
no such mean, as a corpus-level BLEU, is kept as lm-eval prints it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quantship.tasks import scores
from quantship.tasks.base import Example, Kind, Metric, Outcome

SHOWN = 2000
"""Characters that are kept of a prompt or an answer."""
JUDGING = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match")
"""lm-eval's metrics that call an example right or wrong."""
_SHARES = (*JUDGING, "em", "f1")
_OF_LIKELIHOOD: Mapping[str, tuple[Kind, float]] = {
    "perplexity": ("perplexity", 1.0),
    "word_perplexity": ("perplexity", 1.0),
    "byte_perplexity": ("perplexity", 1.0),
    "bits_per_byte": ("number", math.log(2)),
}
"""Metrics that come from log-likelihoods: their kind, and nats in their unit."""
_TOLERANCE = 1e-9
"""Relative: what adding up in another order changes."""

Sample = Mapping[str, Any]


def read(results: Mapping[str, Any], run: str, notes: Sequence[str]) -> Outcome:
    """The outcome of a task, group or tag.

    Args:
        results: As lm-eval's ``evaluate`` returns them, with samples.
        run: Name of the task, group or tag.
        notes: What a reader should know.
    """
    tables = {name: _by_filter(samples) for name, samples in results["samples"].items()}
    columns = _columns(tables)
    documents = [
        (name, doc) for name, table in tables.items() for doc in next(iter(table.values()))
    ]
    weights = [_weight(tables[name], doc) for name, doc in documents]
    metrics, values, extra = list[Metric](), dict[str, list[float]](), dict[str, float]()
    for column, (metric, key) in columns.items():
        found = [tables[name].get(key, {}).get(doc, {}).get(metric) for name, doc in documents]
        printed = results["results"].get(run, {}).get(f"{metric},{key}")
        kept = _kept(metric, column, found, weights, printed, _higher(results, metric))
        if kept is not None:
            metrics.append(kept[0])
            values[column] = kept[1]
        elif isinstance(printed, int | float) and math.isfinite(printed):
            extra[column] = float(printed)
    return Outcome(
        metrics,
        [
            _example(
                f"{name}[{doc}]",
                next(iter(tables[name].values()))[doc],
                {column: numbers[index] for column, numbers in values.items()},
                weights[index],
            )
            for index, (name, doc) in enumerate(documents)
        ],
        extra | dict(_parts(results, run)),
        notes,
    )


def _by_filter(samples: Sequence[Sample]) -> dict[str, dict[int, Sample]]:
    """Samples of one task by filter and document, in order."""
    table: dict[str, dict[int, Sample]] = {}
    for sample in samples:
        table.setdefault(sample["filter"], {})[sample["doc_id"]] = sample
    return table


def _columns(tables: Mapping[str, dict[str, dict[int, Sample]]]) -> dict[str, tuple[str, str]]:
    """What to call each metric, and lm-eval's metric and filter, in lm-eval's order."""
    pairs = dict.fromkeys(
        (metric, key)
        for table in tables.values()
        for key, samples in table.items()
        for metric in next(iter(samples.values()))["metrics"]
    )
    filters = {key for _, key in pairs}
    return {
        metric if len(filters) == 1 else f"{metric}_{key}".replace("-", "_"): (metric, key)
        for metric, key in pairs
    }


def _kept(
    metric: str,
    column: str,
    found: Sequence[Any],
    weights: Sequence[float],
    printed: float | None,
    higher: bool,
) -> tuple[Metric, list[float]] | None:
    """The metric with its examples' values; None where it is no mean over them."""
    if metric in _OF_LIKELIHOOD:
        kind, unit = _OF_LIKELIHOOD[metric]
        values = _nats(found, weights, unit)
    else:
        kind = "share" if metric in _SHARES else "number"
        values = _numbers(found)
        if values is not None:
            values = [value * weight for value, weight in zip(values, weights, strict=True)]
    if values is None:
        return None
    made = Metric(column, "higher" if higher else "lower", kind, metric in JUDGING)
    mean = scores.of_mean(kind, math.fsum(values) / math.fsum(weights))
    if printed is not None and not math.isclose(mean, printed, rel_tol=_TOLERANCE, abs_tol=1e-12):
        return None
    return made, values


def _numbers(found: Sequence[Any]) -> list[float] | None:
    try:
        values = [float(value) for value in found]
    except (TypeError, ValueError):  # a pair to be judged with all others, or nothing at all
        return None
    return values if all(map(math.isfinite, values)) else None


def _nats(found: Sequence[Any], weights: Sequence[float], unit: float) -> list[float] | None:
    """Negative log-likelihoods in a unit, scaled so that ``weights`` count in their mean.

    An example has one weight, and lm-eval counts the same text in words and in bytes: dividing the
    sum over a whole text by its bytes is to divide by its words and by the bytes in a word.
    """
    pairs = [value if isinstance(value, tuple) else (value, 1.0) for value in found]
    logprobs = _numbers([logprob for logprob, _ in pairs])
    if logprobs is None:
        return None
    scale = math.fsum(weights) / math.fsum(weight for _, weight in pairs)
    return [-logprob / unit * scale for logprob in logprobs]


def _weight(table: Mapping[str, Mapping[int, Sample]], doc: int) -> float:
    """What a document counts: its words or bytes where lm-eval weighs it by them, else 1."""
    sample = next(iter(table.values()))[doc]
    first = sample[sample["metrics"][0]]
    weighs = sample["metrics"][0] in _OF_LIKELIHOOD and isinstance(first, tuple)
    return float(first[1]) if weighs else 1.0


def _higher(results: Mapping[str, Any], metric: str) -> bool:
    known = [one[metric] for one in results["higher_is_better"].values() if metric in one]
    return known[0] is not False if known else True


def _parts(results: Mapping[str, Any], run: str) -> Iterator[tuple[str, float]]:
    """What lm-eval prints of each task, where there are several."""
    tasks = [name for name in results["results"] if name != run]
    for name in tasks if len(results["samples"]) > 1 else ():
        for key, value in results["results"][name].items():
            metric, _, _ = key.partition(",")
            if "," in key and not metric.endswith("_stderr") and isinstance(value, int | float):
                yield f"{name}.{key.removesuffix(',none').replace(',', '_')}", float(value)


def _example(name: str, sample: Sample, values: Mapping[str, float], weight: float) -> Example:
    prompts = [arguments[0] for arguments in sample["arguments"]]
    if isinstance(sample["arguments"][0][-1], str) and len(sample["arguments"][0]) == 2:
        choices = [arguments[1] for arguments in sample["arguments"]]
        if len(set(choices)) == 1 and len(choices) > 1:  # the question differs, not the answer
            choices = prompts
        expected, answer = _chosen(sample, choices)
    else:
        answer = sample["filtered_resps"][0] if len(sample["arguments"][0]) == 2 else None
        expected = sample["target"] if answer is not None else None
    return Example(name, values, weight, _shown(prompts[0]), _shown(expected), _shown(answer))


def _chosen(sample: Sample, choices: Sequence[str]) -> tuple[object, object]:
    """The right one of several continuations, and the one that the model finds likeliest."""
    target = sample["target"]
    if len(choices) == 1:
        return choices[0], None
    if "acc_mutual_info" in sample["metrics"]:  # the second half is asked without the question
        choices = choices[: len(choices) // 2]
    likelihoods = [response[0][0] for response in sample["resps"][: len(choices)]]
    answer = choices[max(range(len(choices)), key=likelihoods.__getitem__)]
    right = isinstance(target, int) and 0 <= target < len(choices)
    return choices[target] if right else target, answer


def _shown(value: object) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"
