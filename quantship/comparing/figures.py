"""The plots of a comparison: what the models of each group cost, and their Pareto fronts."""

from __future__ import annotations

from collections import Counter

from quantship.comparing.schema import Group
from quantship.reporting import front_figure, svg
from quantship.reporting.canvas import Drawing


def draw(group: Group, place: int) -> list[Drawing]:
    """A plot for each cost that can be compared; one colour a run.

    Args:
        group: Runs that can be compared.
        place: Which group of the comparison it is, for ids that are unique on a page.
    """
    often = Counter(model.row.name for model in group.models)
    colours = {
        label: svg.PALETTE[1 + number % (len(svg.PALETTE) - 1)][0]
        for number, label in enumerate(group.runs)
    }
    points = [
        front_figure.point(
            # Speeds that are not to be compared are not drawn.
            model.row.model_copy(update={"benchmark": None}) if group.speeds else model.row,
            model.name,
            model.run,
            colours[model.run],
            label=model.row.name if often[model.row.name] == 1 else model.name,
        )
        for model in group.models
        if model.row.metrics is not None
    ]
    return front_figure.draw(points, group.fronts, prefix=f"group-{place}-")
