"""Which models are the best, in words and as tables."""

from __future__ import annotations

from dataclasses import dataclass

from quantship.reporting import formatting
from quantship.reporting.facts import FactTable
from quantship.reporting.ranking_schema import (
    Difference,
    Front,
    Ranked,
    Ranking,
    Seeds,
    ShareOfNearest,
)

TITLE = "Ranking"
SEEDS_TITLE = "Other calibration data"
FRONT_TITLES = {
    "size_bytes": "Best at their size",
    "decode_tokens_per_s": "Best at their speed",
}
COLUMNS = (
    "Place",
    "Model",
    "Algorithm",
    "Scheme",
    "Size, MB",
    "Perplexity",
    "Lost, nats",
    "Behind the best",
    "Ahead of the next",
    "Of rounding's loss",
)
NUMBERS = COLUMNS[4:]


def table(ranking: Ranking) -> FactTable:
    """One row a model, best first."""
    return FactTable(COLUMNS, tuple(row(ranking, place) for place in range(len(ranking.entries))))


def row(ranking: Ranking, place: int) -> tuple[str, ...]:
    """What there is to say of the model in a place, from 0 on, in the order of ``COLUMNS``."""
    entry = ranking.entries[place]
    return (
        str(place + 1),
        entry.name,
        entry.algorithm or formatting.DASH,
        _scheme(ranking, entry),
        formatting.megabytes(entry.size_bytes),
        formatting.number(entry.perplexity),
        difference(entry.lost),
        difference(entry.behind_best),
        difference(entry.ahead_of_next),
        _share(entry.of_nearest),
    )


@dataclass(frozen=True)
class Stacked:
    """A row for where there is little room.

    Args:
        place: From 1 on.
        name: Name of the model.
        origin: Algorithm and scheme, to stand below it.
        cells: Texts of ``NUMBERS``, each with what stands below it, as an interval.
    """

    place: str
    name: str
    origin: str
    cells: tuple[tuple[str, str], ...]


def stacked(ranking: Ranking) -> list[Stacked]:
    """The same table with two lines a model."""
    return [_stack(row(ranking, place)) for place in range(len(ranking.entries))]


def _stack(cells: tuple[str, ...]) -> Stacked:
    place, name, *origins = cells[:4]
    numbers = []
    for cell in cells[4:]:
        number, bracket, interval = cell.partition(" (")
        numbers.append((number, f"({interval}" if bracket else ""))
    origin = " · ".join(text for text in origins if text != formatting.DASH)
    return Stacked(place, name, origin, tuple(numbers))


def explanation(ranking: Ranking) -> str:
    """How the numbers are to be read."""
    order = (
        "Best first: least loss added to that of the float model that the weights come from."
        if ranking.by == "lost"
        else "Best first: least loss on the evaluation data."
    )
    text = (
        f"{order} Differences are of mean losses in nats a token. The last column is the share of "
        "what rounding to nearest lost, at the same scheme and from the same float model, that a "
        "model did not lose: 0 % is no better, 100 % as good as the float model."
    )
    if ranking.no_intervals is not None:
        return f"{text} There are no intervals: {ranking.no_intervals}."
    num_sequences = ranking.num_sequences or 0
    return (
        f"{text} In brackets: {formatting.share(ranking.confidence)} intervals, from "
        f"{ranking.num_resamples:,} resamples of the {num_sequences:,} evaluated sequences, the "
        "same ones for all models; of a difference whose interval holds 0, the sign is not sure."
    )


def remarks(ranking: Ranking) -> list[str]:
    """What is less than sure about the first place, and which shares are not defined."""
    lines = []
    unsure = [entry.name for entry in ranking.entries if _may_be_best(entry)]
    if unsure:
        best = ranking.entries[0].name
        lines.append(
            f"{best} is the first, but not for sure: it may be no better than {', '.join(unsure)}."
        )
    reasons: dict[str, list[str]] = {}
    for entry in ranking.entries:
        if entry.of_nearest is not None and entry.of_nearest.undefined is not None:
            reasons.setdefault(entry.of_nearest.undefined, []).append(entry.name)
    if ranking.no_intervals is None:
        lines += [
            f"{', '.join(names)}: no share of what rounding to nearest lost, as {reason}."
            for reason, names in reasons.items()
        ]
    return lines


