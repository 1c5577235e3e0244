"""What rounding costs the whole model: measured on calibration data, layer by layer.

Only one layer is rounded at a time, to nearest, and the model runs from that layer's block on. Two
numbers come of it: the Kullback-Leibler divergence of the predictions from the float model's, and
what the loss rises by. Sums of either over layers are what a search takes an allocation to cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from quantship import lines, progress
from quantship.errors import QuantshipError
from quantship.quant import numerics
from quantship.quant.choices import Layer
from quantship.quant.layers import matrix
from quantship.quant.ranges import find_grid
from quantship.quant.scheme import LayerFormat, RangeName, WeightFormat
from quantship.search.replay import Inputs, Replay

IGNORED = -100
"""Label of a token that nobody predicts."""
MEASURED = "sensitivity.jsonl"
"""File of the numbers that are known already, one line a layer and candidate."""


class Damage(NamedTuple):
    """What rounding did to the predictions, per predicted token."""

    kl_nats: float
    """Kullback-Leibler divergence from the float model's predictions, in nats."""
    loss_nats: float
    """What the loss has risen by, in nats; may be negative."""


@dataclass(frozen=True)
class Rounding:
    """How weights are rounded while it is measured."""

    range: RangeName = "minmax"
    percentile: float = 99.9

    @torch.no_grad()
    def numbers(self, weight_OI: Tensor, fmt: WeightFormat) -> Tensor:
        """What a weight's nearest codes stand for."""
        grid = find_grid(weight_OI, fmt, self.range, self.percentile)
        return numerics.dequantize(numerics.round_to(weight_OI, grid, fmt))


@dataclass(frozen=True)
class Calibration:
    """One calibration sequence.

    Args:
        inputs: What the model is called with.
        positions: Positions that predict something; None: all that there are.
        targets: What comes there.
    """

    inputs: Inputs
    positions: Tensor | None
    targets: Tensor


def read(batches: Sequence[Mapping[str, Any]]) -> list[Calibration]:
    """Calibration sequences of batches as ``data.prepare.collate`` makes them, of one row each.

    Raises:
        QuantshipError: No token is to be predicted.
    """
    found = []
    for batch in batches:
        inputs = {name: one for name, one in batch.items() if name != "labels"}
        labels, positions = batch["labels"].flatten(), None
        if batch["labels"].ndim == 2:
            labels = labels[1:]
            positions = (labels != IGNORED).nonzero().flatten()
            labels = labels[positions]
        if len(labels):
            found.append(Calibration(inputs, positions, labels))
    if not found:
        raise QuantshipError("the calibration sequences have no token to predict")
    return found


class Predictions:
    """What the float model predicts of some sequences; others' predictions are held against it.

    Holds its log-probabilities, 4 bytes for each predicted token and entry of the vocabulary.

    Args:
        model: The float model, in evaluation mode.
        sequences: What it predicts.

    Raises:
        QuantshipError: The model's predictions are not finite.
    """

    def __init__(self, model: nn.Module, sequences: Sequence[Calibration]) -> None:
        self.model = model
        self.num_tokens = sum(len(one.targets) for one in sequences)
        self._targets = [one.targets for one in sequences]
        inputs, positions = [one.inputs for one in sequences], [one.positions for one in sequences]
        self.replay = Replay(model, inputs, positions)
        runs = progress.track(self.replay.logits(), "float predictions", len(sequences))
        self._reference = [logits.log_softmax(-1) for logits in runs]
        if not all(bool(torch.isfinite(one).all()) for one in self._reference):
            raise QuantshipError(
                "the float model computes nan or infinite predictions of the calibration data"
            )
        pairs = zip(self._reference, self._targets, strict=True)
        self.loss_nats = sum(_nll(one, at) for one, at in pairs) / self.num_tokens

    def compare(self) -> Damage:
        """How the model as it stands predicts, from the replay's block on; NaN where it breaks."""
        kl = loss = 0.0
        for index, logits in enumerate(self.replay.logits()):
            log_q, log_p = logits.log_softmax(-1), self._reference[index]
            loss += _nll(log_q, self._targets[index])
            kl += float((log_p - log_q).mul_(log_p.exp()).sum(dtype=torch.float64))
        return Damage(max(kl / self.num_tokens, 0.0), loss / self.num_tokens - self.loss_nats)

    def of(self, formats: Mapping[str, LayerFormat], rounding: Rounding) -> Damage:
        """How the model predicts with all these layers rounded; inputs of static ranges are not.

        Raises:
            QuantshipError: The predictions are not finite.
        """
        self.replay.restart()
        with rounded(self.model, formats, rounding, inputs=True):
            damage = self.compare()
        if not all(map(math.isfinite, damage)):
            raise QuantshipError("the rounded model's predictions are nan or infinite")
        return damage


