from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantship.quant.scheme import SCHEMES
from quantship.recipe import load
from quantship.recipe.schemes import table

Write = Callable[..., Path]
Complaints = Callable[..., str]
HEAD = """\
model: {tiny: {}}
data: {train: [{adapter: builtin}], eval: [{adapter: builtin}]}
steps: [{stage: quantize, scheme: w8a8}]
schemes:
"""


def test_a_recipe_has_the_table_and_its_own(write: Write) -> None:
    own = "  mine: {base: w8a8}\n  4-bit: {weight: {bits: 4}, embedding: float}\n"
    found = table(load(write(HEAD + own)))
    assert found.keys() == {*SCHEMES, "mine", "4-bit"}
    assert all(found[name] == scheme for name, scheme in SCHEMES.items())
    assert found["mine"].weight == SCHEMES["w8a8"].weight
    assert found["4-bit"].embedding is None
    assert {name: scheme.name for name, scheme in found.items()} == {name: name for name in found}


def test_a_step_and_a_recipe_can_name_an_own_scheme(write: Write) -> None:
    own = "  mine: {base: w8a8}\n"
    assert load(write(HEAD + own), overrides=["steps.0.scheme=mine"]).steps[0].scheme == "mine"  # type: ignore[union-attr]
    recipe = load(write(HEAD + own), overrides=["scheme=mine", "steps.0.scheme=null"])
    assert recipe.steps[0].scheme == "mine"  # type: ignore[union-attr]


def test_a_base_recipe_lends_its_schemes(write: Write) -> None:
    write(HEAD + "  mine: {base: w8a8, embedding: {bits: 4}}\n", name="base.yaml")
    above = "extends: base.yaml\nscheme: mine\nschemes.mine.embedding.group_size: 8\n"
    scheme = load(write(above)).schemes["mine"]
    assert scheme.embedding is not None
    assert (scheme.embedding.bits, scheme.embedding.group_size) == (4, 8)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (
            "  mine:\n    weight: {bits: 4}\n    activation: {symmetric: true}\n",
            "recipe.yaml:7: schemes.mine.activation: torchao serves symmetric per-token "
            "activations on 8-bit symmetric weights with one scale a channel or tensor only\n",
        ),
        (
            "  mine:\n    weight: {bits: 4, granularity: per_tensor}\n",
            "recipe.yaml:6: schemes.mine.weight: torchao serves per-tensor scales on 8-bit",
        ),
        (
            "  mine:\n    base: w8a8\n    embedding: {bits: 4, granularity: per_tensor}\n",
            "recipe.yaml:7: schemes.mine.embedding: torchao serves per-tensor scales",
        ),
        (
            "  mine:\n    base: w8a8\n    head: {bits: 4, granularity: per_tensor}\n",
            "recipe.yaml:7: schemes.mine.head: torchao serves per-tensor scales",
        ),
        (
            "  mine:\n    base: w8a8\n    overrides:\n      - {layers: '*', weight: float}\n"
            "      - {layers: x, weight: {bits: 4}, activation: {granularity: per_tensor}}\n",
            "recipe.yaml:9: schemes.mine.overrides.1: torchao serves per-tensor activations on",
        ),
        ("  mine: {weight: {bits: 9}}\n", "mine.weight.bits: expected whole number, at least 2"),
        ("  mine: {wieght: {bits: 8}}\n", "mine.wieght: unknown key\n    Did you mean weight"),
        ("  mine: {activation: float}\n", "mine.weight: is missing\n    Format of the linear"),
        ("  mine: {base: w8a9}\n", "schemes.mine.base: no row 'w8a9' is in the table"),
        ("  mine: {base: w8a9}\n", "Did you mean w8a8"),
        ("  mine: {base: w8a8, embedding: flaot}\n", "expected mapping, or float, got the text"),
        ("  mine: {base: w8a8, head: 8}\n", "expected mapping | embedding, or float, got"),
        ("  mine: 8\n", "mine: expected a mapping with keys, got the number 8\n    Its"),
        ("  [mine]\n", "schemes: expected names, each with a mapping, got a list"),
        ("  mine: {base: w8a8, activation: {bits: true}}\n", "mine.activation.bits: expected 8"),
        ("  mine: {base: w8a8, weight: {group_size: true}}\n", "expected a number, got true"),
        ("  w8a8: {weight: {bits: 8}}\n", "recipe.yaml:5: schemes.w8a8: the name 'w8a8' is taken"),
        ("  My.mix: {weight: {bits: 8}}\n", "schemes.My.mix: 'My.mix' cannot be a scheme's name"),
    ],
)
def test_a_scheme_that_cannot_be_is_refused_where_it_is_written(
    write: Write, complaints: Complaints, own: str, said: str
) -> None:
    assert said in complaints(write(HEAD + own))


def test_a_name_that_no_scheme_has_is_told_with_those_there_are(
    write: Write, complaints: Complaints
) -> None:
    path = write(HEAD + "  mix-of-4-and-8: {base: w8a8}\n")
    said = complaints(path, overrides=["steps.0.scheme=mix-4-and-8"])
    assert "steps.0.scheme: unknown scheme 'mix-4-and-8' (from --set)" in said
    assert "Did you mean mix-of-4-and-8? Schemes: w2a16-g32, " in said
    assert "and this recipe's own: mix-of-4-and-8." in said


def test_an_unknown_scheme_is_told_once_where_it_is_named(
    write: Write, complaints: Complaints
) -> None:
    steps = "{stage: quantize, name: a}, {stage: qat}, {stage: export, lowering: integer}"
    text = HEAD.replace("{stage: quantize, scheme: w8a8}", steps) + "  mine: {base: w8a8}\n"
    said = complaints(write("scheme: mien\n" + text))
    assert said.count("unknown scheme") == 1
    assert said.startswith(f"{write(text)}:1: scheme: unknown scheme 'mien'\n    Did you mean mine")


def test_who_names_a_flawed_scheme_hears_of_the_flaw_only(
    write: Write, complaints: Complaints
) -> None:
    for flawed in ("{weight: {bits: 9}}", "{base: w8a9}", "{weight: {bits: 4}, activation: 5}"):
        path = write(HEAD + f"  mine: {flawed}\n")
        said = complaints(path, overrides=["steps.0.scheme=mine", "data.max_length=9999"])
        assert said.count("schemes.mine") == 1
        assert "unknown scheme" not in said
        assert "data.max_length: 9999 tokens are more" in said
