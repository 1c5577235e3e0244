"""What searches found, in words and as a table."""

from __future__ import annotations

import math
from collections import Counter

from quantship.reporting import formatting
from quantship.reporting.facts import FactTable
from quantship.reporting.schema import Report
from quantship.reporting.search_schema import Choice, Search

TITLE = "Bits by layer"
FOUND = "found"
EXPLANATION = (
    "Predicted is the sum over layers of what rounding each of them alone does to the predictions, "
    "an approximation; KL and perplexity are measured with all layers rounded to nearest, on the "
    "calibration data. What other data and better algorithms make of it, the other tables show."
)


def table(report: Report) -> FactTable | None:
    """One row for what each search found and for each uniform choice; None without a search."""
    if not report.searches:
        return None
    header = ("Search", "Formats", "Bits a weight", "Cost", "Predicted, nats", "KL, nats", "PPL")
    rows = tuple(
        (
            search.name,
            one.candidate or FOUND,
            f"{one.bits:.2f}",
            cost(search, one.cost),
            formatting.small(one.predicted_nats),
            formatting.small(one.kl_nats),
            formatting.change(math.exp(one.loss_nats), 1.0),
        )
        for search in report.searches
        for one in (search.result, *sorted(search.uniform, key=_bits))
    )
    return FactTable(header, rows)


def remarks(report: Report) -> list[str]:
    """One line a search: its bound, what it chose how often, and how sure it is."""
    return [_remark(search) for search in report.searches]


def cost(search: Search, number: float) -> str:
    """A cost with its unit."""
    if search.unit == "bytes":
        return formatting.size(round(number))
    return f"{number:.3g} {search.unit}"


def limit(search: Search) -> str:
    """What bounds a search, in words."""
    if search.constraint == "max_perplexity_increase":
        return f"perplexity at most {search.limit:.3g} of itself higher"
    whose = "" if search.constraint == "target_bits" else f" on {search.runtime}"
    return f"at most {cost(search, search.limit)}{whose}"


def _remark(search: Search) -> str:
    chosen = Counter(one.candidate for one in search.layers if one.candidate is not None)
    often = ", ".join(f"{number} × {name}" for name, number in chosen.most_common())
    looked = f"{search.measure} on {search.tokens:,} tokens of {search.sequences} sequences"
    return (
        f"{search.name}: {limit(search)}: {often}. Found by {looked}; by prediction no allocation "
        f"within the limit is better by more than {100 * search.gap:.2g} %."
    )


def _bits(one: Choice) -> float:
    return one.bits
