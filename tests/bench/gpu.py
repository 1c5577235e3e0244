"""Speed and memory on a GPU, of a model shaped as Llama 3.2 1B with random weights.

    python tests/bench/gpu.py

prints tables in Markdown; nothing is downloaded. Every part runs in a process of its own. What does
not fit into the time, and what this machine cannot do, is named below the tables, with the reason.
``--device cpu --tiny`` runs every part on a CPU, with a tiny model, in one process and without
Inductor, to see that all of them work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NO_GPU = 77
"""Exit code where there is no GPU."""
PART = Path(__file__).with_name("gpu_part.py")
Values = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much to do."""

    layers: int
    shape: dict[str, int] = field(default_factory=dict)
    batch: int = 4
    tokens: int = 512
    steps: int = 10
    prompt: int = 512
    decode: int = 64
    group: int = 128
    apart: bool = True
    """Each part in a process of its own, so that their memory can be told apart."""


LLAMA = Size(layers=16)
TINY = Size(
    layers=2,
    shape={"hidden": 128, "intermediate": 256, "heads": 4, "kv_heads": 2, "vocab": 512},
    batch=2,
    tokens=16,
    steps=2,
    prompt=8,
    decode=3,
    group=32,
    apart=False,
)
QAT8 = {"stage": "qat", "scheme": "w8a8"}
TRAININGS: dict[str, Values] = {
    "fine-tuning": {"stage": "finetune"},
    "QAT w8a8": QAT8,
    "fine-tuning, compiled": {"stage": "finetune", "compile": True},
    "QAT w8a8, compiled": {**QAT8, "compile": True},
}


class Bench:
    """Runs parts while there is time, and keeps what they found, and why others were left out."""

    def __init__(self, size: Size, folder: Path, *, device: str, budget_s: float) -> None:
        self.size, self.folder = size, folder
        self.found: dict[str, Values] = {}
        self.left_out: dict[str, str] = {}
        self._ends = time.monotonic() + budget_s
        self.device = device

    def run(self, name: str, part: str, **request: Any) -> Values | None:
        """The result of a part, or None where there was none."""
        left_s = self._ends - time.monotonic()
        if left_s <= 0:
            self.left_out[name] = "out of time"
            return None
        began = time.monotonic()
        if not self.size.apart:
            import gpu_part

            self.found[name] = gpu_part.run({"part": part, "backend": "aot_eager", **request})
            return self.found[name]
        try:
            done = subprocess.run(
                [sys.executable, str(PART)],
                input=json.dumps({"part": part, **request}),
                capture_output=True,
                text=True,
                check=False,
                timeout=left_s,
            )
        except subprocess.TimeoutExpired:
            self.left_out[name] = "out of time"
            return None
        sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")
        if done.returncode != 0:
            self.left_out[name] = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return None
        self.found[name] = json.loads(done.stdout.splitlines()[-1])
        return self.found[name]

    def leave_out(self, name: str, reason: str) -> None:
        """Note what this machine cannot do."""
        self.left_out[name] = reason


def run_all(bench: Bench) -> None:
    """Every part, those that tell most first."""
    size, source = bench.size, str(bench.folder / "model")
    if bench.run("model", "write", out=source, layers=size.layers, shape=size.shape) is None:
        return
    trainings = list(TRAININGS.items())
    for name, step in trainings[:2]:
        _train(bench, source, name, step)
    packed = f"w4a16-g{size.group}"
    served = [("float", source)]
    for scheme in ("w8a16", packed, "w8a8-symmetric"):
        out = str(bench.folder / scheme)
        asked = {"source": source, "scheme": scheme, "packed": True, "out": out}
        if bench.run(f"quantize {scheme}", "quantize", **asked):
            served.append((scheme, out))
    for name, path in served:
        _serve(bench, f"{name}, compiled", path, compiled=True)
    for name, step in trainings[2:]:
        _train(bench, source, name, step)
    for name, path in served:
        _serve(bench, f"{name}, eager", path, compiled=False)
    _run_onnx(bench, source, packed)


def _train(bench: Bench, source: str, name: str, step: Values) -> None:
    size = bench.size
    bench.run(
        name,
        "train",
        source=source,
        step={**step, "precision": "bfloat16"},
        batch=size.batch,
        tokens=size.tokens,
        steps=size.steps,
    )


def _serve(bench: Bench, name: str, path: str, *, compiled: bool) -> None:
    bench.run(
        f"serve {name}",
        "serve",
        path=path,
        compiled=compiled,
        prompt=bench.size.prompt,
        decode=bench.size.decode,
    )


def _run_onnx(bench: Bench, source: str, scheme: str) -> None:
    """The CUDA provider of onnxruntime, or its CPU provider where the benchmark runs on a CPU."""
    missing = _why_no_onnx(bench)
    if missing is not None:
        bench.leave_out("onnxruntime", missing)
        return
    for name, lowering, path in (
        (None, "float", source),
        (scheme, "nbits", str(bench.folder / scheme)),
    ):
        title = f"{name or 'float'}, onnxruntime"
        out = str(bench.folder / f"onnx-{lowering}")
        made = Path(path).is_dir() and bench.run(
            f"export {title}", "export", source=path, scheme=name, lowering=lowering, out=out
        )
        if made:
            _serve(bench, title, out, compiled=False)


