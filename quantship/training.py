"""Training on transformers' Trainer, resumable, for finetune and qat alike."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from quantship import checkpoints, hardware, processes, progress, stopping
from quantship.artifact import Facts
from quantship.data.prepare import collate
from quantship.distillation import TERMS, DistillingTrainer, Teaching
from quantship.errors import QuantshipError
from quantship.parallel import asked, sharding
from quantship.parallel.share import Share, share
from quantship.parallel.trainer import StepTrainer
from quantship.quant import compiling
from quantship.quant.rounding import keep_codes, weights_changed
from quantship.recipe.language import TrainingOptions

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, TrainerControl

    from quantship.tracking import Tracked

KEPT_CHECKPOINTS = 2
STATE = "trainer_state.json"


def train(
    model: PreTrainedModel,
    dataset: Dataset,
    options: TrainingOptions,
    *,
    pad_token_id: int,
    seed: int,
    resume: Path,
    teaching: Teaching | None = None,
    tracked: Tracked | None = None,
) -> Facts:
    """Train a model in place; every process of the run calls this, and they train it together.

    An optimizer step is the same for every number of processes, but for the order in which floats
    are added up and for dropout, of which each process draws its own. Where the model is sharded,
    it has parameters in the first process only, afterwards.

    Args:
        model: Float or fake-quantized model.
        dataset: Columns input_ids and labels, as ``data.prepare`` makes them.
        options: The step of the recipe.
        pad_token_id: Fills up the shorter sequences of a batch.
        seed: Seed of the order of the data and of dropout.
        resume: Directory for Trainer's checkpoints; an unfinished run of the same step goes on
            from the last one that is complete, whatever number of processes has written it.
        teaching: A float model to learn from as well; None: from the data alone.
        tracked: Whom to tell of it; None: nobody.

    Returns:
        Loss curve, seconds, tokens a second (of all processes together) and the step it was resumed
        from; where a model taught, the means of the loss's terms over all steps, before weighting;
        where several processes trained, how many, and whether the model was sharded.

    Raises:
        QuantshipError: The loss or its gradient stopped being a number, or the sequences of a step
            cannot be dealt out to the processes.
        KeyboardInterrupt: The user, or ``docker stop``, asked for the end, of one process at
            least; a checkpoint is saved.
    """
    shared = share(options.batch_size, options.gradient_accumulation, processes.number())
    is_sharded = asked.is_sharded()
    trained = sharding.lend(model) if is_sharded else model
    if not is_sharded:  # codes of whole layers would be what sharding saves
        keep_codes(model)
    arguments = _arguments(options, shared, seed, resume)
    if tracked is not None:
        arguments.run_name, arguments.project = tracked.name, tracked.run.project
    last = processes.agreed(checkpoints.newest(resume) if processes.is_first() else None)
    state = TrainerState.load_from_json(str(last / STATE)) if last else TrainerState()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    began = time.monotonic()
    with (
        progress.bar(options.stage, None) as bar,  # type: ignore[attr-defined]
        stopping.in_own_time() as stop,
        _cache_kept(model),
    ):
        watcher = _Watcher(bar, stop)
        if last is not None and state.global_step >= state.max_steps:
            # Trainer would take one more step, at a rate from beyond the end of its schedule.
            _load_weights(model, last)
        else:
            made = StepTrainer if teaching is None else partial(DistillingTrainer, teaching)
            told = [] if tracked is None else tracked.callbacks(state.global_step)
            trainer = made(
                shared,
                is_sharded=is_sharded,
                model=trained,
                args=arguments,
                train_dataset=dataset,
                data_collator=partial(collate, pad_token_id=pad_token_id),
                callbacks=[watcher, *told],
            )
            trainer.remove_callback(PrinterCallback)  # it prints every logged dictionary
            with compiling.compiled(trained, options.compile):
                trainer.train(resume_from_checkpoint=str(last) if last else None)
            state = trainer.state
            if is_sharded:
                sharding.take_back(model, trained)
                if hasattr(model, "peft_config"):  # to be merged where it was trained
                    torch.nn.Module.to(model, arguments.device)
    if any(processes.gathered(stop.is_set())):
        raise KeyboardInterrupt
    return {
        "points": _points(state.log_history, options.logging_steps),
        "num_steps": state.global_step,
        "num_tokens": state.num_input_tokens_seen,
        "seconds": round(time.monotonic() - began, 3),
        "tokens_per_s": watcher.tokens_per_s(),
        "seconds_per_step": watcher.median_step_s(),
        "resumed_from": checkpoints.step(last) if last else None,
        "precision": "bfloat16" if arguments.bf16 else "float32",
        "peak_gpu_bytes": hardware.peak_gpu_bytes(),
        **({} if teaching is None else {"distillation": _mean_terms(state.log_history)}),
        **({} if shared.processes == 1 else _together(shared, is_sharded)),
    }


@contextmanager
def _cache_kept(model: PreTrainedModel) -> Iterator[None]:
    """A Trainer, once made, has turned the cache of keys and values off, for generation as well."""
    before = getattr(model.config, "use_cache", None)
    yield
    if before is not None:
        model.config.use_cache = before


def _together(shared: Share, is_sharded: bool) -> Facts:
    return {"processes": shared.processes, "sharded": is_sharded}


def _arguments(
    options: TrainingOptions, shared: Share, seed: int, resume: Path
) -> TrainingArguments:
    # Emulated, it would be slower than float32.
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    bf16 = options.precision == "bfloat16" or (options.precision == "auto" and has_bf16)
    return TrainingArguments(
        output_dir=str(resume),
        num_train_epochs=options.epochs,
        max_steps=options.max_steps or -1,
        per_device_train_batch_size=shared.batch_size,
        gradient_accumulation_steps=shared.accumulation,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=options.warmup_ratio,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        bf16=bf16,
        gradient_checkpointing=options.gradient_checkpointing or None,  # False warns of the name
        save_strategy="steps",
        save_steps=options.save_steps,
        save_total_limit=KEPT_CHECKPOINTS,
        logging_steps=1,  # a mean over more steps would forget those before a resumption
        log_level_replica="passive",  # all but the first process would speak up, else
        logging_nan_inf_filter=False,  # it would log another loss in place of one that is NaN
        seed=seed,
        data_seed=seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        include_num_input_tokens_seen="non_padding",
        ddp_broadcast_buffers=False,  # they are the same anyway
        # Looking for them does not go with recomputing; None: Trainer's own choice.
        ddp_find_unused_parameters=False if options.gradient_checkpointing else None,
        report_to="none",
        disable_tqdm=True,
    )


def _points(history: list[dict[str, float]], every: int) -> list[Facts]:
    """Mean losses over every so many steps, the last point over those that are left."""
    logged = [entry for entry in history if "loss" in entry]
    groups = [logged[start : start + every] for start in range(0, len(logged), every)]
    return [
        {
            "step": group[-1]["step"],
            "loss": fmean(entry["loss"] for entry in group),
            "learning_rate": group[-1]["learning_rate"],
            "grad_norm": group[-1]["grad_norm"],
            **_mean_terms(group),
        }
        for group in groups
    ]


def _mean_terms(history: list[dict[str, float]]) -> Facts:
    """Means of the terms of a distillation's loss, as far as they were logged."""
    logged = {name: [entry[name] for entry in history if name in entry] for name in TERMS}
    return {name: fmean(values) for name, values in logged.items() if values}


