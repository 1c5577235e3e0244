from __future__ import annotations

from typing import Any

import pytest

from quantship.exporters.lowering import Form, LoweringName, arithmetic, choose, form_of, reject
from quantship.quant.scheme import SCHEMES, ActivationFormat, Override, Scheme, WeightFormat

TOKENS = ActivationFormat()
SYMMETRIC = ActivationFormat(symmetric=True)
TENSOR = ActivationFormat(granularity="per_tensor")
STATIC = ActivationFormat(granularity="per_tensor", ranges="static")
BY_ROW = WeightFormat(bits=8)
FORMS: tuple[Form, Form] = ("nbits", "integer")


def scheme(
    name: str = "s",
    *overrides: Override,
    bits: int = 4,
    group: int | None = None,
    a8: ActivationFormat | None = None,
    embedding: WeightFormat | None = BY_ROW,
) -> Scheme:
    weight = WeightFormat(bits=bits, group_size=group)
    return Scheme(name=name, weight=weight, activation=a8, embedding=embedding, overrides=overrides)


def some(weight: WeightFormat | None, activation: ActivationFormat | None = None) -> Override:
    return Override(layers="*.down_proj", weight=weight, activation=activation)


@pytest.mark.parametrize(
    ("one", "lowering"),
    [
        (None, "auto"),
        (None, "float"),
        (scheme(), "auto"),
        (scheme(), "nbits"),
        (scheme(bits=8), "nbits"),
        (scheme(a8=TOKENS), "nbits"),
        (scheme(a8=TOKENS), "integer"),
        *((scheme(bits=8, a8=a8), "integer") for a8 in (TOKENS, SYMMETRIC, TENSOR, STATIC)),
        *((scheme(bits=8, a8=a8), "nbits") for a8 in (TOKENS, SYMMETRIC, TENSOR)),
        *((scheme(group=group), "nbits") for group in (16, 32, 64, 128, 256)),
        *((scheme(bits=8, a8=a8), "qdq") for a8 in (None, TOKENS, SYMMETRIC, TENSOR, STATIC)),
        *((scheme(group=group, a8=TOKENS), "qdq") for group in (1, 24, 32, 512)),
        # What is not for integers goes the other way, in the same model.
        (scheme("s", some(BY_ROW, STATIC), group=32), "integer"),
        (scheme("s", some(None), bits=8, a8=STATIC), "integer"),
        (scheme("s", some(WeightFormat(bits=4, group_size=32)), bits=8, a8=TOKENS), "integer"),
    ],
)
def test_what_can_be_carried_is_not_rejected(one: Scheme | None, lowering: LoweringName) -> None:
    assert reject(one, lowering) is None
    assert reject(one, "auto") is None


@pytest.mark.parametrize(
    ("one", "lowering", "words"),
    [
        (None, "nbits", ["float model", "'nbits'", "use float or auto"]),
        (None, "integer", ["float model", "'integer'", "use float or auto"]),
        (scheme("mine"), "float", ["'mine'", "throw its integers away", "nbits"]),
        (scheme("mine"), "integer", ["'mine'", "activations in float", "use nbits"]),
        (scheme("mine", group=32, a8=TOKENS), "integer", ["'mine'", "groups of 32", "use nbits"]),
        (scheme("mine", bits=8, a8=STATIC), "nbits", ["'mine'", "static", "use integer"]),
        (scheme("mine", some(BY_ROW, STATIC)), "nbits", ["'mine'", "static", "use integer"]),
        *(
            (
                scheme("mine", group=group),
                "nbits",
                ["'mine'", f"groups of {group}", "power of two"],
            )
            for group in (1, 8, 24, 48, 100, 512)
        ),
        *(
            (one, "integer", ["'mine'", "groups of 24", "power of two"])
            for one in (
                scheme("mine", bits=8, a8=STATIC, embedding=WeightFormat(bits=8, group_size=24)),
                scheme("mine", some(WeightFormat(bits=4, group_size=24)), bits=8, a8=TOKENS),
            )
        ),
    ],
)
def test_what_cannot_be_carried_says_why_and_what_to_do(
    one: Scheme | None, lowering: LoweringName, words: list[str]
) -> None:
    reason = reject(one, lowering)
    assert reason is not None
    assert all(word in reason for word in words), reason


