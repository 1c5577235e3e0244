from __future__ import annotations

import math
from typing import Any

import pytest

from quantship.job import Node, Plan
from quantship.reporting import lineage, recovery

LOSSES = {"finetune": 1.8, "tune": 1.7, "ptq": 2.1, "qat": 1.9}


@pytest.fixture
def plan(lab: Any) -> Plan:
    """PTQ, QAT and a control, all from one fine-tuned model, and their exports."""
    steps = [
        lab.tune("finetune", "model"),
        lab.ptq("ptq", "finetune", "w8a8"),
        lab.qat("qat", "finetune", "w8a8"),
        lab.tune("tune", "finetune"),
    ]
    return lab.plan(*steps, *(lab.export(step) for step in steps))


def names(nodes: tuple[Node, ...]) -> list[str]:
    return [node.name for node in nodes]


def test_a_qat_model_meets_its_twin_its_reference_and_its_control(plan: Plan) -> None:
    (branch,) = recovery.branches(plan)
    assert (branch.qat.name, branch.training.name) == ("qat", "qat")
    assert branch.reference.name == "finetune"
    assert names(branch.ptq) == ["ptq"]
    assert names(branch.controls) == ["tune"]


def test_a_twin_has_the_same_scheme_and_the_same_source(lab: Any) -> None:
    steps = [
        lab.tune("finetune", "model"),
        lab.ptq("ptq-of-another", "model", "w8a8"),
        lab.ptq("ptq-otherwise", "finetune", "w4a16-g32"),
        lab.qat("qat", "finetune", "w8a8"),
    ]
    assert recovery.branches(lab.plan(*steps)) == []
    (branch,) = recovery.branches(lab.plan(*steps, lab.ptq("ptq", "finetune", "w8a8")))
    assert names(branch.ptq) == ["ptq"]


def test_codes_made_of_what_qat_left_in_float_are_its_own_and_no_twin(lab: Any) -> None:
    fake = Node("fake", "qat", None, {"model": "finetune"}, None, "qat", "fake")
    plan = lab.plan(
        lab.tune("finetune", "model"),
        fake,
        lab.ptq("ptq", "finetune", "w8a8"),
        lab.ptq("int8", "fake", "w8a8"),
    )
    (branch,) = recovery.branches(plan)
    assert (branch.qat.name, branch.training.name) == ("int8", "fake")
    assert (branch.reference.name, names(branch.ptq)) == ("finetune", ["ptq"])


def test_an_export_comes_from_the_float_model_of_its_checkpoint(plan: Plan) -> None:
    for name in ("finetune", "finetune-onnx", "ptq-onnx", "qat", "qat-onnx"):
        assert lineage.line(plan, plan[name])[-1].name == "finetune"
    assert lineage.line(plan, plan["tune-onnx"])[-1].name == "tune"


def test_the_share_is_of_mean_losses(lab: Any, plan: Plan) -> None:
    (entry,) = lab.recover(plan, lab.trained(qat=None, tune=None), LOSSES)
    share, control = entry.recovered.share, entry.control
    assert share.value == pytest.approx(0.2 / 0.3)
    assert share.low < share.value < share.high
    assert entry.recovered.lost.value == pytest.approx(0.3)
    assert entry.gained.value == pytest.approx(0.2)
    assert control.recovered.share.value == pytest.approx(0.2 / 0.4)
    assert control.recovered.reference.name == "tune"
    for model in (entry.qat, entry.ptq, entry.recovered.reference):
        assert model.mean_loss == pytest.approx(LOSSES[model.name])
        assert model.perplexity == pytest.approx(math.exp(model.mean_loss))
    assert (entry.num_sequences, entry.confidence, entry.num_resamples) == (400, 0.95, 10_000)
    assert entry.num_tokens == lab.measure(LOSSES)[1].sum()


def test_the_best_of_several_twins_is_the_one_to_beat(lab: Any) -> None:
    plan = lab.plan(
        lab.tune("finetune", "model"),
        *(lab.ptq(name, "finetune", "w8a8", algorithm=name) for name in ("rtn", "gptq", "awq")),
        lab.qat("qat", "finetune", "w8a8"),
    )
    losses = {"finetune": 1.8, "rtn": 2.3, "gptq": 2.0, "awq": 2.1, "qat": 1.85}
    (entry,) = lab.recover(plan, lab.trained(qat=None), losses)
    assert (entry.ptq.name, entry.ptq_algorithm) == ("gptq", "gptq")
    assert entry.ptq_twins == ["rtn", "gptq", "awq"]
    assert entry.recovered.share.value == pytest.approx(0.75)
    assert entry.control is None
    assert entry.ptq_best_in == 1.0
    assert entry.nearest.name == "rtn"
    assert entry.of_nearest.share.value == pytest.approx(0.9)
    assert entry.of_nearest.reference.name == "finetune"


def test_how_sure_the_choice_of_a_twin_is_is_told(lab: Any) -> None:
    plan = lab.plan(
        lab.tune("finetune", "model"),
        *(lab.ptq(name, "finetune", "w8a8", algorithm=name) for name in ("rtn", "gptq", "awq")),
        lab.qat("qat", "finetune", "w8a8"),
    )
    close = {"finetune": 1.8, "rtn": 2.3, "gptq": 2.0, "awq": 2.002, "qat": 1.85}
    (entry,) = lab.recover(plan, lab.trained(qat=None), close)
    assert 0.5 < entry.ptq_best_in < 0.95
    (entry,) = lab.recover(plan, lab.trained(qat=None), close, size=9)
    assert entry.ptq_best_in is None


