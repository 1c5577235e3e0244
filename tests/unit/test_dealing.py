from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quantship import dealing
from quantship.frozen import Frozen
from quantship.job import OUTSIDE, Node

STAGES = ("quantize", "evaluate", "finetune", "qat", "benchmark", OUTSIDE)


class Plain(Frozen):
    """Settings of a stage whose result is the same everywhere."""

    seed: int = 0


class Timed(Frozen):
    """Settings of a stage that measures time."""

    machine: dict[str, str]


def node(name: str, stage: str = "quantize", *inputs: str, fingerprint: str = "") -> Node:
    settings: Frozen | None = Timed(machine={"cpu": "c"}) if stage == "benchmark" else Plain()
    if stage == OUTSIDE:
        settings = None
    roles = {f"role{one}": name for one, name in enumerate(inputs)}
    return Node(name, stage, settings, roles, None, "", fingerprint or name)


@st.composite
def plans(draw: st.DrawFn) -> list[Node]:
    """Nodes whose inputs come before them; a few make the same directory."""
    nodes: list[Node] = []
    for one in range(draw(st.integers(1, 12))):
        stage = draw(st.sampled_from(STAGES))
        known = [before.name for before in nodes]
        inputs = draw(st.lists(st.sampled_from(known), max_size=3, unique=True)) if known else []
        inputs = [] if stage == OUTSIDE else inputs
        same = draw(st.integers(0, one)) if draw(st.booleans()) else one
        nodes.append(node(f"job{one}", stage, *inputs, fingerprint=f"print{same}"))
    return nodes


def rounds(nodes: list[Node]) -> list[dealing.Round]:
    """All rounds of a plan, where what lies in a directory is found."""
    made = {one.name for one in nodes if one.stage == OUTSIDE}
    there: set[tuple[str, str]] = set()
    found = []
    while jobs := dealing.ready(nodes, made):
        reused = [one for one in jobs if (one.stage, one.fingerprint) in there]
        if reused:
            made |= {one.name for one in reused}
            continue
        found.append(dealing.next_round(jobs))
        made |= {one.name for one in found[-1].jobs}
        there |= {(one.stage, one.fingerprint) for one in found[-1].jobs}
    assert made == {one.name for one in nodes}
    return found


@given(plans())
def test_every_directory_is_made_once(nodes: list[Node]) -> None:
    made = [(one.stage, one.fingerprint) for each in rounds(nodes) for one in each.jobs]
    assert len(made) == len(set(made))
    assert set(made) == {(one.stage, one.fingerprint) for one in nodes if one.stage != OUTSIDE}


@given(plans())
def test_inputs_are_made_in_an_earlier_round(nodes: list[Node]) -> None:
    prints = {one.name: (one.stage, one.fingerprint) for one in nodes}
    outside = {one.name for one in nodes if one.stage == OUTSIDE}
    there: set[tuple[str, str]] = set()
    for each in rounds(nodes):
        for one in each.jobs:
            assert {prints[name] for name in one.inputs.values() if name not in outside} <= there
        there |= {(one.stage, one.fingerprint) for one in each.jobs}


@given(plans())
def test_training_and_timing_have_a_round_of_their_own(nodes: list[Node]) -> None:
    for each in rounds(nodes):
        stages = {one.stage for one in each.jobs}
        if each.kind == "dealt":
            assert len(each.jobs) > 1
            assert not stages & {"finetune", "qat", "benchmark"}
        else:
            assert len(each.jobs) == 1
            assert (each.kind == "joint") == bool(stages & dealing.JOINT)


@given(plans())
def test_all_processes_find_the_same_rounds(nodes: list[Node]) -> None:
    copies = [node.__class__(**vars(node)) for node in nodes]
    assert rounds(nodes) == rounds(copies)


def test_training_waits_for_what_can_be_shared_out_and_timing_for_training() -> None:
    nodes = [node("m", OUTSIDE), node("b", "benchmark", "m"), node("f", "finetune", "m")]
    nodes += [node("x", "evaluate", "m"), node("y", "evaluate", "m")]
    assert [(each.kind, [one.name for one in each.jobs]) for each in rounds(nodes)] == [
        ("dealt", ["x", "y"]),
        ("joint", ["f"]),
        ("first", ["b"]),
    ]


def test_plans_may_differ_in_what_is_timed_and_what_follows_from_it() -> None:
    first = [node("a"), node("b", "benchmark", "a"), node("c", "quantize", "b")]
    here = [node("a"), node("b", "benchmark", "a", fingerprint="slower")]
    here.append(node("c", "quantize", "b", fingerprint="of slower"))
    assert dealing.differing(first, first) == []
    assert dealing.differing(first, here) == []
    assert dealing.differing(first, [node("a", fingerprint="other data"), *here[1:]]) == ["a"]
    assert dealing.differing(first, here[1:]) == ["a"]
