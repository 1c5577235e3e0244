"""What tasks say of models: properties of means, intervals, contrasts and the guard."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantship.errors import QuantshipError
from quantship.reporting import evidence
from quantship.reporting.evidence_schema import MetricFacts
from quantship.reporting.export_tolerance import BY_TENSOR, FLOAT, ROUNDED, choose
from quantship.reporting.pairs import Pair
from quantship.reporting.task_scores import ModelScores, TaskScores, Words, together

Array = np.ndarray[Any, np.dtype[Any]]
MATCH = MetricFacts(name="exact_match", better="higher", kind="share", judges=True)
PERPLEXITY = MetricFacts(name="perplexity", better="lower", kind="perplexity", judges=False)
FEW, SIZE = 9, 200


def answers(right: Array, *, digest: str = "d", first: int = 0) -> ModelScores:
    """A model that has these examples right."""
    size = len(right)
    return ModelScores(
        ids=[f"test[{place}]" for place in range(first, first + size)],
        weights=np.ones(size),
        sums={"exact_match": right.astype(float)},
        values={"exact_match": float(right.mean())},
        words=[Words(f"question {n}", "right", f"answer {n}") for n in range(size)],
        digest=digest,
        runtime="torch",
        seconds=1.0,
        extra={},
    )


def predicts(nll_nats: Array, weights: Array) -> ModelScores:
    """A model of these losses by sequence."""
    mean = nll_nats.sum() / weights.sum()
    return replace(
        answers(np.zeros(len(weights))),
        weights=weights,
        sums={"perplexity": nll_nats},
        values={"perplexity": math.exp(mean)},
    )


def judged(**models: Array) -> TaskScores:
    scores = {name: answers(right) for name, right in models.items()}
    return together("gsm8k", "gsm8k", [MATCH], [], scores)


def text(**models: ModelScores) -> TaskScores:
    return together("wikitext", "perplexity", [PERPLEXITY], [], models)


def draws(share: float, size: int = SIZE, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random(size) < share


def test_equal_models_differ_by_nothing_for_sure() -> None:
    right = draws(0.6)
    scores = judged(one=right, two=right.copy(), three=draws(0.5, seed=1))
    found = evidence.difference(evidence.measure(scores, seed=0), MATCH, "two", "one")
    assert found is not None
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_equal_losses_have_a_quotient_of_one_for_sure() -> None:
    weights = np.arange(1.0, SIZE + 1)
    nll = np.random.default_rng(0).gamma(3, 1, SIZE) * weights
    scores = text(one=predicts(nll, weights), two=predicts(nll.copy(), weights))
    found = evidence.difference(evidence.measure(scores, seed=0), PERPLEXITY, "one", "two")
    assert found is not None
    assert (found.value, found.low, found.high) == (0, 0, 0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), turn=st.integers(1, SIZE - 1))
def test_neither_the_order_of_examples_nor_that_of_models_matters(seed: int, turn: int) -> None:
    one, two = answers(draws(0.6, seed=seed)), answers(draws(0.5, seed=seed + 1))

    def turned(scores: ModelScores) -> ModelScores:
        order = [*range(turn, SIZE), *range(turn)]
        return replace(
            scores,
            ids=[scores.ids[place] for place in order],
            weights=scores.weights[order],
            sums={"exact_match": scores.sums["exact_match"][order]},
            words=[scores.words[place] for place in order],
        )

    def results(models: dict[str, ModelScores]) -> Any:
        scores = together("gsm8k", "gsm8k", [MATCH], [], models)
        measured = evidence.measure(scores, seed=5, num_resamples=500)
        return (
            evidence.results([measured])["one"],
            evidence.difference(measured, MATCH, "two", "one"),
        )

    as_it_was = results({"one": one, "two": two})
    assert results({"two": turned(two), "one": turned(one)}) == as_it_was


def test_intervals_of_shares_hold_the_truth_as_often_as_they_say() -> None:
    held, trials = 0, 500
    for trial in range(trials):
        generator = np.random.default_rng(trial)
        hard = generator.random(150)
        scores = judged(
            model=generator.random(150) < 0.8 - 0.4 * hard,
            over=generator.random(150) < 0.9 - 0.4 * hard,
        )
        found = evidence.difference(
            evidence.measure(scores, seed=9, num_resamples=1000), MATCH, "model", "over"
        )
        assert found is not None
        held += found.low <= -0.1 <= found.high
    assert 0.92 <= held / trials <= 0.98


def test_intervals_of_perplexities_hold_the_truth_as_often_as_they_say() -> None:
    held, trials = 0, 500
    for trial in range(trials):
        generator = np.random.default_rng(trial)
        weights = generator.integers(50, 200, 100).astype(float)
        hardness = generator.gamma(9, 0.3, 100)
        ours = (hardness + generator.normal(0.05, 0.2, 100)) * weights
        scores = text(model=predicts(ours, weights), over=predicts(hardness * weights, weights))
        found = evidence.difference(
            evidence.measure(scores, seed=9, num_resamples=1000), PERPLEXITY, "model", "over"
        )
        assert found is not None
        held += found.low <= math.expm1(0.05) <= found.high
    assert 0.92 <= held / trials <= 0.98


def test_few_examples_have_a_value_and_no_interval() -> None:
    scores = judged(model=draws(0.5, FEW), over=draws(0.7, FEW, seed=1))
    measured = evidence.measure(scores, seed=0)
    found = evidence.results([measured])["model"]["gsm8k"].metrics["exact_match"]
    assert found.low == found.value == found.high == draws(0.5, FEW).mean()
    assert evidence.difference(measured, MATCH, "model", "over") is None


def test_examples_without_weight_count_nothing() -> None:
    right = draws(0.6)
    nothing = np.zeros(40, dtype=bool)
    longer = answers(np.concatenate([right, nothing]))
    weights = np.concatenate([np.ones(SIZE), np.zeros(40)])
    longer = replace(longer, weights=weights, values={"exact_match": float(right.mean())})
    found = [
        evidence.results([evidence.measure(together("t", "t", [MATCH], [], {"m": one}), seed=0)])
        for one in (answers(right), longer)
    ]
    assert found[0]["m"]["t"].metrics == found[1]["m"]["t"].metrics


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (answers(draws(0.5), first=3), r"test\[0\] and test\[3\]"),
        (answers(draws(0.5, SIZE - 1)), "200 and 199"),
        (answers(draws(0.5), digest="another"), "texts, answers or weights"),
    ],
)
def test_models_of_different_examples_are_not_compared(other: ModelScores, word: str) -> None:
    models = {"one": answers(draws(0.5)), "other": other}
    with pytest.raises(QuantshipError, match=word) as caught:
        together("gsm8k", "gsm8k", [MATCH], [], models)
    assert all(name in str(caught.value) for name in ("'gsm8k'", "one", "other"))


def test_two_examples_of_one_name_are_refused() -> None:
    twice = answers(draws(0.5, 2))
    with pytest.raises(QuantshipError, match="two examples are called"):
        together("t", "t", [MATCH], [], {"m": replace(twice, ids=["a", "a"])})


def test_lost_and_won_examples_are_counted_and_the_first_are_shown() -> None:
    over = np.arange(SIZE) < 150
    model = (np.arange(SIZE) >= 30) & (np.arange(SIZE) < 155)
    scores = judged(over=over, model=model)
    pairs = {"gsm8k": [Pair("model", "over", "float")]}
    (found,) = evidence.build([evidence.measure(scores, seed=0)], pairs, {}).regressions
    assert (found.num_lost, found.num_won) == (30, 5)
    assert [one.id for one in found.examples] == [f"test[{place}]" for place in range(20)]
    assert found.examples[3].before == found.examples[3].after == "answer 3"


def test_a_qat_model_halfway_between_recovers_half() -> None:
    base = np.arange(SIZE) < 180
    ptq, qat = np.arange(SIZE) < 100, np.arange(SIZE) < 140
    measured = evidence.measure(judged(base=base, ptq=ptq, qat=qat), seed=0)
    found = evidence.contrast(measured, MATCH, Pair("qat", "ptq", "ptq", "base"), None)
    assert found.recovered is not None
    assert found.recovered.value == pytest.approx(0.5)
    assert found.recovered.low < 0.5 < found.recovered.high
    lossless = evidence.contrast(measured, MATCH, Pair("qat", "base", "ptq", "base"), None)
    assert lossless.recovered is None


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (None, None, FLOAT),
        (None, "float32", FLOAT),
        ("float32", "int8, symmetric, one scale a token", ROUNDED),
        ("int8, asymmetric, one scale and zero point a tensor", "float32", BY_TENSOR),
    ],
)
def test_the_tolerance_follows_the_arithmetic(one: str, other: str, expected: object) -> None:
    assert choose(one, other) is expected


@pytest.mark.parametrize(("apart", "within"), [(0.00009, True), (0.00011, False)])
def test_an_export_further_than_its_tolerance_is_told(apart: float, within: bool) -> None:
    weights = np.full(SIZE, 10.0)
    nll = np.random.default_rng(0).gamma(3, 1, SIZE) * weights
    scores = text(
        source=predicts(nll, weights), onnx=predicts(nll + math.log1p(apart) * weights, weights)
    )
    pairs = {"wikitext": [Pair("onnx", "source", "source")]}
    measured = evidence.measure(scores, seed=0)
    (found,) = evidence.build([measured], pairs, {"onnx": None, "source": None}).contrasts
    assert (found.tolerance, found.within) == (FLOAT.perplexity, within)


def test_judged_answers_may_differ_where_the_interval_holds_nothing() -> None:
    source = np.arange(SIZE) % 2 == 0
    onnx = source.copy()
    onnx[:12] = ~onnx[:12]
    onnx[0] = True
    measured = evidence.measure(judged(source=source, onnx=onnx), seed=0)
    found = evidence.contrast(measured, MATCH, Pair("onnx", "source", "source"), FLOAT)
    assert found.difference is not None
    assert found.difference.low <= 0 <= found.difference.high
    assert abs(found.difference.value) > FLOAT.share
    assert found.within


def test_texts_are_set_side_by_side() -> None:
    scores = judged(one=draws(0.5, 20), two=draws(0.5, 20))
    found = evidence.build([evidence.measure(scores, seed=0)], {"gsm8k": []}, {}).generations
    assert [one.id for one in found] == [f"test[{place}]" for place in range(5)]
    assert found[1].answers == {"one": "answer 1", "two": "answer 1"}
    assert (found[1].prompt, found[1].expected) == ("question 1", "right")
