from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from quantship.data import Source
from quantship.tasks.class_scores import f1, f1_macro, matthews, official

PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30)


@pytest.mark.filterwarnings("ignore:A single label")
@settings(deadline=None)
@given(PAIRS)
def test_scores_of_two_classes_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    expected, found = zip(*pairs, strict=True)
    assert f1(expected, found) == pytest.approx(
        metrics.f1_score(expected, found, zero_division=0.0)
    )
    assert matthews(expected, found) == pytest.approx(metrics.matthews_corrcoef(expected, found))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_the_mean_over_classes_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    expected, found = zip(*pairs, strict=True)
    assert f1_macro(expected, found) == pytest.approx(
        metrics.f1_score(expected, found, average="macro", zero_division=0.0)
    )


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ({"adapter": "glue", "task": "cola"}, ["matthews"]),
        ({"adapter": "glue", "task": "mrpc"}, ["f1"]),
        ({"adapter": "glue", "task": "qqp"}, ["f1"]),
        ({"adapter": "superglue", "task": "cb"}, ["f1_macro"]),
        ({"adapter": "glue", "task": "sst2"}, []),
        ({"adapter": "superglue", "task": "boolq"}, []),
        ({"adapter": "builtin"}, []),
    ],
)
def test_a_task_has_the_scores_that_it_is_ranked_by(
    source: dict[str, Any], names: list[str]
) -> None:
    read: Any = TypeAdapter(Source).validate_python(source)
    assert list(official(read, [0, 1, 1], [0, 1, 0])) == names
