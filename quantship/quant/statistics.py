"""What was seen of the inputs of a model's layers, and the static ranges that follow from it.

Inputs are looked at twice: once for their extremes, and once more for the histogram between them,
where it is wanted. Shapes: I in features, T tokens (any leading shape).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from quantship.errors import QuantshipError
from quantship.quant import numerics
from quantship.quant.histogram import Histogram
from quantship.quant.numerics import Grid
from quantship.quant.scheme import ActivationFormat

InputRange = Literal["minmax", "moving_average", "percentile", "mse", "entropy"]
FROM_HISTOGRAM: tuple[InputRange, ...] = ("percentile", "mse", "entropy")
AVERAGING = 0.1
"""Weight of a call in the moving averages."""
FEW_TOKENS = 32
"""Tokens below which a layer's ranges are remarked upon."""
Value = TypeVar("Value")


class Options(Protocol):
    """How ranges are found; see ``recipe.rounding_options.Calibration``."""

    @property
    def range(self) -> InputRange:
        """Which range."""

    @property
    def percentile(self) -> float:
        """Per cent of the numbers that it holds, for ``percentile``."""


@dataclass(eq=False)
class FeatureStatistics:
    """What was seen of each input feature.

    Args:
        lowest_I: Least number.
        highest_I: Greatest number.
        total_I: Sum over tokens, float64.
        total_abs_I: Sum of the absolute values, float64.
    """

    lowest_I: Tensor
    highest_I: Tensor
    total_I: Tensor
    total_abs_I: Tensor

    @classmethod
    def of(cls, input_TI: Tensor) -> FeatureStatistics:
        """Of one input (T, I)."""
        wide = torch.float64
        total_I, total_abs_I = input_TI.sum(0, dtype=wide), input_TI.abs().sum(0, dtype=wide)
        return cls(input_TI.amin(0), input_TI.amax(0), total_I, total_abs_I)

    def with_more(self, other: FeatureStatistics) -> FeatureStatistics:
        """Of both."""
        return FeatureStatistics(
            torch.minimum(self.lowest_I, other.lowest_I),
            torch.maximum(self.highest_I, other.highest_I),
            self.total_I + other.total_I,
            self.total_abs_I + other.total_abs_I,
        )


class InputStatistics:
    """What was seen of one layer's input; nothing yet.

    Args:
        of_features: Whether each feature of the last dimension is looked at by itself as well.
    """

    def __init__(self, *, of_features: bool = False) -> None:
        self.of_features = of_features
        self.num_tokens = 0
        self.num_dims = 0
        """Dimensions of the input: torchao wants as many of a static scale."""
        self.lowest: Tensor | None = None
        self.highest: Tensor | None = None
        self.average_lowest: Tensor | None = None
        """Moving average of each call's least number."""
        self.average_highest: Tensor | None = None
        self.features: FeatureStatistics | None = None
        self.histogram: Histogram | None = None

    def add(self, look: Look) -> None:
        """Add the input of one call, for everything but the histogram."""
        self.num_tokens += look.num_tokens
        if self.lowest is None:
            self.num_dims, self.features = look.num_dims, look.features
            self.lowest, self.highest = look.lowest, look.highest
            self.average_lowest, self.average_highest = look.lowest, look.highest
            return
        assert self.highest is not None
        assert self.average_lowest is not None
        assert self.average_highest is not None
        self.lowest = torch.minimum(self.lowest, look.lowest)
        self.highest = torch.maximum(self.highest, look.highest)
        self.average_lowest = self.average_lowest.lerp(look.lowest, AVERAGING)
        self.average_highest = self.average_highest.lerp(look.highest, AVERAGING)
        if self.features is not None and look.features is not None:
            self.features = self.features.with_more(look.features)

    def empty_histogram(self) -> Histogram:
        """Begin the histogram between the extremes, when all inputs have been added."""
        assert self.lowest is not None
        assert self.highest is not None
        self.histogram = Histogram.between(self.lowest, self.highest)
        return self.histogram

    @property
    def mean_I(self) -> Tensor:
        """Mean of each feature, float64."""
        assert self.features is not None
        return self.features.total_I / self.num_tokens

    @property
    def mean_abs_I(self) -> Tensor:
        """Mean absolute value of each feature, float64."""
        assert self.features is not None
        return self.features.total_abs_I / self.num_tokens

    @property
    def reach_I(self) -> Tensor:
        """Greatest absolute value of each feature."""
        assert self.features is not None
        return torch.maximum(self.features.highest_I, -self.features.lowest_I)

    def range(self, options: Options, fmt: ActivationFormat) -> tuple[Tensor, Tensor]:
        """Least and greatest number that a static grid is to hold, each without dimensions."""
        if options.range == "moving_average":
            assert self.average_lowest is not None
            assert self.average_highest is not None
            return self.average_lowest, self.average_highest
        if options.range == "minmax":
            assert self.lowest is not None
            assert self.highest is not None
            return self.lowest, self.highest
        assert self.histogram is not None
        if options.range == "percentile":
            return self.histogram.percentile(options.percentile)
        if options.range == "mse":
            return self.histogram.least_error(fmt)
        return self.histogram.least_divergence(fmt)

    def grid(self, options: Options, fmt: ActivationFormat) -> Grid:
        """The grid of that range, with as many dimensions as the input has, where that was seen."""
        assert self.lowest is not None
        shape, device = (1,) * self.num_dims, self.lowest.device
        lowest, highest = (end.to(device) for end in self.range(options, fmt))
        return numerics.input_grid(lowest.view(shape), highest.view(shape), fmt)


