"""A module in float, fake-quantized and quantized, set side by side on the same inputs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from quantship.plain import measuring
from quantship.plain.quantization import call

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

DASH = "–"
MEMORY = (
    "peak: the module's own tensors, and the most that a run on all samples keeps of the tensors "
    "that operations make"
)


@dataclass(frozen=True)
class ComparisonRow:
    """One form of the module.

    Args:
        name: ``original``, ``fake quantized`` or ``quantized``.
        size_bytes: Parameters and buffers in a file, codes as ``save`` packs them; of a
            fake-quantized module its floats.
        latency_ms: Median time of a run on one sample.
        samples_per_s: Samples a second in runs on all of them at once, by their median time.
        peak_memory_bytes: The module's own tensors, and the most that a run on all samples keeps
            at once of the tensors that operations make, results included.
        accuracy: Share of samples whose largest output is the label; None without labels.
        output_mse: Mean squared difference of the outputs from the original's.
    """

    name: str
    size_bytes: int
    latency_ms: float
    samples_per_s: float
    peak_memory_bytes: int
    accuracy: float | None
    output_mse: float


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` has measured; rich prints it as a table.

    Args:
        rows: One a form of the module.
        num_samples: Samples that were run.
        device: Where.
        threads: Threads of PyTorch on the CPU.
        rounds: Runs whose medians are reported.
        memory: How the peak memory was measured.
    """

    rows: tuple[ComparisonRow, ...]
    num_samples: int
    device: str
    threads: int
    rounds: int
    memory: str = MEMORY

    def show(self, console: Console | None = None) -> None:
        """Print the table to the terminal, or to a console of your own."""
        import rich

        (console or rich.get_console()).print(self)

    def save(self, path: str | Path) -> None:
        """Write everything as JSON."""
        Path(path).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    def __rich__(self) -> Table:
        from rich import box
        from rich.table import Table

        count = f"{self.num_samples} samples on {self.device}, {self.threads} threads"
        table = Table(title=count, caption=f"KB = 1000 bytes; {self.memory}.", box=box.SIMPLE_HEAD)
        table.add_column("", no_wrap=True)
        for title in ("Size KB", "Latency ms", "Samples /s", "Peak KB", "Accuracy", "Output MSE"):
            table.add_column(title.replace(" ", "\n"), justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(
                row.name,
                f"{row.size_bytes / 1000:,.1f}",
                f"{row.latency_ms:.3f}",
                f"{row.samples_per_s:,.0f}",
                f"{row.peak_memory_bytes / 1000:,.1f}",
                DASH if row.accuracy is None else f"{row.accuracy:.2%}",
                f"{row.output_mse:.3g}",
            )
        return table


def compare(
    original: nn.Module,
    fake: nn.Module | None,
    quantized: nn.Module,
    inputs: Any,
    labels: Tensor | None = None,
    out: str | Path | None = None,
    *,
    rounds: int = 10,
) -> Comparison:
    """Size, latency, throughput, memory, accuracy and output error of a module in three forms.

    All run on the same inputs in turns, without gradients and in evaluation mode, on the device
    they are on. Their modes are put back afterwards.

    Args:
        original: The module in float.
        fake: As ``prepare_qat`` returns it, trained or not; None: leave it out.
        quantized: As ``convert`` or ``quantize`` returns it.
        inputs: One batch: a tensor, a tuple of positional arguments, or a mapping of named ones,
            samples in the first dimension.
        labels: int64, class of each sample, or any shape that the outputs' argmax over the last
            dimension has; None: no accuracy.
        out: File to write the comparison to, as JSON.
        rounds: Runs whose medians are taken.

    Raises:
        ValueError: The outputs are not tensors, or they do not fit the labels.
    """
    forms = {"original": original, "fake quantized": fake, "quantized": quantized}
    modules = {name: module for name, module in forms.items() if module is not None}
    modes = [(module, module.training) for module in modules.values()]
    for module in modules.values():
        module.eval()
    try:
        rows = _rows(modules, inputs, labels, rounds)
    finally:
        for module, training in modes:
            module.train(training)
    device = next((str(tensor.device) for tensor in original.parameters()), "cpu")
    count = measuring.num_samples(inputs)
    found = Comparison(tuple(rows), count, device, torch.get_num_threads(), rounds)
    if out is not None:
        found.save(out)
    return found


@torch.no_grad()
def _rows(
    modules: Mapping[str, nn.Module], inputs: Any, labels: Tensor | None, rounds: int
) -> list[ComparisonRow]:
    on_all = [partial(call, module, inputs) for module in modules.values()]
    one = measuring.first_sample(inputs)
    on_one = [partial(call, module, one) for module in modules.values()]
    outputs = [_output(run()) for run in on_all]
    batch_ms = measuring.latencies_ms(on_all, rounds)
    single_ms = measuring.latencies_ms(on_one, rounds)
    count = measuring.num_samples(inputs)
    return [
        ComparisonRow(
            name=name,
            size_bytes=measuring.stored_bytes(module),
            latency_ms=single_ms[place],
            samples_per_s=1000 * count / batch_ms[place],
            peak_memory_bytes=measuring.held_bytes(module)
            + measuring.peak_allocated_bytes(on_all[place]),
            accuracy=None if labels is None else _accuracy(outputs[place], labels),
            output_mse=float((outputs[place] - outputs[0]).square().mean()),
        )
        for place, (name, module) in enumerate(modules.items())
    ]


def _output(output: Any) -> Tensor:
    """The tensor of an output: itself, its logits, or the first of several; in double precision."""
    if isinstance(output, Mapping):  # Hugging Face's outputs are mappings
        output = output.get("logits", next(iter(output.values())))
    if isinstance(output, tuple | list):
        output = output[0]
    if not isinstance(output, Tensor):
        raise ValueError(f"the module returns a {type(output).__name__}, and tensors are compared")
    return output.double()


def _accuracy(output: Tensor, labels: Tensor) -> float:
    predicted = output.argmax(dim=-1)
    if predicted.shape != labels.shape:
        raise ValueError(
            f"there are labels of shape {tuple(labels.shape)} for predictions of shape "
            f"{tuple(predicted.shape)}"
        )
    return float((predicted == labels.to(predicted.device)).double().mean())
