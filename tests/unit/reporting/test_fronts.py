from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from quantship.reporting import fronts
from quantship.reporting.schema import Metrics, ModelRow, Report

numbers = st.integers(1, 9)


def row(name: str, size_bytes: int, perplexity: float) -> ModelRow:
    found = Metrics(
        perplexity=perplexity, token_accuracy=0.5, mean_loss=math.log(perplexity), num_tokens=10
    )
    return ModelRow(
        name=name,
        step=name,
        kind="torchao",
        path=name,
        scheme="w8a8",
        size_bytes=size_bytes,
        metrics=found,
        group="ptq",
    )


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=12))
def test_a_model_is_on_the_front_unless_another_beats_it(points: list[tuple[int, int]]) -> None:
    rows = [row(str(place), *point) for place, point in enumerate(points)]
    (front,) = fronts.fronts(rows)
    chosen = [points[int(point.name)] for point in front.points]
    assert chosen == sorted(chosen)
    beaten = {
        (size, loss)
        for size, loss in points
        if any(a <= size and b <= loss and (a, b) != (size, loss) for a, b in points)
    }
    assert set(chosen) == set(points) - beaten


def test_speed_is_better_the_more_there_is_of_it(report: Report) -> None:
    size, speed = fronts.fronts(report.models)
    assert (size.cost, speed.cost) == ("size_bytes", "decode_tokens_per_s")
    costs = [point.cost for point in speed.points]
    assert costs == sorted(costs, reverse=True)
    assert speed.points[0].name == "qat-w4a16-g32-onnx"


def test_what_was_not_measured_or_is_wrong_is_on_no_front(report: Report, broken: Report) -> None:
    best = report.models[-1].name
    assert any(point.name == best for point in fronts.fronts(report.models)[0].points)
    for front in fronts.fronts(broken.models):
        assert best not in [point.name for point in front.points]
    unmeasured = [one.model_copy(update={"metrics": None}) for one in report.models]
    assert fronts.fronts(unmeasured) == []
    slow = [one.model_copy(update={"benchmark": None}) for one in report.models]
    assert [front.cost for front in fronts.fronts(slow)] == ["size_bytes"]


def test_models_can_be_called_otherwise(report: Report) -> None:
    names = [f"mine/{one.name}" for one in report.models]
    assert all(
        point.name.startswith("mine/") for point in fronts.fronts(report.models, names)[0].points
    )
