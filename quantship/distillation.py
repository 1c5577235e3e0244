"""A float model teaches the model in training: losses, and the Trainer that mixes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from quantship import models
from quantship.data.templating import IGNORED
from quantship.errors import QuantshipError
from quantship.parallel import sharding
from quantship.parallel.share import Share
from quantship.parallel.trainer import StepTrainer
from quantship.recipe.language import Distillation
from quantship.recipe.teacher import Makeup, mismatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Shapes: B sequences, S positions, T supervised positions, V vocabulary, H hidden features.

TERMS = ("cross_entropy_nats", "kl_nats", "hidden_states_error")
"""What is logged at every optimizer step: means over its supervised tokens, before weighting."""

_CHUNK_VALUES = 2**24
"""Logits worked on at once: 64 MiB in float32."""


@dataclass(frozen=True)
class Teaching:
    """A float model, and how it teaches."""

    teacher: PreTrainedModel
    options: Distillation


def load(
    directory: Path,
    options: Distillation,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> Teaching:
    """The frozen teacher of a directory, in float32 on the CPU.

    Args:
        directory: A float model with its tokenizer.
        options: The step's ``distill``.
        student: The model to be taught.
        tokenizer: The student's.

    Raises:
        QuantshipError: The teacher is quantized, or it cannot teach this student.
    """
    teacher = models.load_float(directory)
    wrong = mismatch(
        _makeup(student, tokenizer),
        _makeup(teacher, models.load_tokenizer(directory)),
        hidden_states=options.hidden_states > 0,
    )
    if wrong is not None:
        raise QuantshipError(f"the teacher {wrong.message}. {wrong.remedy}")
    return Teaching(teacher.eval().requires_grad_(False), options)


def _makeup(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Makeup:
    config = model.config.get_text_config()
    return Makeup(
        vocab_size=config.vocab_size,
        tokens=tokenizer.get_vocab(),
        hidden_size=getattr(config, "hidden_size", None),
        num_layers=getattr(config, "num_hidden_layers", None),
    )


def supervised(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Positions whose next token is a label, and those labels.

    Args:
        labels: int64 [B, S], IGNORED where the loss looks away, not shifted.

    Returns:
        bool [B, S], the last position of each sequence False; and int64 [T].
    """
    predicts = F.pad(labels[:, 1:] != IGNORED, (0, 1), value=False)
    return predicts, labels[:, 1:][predicts[:, :-1]]


