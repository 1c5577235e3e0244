"""Look at the inputs of a float model's linear layers, once for all the steps that want to know.

Algorithms that need no data take static input ranges from here: whatever the kind of range, and
however many steps there are, data runs through the model once. They are the ranges of the float
model's inputs, not of what rounded blocks before a layer leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from quantship.artifact import Facts
from quantship.frozen import Frozen
from quantship.job import Job

if TYPE_CHECKING:
    from torch import Tensor, nn

    from quantship.algorithms.block import Block
    from quantship.quant.statistics import InputStatistics

REVISION = 1
See = Callable[[str, "Tensor"], None]


class Settings(Frozen):
    """What statistics depend on, beside model and data; the kind of range is not part of it."""

    sequences: int
    seed: int | None


def run(job: Job) -> Facts:
    """Write what was seen of each layer's input."""
    import torch

    from quantship import progress
    from quantship.blocks.opening import open_model
    from quantship.blocks.walk import blocks
    from quantship.data.calibration import sequences
    from quantship.quant import statistics_file
    from quantship.quant.statistics import remarks

    settings: Settings = job.settings
    batches = sequences(job.inputs["data"].path, settings.sequences, settings.seed)
    opened = open_model(job.inputs["model"].path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    walked = blocks(opened, {}, batches, device=device)
    seen = observe(progress.track(walked, "looking at inputs", len(opened.blocks) + 1))
    reached = {name: one for name, one in seen.items() if one.num_tokens}
    statistics_file.save(reached, job.out / statistics_file.FILE)
    return {
        "sequences": len(batches),
        "tokens": max(one.num_tokens for one in reached.values()),
        "layers": len(reached),
        "unreached": sorted(seen.keys() - reached.keys()),
        "dead_channels": _dead_channels(reached),
        "outlier_ratios": _outlier_ratios(reached),
        "remarks": remarks(reached),
    }


def observe(blocks: Iterable[Block]) -> dict[str, InputStatistics]:
    """What there is to see of the input of every linear layer, by its name in the model.

    Args:
        blocks: As ``blocks.walk.blocks`` yields them. The histograms are counted while the walk
            takes its calls from a block to the next, so that each call runs through it twice.

    Raises:
        QuantshipError: An input held NaN or infinity.
    """
    import torch

    from quantship.quant.layers import is_linear
    from quantship.quant.statistics import InputStatistics, Watch, require_sound

    seen: dict[str, InputStatistics] = {}
    with ExitStack() as stack:
        for block in blocks:
            stack.close()
            prefix = f"{block.name}." if block.name else ""
            layers = {
                f"{prefix}{name}": module
                for name, module in block.module.named_modules()
                if is_linear(module)
            }
            here = {name: InputStatistics(of_features=True) for name in layers}
            watch = Watch(here)
            with torch.no_grad(), _hooked(layers, watch.see):
                for call in block.calls:
                    block.run(call)
            reached = {name: one for name, one in here.items() if one.num_tokens}
            require_sound(reached)
            seen |= here
            stack.enter_context(_hooked({name: layers[name] for name in reached}, watch.count))
            if not block.name:  # the tail, and nothing comes after it
                for call in block.calls:
                    block.run(call)
    return seen


@contextmanager
def _hooked(layers: Mapping[str, nn.Module], see: See) -> Iterator[None]:
    with ExitStack() as stack:
        for name, layer in layers.items():
            hook = partial(_pass_on, name, see)
            stack.callback(layer.register_forward_pre_hook(hook).remove)
        yield


def _pass_on(name: str, see: See, module: nn.Module, args: tuple[Any, ...]) -> None:
    see(name, args[0])


def _dead_channels(layers: Mapping[str, InputStatistics]) -> dict[str, int]:
    """How many features of an input are always zero, for each layer that has any."""
    found = {name: int((seen.reach_I == 0).sum()) for name, seen in layers.items()}
    return {name: count for name, count in found.items() if count}


def _outlier_ratios(layers: Mapping[str, InputStatistics]) -> dict[str, float]:
    """Reach of an input over the median reach of its features, where that is not zero."""
    reaches = {name: seen.reach_I.float() for name, seen in layers.items()}
    return {
        name: round(float(reach_I.amax() / reach_I.median()), 2)
        for name, reach_I in reaches.items()
        if reach_I.median() > 0
    }