def measure(
    predictions: Predictions, layers: Sequence[Layer], rounding: Rounding, resume: Path
) -> dict[str, dict[str, Damage]]:
    """Round each layer to each of its formats, alone, and see what it does.

    Args:
        predictions: Of the float model, which is the same again afterwards.
        layers: Of the model.
        rounding: How to round.
        resume: Directory in which measured numbers are kept, and found after a killed run.

    Returns:
        By layer and candidate.

    Raises:
        QuantshipError: The model breaks when a single layer is rounded.
    """
    known = _known(resume / MEASURED)
    model, replay = predictions.model, predictions.replay
    replay.restart()
    starts = {layer.name: _first_block(model, replay.blocks, layer) for layer in layers}
    wanted = [
        (layer, candidate)
        for layer in sorted(layers, key=lambda one: starts[one.name])
        for candidate in layer.formats
        if candidate not in known.get(layer.name, {})
    ]
    for layer, candidate in progress.track(wanted, "sensitivity", len(wanted)):
        replay.move_to(starts[layer.name])
        with rounded(model, {layer.name: layer.formats[candidate]}, rounding):
            damage = predictions.compare()
        if not all(map(math.isfinite, damage)):
            raise QuantshipError(
                f"with layer '{layer.name}' rounded as in '{candidate}' the model's "
                "predictions are nan or infinite: its weights are broken or too large"
            )
        lines.append([[layer.name, candidate, *damage]], resume / MEASURED)
        known.setdefault(layer.name, {})[candidate] = damage
    return {one.name: {name: known[one.name][name] for name in one.formats} for one in layers}


@contextmanager
def rounded(
    model: nn.Module,
    formats: Mapping[str, LayerFormat],
    rounding: Rounding,
    *,
    inputs: bool = False,
) -> Iterator[None]:
    """Let these layers compute with what their codes stand for, for a while.

    Args:
        model: The model, whose weights are changed and put back.
        formats: By layer.
        rounding: How to round.
        inputs: Round the layers' inputs as well, where their ranges are dynamic.
    """
    kept: dict[str, Tensor] = {}
    with ExitStack() as stack:
        try:
            for name, format in formats.items():
                module = model.get_submodule(name)
                weight_OI = matrix(module).detach()
                kept[name] = weight_OI.clone()
                weight_OI.copy_(rounding.numbers(weight_OI, format.weight))
                if inputs and format.activation and format.activation.ranges == "dynamic":
                    round_input = partial(_round_input, format)
                    stack.callback(module.register_forward_pre_hook(round_input).remove)
            yield
        finally:
            for name, weight_OI in kept.items():
                matrix(model.get_submodule(name)).detach().copy_(weight_OI)


def _round_input(format: LayerFormat, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    assert format.activation is not None
    return (numerics.fake_quantize_input(args[0], format.activation), *args[1:])


def _nll(log_probabilities: Tensor, targets: Tensor) -> float:
    found = log_probabilities.gather(-1, targets[:, None])
    return -float(found.sum(dtype=torch.float64))


def _first_block(model: nn.Module, blocks: Sequence[nn.Module], layer: Layer) -> int:
    """The block from which on a layer makes a difference."""
    module = model.get_submodule(layer.name)
    for index, block in enumerate(blocks):
        if any(one is module for one in block.modules()):
            return index
    return len(blocks) if layer.place == "head" else 0


def _known(path: Path) -> dict[str, dict[str, Damage]]:
    known: dict[str, dict[str, Damage]] = {}
    for layer, candidate, *damage in lines.read(path):
        known.setdefault(layer, {})[candidate] = Damage(*damage)
    return known
