"""Which of many quantized models is the best, how sure that is, and what each one is worth."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quantship.reporting import bootstrap
from quantship.reporting.bootstrap import Mean
from quantship.reporting.comparison import is_wrong
from quantship.reporting.ranking_schema import (
    Difference,
    Quantization,
    Ranked,
    Ranking,
    Seeds,
    ShareOfNearest,
)
from quantship.reporting.schema import ModelRow


@dataclass(frozen=True)
class Contender:
    """One model to be ranked.

    Args:
        name: Its name, also among the losses.
        run: Run that made it; a twin is of the same run.
        scheme: Quantization scheme; None: a float model, which is ranked as a yardstick.
        source: Name of its float source among the losses; None: not recorded.
        size_bytes: Of its weights on disk.
        made: How its integers were found; None: by training, or not recorded.
        algorithm: The same in words; may be empty.
    """

    name: str
    run: str
    scheme: str | None
    source: str | None
    size_bytes: int
    made: Quantization | None
    algorithm: str


@dataclass(frozen=True)
class Losses:
    """Losses of all models on the same data.

    Args:
        by_name: Of each model; without resamples where there are no intervals.
        num_sequences: Sequences behind them; None: not known.
        no_intervals: Why there are no resamples; None: there are.
    """

    by_name: Mapping[str, Mean]
    num_sequences: int | None
    no_intervals: str | None = None


def contenders(rows: Sequence[ModelRow]) -> list[Contender]:
    """The models of a run that are ranked: checkpoints whose integers are those they should be."""
    return [contender(row) for row in rows if row.kind == "torchao" and not is_wrong(row)]


def contender(row: ModelRow, run: str = "") -> Contender:
    """What a row of the report's table is in a ranking; the run's name goes before its own."""
    prefix = f"{run}/" if run else ""
    algorithm = row.quantization.words if row.quantization is not None else ""
    if row.group == "qat":
        algorithm = ", ".join(filter(None, ("QAT", row.method, algorithm)))
    source = row.float_source
    return Contender(
        name=prefix + row.name,
        run=run,
        scheme=row.scheme,
        source=None if source is None else prefix + source,
        size_bytes=row.size_bytes,
        made=row.quantization if row.group == "ptq" else None,
        algorithm=algorithm,
    )


def resample(
    nll_nats: Mapping[str, NDArray[np.float64]], num_tokens: NDArray[np.int64], *, seed: int
) -> Losses:
    """Losses of all models, with resamples where there are sequences enough.

    Args:
        nll_nats: ``[sequences]`` for each model: negative log-likelihood of each sequence.
        num_tokens: ``[sequences]``: tokens that were predicted in each.
        seed: Seed of the resamples.
    """
    if len(num_tokens) < bootstrap.FEWEST_EXAMPLES:
        total = num_tokens.sum()
        reason = f"{len(num_tokens)} evaluated sequences are too few to tell"
        return means({name: float(nll.sum() / total) for name, nll in nll_nats.items()}, reason)
    return Losses(bootstrap.means(nll_nats, num_tokens, seed=seed), len(num_tokens))


def means(mean_losses: Mapping[str, float], no_intervals: str) -> Losses:
    """Losses of which only the means are known, and why."""
    nothing = np.empty(0)
    return Losses({n: Mean(value, nothing) for n, value in mean_losses.items()}, None, no_intervals)


def rank(
    candidates: Sequence[Contender],
    losses: Losses,
    *,
    by: Literal["lost", "loss"],
    yardsticks: Sequence[Contender] = (),
) -> Ranking | None:
    """Order models by what they lost, or by their loss.

    Args:
        candidates: Models; those without a loss are left out.
        losses: On the same data.
        by: ``lost`` sets each against its float source, and needs the losses of all sources;
            where one lacks, losses are compared instead.
        yardsticks: Models that others are held against, and that are not ranked themselves.

    Returns:
        The ranking, best first; None where there are fewer than two models.
    """
    known = [one for one in candidates if one.name in losses.by_name]
    if len(known) < 2:
        return None
    if any(one.source not in losses.by_name for one in known):
        by = "loss"
    scores = {one.name: _score(one, losses, by) for one in known}
    ordered = sorted(known, key=lambda one: scores[one.name].value)
    places: dict[str | None, int] = {}
    entries = []
    for place, one in enumerate(ordered):
        places[one.scheme] = places.get(one.scheme, 0) + 1
        after = ordered[place + 1] if place + 1 < len(ordered) else None
        score, loss = scores[one.name], losses.by_name[one.name]
        source = losses.by_name.get(one.source or "")
        entries.append(
            Ranked(
                name=one.name,
                algorithm=one.algorithm,
                scheme=one.scheme,
                size_bytes=one.size_bytes,
                place_in_scheme=places[one.scheme],
                mean_loss=loss.value,
                perplexity=math.exp(loss.value),
                source=one.source,
                lost=None if source is None or one.scheme is None else _less(loss, source),
                behind_best=_less(score, scores[ordered[0].name]) if place else None,
                ahead_of_next=_less(scores[after.name], score) if after is not None else None,
                of_nearest=_of_nearest(one, [*known, *yardsticks], losses),
            )
        )
    return Ranking(
        by=by,
        entries=entries,
        seeds=_seeds(known, entries),
        confidence=bootstrap.CONFIDENCE,
        num_resamples=0 if losses.no_intervals else bootstrap.NUM_RESAMPLES,
        num_sequences=losses.num_sequences,
        no_intervals=losses.no_intervals,
    )


def nearest_twin(one: Contender, among: Sequence[Contender]) -> Contender | None:
    """The model of the same scheme and source that was rounded to nearest by defaults.

    Of several, which can only differ in the data of their calibration, the one most like it.
    """
    twins = [
        other
        for other in among
        if other.made is not None
        and other.made.plain
        and (other.run, other.scheme, other.source) == (one.run, one.scheme, one.source)
    ]

    def unlike(other: Contender) -> int:
        if one.made is None or other.made is None:
            return 0
        ours, theirs = (_calibration(each.made) for each in (one, other))
        return sum(ours.get(key) != value for key, value in theirs.items())

    return min(twins, key=unlike, default=None)


def _calibration(made: Quantization | None) -> Mapping[str, object]:
    found = made.settings.get("calibration") if made is not None else None
    return found if isinstance(found, dict) else {}


def _score(one: Contender, losses: Losses, by: str) -> Mean:
    loss = losses.by_name[one.name]
    if by == "loss" or one.source is None:
        return loss
    source = losses.by_name[one.source]
    return Mean(loss.value - source.value, loss.resampled - source.resampled)


def _less(one: Mean, other: Mean) -> Difference:
    value = one.value - other.value
    if not one.resampled.size:
        return Difference(value=value, low=None, high=None)
    found = bootstrap.difference(one, other)
    return Difference(value=value, low=found.low, high=found.high)


def _of_nearest(
    one: Contender, known: Sequence[Contender], losses: Losses
) -> ShareOfNearest | None:
    twin = nearest_twin(one, known)
    if one.scheme is None or twin is None or twin.name == one.name:
        return None
    if one.made is not None and one.made.plain:
        return None
    reason = losses.no_intervals
    share = None
    if one.source is None or one.source not in losses.by_name:
        reason = f"{one.source} was not evaluated"
    elif reason is None:
        source, nearest, loss = (losses.by_name[name] for name in (one.source, twin.name, one.name))
        share = bootstrap.share_recovered(source, nearest, loss)
        if share is None:
            reason = f"{twin.name} lost nothing measurable against {one.source}"
    return ShareOfNearest(nearest=twin.name, share=share, undefined=reason)


def _seeds(known: Sequence[Contender], entries: Sequence[Ranked]) -> list[Seeds]:
    """Models that differ in nothing but the seed of their calibration, together."""
    families: dict[str, list[Ranked]] = {}
    by_name = {entry.name: entry for entry in entries}
    for one in known:
        if one.made is not None and one.made.calibration is not None:
            calibration = {**_calibration(one.made), "seed": None}
            settings = {**one.made.settings, "calibration": calibration}
            key = json.dumps([one.run, one.scheme, one.source, settings], sort_keys=True)
            families.setdefault(key, []).append(by_name[one.name])
    return [_spread(family) for family in families.values() if len(family) > 1]


def _spread(family: Sequence[Ranked]) -> Seeds:
    losses = [entry.mean_loss for entry in family]
    found = [entry.of_nearest.share for entry in family if entry.of_nearest is not None]
    shares = [share.value for share in found if share is not None]
    whole = len(shares) == len(family)
    assert family[0].scheme is not None
    return Seeds(
        models=[entry.name for entry in family],
        algorithm=family[0].algorithm,
        scheme=family[0].scheme,
        mean_loss=statistics.fmean(losses),
        spread=statistics.stdev(losses),
        lowest=min(losses),
        highest=max(losses),
        share=statistics.fmean(shares) if whole else None,
        share_spread=statistics.stdev(shares) if whole else None,
    )
