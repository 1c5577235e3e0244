from __future__ import annotations

from typing import Any

import pytest

from quantship.exporters.lowering import ACTIVATION_ARITHMETIC, LoweringName, choose, reject
from quantship.quant.scheme import SCHEMES, ActivationFormat, Scheme, WeightFormat


def scheme(name: str = "s", *, bits: int = 4, group: int | None = None, a8: bool = False) -> Scheme:
    weight = WeightFormat(bits=bits, group_size=group)
    return Scheme(name=name, weight=weight, activation=ActivationFormat() if a8 else None)


@pytest.mark.parametrize(
    ("one", "lowering"),
    [
        (None, "auto"),
        (None, "float"),
        (scheme(), "auto"),
        (scheme(group=8), "auto"),
        (scheme(), "nbits"),
        (scheme(bits=8), "nbits"),
        (scheme(a8=True), "nbits"),
        (scheme(a8=True), "integer"),
        (scheme(bits=8, a8=True), "integer"),
        *((scheme(group=group), "nbits") for group in (16, 32, 64, 128, 256)),
    ],
)
def test_what_can_be_carried_is_not_rejected(one: Scheme | None, lowering: LoweringName) -> None:
    assert reject(one, lowering) is None


@pytest.mark.parametrize(
    ("one", "lowering", "words"),
    [
        (None, "nbits", ["float model", "'nbits'", "use float or auto"]),
        (None, "integer", ["float model", "'integer'", "use float or auto"]),
        (scheme("mine"), "float", ["'mine'", "throw its integers away", "nbits"]),
        (scheme("mine"), "integer", ["'mine'", "activations in float", "use nbits"]),
        (scheme("mine", group=32, a8=True), "integer", ["'mine'", "groups of 32", "use nbits"]),
        *(
            (scheme("mine", group=group), "nbits", ["'mine'", f"groups of {group}", "power of two"])
            for group in (1, 8, 24, 48, 100, 512)
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
        (SCHEMES["w8a8"], False, "integer"),
        (SCHEMES["w8a8"], True, "nbits"),
        (SCHEMES["w4a8"], False, "nbits"),
        (SCHEMES["w8a16"], False, "nbits"),
        (SCHEMES["w8a16"], True, "nbits"),
        (SCHEMES["w4a16-g32"], False, "nbits"),
        (scheme(bits=8, group=64, a8=True), False, "nbits"),
    ],
)
def test_auto_stands_for_the_fast_form_on_the_machine(
    one: Scheme | None, has_vnni: bool, chosen: str
) -> None:
    assert choose(one, has_vnni) == chosen


@pytest.mark.parametrize("has_vnni", [True, False])
@pytest.mark.parametrize("one", [None, *SCHEMES.values()])
def test_auto_never_stands_for_what_is_rejected(one: Scheme | None, has_vnni: bool) -> None:
    chosen: Any = choose(one, has_vnni)
    assert reject(one, chosen) is None
    assert ACTIVATION_ARITHMETIC[chosen]
