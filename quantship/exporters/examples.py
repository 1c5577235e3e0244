"""What to trace a model with: inputs of the right kinds, and which of their axes vary."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from quantship.errors import QuantshipError
from quantship.mlp import MODEL_TYPE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Axes = dict[str, dict[int, str]]
"""Names of the axes that vary, by input."""
BATCH, SEQUENCE = "batch_size", "sequence_length"
EXAMPLE_BATCH, EXAMPLE_SEQUENCE = 2, 5
"""PyTorch's tracer takes sizes of 0 and 1 for constants."""
VARYING = {
    "input_ids": (BATCH, SEQUENCE),
    "attention_mask": (BATCH, SEQUENCE),
    "token_type_ids": (BATCH, SEQUENCE),
    "pixel_values": (BATCH,),
    "input_values": (BATCH, "audio_length"),
    "input_features": (BATCH,),
    "features": (BATCH,),
}
"""Leading axes that vary in what models of transformers take."""


@dataclass(frozen=True)
class Example:
    """Named inputs of a module, and the axes of them that vary."""

    inputs: dict[str, Any]
    axes: Axes


def for_module(
    module: nn.Module, given: Any, axes: Mapping[str, Mapping[int, str]] | None
) -> Example:
    """The caller's inputs, by the names of the module's arguments.

    Args:
        module: Any module.
        given: One batch: a tensor, a tuple of positional arguments, or a mapping of named ones.
        axes: Axes that vary, by input; None: the first axis of every input.

    Raises:
        QuantshipError: An input is no tensor, or the axes name no input.
    """
    inputs = _named(module, given)
    if axes is None:
        axes = {name: {0: BATCH} for name, tensor in inputs.items() if tensor.dim()}
    unknown = axes.keys() - inputs.keys()
    if unknown:
        raise QuantshipError(
            f"there is no input '{min(unknown)}'; the inputs are {', '.join(sorted(inputs))}"
        )
    kept = {name: dict(named) for name, named in axes.items()}
    return Example({name: _widened(one, kept.get(name, {})) for name, one in inputs.items()}, kept)


def for_transformer(model: PreTrainedModel) -> Example:
    """Inputs of a model of transformers, by its configuration and its task.

    Raises:
        QuantshipError: Nothing is known of what the model takes.
    """
    main = model.main_input_name
    if model.config.model_type == MODEL_TYPE:
        features = torch.rand(EXAMPLE_BATCH, model.config.sizes[0])
        return Example({main: features}, {main: {0: BATCH}})
    names = [main]
    if main == "input_ids":
        names.append("attention_mask")
        if (getattr(model.config, "type_vocab_size", None) or 0) > 1:
            names.append("token_type_ids")
    accepted = inspect.signature(model.forward).parameters
    task = task_of(model)
    inputs = {name: _generated(model, task, name) for name in names if name in accepted}
    axes = {name: dict(enumerate(_varying(name, one))) for name, one in inputs.items()}
    return Example(inputs, axes)


def task_of(model: nn.Module) -> str | None:
    """What a model of transformers is for, in optimum's words; None where optimum knows none."""
    from optimum.exporters.tasks import TasksManager

    try:
        task: str = TasksManager.infer_task_from_model(type(model))
    except ValueError:
        return None
    return task


def _named(module: nn.Module, given: Any) -> dict[str, Tensor]:
    if isinstance(given, Mapping):
        named = dict(given)
    else:
        arguments = given if isinstance(given, tuple | list) else (given,)
        try:
            bound = inspect.signature(module.forward).bind(*arguments)
        except TypeError as error:
            raise QuantshipError(f"the example inputs do not fit the module: {error}") from error
        named = dict(bound.arguments)
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise QuantshipError(
                f"the example input '{name}' is a {type(value).__name__}, and a graph takes "
                "tensors; wrap the module in one whose forward takes tensors only"
            )
    return {name: value.detach().cpu() for name, value in named.items()}


def _widened(tensor: Tensor, axes: Mapping[int, str]) -> Tensor:
    """The same numbers twice along axes that vary and have but one."""
    for axis in axes:
        if tensor.shape[axis] == 1:
            tensor = torch.cat([tensor, tensor], dim=axis)
    return tensor


def _generated(model: PreTrainedModel, task: str | None, name: str) -> Tensor:
    from optimum.utils import (
        DummyAudioInputGenerator,
        DummyTextInputGenerator,
        DummyVisionInputGenerator,
        NormalizedTextConfig,
        NormalizedVisionConfig,
    )

    kinds: list[tuple[Any, Any]] = [
        (DummyTextInputGenerator, NormalizedTextConfig),
        (DummyVisionInputGenerator, NormalizedVisionConfig),
        (DummyAudioInputGenerator, NormalizedTextConfig),
    ]
    for generator, normalized in kinds:
        if any(name == supported for supported in generator.SUPPORTED_INPUT_NAMES):
            made = generator(
                task or "feature-extraction",
                normalized(model.config),
                batch_size=EXAMPLE_BATCH,
                **({"sequence_length": EXAMPLE_SEQUENCE} if "Text" in generator.__name__ else {}),
            )
            tensor: Tensor = made.generate(name, framework="pt")
            return tensor
    raise QuantshipError(
        f"a {type(model).__name__} takes '{name}', which quantship cannot make up; load the model "
        "and give quantship.export example inputs"
    )


def _varying(name: str, tensor: Tensor) -> tuple[str, ...]:
    names = VARYING[name]
    if tensor.dim() == 3 and names == (BATCH, SEQUENCE):
        return BATCH, "num_choices", SEQUENCE
    return names
