"""The key ``algorithm`` of a quantize step: a word, or a mapping with options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantship.algorithms import gptq
from quantship.algorithms.table import ALGORITHMS
from quantship.quant.scheme import SCHEMES, Scheme
from quantship.recipe import load
from quantship.recipe.keys import annotated, default, describe, models, takes_words
from quantship.recipe.language import Algorithm, QuantizeStep
from quantship.recipe.options import needs_data

Write = Callable[..., Path]
Complaints = Callable[..., str]
HEAD = """\
model: {tiny: {}}
data: {train: [{adapter: builtin}], eval: [{adapter: builtin}]}
scheme: w8a8
steps:
"""
FIELD = QuantizeStep.model_fields["algorithm"]


def step_of(write: Write, algorithm: str) -> Any:
    return load(write(HEAD + f"  - {{stage: quantize, algorithm: {algorithm}}}\n")).steps[0]


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_a_word_stands_for_a_mapping_of_that_kind(write: Write, kind: str) -> None:
    step = step_of(write, kind)
    assert step == step_of(write, f"{{kind: {kind}}}")
    assert step.algorithm == ALGORITHMS[kind].Options()


def test_options_are_kept(write: Write) -> None:
    algorithm = step_of(write, "{kind: gptq, damping: 0.25, act_order: false}").algorithm
    assert algorithm == gptq.Options(damping=0.25, act_order=False)


def test_the_words_are_those_of_the_table() -> None:
    assert models(Algorithm).keys() == ALGORITHMS.keys()
    assert all(module.Options().kind == kind for kind, module in ALGORITHMS.items())


def test_words_and_default_are_described() -> None:
    words = "awq | gptq | hqq | rtn | smoothquant, or mapping with kind"
    assert (describe(FIELD), default(FIELD)) == (words, "rtn")
    assert takes_words(Algorithm)
    assert takes_words(annotated(FIELD))
    assert not takes_words(annotated(QuantizeStep.model_fields["calibration"]))


@pytest.mark.parametrize(
    ("algorithm", "said"),
    [
        (
            "gtpq",
            "recipe.yaml:5: steps.0.algorithm: unknown algorithm 'gtpq'\n    Did you mean gptq? "
            "Allowed: awq, gptq, hqq, rtn, smoothquant.",
        ),
        ("zzz", "steps.0.algorithm: unknown algorithm 'zzz'\n    Allowed: awq, gptq, hqq, rtn"),
        (
            "{kind: gtpq, damping: 0.1}",
            "steps.0.algorithm.kind: unknown kind 'gtpq'\n    Did you mean gptq? Allowed: awq",
        ),
        (
            "{kind: gptq, dampng: 0.1}",
            "steps.0.algorithm.dampng: unknown key\n    Did you mean damping? Allowed here: kind, ",
        ),
        (
            "{kind: rtn, damping: 0.1}",
            "It is a key elsewhere: steps.quantize.algorithm.gptq.damping",
        ),
        (
            "{kind: gptq, damping: much}",
            "steps.0.algorithm.damping: expected number, above 0, below 1, got the text 'much'",
        ),
        ("{damping: 0.1}", "steps.0.algorithm.kind: is missing\n    Give one of: awq, gptq"),
        ("{kind: [gptq]}", "steps.0.algorithm.kind: expected a word, got a list"),
        ("5", "expected awq | gptq | hqq | rtn | smoothquant, or mapping with kind, got the numb"),
        ("", "got nothing\n    How to round: a word, as `gptq`"),
        (
            "[rtn, gtpq]",
            "recipe.yaml:5: steps.0.algorithm.1: unknown algorithm 'gtpq'\n    Did you mean gptq?",
        ),
    ],
)
def test_what_is_no_algorithm_is_refused(
    write: Write, complaints: Complaints, algorithm: str, said: str
) -> None:
    text = complaints(write(HEAD + f"  - {{stage: quantize, algorithm: {algorithm}}}\n"))
    assert said in text
    assert text.count("steps.0") == 1


@pytest.fixture
def no_w8a8(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPTQ turns down one scheme, unless it dampens strongly."""

    def reject(scheme: Scheme, options: gptq.Options) -> str | None:
        weak = options.damping < 0.5
        return "its inputs are integers" if scheme.name == "w8a8" and weak else None

    monkeypatch.setattr(gptq, "reject", reject)


