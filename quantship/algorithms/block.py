"""What an algorithm is given: one block of a model in float, and the calls that reach it.

An algorithm goes through the layers of a block in the order in which they run, looks at their
inputs, and settles each of them: from then on the layer computes with its codes, and what runs
after it sees what it will see in the quantized model. Shapes: O out features, I in features, G
groups of input features, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from quantship.algorithms import bias
from quantship.quant import numerics
from quantship.quant.layers import is_transposed, matrix
from quantship.quant.modules import FakeQuantModule, twin
from quantship.quant.numerics import Grid
from quantship.quant.rounding_error import RoundingError
from quantship.quant.scheme import LayerFormat, WeightFormat
from quantship.quant.tensors import StoredCodes

FindGrid = Callable[[Tensor, WeightFormat], Grid]
"""The grid of a weight (O, I) in a format, as the step's ``range`` asks for it."""


@dataclass(frozen=True)
class Call:
    """One call of a block: a calibration sequence as it arrives there.

    Args:
        hidden: First argument, (1, T, I) for a transformer's block.
        args: The further positional arguments, as masks.
        kwargs: The named ones, as rotary tables.
    """

    hidden: Tensor
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class Block:
    """One block of a model, in float32, some of its layers settled already.

    Args:
        name: Of the block in the model, as ``model.layers.3``; empty for the model itself.
        module: The block, which is changed in place; in evaluation mode.
        formats: Format of each layer that is quantized, by its name in the model.
        calls: What reaches the block; empty for algorithms that need no data.
        corrects_bias: Whether a layer that has a bias gets the mean of its rounding error taken
            off it when it is settled.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        formats: Mapping[str, LayerFormat],
        calls: Sequence[Call] = (),
        *,
        corrects_bias: bool = False,
    ) -> None:
        self.name = name
        self.module = module.eval()
        self.formats = formats
        self.calls = calls
        self.corrected: list[str] = []
        """Layers whose bias was corrected."""
        self.errors: dict[str, float] = {}
        """Norm of each settled layer's rounding error, by that of its weight as it stood before."""
        self.on_settled: Callable[[str], None] = _nothing
        """Called with the name of each layer that is settled."""
        self._corrects_bias = corrects_bias

    def layer(self, name: str) -> nn.Module:
        """A layer by its name in the model."""
        return self.module.get_submodule(self._local(name))

    def weight(self, name: str) -> Tensor:
        """A layer's weight (O, I) as it stands, sharing its memory."""
        return matrix(self.layer(name)).detach()

    @torch.no_grad()
    def run(self, call: Call) -> Tensor:
        """What the block makes of a call's hidden states."""
        output = self.module(call.hidden, *call.args, **call.kwargs)
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        return hidden

    def groups(self) -> list[tuple[str, ...]]:
        """The layers to quantize in the order in which they run; those of one input together.

        Raises:
            ValueError: No call reaches some layer.
        """
        seen: list[tuple[Tensor, list[str]]] = []  # the tensors are kept: ids would be reused

        def note(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
                shared = next((names for tensor, names in seen if tensor is args[0]), None)
                if shared is None:
                    seen.append((args[0], [name]))
                elif name not in shared:
                    shared.append(name)

            return hook

        handles = [self.layer(name).register_forward_pre_hook(note(name)) for name in self.formats]
        try:
            if self.calls:
                self.run(self.calls[0])
        finally:
            for handle in handles:
                handle.remove()
        idle = set(self.formats) - {name for _, names in seen for name in names}
        if idle:
            raise ValueError(f"no calibration data reached {', '.join(sorted(idle)[:3])}")
        return [tuple(names) for _, names in seen]

    @torch.no_grad()
    def inputs(self, name: str) -> Iterator[Tensor]:
        """The input (T, I) of a layer, call by call, as the layer multiplies it.

        That is through the grid of its own where its format has dynamic ranges; static ranges are
        not known yet, and leave it as it is. A call runs no further than to the layer.
        """
        format = self.formats[name]

        def stop(module: nn.Module, args: tuple[Any, ...]) -> None:
            raise _Reached(args[0])

        for call in self.calls:
            handle = self.layer(name).register_forward_pre_hook(stop)
            try:
                self.run(call)
            except _Reached as reached:
                input_TI = reached.input.reshape(-1, reached.input.shape[-1])
            else:
                raise ValueError(f"no calibration data reached {name}")
            finally:
                handle.remove()
            if format.activation is not None and format.activation.ranges == "dynamic":
                input_TI = numerics.fake_quantize_input(input_TI, format.activation)
            yield input_TI

    @torch.no_grad()
    def settle(self, name: str, grid: Grid, weight_OI: Tensor | None = None) -> None:
        """Let a layer compute with its codes from now on.

        Args:
            name: Of the layer in the model.
            grid: The grid that its weight is rounded on.
            weight_OI: The weight whose nearest codes on the grid are the layer's; default: the
                weight as it stands. An algorithm that does not round to nearest gives the numbers
                that its codes stand for.
        """
        layer, before_OI = self.layer(name), self.weight(name)
        after_OI = before_OI if weight_OI is None else weight_OI
        format = self.formats[name]
        layer_bias: Tensor | None = getattr(layer, "bias", None)
        if self._corrects_bias and layer_bias is not None and self.calls:
            rounded_OI = numerics.dequantize(numerics.round_to(after_OI, grid, format.weight))
            layer_bias.add_(bias.correction(before_OI - rounded_OI, self.inputs(name)))
            self.corrected.append(name)
        self.errors[name] = _snap(before_OI, after_OI, grid, format.weight)
        self._place(name, grid, None)
        self.on_settled(name)

    @torch.no_grad()
    def restore(self, stored: StoredCodes) -> None:
        """Let a layer compute with codes that it was settled with before, in another run."""
        scale_OG, zero_OG = stored.codes.scale_OG, stored.codes.zero_OG
        weight_OI = self.weight(stored.name)
        weight_OI.copy_(numerics.dequantize(stored.codes, torch.float32))
        zero_OG = None if zero_OG is None else zero_OG.to(scale_OG.dtype)
        self._place(stored.name, Grid(scale_OG, zero_OG), stored.input_grid)

    def _place(self, name: str, grid: Grid, input_grid: Grid | None) -> None:
        """Put the fake-quantized twin of a layer, whose weight is what its codes stand for."""
        layer, format = self.layer(name), self.formats[name]
        if is_transposed(layer):  # products go the other way through memory, to other last bits
            made_OI = matrix(layer).detach().contiguous()
            layer.weight = nn.Parameter(made_OI.t(), requires_grad=False)
        made = twin(layer, format)
        made.rounding.set_grid(_moved(grid, self.weight(name)), learned=False)
        made.rounding.is_settled = True
        rounding = getattr(made, "input_rounding", None)
        if rounding is not None and format.activation is not None:
            # Static ranges are found when all layers are settled; until then inputs stay floats.
            rounding.observer = _ignore if format.activation.ranges == "static" else None
            if input_grid is not None:
                rounding.set_grid(_moved(input_grid, self.weight(name)), learned=False)
                rounding.observer = None
        self.module.set_submodule(self._local(name), made.eval())

    def settled(self) -> dict[str, FakeQuantModule]:
        """The layers that compute with their codes, by name."""
        layers = {name: self.layer(name) for name in self.formats}
        return {name: one for name, one in layers.items() if isinstance(one, FakeQuantModule)}

    def _local(self, name: str) -> str:
        return name.removeprefix(f"{self.name}.") if self.name else name


def _snap(before_OI: Tensor, after_OI: Tensor, grid: Grid, fmt: WeightFormat) -> float:
    """Make a weight, in place, the numbers that another one's nearest codes stand for.

    Returns:
        How far that moves it; see ``RoundingError``.
    """
    whole = [slice(None)]
    per_tensor = fmt.granularity == "per_tensor"
    error = RoundingError()
    for rows in whole if per_tensor else numerics.cached_rows(*before_OI.shape):
        codes = numerics.round_to(after_OI[rows], numerics.rows_of(grid, rows), fmt)
        numbers_OI = numerics.dequantize(codes, before_OI.dtype)
        error.add(before_OI[rows], numbers_OI)
        before_OI[rows] = numbers_OI
    return error.relative


class _Reached(Exception):
    def __init__(self, input: Tensor) -> None:
        self.input = input


def _nothing(name: str) -> None:
    """Tell nobody that a layer was settled."""


def _moved(grid: Grid, to: Tensor) -> Grid:
    return Grid(*(None if part is None else part.to(to.device) for part in grid))  # type: ignore[arg-type]


def _ignore(input: Tensor) -> None:
    """Observe nothing, so that a static range which is not known yet rounds nothing."""