def test_rounding_to_nearest_is_not_named_twice(lab: Any) -> None:
    steps = [lab.tune("finetune", "model"), lab.qat("qat", "finetune", "w8a8")]
    losses = {"finetune": 1.8, "ptq": 2.0, "other": 2.3, "qat": 1.85}
    alone = lab.plan(*steps, lab.ptq("ptq", "finetune", "w8a8"))
    (entry,) = lab.recover(alone, lab.trained(qat=None), losses)
    assert (entry.ptq_algorithm, entry.nearest, entry.ptq_best_in) == ("rtn", None, None)
    # Rounding to nearest on other grids is an algorithm of its own.
    other = lab.plan(*steps, lab.ptq("other", "finetune", "w8a8", range="mse"))
    (entry,) = lab.recover(other, lab.trained(qat=None), losses)
    assert (entry.ptq_algorithm, entry.nearest) == ("rtn, range mse", None)


def test_where_ptq_lost_nothing_there_is_no_share(lab: Any, plan: Plan) -> None:
    losses = {**LOSSES, "ptq": LOSSES["finetune"] + 0.001}
    (entry,) = lab.recover(plan, lab.trained(qat=None, tune=None), losses)
    assert entry.recovered.share is None
    assert entry.recovered.undefined == "ptq lost nothing measurable against finetune"
    assert entry.recovered.lost.low < 0 < entry.recovered.lost.high
    # The control is better than what QAT started from, and against it PTQ did lose.
    assert entry.control.recovered.share is not None


def test_a_few_sequences_tell_nothing(lab: Any, plan: Plan) -> None:
    made = lab.trained(qat=None, tune=None)
    (entry,) = lab.recover(plan, made, LOSSES, size=9)
    assert (entry.recovered.share, entry.recovered.lost, entry.gained) == (None, None, None)
    assert entry.recovered.undefined == "9 evaluated sequences are too few to tell"
    assert entry.qat.mean_loss == pytest.approx(1.9)
    (entry,) = lab.recover(plan, made, LOSSES, size=10)
    assert entry.recovered.lost is not None


def test_models_that_were_not_evaluated_are_left_out(lab: Any, plan: Plan) -> None:
    made = lab.trained(qat=None, tune=None)
    without = {name: loss for name, loss in LOSSES.items() if name != "finetune"}
    assert lab.recover(plan, made, without) == []
    assert recovery.branches(plan) != []


def test_other_models_of_the_run_change_no_number(lab: Any, plan: Plan) -> None:
    made = lab.trained(qat=None, tune=None)
    nll_nats, num_tokens = lab.measure(LOSSES)
    branches = recovery.branches(plan)
    alone = recovery.build(branches, made, nll_nats, num_tokens, {}, seed=0)
    more = {"model": nll_nats["ptq"] + 3.0, **nll_nats}
    assert recovery.build(branches, made, more, num_tokens, {}, seed=0) == alone
    assert recovery.build(branches, made, nll_nats, num_tokens, {}, seed=1) != alone


def test_the_method_is_that_of_the_training(lab: Any, plan: Plan) -> None:
    made = lab.trained(qat=None, tune=None)
    (entry,) = lab.recover(plan, made, LOSSES, qat="lora")
    assert entry.method == "lora"
    (entry,) = lab.recover(plan, made, LOSSES)
    assert entry.method == ""


def test_a_control_of_the_same_steps_saw_the_same_data(lab: Any) -> None:
    plan = lab.plan(
        lab.tune("finetune", "model"),
        lab.ptq("ptq", "finetune", "w8a8"),
        lab.qat("qat", "finetune", "w8a8", batch_size=2, gradient_accumulation=8, epochs=2),
        lab.tune("tune", "finetune", batch_size=4, gradient_accumulation=4, learning_rate=1e-4),
    )
    (entry,) = lab.recover(plan, lab.trained(qat=91_000, tune=91_000), LOSSES)
    assert entry.control.equal_data
    assert entry.control.training == entry.control.qat_training
    assert entry.control.training.model_dump() == {
        "num_steps": 200,
        "sequences_per_step": 16,
        "num_tokens": 91_000,
    }
    assert entry.control.differences == [
        "learning_rate is 0.0001 in tune and 2e-05 in qat",
        "batch_size is 4 in tune and 2 in qat",
        "gradient_accumulation is 4 in tune and 8 in qat",
    ]


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"batch_size": 8}, {}),
        ({"seed": 2}, {}),
        ({}, {"num_steps": 199}),
        ({}, {"tune": 90_999}),
    ],
)
def test_a_control_that_saw_other_data_is_told(
    lab: Any, options: dict[str, Any], facts: dict[str, Any]
) -> None:
    plan = lab.plan(
        lab.tune("finetune", "model"),
        lab.ptq("ptq", "finetune", "w8a8"),
        lab.qat("qat", "finetune", "w8a8"),
        lab.tune("tune", "finetune", **options),
    )
    made = lab.trained(qat=91_000, tune=91_000) | lab.trained(**{"tune": 91_000, **facts})
    (entry,) = lab.recover(plan, made, LOSSES)
    assert not entry.control.equal_data


def test_the_control_is_the_one_trained_most_like_qat(lab: Any) -> None:
    plan = lab.plan(
        lab.tune("finetune", "model"),
        lab.ptq("ptq", "finetune", "w8a8"),
        lab.tune("long", "finetune"),
        lab.tune("hot", "finetune", learning_rate=1e-3),
        lab.tune("just", "finetune"),
        lab.qat("qat", "finetune", "w8a8"),
    )
    made = lab.trained(hot=None, just=None, qat=None) | lab.trained(num_steps=900, long=None)
    losses = {**LOSSES, "long": 1.6, "hot": 1.71, "just": 1.7}
    (entry,) = lab.recover(plan, made, losses)
    assert entry.control.recovered.reference.name == "just"
    assert entry.control.equal_data
