from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from quantship import hardware
from quantship.exporters import advice, decoder, lowering
from quantship.exporters.lowering import Lowering
from quantship.exporters.targets import Target
from quantship.inspection import machine
from quantship.inspection.inspect import inspect
from quantship.inspection.report import Machine
from quantship.quant.scheme import SCHEMES, Scheme, WeightFormat
from quantship.runtimes import built_for
from quantship.runtimes.ort import OrtRuntime

TARGETS: tuple[Target, ...] = get_args(Target)
KINDS: tuple[hardware.Kind, ...] = get_args(hardware.Kind)
CARRIED = [
    (form, scheme, target)
    for scheme, form, target in itertools.product(SCHEMES.values(), get_args(Lowering), TARGETS)
    if lowering.reject(scheme, form) is None
]
ODD = Scheme(name="odd", weight=WeightFormat(bits=8, group_size=24))


def said(form: Lowering, name: str, target: Target, kind: hardware.Kind | None = None) -> str:
    return " | ".join(advice.warnings(form, SCHEMES[name], target, kind))


@pytest.mark.parametrize(("form", "scheme", "target"), CARRIED)
def test_every_choice_has_a_reason_and_another_than_autos_is_called_so(
    form: Lowering, scheme: Scheme, target: Target
) -> None:
    words = advice.reason(form, scheme, target)
    assert words
    assert not words.endswith(".")
    best = lowering.choose(scheme, target)
    assert words.startswith("the recipe asks for it") == (form != best)
    assert form == best or f"auto is {best} for {target}" in words


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("w8a8", "x86", "each has a branch"),
        ("w8a8", "x86-vnni", "each has a branch"),
        ("w8a8", "arm", "bound by memory"),
        ("w8a16", "x86", "than the codes have"),
        ("w4a16-g32", "x86-vnni", "two a byte"),
        ("w8a8-static", "x86", "static"),
        ("w8a8-symmetric", "x86-vnni", "as in training"),
        ("w8a8", "portable", "every ONNX runtime"),
    ],
)
def test_the_reason_is_the_one_that_decided(name: str, target: Target, words: str) -> None:
    scheme = SCHEMES[name]
    assert words in advice.reason(lowering.choose(scheme, target), scheme, target)


def test_what_only_standard_operators_carry_says_why() -> None:
    assert lowering.choose(ODD, "x86") == "qdq"
    assert "groups of 24" in advice.reason("qdq", ODD, "x86")


def test_a_float_model_has_nothing_to_beware_of() -> None:
    assert "no integers" in advice.reason("float", None, "x86")
    for target, kind in itertools.product(TARGETS, KINDS):
        assert advice.warnings("float", None, target, kind) == ()


def test_eight_bit_blocks_are_slow_at_prompts_where_that_was_measured() -> None:
    assert "0.65 ×" in said("nbits", "w8a8", "x86")
    assert "hybrid is faster there" in said("nbits", "w8a8", "x86")
    assert "faster there" not in said("nbits", "w8a16", "x86")
    assert "0.90 ×" in said("nbits", "w4a16-g32", "x86")
    assert "slower" not in said("nbits", "w8a8", "x86-vnni")


def test_what_hybrid_would_gain_is_said_where_it_gains() -> None:
    assert "1.2 ×" in said("nbits", "w4a16-g32", "x86-vnni")
    assert "1.2 ×" not in said("nbits", "w4a16-g32", "x86")
    assert "1.2 ×" not in said("nbits", "w4a16-g32-asymmetric", "x86-vnni")
    assert "1.2 ×" not in said("nbits", "w8a8", "x86-vnni")


def test_hybrid_holds_codes_twice_only_where_its_branches_differ() -> None:
    assert "twice" in said("hybrid", "w8a8", "x86")
    assert "twice" in said("hybrid", "w4a16-g32", "x86-vnni")
    assert "twice" not in said("hybrid", "w8a16", "x86")
    assert "twice" not in said("hybrid", "w4a16-g32", "x86")


def test_integers_decode_more_slowly_than_blocks() -> None:
    assert "1.8 ×" in said("integer", "w8a8", "x86")
    assert "1.8 ×" not in said("integer", "w8a8-static", "x86")  # of which nothing was measured
    assert "1.8 ×" not in said("integer", "w8a8", "x86-vnni")


def test_qdq_says_where_it_does_not_quantize_inputs() -> None:
    assert "inputs in float" in said("qdq", "w4a8", "portable")
    assert "inputs in float" not in said("qdq", "w8a8", "portable")
    assert "inputs in float" not in said("qdq", "w4a16-g32", "portable")


@pytest.mark.parametrize(("form", "scheme", "target"), CARRIED)
def test_what_a_machine_adds_is_added_at_the_end(
    form: Lowering, scheme: Scheme, target: Target
) -> None:
    known = advice.warnings(form, scheme, target)
    assert ("nothing was measured" in " ".join(known)) == (target in ("cuda", "arm"))
    for kind in KINDS:
        every = advice.warnings(form, scheme, target, kind)
        assert every[: len(known)] == known
        is_elsewhere = target not in (kind, "portable")
        assert bool(every[len(known) :]) == is_elsewhere


@pytest.mark.parametrize(
    ("form", "name", "target", "signed"),
    [
        ("hybrid", "w8a8", "x86-vnni", True),
        ("hybrid", "w8a8", "x86", False),
        ("hybrid", "w8a8", "arm", True),
        ("hybrid", "w4a16-g32", "x86-vnni", False),
        ("integer", "w8a8", "x86-vnni", False),
        ("nbits", "w8a8", "x86-vnni", False),
        ("qdq", "w8a8", "x86-vnni", True),
        ("qdq", "w8a8", "cuda", True),
        ("qdq", "w8a8", "portable", False),
        ("qdq", "w8a16", "x86-vnni", False),
        ("qdq", "w4a8", "x86-vnni", False),
    ],
)
def test_signed_weights_are_foreseen_and_wrong_without_vnni_only(
    form: Lowering,
    name: str,
    target: Target,
    signed: bool,
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert advice.has_signed_weights(form, SCHEMES[name], target) == signed
    assert ("wrong" in said(form, name, target, "x86")) == signed
    for exact in ("x86-vnni", "arm"):
        assert "wrong" not in said(form, name, target, exact)

    facts = decoder.export(make_checkpoint(name), form, name, tmp_path, target)
    assert facts["signed_weights"] == signed
    assert built_for.read(tmp_path) == (form, target, signed)
    monkeypatch.setattr(machine, "here", without_vnni)
    found = inspect(tmp_path, session=False)  # which looks at the graph, not at what it says
    assert ("saturates" in [hazard.code for hazard in found.hazards]) == signed

    for kind in KINDS:
        monkeypatch.setattr(hardware, "kind", lambda kind=kind: kind)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            for _ in range(2):
                OrtRuntime(tmp_path, 1)
        ours = [str(one.message) for one in caught if one.category is UserWarning]
        assert len(ours) == int(signed and kind == "x86")
        assert all(str(tmp_path) in text and "saturate" in text for text in ours)


def without_vnni() -> Machine:
    return Machine(
        cpu="one",
        instruction_sets=("avx2",),
        is_arm=False,
        has_vnni=False,
        onnxruntime="1",
        providers=(),
    )