def mixed_loss(
    student_TV: Tensor, teacher_TV: Tensor, labels_T: Tensor, *, temperature: float, weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy with the labels, mixed with the divergence from the teacher's predictions.

    Args:
        student_TV: Logits, of any float type; what is computed with is float32 at least.
        teacher_TV: Logits; they get no gradient.
        labels_T: int64.
        temperature: Divides both logits before the divergence, which is then multiplied by its
            square, so that its gradient stays as large as it is at 1.
        weight: Share of the divergence.

    Returns:
        The loss, with a gradient; and its two terms before weighting, the cross-entropy and the
        Kullback-Leibler divergence of the student from the teacher, without one. All are sums over
        tokens, in nats.

    Source:
        Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, section 2.
    """
    return _MixedLoss.apply(student_TV, teacher_TV, labels_T, temperature, weight)  # type: ignore[no-any-return, no-untyped-call]


class _MixedLoss(torch.autograd.Function):
    """The loss with its gradient in closed form, a few rows at a time.

    Autograd would keep four matrices of T × V in float32; this keeps the gradient alone. And where
    student and teacher agree, the gradient of the divergence is zero to the bit, not a rounding
    error that Adam would make a step of.
    """

    @staticmethod
    def forward(
        ctx: Any,
        student_TV: Tensor,
        teacher_TV: Tensor,
        labels_T: Tensor,
        temperature: float,
        weight: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = torch.promote_types(student_TV.dtype, torch.float32)
        cross_entropy, divergence = (student_TV.new_zeros((), dtype=dtype) for _ in range(2))
        gradient_TV = torch.empty_like(student_TV)
        rows = max(1, _CHUNK_VALUES // student_TV.shape[1])
        for start in range(0, len(labels_T), rows):
            part = slice(start, start + rows)
            logits, labels = student_TV[part].to(dtype), labels_T[part, None]
            log_q = (logits / temperature).log_softmax(dim=1)
            log_p = (teacher_TV[part].to(dtype) / temperature).log_softmax(dim=1)
            p = log_p.exp()
            divergence += F.kl_div(log_q, log_p, reduction="sum", log_target=True)
            gradient = log_q.exp().sub_(p).mul_(weight * temperature)
            if temperature != 1:
                log_q = logits.log_softmax(dim=1)
            cross_entropy -= log_q.gather(1, labels).sum()
            if weight < 1:
                hard = log_q.exp().scatter_add_(1, labels, -torch.ones_like(log_q[:, :1]))
                gradient.add_(hard, alpha=1 - weight)
            gradient_TV[part] = gradient
        divergence *= temperature**2
        ctx.save_for_backward(gradient_TV)
        ctx.mark_non_differentiable(cross_entropy, divergence)
        return (1 - weight) * cross_entropy + weight * divergence, cross_entropy, divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_TV,) = ctx.saved_tensors
        return gradient_TV * upstream[0].to(gradient_TV.dtype), None, None, None, None


def hidden_states_error(
    student: Sequence[Tensor], teacher: Sequence[Tensor], predicts: Tensor
) -> Tensor:
    """Squared error of hidden states relative to their size, a sum over positions.

    Each position's error is divided by the teacher's square there, so that no layer and no token
    with large activations drowns the others, and averaged over layers.

    Args:
        student: Hidden states [B, S, H], a layer each.
        teacher: As many, of the same shapes.
        predicts: bool [B, S], the positions to compare.
    """
    errors = []
    for ours, theirs in zip(student, teacher, strict=True):
        ours_TH, theirs_TH = ours[predicts].float(), theirs[predicts].float()
        size_T = theirs_TH.square().sum(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        errors.append(((ours_TH - theirs_TH).square().sum(dim=1) / size_T).sum())
    return torch.stack(errors).mean()


class DistillingTrainer(StepTrainer):
    """A Trainer whose model also learns from another model's predictions.

    The teacher is whole in every process, or sharded as its student is.
    """

    def __init__(self, teaching: Teaching, share: Share, **given: Any) -> None:
        super().__init__(share, **given)
        self._options = teaching.options
        self._teacher = teaching.teacher
        if self._is_sharded:
            sharding.shard(self._teacher, self.args.device)
        else:
            torch.nn.Module.to(self._teacher, self.args.device)
        self._sums = torch.zeros(len(TERMS), device=self.args.device)
        # Count the supervised tokens of an optimizer step, whatever the model's forward takes: the
        # loss is divided by them, so accumulated micro-batches are one batch.
        self.model_accepts_loss_kwargs = True

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of one micro-batch: its share of the mean over the optimizer step's tokens."""
        given = {name: value for name, value in inputs.items() if name != "labels"}
        given |= {"use_cache": False, "output_hidden_states": self._options.hidden_states > 0}
        predicts, labels = supervised(inputs["labels"])
        with (
            torch.no_grad(),
            self.accelerator.autocast(),
            _head_limited_to(self._teacher, predicts),
        ):
            taught = self._teacher(**given)
        if self.args.n_gpu > 1:  # replicas split the batch, but not what limits the head
            outputs = model(**given)
        else:
            with _head_limited_to(self._trained, predicts):
                outputs = model(**given)
        loss, *terms = mixed_loss(
            _selected(outputs.logits, predicts),
            _selected(taught.logits, predicts),
            labels,
            temperature=self._options.temperature,
            weight=self._options.weight,
        )
        if self._options.hidden_states:
            # The first are the embeddings, which no layer has worked on.
            layers = outputs.hidden_states[1:], taught.hidden_states[1:]
            terms.append(hidden_states_error(*layers, predicts))
            loss = loss + self._options.hidden_states * terms[-1]
        num_tokens = len(labels) if num_items_in_batch is None else num_items_in_batch
        if isinstance(num_tokens, Tensor):
            num_tokens = num_tokens.flatten()[0]
        self._sums[: len(terms)] += torch.stack(terms).detach() / num_tokens
        loss = loss / num_tokens
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over them
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *rest: Any, **more: Any) -> None:
        """Log the terms beside the loss; the log is saved with the state, and resumed with it."""
        if "loss" in logs:
            assert self.args.logging_steps == 1
            kept = len(TERMS) if self._options.hidden_states else len(TERMS) - 1
            sums = self.accelerator.reduce(self._sums, "sum")[:kept]
            logs |= zip(TERMS[:kept], sums.tolist(), strict=True)
            self._sums.zero_()
        super().log(logs, *rest, **more)


@contextmanager
def _head_limited_to(model: Any, predicts: Tensor) -> Iterator[None]:
    """Let the output head see these positions alone: it leaves logits [T, V], not [B, S, V]."""
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, given: (given[0][predicts], *given[1:]))
    try:
        yield
    finally:
        handle.remove()


def _selected(logits: Tensor, predicts: Tensor) -> Tensor:
    """The supervised positions' logits [T, V]."""
    return logits if logits.ndim == 2 else logits[predicts]