@dataclass(frozen=True, eq=False)
class Look:
    """What there is to see of the input of one call."""

    num_tokens: int
    num_dims: int
    lowest: Tensor
    highest: Tensor
    features: FeatureStatistics | None

    @classmethod
    def at(cls, input_TI: Tensor, *, of_features: bool) -> Look:
        """Look at an input that holds a number."""
        num_tokens, num_dims = input_TI.shape[:-1].numel(), input_TI.dim()
        if not of_features:
            return cls(num_tokens, num_dims, input_TI.amin(), input_TI.amax(), None)
        features = FeatureStatistics.of(input_TI.reshape(num_tokens, -1))
        lowest, highest = features.lowest_I.amin(), features.highest_I.amax()
        return cls(num_tokens, num_dims, lowest, highest, features)


class Watch:
    """Sees the inputs of layers as they run; an input that several share is looked at once.

    Args:
        layers: What was seen of each layer, by name; changed in place.
    """

    def __init__(self, layers: Mapping[str, InputStatistics]) -> None:
        self._layers = layers
        self._looks: _Last[Look] = _Last()
        self._counts: _Last[Tensor] = _Last()

    @torch.no_grad()
    def see(self, name: str, input_TI: Tensor) -> None:
        """First round: everything but the histogram."""
        if input_TI.numel():
            layer = self._layers[name]
            look = self._looks.get(
                (input_TI, layer.of_features),
                lambda: Look.at(input_TI.detach(), of_features=layer.of_features),
            )
            layer.add(look)

    @torch.no_grad()
    def count(self, name: str, input_TI: Tensor) -> None:
        """Second round: the histogram."""
        if input_TI.numel():
            layer = self._layers[name]
            histogram = layer.histogram or layer.empty_histogram()
            ends = (histogram.lowest, histogram.highest)
            histogram.counts.add_(
                self._counts.get((input_TI, ends), lambda: histogram.count(input_TI))
            )


class _Last(Generic[Value]):
    """The last value that was made, and what it was made of."""

    def __init__(self) -> None:
        self._of: tuple[Tensor, int, object] | None = None
        self._value: Value | None = None

    def get(self, key: tuple[Tensor, object], make: Callable[[], Value]) -> Value:
        input, more = key
        version = -1 if input.is_inference() else input._version
        of, value = self._of, self._value
        known = of is not None and of[0] is input and version >= 0 and of[1:] == (version, more)
        if not known or value is None:
            self._of, self._value = (input, version, more), make()
            return self._value
        return value


def require_sound(layers: Mapping[str, InputStatistics]) -> None:
    """Refuse what no range can be found from.

    Raises:
        ValueError: A layer never ran, or never on a token.
        QuantshipError: An input held NaN or infinity.
    """
    idle = [name for name, seen in layers.items() if seen.lowest is None]
    if idle:
        raise ValueError(f"no calibration data reached {', '.join(idle[:3])}")
    for name, seen in layers.items():
        assert seen.lowest is not None
        assert seen.highest is not None
        if not (seen.lowest.isfinite() and seen.highest.isfinite()):
            raise QuantshipError(
                f"calibration data makes NaN or infinity of the input of '{name}'; the model "
                "overflows there, or its weights are no numbers"
            )


def remarks(layers: Mapping[str, InputStatistics]) -> list[str]:
    """What a reader should know of inputs that ranges can be found from, but poor ones."""
    few = [name for name, seen in layers.items() if 0 < seen.num_tokens < FEW_TOKENS]
    constant = [
        name
        for name, seen in layers.items()
        if seen.lowest is not None and bool(seen.lowest == seen.highest)
    ]
    found = []
    if few and len(few) == len(layers):
        most = max(seen.num_tokens for seen in layers.values())
        found.append(f"calibration saw no more than {most} tokens")
    elif few:
        found.append(f"calibration saw fewer than {FEW_TOKENS} tokens in {_some(few)}")
    if constant:
        found.append(f"calibration saw one number only in all inputs of {_some(constant)}")
    return found


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
