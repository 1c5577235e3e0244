"""Quantize a model one block at a time: memory for one of them, and no work lost when killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from quantship import progress
from quantship.algorithms.block import Block, FindGrid
from quantship.algorithms.table import ALGORITHMS
from quantship.artifact import Facts
from quantship.blocks import ranges, walk
from quantship.blocks.assembly import assemble
from quantship.blocks.encoding import end_of, restore, save_block, save_end
from quantship.blocks.layout import Layout, layout_of
from quantship.blocks.mapped import give_back_heap
from quantship.blocks.opening import Opened, open_model
from quantship.blocks.parts import TAIL, Part, Parts
from quantship.blocks.verification import verify
from quantship.quant.ranges import find_grid
from quantship.quant.scheme import Scheme
from quantship.quant.statistics import InputStatistics
from quantship.recipe.language import QuantizeStep


@dataclass(frozen=True)
class Task:
    """What to make of a model.

    Args:
        step: How to round.
        scheme: To what.
        batches: Calibration sequences; none where nothing needs them.
        parts: Finished blocks, of this run or of one before.
        device: Where blocks run.
        statistics: What is known of inputs, by layer, where that is what static ranges follow from.
    """

    step: QuantizeStep
    scheme: Scheme
    batches: Sequence[walk.Batch]
    parts: Parts
    device: torch.device | str = "cpu"
    statistics: Mapping[str, InputStatistics] | None = None

    @property
    def find_grid(self) -> FindGrid:
        """How far grids reach."""
        return partial(find_grid, reach=self.step.range, percentile=self.step.percentile)


def quantize(source: Path, task: Task, out: Path) -> Facts:
    """Write the torchao checkpoint of a model, and prove that it is what was made.

    Args:
        source: Directory of a float model.
        task: What to make of it.
        out: Existing directory.

    Returns:
        ``parity``, as ``quant.convert.convert`` has it; ``notes``: remarks of the algorithm;
        ``blocks_resumed``: blocks that an earlier run had finished; ``bias_corrected``: number of
        layers; ``rounding_errors``: of each layer, see ``quant.rounding_error``.

    Raises:
        QuantshipError: The model is not to be quantized so, or activations are NaN or infinite.
        ParityError: The checkpoint does not hold or does not compute what was made.
    """
    opened = open_model(source)
    layout = layout_of(opened, task.scheme)
    parts, replaced = _round_ends(opened, layout, task)
    done, resumed = _find(opened, task.parts)
    if len(done) <= len(opened.blocks):
        done, resumed = _round_blocks(opened, layout, replaced, task)
    blocks = tuple(key for key in done if key != TAIL)
    opened = Opened(opened.model, blocks)  # none where they do not run one after the other
    parts |= done
    files = [part.path for part in parts.values()]
    packed = task.step.packed
    assemble(files, layout.names, opened.model, layout.formats, out, packed=packed)
    abouts = [part.about for part in parts.values()]
    return {
        "parity": verify(opened, layout, parts, replaced, out),
        "notes": list(dict.fromkeys(note for about in abouts for note in about.notes)),
        "blocks_resumed": resumed,
        "bias_corrected": sum(len(about.corrected) for about in abouts),
        "rounding_errors": {
            name: float(f"{error:.5g}") for about in abouts for name, error in about.errors.items()
        },
    }


def _find(opened: Opened, parts: Parts) -> tuple[dict[str, Part], int]:
    """Parts of blocks and tail that are there, in order, and how many blocks they are of."""
    found = {key: parts.find(key) for key in (*opened.blocks, TAIL)}
    done = {key: part for key, part in found.items() if part is not None}
    return done, len(done) - (TAIL in done)


def _round_ends(
    opened: Opened, layout: Layout, task: Task
) -> tuple[dict[str, Part], dict[str, nn.Module]]:
    """Round embedding and head; returns their parts, and what to compute with, by name."""
    parts: dict[str, Part] = {}
    replaced: dict[str, nn.Module] = {}
    for name in layout.ends:
        module, format = opened.model.get_submodule(name), layout.formats.get(name)
        part = task.parts.find(name)
        if part is None:
            assert isinstance(module.weight, nn.Parameter)
            weight_OI = module.weight.data
            part = save_end(
                task.parts, name, weight_OI, format, task.find_grid, packed=task.step.packed
            )
            opened.release(name)
            give_back_heap()
        parts[name] = part
        replaced[name] = end_of(part, module, format, tied=False)
        if layout.tied_head is not None:
            head = opened.model.get_submodule(layout.tied_head)
            replaced[layout.tied_head] = end_of(part, head, format, tied=True)
    return parts, replaced


def _round_blocks(
    opened: Opened, layout: Layout, replaced: Mapping[str, nn.Module], task: Task
) -> tuple[dict[str, Part], int]:
    """Round every block, or take what an earlier run has made of it."""
    done: dict[str, Part] = {}
    resumed = 0
    walked = walk.blocks(
        opened,
        layout.inner,
        task.batches,
        ends=replaced,
        device=task.device,
        corrects_bias=task.step.bias_correction,
    )
    total = len(opened.blocks) + 1
    with progress.bar("quantizing", total) as bar:
        for index, block in enumerate(walked):
            key, place = block.name or TAIL, f"quantizing {block.name or 'what is in no block'}"
            bar.move_to(index, total, place)
            blocks = tuple(name for name in done) if key == TAIL else opened.blocks
            names = layout.tensors(key, blocks)
            part = task.parts.find(key)
            if part is not None:
                restore(block, part, names)
                resumed += key != TAIL
            else:

                def tell(name: str, index: int = index) -> None:
                    bar.move_to(index, total, f"quantizing {name}")

                block.on_settled = tell
                notes = _round(block, task)
                part = save_block(task.parts, key, block, names, notes, packed=task.step.packed)
            done[key] = part
            bar.move_to(index + 1, total, place)
    return done, resumed


def _round(block: Block, task: Task) -> list[str]:
    """Settle the layers of a block, and find its static input ranges."""
    options = task.step.algorithm
    notes: list[str] = []
    if block.formats:
        notes = ALGORITHMS[options.kind].quantize(block, options, task.find_grid)
    return notes + ranges.fix(block, task.step.calibration, task.statistics)