def _load_weights(model: PreTrainedModel, checkpoint: Path) -> None:
    from safetensors.torch import load_file

    if hasattr(model, "peft_config"):
        model.load_adapter(str(checkpoint), "default", is_trainable=True)
        return
    weights = {}
    for file in checkpoint.glob("*.safetensors"):
        weights.update(load_file(file))
    loaded = model.load_state_dict(weights, strict=False)  # a tied head is not in the file
    assert weights
    assert not loaded.unexpected_keys


class _Watcher(TrainerCallback):
    """Moves the progress bar, times the steps, and stops when asked to or when it is hopeless."""

    def __init__(self, bar: progress.Bar, stop: threading.Event) -> None:
        self._bar = bar
        self._stop = stop
        self._began = 0.0
        self._step_seconds: list[float] = []
        self._tokens_before: int | None = None
        self._tokens = 0

    def tokens_per_s(self) -> float:
        """Training tokens a second of optimizer steps, padding and saving left out."""
        seconds = sum(self._step_seconds)
        return round((self._tokens - (self._tokens_before or 0)) / seconds, 1) if seconds else 0.0

    def median_step_s(self) -> float | None:
        """Median time of an optimizer step, in seconds."""
        ordered = sorted(self._step_seconds)
        return round(ordered[len(ordered) // 2], 4) if ordered else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if processes.index():  # its dropout is not that of the first
            torch.manual_seed(args.seed + processes.index())

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        entry = state.log_history[-1]
        for key, name in (("loss", "loss"), ("grad_norm", "norm of the gradient")):
            if not math.isfinite(entry.get(key, 0)):
                raise QuantshipError(
                    f"the {name} is {entry[key]} at step {state.global_step}; "
                    "a smaller learning_rate or a longer warm-up may help"
                )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        processes.meet()  # each has written files of its own
        if processes.is_first():
            checkpoints.seal(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._tokens_before is None:
            self._tokens_before = state.num_input_tokens_seen
        self._began = time.perf_counter()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        weights_changed(kwargs["model"])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._step_seconds.append(time.perf_counter() - self._began)
        self._tokens = state.num_input_tokens_seen
        self._bar.move_to(state.global_step, state.max_steps)
        if any(processes.gathered(self._stop.is_set())):  # all stop after the same step
            control.should_save = True
            control.should_training_stop = True