def seeds_table(ranking: Ranking) -> FactTable | None:
    """One row a quantization that was repeated with other calibration data; None: none was."""
    if not ranking.seeds:
        return None
    header = (
        "Algorithm",
        "Scheme",
        "Seeds",
        "Mean loss, nats",
        "Spread",
        "Lowest",
        "Highest",
        "Of rounding's loss",
    )
    return FactTable(header, tuple(map(_seeds_row, ranking.seeds)))


SEEDS_EXPLANATION = (
    "The same quantization with calibration data of several seeds, all else equal. The spread is "
    "one standard deviation."
)


def of_seeds(seeds: Seeds) -> str:
    """The same in a line: ``gptq at w4a16-g128, 3 seeds: 0.8123 nats, spread 0.0011``."""
    text = (
        f"{seeds.algorithm} at {seeds.scheme}, {len(seeds.models)} seeds of calibration data: "
        f"{seeds.mean_loss:.4f} nats, spread {formatting.small(seeds.spread)}"
    )
    if seeds.share is None or seeds.share_spread is None:
        return text
    mean, spread = (formatting.share(value) for value in (seeds.share, seeds.share_spread))
    return f"{text}; {mean} of what rounding to nearest lost, spread {spread}"


def front_table(front: Front, algorithms: dict[str, str]) -> FactTable:
    """The models on a front, cheapest first.

    Args:
        front: The front.
        algorithms: What to call the algorithm of a model, by the model's name.
    """
    by_size = front.cost == "size_bytes"
    header = ("Model", "Algorithm", "Size, MB" if by_size else "Decode, tokens/s", "Perplexity")
    return FactTable(
        header,
        tuple(
            (
                point.name,
                algorithms.get(point.name) or formatting.DASH,
                formatting.megabytes(int(point.cost)) if by_size else formatting.speed(point.cost),
                formatting.number(point.perplexity),
            )
            for point in front.points
        ),
    )


def difference(found: Difference | None) -> str:
    """A difference and its interval: ``+0.018 (0.012 to 0.024)``."""
    if found is None:
        return formatting.DASH
    if found.low is None or found.high is None:
        return f"{found.value:+.4f}"
    return formatting.nats(found.value, found.low, found.high)


def _scheme(ranking: Ranking, entry: Ranked) -> str:
    if entry.scheme is None:
        return "float"
    those = sum(other.scheme == entry.scheme for other in ranking.entries)
    return entry.scheme if those == 1 else f"{entry.scheme}, {entry.place_in_scheme} of {those}"


def _share(found: ShareOfNearest | None) -> str:
    if found is None:
        return formatting.DASH
    if found.share is None:
        return "not defined"
    share = found.share
    return f"{formatting.share(share.value)} ({formatting.share_range(share.low, share.high)})"


def _seeds_row(seeds: Seeds) -> tuple[str, ...]:
    share = formatting.DASH
    if seeds.share is not None and seeds.share_spread is not None:
        spread = formatting.share(seeds.share_spread)
        share = f"{formatting.share(seeds.share)}, spread {spread}"
    mean, low, high = (f"{loss:.4f}" for loss in (seeds.mean_loss, seeds.lowest, seeds.highest))
    losses = (mean, formatting.small(seeds.spread), low, high)
    return (seeds.algorithm, seeds.scheme, str(len(seeds.models)), *losses, share)


def _may_be_best(entry: Ranked) -> bool:
    behind = entry.behind_best
    return behind is not None and behind.low is not None and behind.low <= 0