@pytest.mark.parametrize(
    ("one", "has_vnni", "chosen"),
    [
        (None, True, "float"),
        (None, False, "float"),
        (SCHEMES["w8a8"], False, "hybrid"),
        (SCHEMES["w8a8"], True, "hybrid"),
        (SCHEMES["w4a8"], False, "nbits"),
        (SCHEMES["w8a16"], False, "nbits"),
        (SCHEMES["w8a16"], True, "nbits"),
        (SCHEMES["w4a16-g32"], False, "nbits"),
        (scheme(bits=8, group=64, a8=TOKENS), False, "nbits"),
        (scheme("s", some(BY_ROW, TOKENS), group=32, a8=TOKENS), False, "nbits"),
        *(
            (SCHEMES[name], has_vnni, "integer")
            for name in ("w8a8-symmetric", "w8a8-per-tensor", "w8a8-static")
            for has_vnni in (True, False)
        ),
        (scheme("s", some(BY_ROW, SYMMETRIC), group=32), True, "integer"),
        (scheme(group=24), True, "qdq"),  # the only form that carries it
        (scheme(embedding=WeightFormat(bits=8, group_size=8)), False, "qdq"),
    ],
)
def test_auto_stands_for_the_trained_arithmetic_or_the_fast_form_on_the_machine(
    one: Scheme | None, has_vnni: bool, chosen: str
) -> None:
    assert choose(one, "x86-vnni" if has_vnni else "x86") == chosen


@pytest.mark.parametrize("one", SCHEMES.values())
def test_auto_is_standard_operators_for_runtimes_that_are_not_known(one: Scheme) -> None:
    assert choose(one, "portable") == "qdq"
    assert choose(None, "portable") == "float"


@pytest.mark.parametrize("has_vnni", [True, False])
@pytest.mark.parametrize("one", [None, *SCHEMES.values()])
def test_every_scheme_of_the_table_has_a_form_and_auto_is_one(
    one: Scheme | None, has_vnni: bool
) -> None:
    assert reject(one, "auto") is None
    chosen: Any = choose(one, "x86-vnni" if has_vnni else "x86")
    assert reject(one, chosen) is None


@pytest.mark.parametrize("activation", [None, TOKENS, SYMMETRIC, TENSOR, STATIC])
@pytest.mark.parametrize("grouped", [True, False])
def test_a_layer_is_an_integer_one_where_its_input_is_and_its_rows_have_one_scale(
    activation: ActivationFormat | None, grouped: bool
) -> None:
    assert form_of("nbits", activation, grouped=grouped) == "nbits"
    assert form_of("qdq", activation, grouped=grouped) == "qdq"
    is_integer = form_of("integer", activation, grouped=grouped) == "integer"
    assert is_integer == (activation is not None and not grouped)


def test_every_arithmetic_is_stated_in_words_of_its_own() -> None:
    said = [arithmetic("integer", one) for one in (TOKENS, SYMMETRIC, TENSOR, STATIC)]
    assert len(set(said)) == 4
    assert all("as in training" in one for one in said)
    assert ["static" in one for one in said] == [False, False, False, True]
    for one in (None, TOKENS, TENSOR):  # whatever was trained, the runtime does the same
        assert "block of input features" in arithmetic("nbits", one)
        assert "as in training" not in arithmetic("nbits", one)


def test_standard_operators_round_inputs_as_training_did_where_rows_have_one_scale() -> None:
    for one in (TOKENS, SYMMETRIC, TENSOR):
        assert arithmetic("qdq", one) == arithmetic("integer", one)
        assert arithmetic("qdq", one, grouped=True) == arithmetic("qdq", None)
    assert arithmetic("qdq", STATIC).startswith(arithmetic("integer", STATIC))
    assert "edge" in arithmetic("qdq", STATIC)  # a division takes the place of a product
    assert arithmetic("qdq", None).startswith("float32; where onnxruntime fuses")
