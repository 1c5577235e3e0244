"""Real files of a model in given formats: what they weigh beyond their layers, and how they run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from quantship import hardware
from quantship.exporters import lowering
from quantship.exporters.lowering import Lowering
from quantship.quant.choices import Allocation, Layer, scheme_of
from quantship.quant.scheme import Scheme
from quantship.recipe.language import QuantizeStep, SearchStep
from quantship.search.cost import RuntimeName, stored_bytes


@dataclass(frozen=True)
class Files:
    """Where models are made to be looked at.

    Args:
        source: The float model.
        data: Prepared data, for static input ranges.
        step: The search.
        base: Scheme that it starts from.
        layers: Of the model.
        folder: Directory to work in; made, and emptied again.
    """

    source: Path
    data: Path
    step: SearchStep
    base: Scheme
    layers: Sequence[Layer]
    folder: Path

    def make(self, chosen: Allocation) -> Path:
        """The model in these formats, in the runtime's file; the one made before is gone."""
        return self.make_as(scheme_of(self.base, "probe", self.layers, chosen))

    def make_as(self, scheme: Scheme) -> Path:
        """The model under a scheme, in the runtime's file; the one made before is gone."""
        import torch

        from quantship.blocks.engine import Task, quantize
        from quantship.blocks.parts import Parts
        from quantship.data.calibration import sequences
        from quantship.exporters import pretrained
        from quantship.models import copy_tokenizer

        self.clear()
        checkpoint, parts, out = (self.folder / name for name in ("checkpoint", "parts", "onnx"))
        for path in (checkpoint, parts, out):
            path.mkdir(parents=True)
        seen = self.step.calibration
        batches = [*sequences(self.data, seen.sequences, seen.seed)] if scheme.is_static else []
        rounded = self.step.model_dump(include={"range", "percentile"})
        task = Task(
            QuantizeStep(stage="quantize", **rounded),
            scheme,
            batches,
            Parts(parts, "probe"),
            "cuda" if torch.cuda.is_available() else "cpu",
        )
        quantize(self.source, task, checkpoint)
        shutil.rmtree(parts)
        if self.step.runtime == "torchao":
            return checkpoint
        copy_tokenizer(self.source, checkpoint)
        form = lowering_of(scheme)
        pretrained.export(checkpoint, form, scheme.name, out, hardware.kind())
        shutil.rmtree(checkpoint)
        return out

    def clear(self) -> None:
        """Remove what was made."""
        shutil.rmtree(self.folder, ignore_errors=True)


def lowering_of(scheme: Scheme) -> Lowering:
    """The form that a model under a scheme gets on this machine."""
    return lowering.choose(scheme, hardware.kind())


def dealt(layers: Sequence[Layer]) -> dict[str, str]:
    """An allocation in which neighbours differ, so that nothing in a graph is shared or joined."""
    turns = cycle(range(max(len(one.formats) for one in layers)))
    return {
        one.name: list(one.formats)[turn % len(one.formats)]
        for one, turn in zip(layers, turns, strict=False)
        if one.is_chosen
    }


def fixed_bytes(path: Path, layers: Sequence[Layer], chosen: Allocation) -> float:
    """What a model's files hold beyond the layers that are chosen for."""
    from quantship.models import weight_bytes

    kind: RuntimeName = "onnxruntime" if (path / "model.onnx").is_file() else "torchao"
    known = sum(stored_bytes(one, kind)[chosen[one.name]] for one in layers if one.is_chosen)
    return weight_bytes(path) - known


def chosen_bytes(
    layers: Sequence[Layer], runtime: RuntimeName
) -> Mapping[str, Mapping[str, float]]:
    """Bytes of each layer that is chosen for, in each of its formats."""
    return {one.name: stored_bytes(one, runtime) for one in layers if one.is_chosen}