@pytest.mark.usefixtures("no_w8a8")
def test_an_algorithm_that_cannot_make_a_scheme_is_refused_at_its_line(
    write: Write, complaints: Complaints
) -> None:
    sweep = (
        "  - stage: quantize\n    scheme: [w8a8, w8a16]\n    algorithm:\n      - rtn\n      - gptq"
    )
    said = complaints(write(HEAD + sweep))
    assert said.count("steps.0") == 1
    assert "recipe.yaml:9: steps.0.algorithm.1: gptq cannot quantize to scheme 'w8a8': its" in said
    assert load(write(HEAD + sweep.replace("gptq", "{kind: gptq, damping: 0.6}")))


@pytest.mark.parametrize("kind", ALGORITHMS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_pairing_is_known_to_fit_or_not(kind: str, scheme: str) -> None:
    algorithm = ALGORITHMS[kind]
    reason = algorithm.reject(SCHEMES[scheme], algorithm.Options())
    assert reason is None or (reason.strip() and not reason.endswith("."))


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_data_is_needed_by_some(write: Write, complaints: Complaints, kind: str) -> None:
    head = HEAD.replace("train: [{adapter: builtin}], ", "")
    text = head + f"  - {{stage: quantize, algorithm: {kind}, scheme: SCHEME}}\n"
    needs = ALGORITHMS[kind].NEEDS_DATA
    made: Any = step_of(write, kind)
    assert needs_data(made, SCHEMES["w8a8"]) == needs
    assert needs_data(made, SCHEMES["w8a8-static"])
    assert needs_data(made.model_copy(update={"bias_correction": True}), SCHEMES["w8a8"])
    if needs:
        said = complaints(write(text.replace("SCHEME", "w8a8")))
        assert "data.train: nothing to calibrate on, and quantize would calibrate" in said
    else:
        load(write(text.replace("SCHEME", "w8a8")))
    assert "data.train" in complaints(write(text.replace("SCHEME", "w8a8-static")))


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            "algorithm: gptq, scheme: w4a16-g32-linear, range: mse",
            "steps.0.range: range mse says nothing: gptq searches for its grids, and scheme",
        ),
        ("algorithm: hqq, calibration: {seed: 1}", "nor does algorithm hqq look at data"),
        (
            "algorithm: gptq, calibration: {range: mse}",
            "steps.0.calibration.range: calibration.range is how static input ranges are found, "
            "and scheme 'w8a8' has none: it takes them from each input",
        ),
        (
            "algorithm: gptq, calibration: {percentile: 99}",
            "steps.0.calibration.percentile: percentile says nothing beside range moving_average",
        ),
    ],
)
def test_options_that_nobody_reads_are_refused(
    write: Write, complaints: Complaints, step: str, said: str
) -> None:
    text = complaints(write(HEAD + f"  - {{stage: quantize, {step}}}\n"))
    assert said in text
    assert text.count("steps.0") == 1


@pytest.mark.parametrize(
    "step",
    [
        "algorithm: gptq, calibration: {sequences: 8, seed: 1}",
        "bias_correction: true, calibration: {seed: 1}",
        "algorithm: awq, scheme: w8a8-static, calibration: {range: entropy}",
        "algorithm: hqq, scheme: w8a8-static, calibration: {range: percentile, percentile: 99}",
        "algorithm: hqq, range: mse",
        "algorithm: gptq, range: mse",  # the embedding's grids, of this scheme
        "algorithm: {kind: gptq, grid: range}, scheme: w4a16-g32-linear, range: mse",
        "algorithm: [gptq, rtn], scheme: w4a16-g32-linear, range: mse",
    ],
)
def test_options_that_are_read_pass(write: Write, step: str) -> None:
    load(write(HEAD + f"  - {{stage: quantize, {step}}}\n"))
