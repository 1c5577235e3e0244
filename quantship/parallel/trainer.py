"""transformers' Trainer, whose optimizer steps are the same for every number of processes."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Trainer

from quantship.parallel import sharding
from quantship.parallel.batches import Collate, ShareLoader, counts
from quantship.parallel.share import Share


class StepTrainer(Trainer):
    """A Trainer whose step is the mean over all that is learnt from in it.

    Alone, on a language model, it does what Trainer does, to the bit.

    Args:
        share: How steps are shared.
        is_sharded: Whether the model's weights are shared, too; the model is a lent one then.
        given: Trainer's own arguments.
    """

    def __init__(self, share: Share, *, is_sharded: bool, **given: Any) -> None:
        self._is_sharded = is_sharded
        super().__init__(**given)
        self._share = share
        self._rows: Any = given["train_dataset"]
        self._trained: nn.Module = given["model"]
        # The losses of models that classify are means over micro-batches, which may differ in size
        # from each other, and from those that one process would make.
        classifies = isinstance(self._rows[0]["labels"], int)
        self._sums_classes = classifies and share.accumulation * share.processes > 1
        if self._sums_classes:
            self.model_accepts_loss_kwargs = True  # let Trainer count what is learnt from

    def get_train_dataloader(self) -> Any:
        """Micro-batches of this process."""
        if self._share.processes == 1:
            return super().get_train_dataloader()
        return ShareLoader(
            self._rows,
            cast("Collate", self.data_collator),
            self._share,
            self.args.process_index,
            cast("int", self.args.data_seed),
            self.args.dataloader_pin_memory,
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of one micro-batch: its share of the mean over the optimizer step."""
        if not self._sums_classes:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        assert num_items_in_batch is not None
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        total = F.cross_entropy(outputs.logits.float(), inputs["labels"], reduction="sum")
        # Gradients are averaged over the processes.
        loss = total / num_items_in_batch * self._share.processes
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Trainer's optimizer; Trainer has read any checkpoint's weights by now."""
        if not self._is_sharded:
            return super().create_optimizer(model)
        sharding.shard(self._trained, self.args.device)
        optimizer = super().create_optimizer(model)
        sharding.keep_whole_in_files(optimizer)
        return optimizer

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        if not self._is_sharded:  # a layer at a time, else; all of them may be too large for it
            super()._move_model_to_device(model, device)

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: Any = None) -> Any:
        if not self._is_sharded or not training or isinstance(model, sharding.Sharded):
            sharding.keep_frozen_apart(model)
            return super()._wrap_model(model, training, dataloader)
        # Autocasts, as it does for a model that is not sharded, and wraps nothing.
        return sharding.Sharded(
            self.accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model as a process alone would."""
        if self._is_sharded:
            self._save(output_dir, state_dict=sharding.full_state(self._trained))
        else:
            super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._is_sharded and not self.args.should_save:
            assert self.optimizer is not None
            self.optimizer.state_dict()  # the first process writes what all of them give
        super()._save_optimizer_and_scheduler(output_dir)

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        if self._share.processes == 1:
            super()._track_num_input_tokens(inputs)  # type: ignore[no-untyped-call]
            return
        tokens = inputs["attention_mask"][counts(inputs["labels"])].sum()
        self.state.num_input_tokens_seen += int(self.accelerator.reduce(tokens, "sum"))