def _why_no_onnx(bench: Bench) -> str | None:
    try:
        import onnxruntime
        import onnxruntime_genai  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed"
    if bench.device == "cpu":
        return None
    providers = onnxruntime.get_available_providers()
    return None if "CUDAExecutionProvider" in providers else "it has no CUDA provider here"


def report(bench: Bench, machine: str) -> str:
    """What was found, as Markdown."""
    lines = [*_head(bench, machine), "", *_table(TRAINING, _rows(bench, "", _training_cells))]
    lines += ["", *_table(SERVING, _rows(bench, "serve ", _serving_cells))]
    making = [(name, one) for name, one in bench.found.items() if "seconds" in one]
    lines += ["", *_table(MAKING, [_making_cells(name, one) for name, one in making])]
    lines += ["", *(f"- Left out: {name}: {why}" for name, why in bench.left_out.items())]
    return "\n".join(lines).rstrip() + "\n"


TRAINING = ("training", "tokens/s", "× fine-tuning", "peak GPU memory")
SPEEDS = ("prefill tokens/s", "× float", "decode tokens/s", "× float")
SERVING = ("serving", *SPEEDS, "peak GPU memory")
MAKING = ("making", "s", "peak GPU memory")


def _head(bench: Bench, machine: str) -> Iterator[str]:
    size = bench.size
    weights = bench.found.get("model", {}).get("bytes", 0) // 2
    yield f"{machine}. Llama of {size.layers} layers, {weights / 1e6:,.1f} million random weights."
    yield (
        f"Training: batches of {size.batch} × {size.tokens} tokens, median step of {size.steps}. "
        f"Serving: batch 1, {size.prompt} tokens of prompt, {size.decode} generated."
    )


def _rows(bench: Bench, kind: str, cells: Callable[..., list[str]]) -> list[list[str]]:
    key = "decode_tokens_per_s" if kind else "tokens_per_s"
    found = {name: one for name, one in bench.found.items() if key in one}
    return [cells(bench, name, one) for name, one in found.items()]


def _training_cells(bench: Bench, name: str, one: Values) -> list[str]:
    base = bench.found.get("fine-tuning")
    return [f"{name}, {one['precision']}", *_speed(one, base, "tokens_per_s"), _memory(one)]


def _serving_cells(bench: Bench, name: str, one: Values) -> list[str]:
    title = name.removeprefix("serve ")
    base = bench.found.get(f"serve float, {title.rpartition(', ')[2]}")
    speeds = [
        cell
        for key in ("prefill_tokens_per_s", "decode_tokens_per_s")
        for cell in _speed(one, base, key)
    ]
    return [f"{title}, {one['device']}", *speeds, _memory(one)]


def _making_cells(name: str, one: Values) -> list[str]:
    return [name, f"{one['seconds']:.1f}", _memory(one)]


def _speed(one: Values, base: Values | None, key: str) -> list[str]:
    ratio = "–" if base is None else f"{one[key] / base[key]:.2f}"
    return [f"{one[key]:,.1f}", ratio]


def _memory(one: Values) -> str:
    peak = one.get("peak_gpu_bytes")
    return "–" if peak is None else f"{peak / 1e9:.2f} GB"


def _table(header: tuple[str, ...], rows: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"| --- |{' ---: |' * (len(header) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _machine(device: str) -> str | None:
    """What machine this is; None where the device is not there."""
    from quantship import hardware

    versions = hardware.versions()
    used = [name for name in ("torch", "torchao", "transformers") if name in versions]
    words = ", ".join(f"{name} {versions[name]}" for name in used)
    if device == "cpu":
        return f"{hardware.cpu_model()}, {words}"
    gpu = hardware.gpu()
    return None if gpu is None else f"{gpu}, {words}"


def main(arguments: list[str]) -> int:
    """Run it all and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, a few steps")
    parser.add_argument("--budget-s", type=float, default=540.0, help="begin no part after this")
    parser.add_argument("--out", type=Path, help="also write the tables here")
    asked = parser.parse_args(arguments)
    if asked.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    machine = _machine(asked.device)
    if machine is None:
        sys.stderr.write("PyTorch finds no CUDA device: there is nothing to measure\n")
        return NO_GPU
    with tempfile.TemporaryDirectory() as folder:
        size = TINY if asked.tiny else LLAMA
        bench = Bench(size, Path(folder), device=asked.device, budget_s=asked.budget_s)
        run_all(bench)
        text = report(bench, machine)
    sys.stdout.write(text)
    if asked.out is not None:
        asked.out.write_text(text)
    return 0 if bench.found else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
