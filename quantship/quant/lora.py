"""Quantization-aware training through adapters: what is rounded is base + adapter.

The adapters are peft's. A layer adds its adapter to its frozen base by the operations of peft's own
merge and rounds the sum, so merging changes nothing: the codes of the merged model are those that
were trained, to the bit, on the device where they were trained.

With the base in 4 bits (QLoRA) the sum is the numbers that the 4 bits stand for + adapter, and that
is the merged model too; an adapter trained so belongs to those numbers, not to the float model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from quantship.quant.adapted import AdaptedLinear
from quantship.quant.differences import differing
from quantship.quant.layers import ends, is_transposed, matrix
from quantship.quant.modules import (
    FakeQuantConv1D,
    FakeQuantLinear,
    fake_quantized,
    prepare_qat,
)
from quantship.quant.nf4 import expand, release_file, shrink
from quantship.quant.scheme import Scheme
from quantship.quant.targets import match_targets

GRIDS = "grids.safetensors"
"""File beside the adapter that holds the grids that do not follow from the numbers at hand."""


class Options(Protocol):
    """What the adapters are like; see ``recipe.rounding_options.Lora``."""

    @property
    def rank(self) -> int:
        """Rank of the adapters."""

    @property
    def alpha(self) -> float:
        """Adapters are scaled by alpha / rank."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Layers that get one, as ``targets.match_targets`` reads them."""

    @property
    def base(self) -> Literal["float32", "nf4"]:
        """Precision of the frozen weights below them."""


class AdaptedModel(PeftModel):
    """peft's model with adapters, which saves and loads trained and calibrated grids beside them.

    The adapter is peft's own file, and loads on the float model by ``PeftModel.from_pretrained``.
    """

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """Write adapter and grids into a directory, as transformers' Trainer does to resume."""
        super().save_pretrained(str(save_directory), **{**kwargs, "save_embedding_layers": False})
        state = kwargs.get("state_dict")  # of a sharded model, whose own has shares of tensors
        grids = {name: part.contiguous() for name, part in self._grids(state).items()}
        if grids:
            save_file(grids, Path(save_directory) / GRIDS)

    def load_adapter(self, model_id: str | Path, adapter_name: str, **kwargs: Any) -> Any:  # type: ignore[override]
        """Load what ``save_pretrained`` has written."""
        loaded = super().load_adapter(str(model_id), adapter_name, **kwargs)
        if self._grids():
            grids = load_file(Path(model_id) / GRIDS)
            assert grids.keys() == self._grids().keys()
            self.load_state_dict(grids, strict=False)
        return loaded

    def create_or_update_model_card(self, output_dir: str) -> None:
        """Write none: peft's is a form to fill in."""

    def _grids(self, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        kinds = {"rounding", "input_rounding"}
        state = self.state_dict() if state is None else state
        return {name: part for name, part in state.items() if kinds & set(name.split("."))}


def add_adapters(
    model: nn.Module, options: Options, scheme: Scheme | None = None, *, seed: int = 0
) -> AdaptedModel:
    """Freeze a fake-quantized model and give it adapters to train, beside any grids it learns.

    Args:
        model: Fake-quantized model, with its grids found; its layers become the new model's.
        options: What the adapters are like.
        scheme: Fake-quantizes the model first; None: it is.
        seed: Of the random half of each adapter.

    Raises:
        ValueError: A target matches no layer.
    """
    if scheme is not None:
        prepare_qat(model, scheme)
    _, head = ends(model)
    layers = {
        name: layer
        for name, layer in fake_quantized(model)
        if isinstance(layer, FakeQuantLinear | FakeQuantConv1D)
    }
    head_name = next((name for name, layer in layers.items() if layer is head), None)
    names = match_targets(list(layers), head_name, options.targets)
    if options.base == "nf4":
        for name in names:
            shrink(layers[name], name)
        release_file(model)
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type] # peft only ever divides it
        lora_dropout=0.0,
        bias="none",
        target_modules=names,
        fan_in_fan_out=any(is_transposed(layers[name]) for name in names),
        task_type="CAUSAL_LM" if _is_causal_lm(model) else None,
        base_model_name_or_path="",  # else peft puts in a path of this machine
    )
    config._register_custom_module({FakeQuantLinear: AdaptedLinear, FakeQuantConv1D: AdaptedLinear})
    with torch.random.fork_rng(devices=[]):  # whatever this process has done before
        torch.manual_seed(seed)
        adapted = AdaptedModel(model, config)
    for name, parameter in adapted.named_parameters():
        if {"rounding", "input_rounding"} & set(name.split(".")):
            parameter.requires_grad_(True)  # learned grids, which peft has frozen with the rest
    return adapted


@torch.no_grad()
def merge(model: AdaptedModel) -> nn.Module:
    """The fake-quantized model without adapters, whose codes are those that were trained.

    To be called where the model was trained, before it moves to another device.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, AdaptedLinear)]
    trained = {
        str(index): layer.base_layer.rounding.codes(layer.weight_OI())
        for index, layer in enumerate(layers)
    }
    for layer in layers:
        expand(layer.base_layer)
    merged: nn.Module = model.merge_and_unload()
    now = {
        str(index): layer.base_layer.rounding.codes(matrix(layer.base_layer))
        for index, layer in enumerate(layers)
    }
    assert not differing(trained, now)
    return merged


def _is_causal_lm(model: nn.Module) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
