"""Losses against their definitions, and what a taught model comes to."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F

from quantship import distillation
from quantship.artifact import Facts
from quantship.data.prepare import collate
from quantship.distillation import (
    DistillingTrainer,
    Teaching,
    hidden_states_error,
    mixed_loss,
    supervised,
)
from quantship.errors import QuantshipError
from quantship.parallel.share import share
from quantship.quant.modules import prepare_qat
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import Distillation, QatStep, TinyModel
from quantship.tiny import build_model, build_tokenizer
from quantship.training import train

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = TinyModel(hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2, num_kv_heads=1)
TOKENIZER = build_tokenizer(64)


@cache
def learned() -> dict[str, Tensor]:
    """Weights of a model that has learned something of its data, and not all by heart."""
    model = build_model(SMALL, TOKENIZER, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    batch = collate(list(rows()), pad_token_id=0)
    for _ in range(25):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return dict(model.state_dict())


def fresh() -> PreTrainedModel:
    """A model of those weights."""
    model = build_model(SMALL, TOKENIZER, seed=0)
    model.load_state_dict(learned())
    return model


def rounded() -> PreTrainedModel:
    """The same model under fake quantization."""
    model = fresh()
    prepare_qat(model, SCHEMES["w2a16-g32"])
    return model


def noisy() -> PreTrainedModel:
    """The same model a little off, in float, so that rounding errors stay what they are."""
    model, generator = fresh(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return rows()


def rows() -> Dataset:
    """Sequences of different lengths, the first half of each masked, and a gap further on."""
    generator = torch.Generator().manual_seed(0)
    tokens = [
        torch.randint(4, 100, (8 + index % 5,), generator=generator).tolist() for index in range(24)
    ]
    labels = [[-100] * (len(row) // 2) + row[len(row) // 2 :] for row in tokens]
    for row in labels[::3]:
        row[-2] = -100
    return Dataset.from_dict({"input_ids": tokens, "labels": labels})


def run(
    dataset: Dataset,
    resume: Path,
    student: PreTrainedModel,
    distill: dict[str, Any] | None = None,
    **given: Any,
) -> Facts:
    """Train the student, taught by the fresh model unless ``distill`` is None."""
    usual = {"max_steps": 6, "learning_rate": 1e-3, "save_steps": 2, "logging_steps": 1}
    step = QatStep.model_validate({"stage": "qat", "distill": distill, **usual, **given})
    teaching = None
    if step.distill is not None:
        teaching = Teaching(fresh().eval().requires_grad_(False), step.distill)
    return train(student, dataset, step, pad_token_id=0, seed=0, resume=resume, teaching=teaching)


def distance(student: PreTrainedModel, dataset: Dataset) -> float:
    """Mean divergence of a student from the fresh model on the supervised tokens, in nats."""
    batch = collate(list(dataset), pad_token_id=0)
    labels = batch.pop("labels")
    mask = labels[:, 1:] != -100
    with torch.no_grad():
        log_q, log_p = (
            model.eval()(**batch).logits[:, :-1][mask].log_softmax(dim=-1)
            for model in (student, fresh())
        )
    return float(F.kl_div(log_q, log_p, log_target=True, reduction="sum") / mask.sum())


# The losses


def logits(num_tokens: int = 9, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    student, teacher = (
        torch.randn(num_tokens, 13, generator=generator, dtype=torch.float64) * 3 for _ in range(2)
    )
    labels = torch.randint(13, (num_tokens,), generator=generator)
    return student.to(dtype).requires_grad_(), teacher.to(dtype), labels


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("chunk", [1, 2 * 13, 2**24])
def test_the_loss_and_its_gradient_are_their_definitions(
    weight: float, temperature: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "_CHUNK_VALUES", chunk)
    student, teacher, labels = logits()
    loss, cross_entropy, divergence = mixed_loss(
        student, teacher, labels, temperature=temperature, weight=weight
    )
    hard = F.cross_entropy(student, labels, reduction="sum")
    soft = temperature**2 * F.kl_div(
        (student / temperature).log_softmax(dim=1),
        (teacher / temperature).softmax(dim=1),
        reduction="sum",
    )
    expected = (1 - weight) * hard + weight * soft
    for value, reference in ((loss, expected), (cross_entropy, hard), (divergence, soft)):
        torch.testing.assert_close(value, reference)
    torch.testing.assert_close(
        torch.autograd.grad(5 * loss, student), torch.autograd.grad(5 * expected, student)
    )
    assert not cross_entropy.requires_grad
    assert not divergence.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_model_has_nothing_to_learn_from_itself(dtype: torch.dtype, temperature: float) -> None:
    student, _, labels = logits(dtype=dtype)
    loss, _, divergence = mixed_loss(
        student, student.detach(), labels, temperature=temperature, weight=1.0
    )
    assert loss == divergence == 0
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.dtype == dtype
    assert not gradient.any()


def test_no_tokens_cost_nothing() -> None:
    student, teacher, labels = logits(num_tokens=0)
    loss, *_ = mixed_loss(student, teacher, labels, temperature=1.0, weight=0.5)
    assert loss == 0
    assert torch.autograd.grad(loss, student)[0].shape == student.shape


def test_a_token_is_supervised_where_the_next_one_is_a_label() -> None:
    labels = torch.tensor([[7, -100, -100, 3, 4], [-100, 5, -100, -100, 6], [-100] * 5])
    predicts, targets = supervised(labels)
    assert predicts.tolist() == [
        [False, False, True, True, False],
        [True, False, False, True, False],
        [False] * 5,
    ]
    assert targets.tolist() == [3, 4, 5, 6]


def test_hidden_states_are_compared_by_their_relative_error() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = [torch.randn(2, 5, 4, generator=generator) for _ in range(3)]
    predicts = torch.rand(2, 5, generator=generator) < 0.6
    same = [layer.clone().requires_grad_() for layer in teacher]
    nothing = hidden_states_error(same, teacher, predicts)
    assert nothing == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(nothing, same))
    # One tenth too large everywhere is an error of one hundredth, however large a layer is.
    sizes = (1, 1000, 1e-3)
    scaled = [layer * size for layer, size in zip(teacher, sizes, strict=True)]
    error = hidden_states_error([1.1 * layer for layer in scaled], scaled, predicts)
    assert float(error) == pytest.approx(0.01 * int(predicts.sum()), rel=1e-3)
    elsewhere = [layer + 9 * ~predicts[..., None] for layer in teacher]
    assert hidden_states_error(elsewhere, teacher, predicts) == 0


# One step


def loss_of(
    rows: list[dict[str, Any]], student: PreTrainedModel, distill: Distillation, folder: Path
) -> Callable[..., Tensor]:
    """The loss of some rows as the trainer computes it, given the tokens of the whole step."""
    from transformers import TrainingArguments

    trainer = DistillingTrainer(
        Teaching(fresh().eval().requires_grad_(False), distill),
        share(len(rows), 1, 1),
        is_sharded=False,
        model=student,
        args=TrainingArguments(str(folder), report_to="none", use_cpu=True),
        train_dataset=Dataset.from_list(rows),
    )
    batch = collate(rows, pad_token_id=0)
    return lambda num_tokens: trainer.compute_loss(student, batch, num_items_in_batch=num_tokens)


FULL = Distillation(temperature=2.0, weight=0.6, hidden_states=0.5)


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def test_micro_batches_add_up_to_the_one_big_batch(dataset: Dataset, tmp_path: Path) -> None:
    rows = list(dataset)[:9]
    num_tokens = sum(label != -100 for row in rows for label in row["labels"][1:])
    whole, cut = rounded(), rounded()
    loss = loss_of(rows, whole, FULL, tmp_path)(num_tokens)
    loss.backward()
    parts = []
    for some in (rows[:1], rows[1:6], rows[6:]):
        parts.append(loss_of(some, cut, FULL, tmp_path)(num_tokens))
        parts[-1].backward()
    assert sum(part.item() for part in parts) == pytest.approx(loss.item(), rel=1e-5)
    ours, theirs = gradients(whole), gradients(cut)
    assert len(ours) == len(list(whole.parameters()))
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-3, atol=1e-6)


def test_what_is_masked_does_not_matter(dataset: Dataset, tmp_path: Path) -> None:
    """The last tokens are of no consequence where no label follows them: causal models."""
    row = dataset[1]
    cut = {name: values[:-2] for name, values in row.items()}
    hidden = {
        "input_ids": [*cut["input_ids"], 50, 51, 52],
        "labels": [*cut["labels"], -100, -100, -100],
    }
    losses = [loss_of([some], rounded(), FULL, tmp_path)(None) for some in (cut, hidden)]
    torch.testing.assert_close(losses[0], losses[1])
    assert not torch.allclose(losses[0], loss_of([row], rounded(), FULL, tmp_path)(None))


def test_a_step_is_as_if_all_logits_had_been_computed(dataset: Dataset, tmp_path: Path) -> None:
    rows, student = list(dataset)[:5], rounded()
    loss = loss_of(rows, student, Distillation(temperature=2.0, weight=0.6), tmp_path)(None)
    batch = collate(rows, pad_token_id=0)
    labels = batch.pop("labels")
    mask = labels[:, 1:] != -100
    mine, theirs = (model(**batch).logits[:, :-1][mask] for model in (student, fresh()))
    soft = 4 * F.kl_div(
        (mine / 2).log_softmax(dim=1), (theirs / 2).softmax(dim=1), reduction="batchmean"
    )
    expected = 0.4 * F.cross_entropy(mine, labels[:, 1:][mask]) + 0.6 * soft
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert student(**batch).logits.shape[:2] == labels.shape, "the head sees all positions again"


# Trainings


def test_without_weight_it_is_the_usual_training(dataset: Dataset, tmp_path: Path) -> None:
    plain, taught = noisy(), noisy()
    facts = run(dataset, tmp_path / "1", plain)
    facts_taught = run(dataset, tmp_path / "2", taught, {"weight": 0})
    losses, losses_taught = (
        [point["loss"] for point in some["points"]] for some in (facts, facts_taught)
    )
    assert losses_taught == pytest.approx(losses, rel=1e-4)
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(taught.state_dict()[name], weight, rtol=1e-3, atol=1e-3)
    assert "distillation" not in facts
    assert facts_taught["distillation"]["kl_nats"] > 0, "and yet it tells how far the teacher is"


def test_the_divergence_alone_brings_the_student_nearest(dataset: Dataset, tmp_path: Path) -> None:
    before = distance(rounded(), dataset)
    after = {}
    for weight in (0.0, 1.0):
        student = rounded()
        run(dataset, tmp_path / str(weight), student, {"weight": weight}, max_steps=60)
        after[weight] = distance(student, dataset)
    assert after[1.0] < 0.3 * before
    assert after[1.0] < 0.7 * after[0.0]


def test_hidden_states_draw_the_student_nearer_in_every_layer(
    dataset: Dataset, tmp_path: Path
) -> None:
    facts = run(dataset, tmp_path, rounded(), {"hidden_states": 1.0}, max_steps=30)
    errors = [point["hidden_states_error"] for point in facts["points"]]
    assert errors[-1] < 0.7 * errors[0]


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("hidden_states", [0.0, 0.5])
def test_the_terms_make_up_the_loss(
    accumulation: int, hidden_states: float, dataset: Dataset, tmp_path: Path
) -> None:
    distill = {"weight": 0.7, "temperature": 2.0, "hidden_states": hidden_states}
    facts = run(dataset, tmp_path, rounded(), distill, gradient_accumulation=accumulation)
    for point in facts["points"]:
        terms = 0.3 * point["cross_entropy_nats"] + 0.7 * point["kl_nats"]
        terms += hidden_states * point.get("hidden_states_error", 0)
        assert point["loss"] == pytest.approx(terms, rel=1e-4)
    names = distillation.TERMS if hidden_states else distillation.TERMS[:2]
    assert facts["distillation"].keys() == set(names)
    for name in names:
        values = [point[name] for point in facts["points"]]
        assert facts["distillation"][name] == pytest.approx(sum(values) / len(values))


def test_accumulated_micro_batches_are_one_batch(dataset: Dataset, tmp_path: Path) -> None:
    whole, cut = noisy(), noisy()
    distill = FULL.model_dump()
    run(dataset, tmp_path / "1", whole, distill, batch_size=8)
    run(dataset, tmp_path / "2", cut, distill, batch_size=2, gradient_accumulation=4)
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[name], weight, rtol=1e-3, atol=1e-3)


def test_the_teacher_stays_as_it_was(dataset: Dataset, tmp_path: Path) -> None:
    teacher = fresh().eval().requires_grad_(False)
    before = copy.deepcopy(teacher.state_dict())
    step = QatStep.model_validate({"stage": "qat", "distill": True, "max_steps": 2})
    assert step.distill is not None
    teaching = Teaching(teacher, step.distill)
    train(rounded(), dataset, step, pad_token_id=0, seed=0, resume=tmp_path, teaching=teaching)
    assert not teacher.training
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(torch.equal(before[name], now) for name, now in teacher.state_dict().items())


def test_an_interrupted_training_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    undisturbed, resumed = rounded(), rounded()
    distill = FULL.model_dump()
    facts = run(dataset, tmp_path / "1", undisturbed, distill, max_steps=6)
    run(dataset, tmp_path / "2", rounded(), distill, max_steps=6)
    (tmp_path / "2" / "checkpoint-6" / "trainer_state.json").unlink()
    facts_resumed = run(dataset, tmp_path / "2", resumed, distill, max_steps=6)
    assert facts_resumed["resumed_from"] == 4
    assert facts_resumed["points"] == facts["points"]
    assert facts_resumed["distillation"] == facts["distillation"]
    for name, weight in undisturbed.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight)


def test_activations_can_be_computed_again(dataset: Dataset, tmp_path: Path) -> None:
    plain, frugal = noisy(), noisy()
    facts = run(dataset, tmp_path / "1", plain, FULL.model_dump())
    again = run(dataset, tmp_path / "2", frugal, FULL.model_dump(), gradient_checkpointing=True)
    assert again["points"] == facts["points"]


def test_teacher_and_student_compute_in_the_same_precision(
    dataset: Dataset, tmp_path: Path
) -> None:
    """So a model still has nothing to learn from itself, not even rounding errors."""
    student = fresh()
    facts = run(dataset, tmp_path, student, {"weight": 1}, precision="bfloat16", max_steps=2)
    assert facts["precision"] == "bfloat16"
    assert [point["kl_nats"] for point in facts["points"]] == [0, 0]
    before = fresh().state_dict()
    assert all(torch.equal(before[name], now) for name, now in student.state_dict().items())


# The teacher of a directory


def test_a_teacher_is_loaded_frozen(tiny_model_dir: Path, tiny_model: PreTrainedModel) -> None:
    from quantship.models import load_tokenizer

    teaching = distillation.load(
        tiny_model_dir, Distillation(), tiny_model, load_tokenizer(tiny_model_dir)
    )
    assert not teaching.teacher.training
    assert not any(weight.requires_grad for weight in teaching.teacher.parameters())


def test_a_teacher_that_cannot_teach_is_refused(
    tiny_model_dir: Path, tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    from quantship.models import load_tokenizer

    tokenizer = load_tokenizer(tiny_model_dir)
    student = fresh()
    distillation.load(tiny_model_dir, Distillation(), student, tokenizer)
    with pytest.raises(QuantshipError, match="128 features in a hidden state and the model"):
        distillation.load(tiny_model_dir, Distillation(hidden_states=1), student, tokenizer)
    tokenizer.add_tokens(["<|another|>"])
    with pytest.raises(QuantshipError, match=r"'<\|another\|>' in the model's tokenizer"):
        distillation.load(tiny_model_dir, Distillation(), tiny_model, tokenizer)
    tiny_model.resize_token_embeddings(320)
    with pytest.raises(QuantshipError, match="has 288 logits and the model it teaches 320"):
        distillation.load(tiny_model_dir, Distillation(), tiny_model, tokenizer)
