"""One part of the GPU benchmark, in a process of its own: ``python tests/bench/gpu_part.py``.

Reads a JSON object from standard input, and prints a line of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from quantship import hardware

MEMORY = "peak_gpu_bytes"


def write(out: str, layers: int, shape: dict[str, int]) -> dict[str, Any]:
    """Make the model, with random weights."""
    import random_llama

    from quantship.tiny import build_tokenizer

    size = random_llama.write(Path(out), layers=layers, **shape)
    build_tokenizer(2048).save_pretrained(out)
    return {"bytes": size}


def train(source: str, step: dict[str, Any], batch: int, tokens: int, steps: int) -> dict[str, Any]:
    """Train a few steps: tokens a second of the median step, and peak memory."""
    import torch
    from datasets import Dataset

    from quantship import models, training
    from quantship.quant.modules import prepare_qat
    from quantship.quant.scheme import SCHEMES
    from quantship.recipe.language import FinetuneStep, QatStep

    vocabulary = models.read_config(Path(source))["vocab_size"]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(vocabulary, (batch * steps, tokens), generator=generator).tolist()
    data = Dataset.from_dict({"input_ids": drawn, "labels": drawn})
    common = {"batch_size": batch, "max_steps": steps, "save_steps": 10_000, **step}
    made = QatStep(**common) if step["stage"] == "qat" else FinetuneStep(**common)
    model: Any = models.load_float(Path(source))
    if isinstance(made, QatStep):
        prepare_qat(model, SCHEMES[str(made.scheme)])
    with tempfile.TemporaryDirectory() as resume:
        facts = training.train(model, data, made, pad_token_id=0, seed=0, resume=Path(resume))
    return {
        "tokens_per_s": batch * tokens / facts["seconds_per_step"],
        "precision": facts["precision"],
        MEMORY: facts[MEMORY],
    }


def quantize(source: str, scheme: str, packed: bool, out: str) -> dict[str, Any]:
    """Round the weights, and prove that the checkpoint holds what was made."""
    import torch

    from quantship.blocks import engine
    from quantship.blocks.parts import Parts
    from quantship.quant.scheme import SCHEMES
    from quantship.recipe.language import QuantizeStep

    step = QuantizeStep(stage="quantize", packed=packed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    began = time.perf_counter()
    Path(out).mkdir()
    with tempfile.TemporaryDirectory(dir=Path(out).parent) as parts:
        task = engine.Task(step, SCHEMES[scheme], [], Parts(Path(parts), "bench"), device)
        facts = engine.quantize(Path(source), task, Path(out))
    for file in Path(source).glob("tokenizer*"):
        (Path(out) / file.name).write_bytes(file.read_bytes())
    return {
        "seconds": time.perf_counter() - began,
        "codes_equal": facts["parity"]["codes_equal"],
        MEMORY: hardware.peak_gpu_bytes(),
    }


def export(source: str, scheme: str | None, lowering: str, out: str) -> dict[str, Any]:
    """Lower a model to ONNX for the CUDA provider."""
    from quantship.exporters import decoder

    began = time.perf_counter()
    Path(out).mkdir()
    decoder.export(Path(source), lowering, scheme, Path(out), "cuda")  # type: ignore[arg-type]
    return {"seconds": time.perf_counter() - began}


def serve(path: str, compiled: bool, prompt: int, decode: int) -> dict[str, Any]:
    """Read a prompt and generate: tokens a second, and peak memory."""
    from statistics import median

    from quantship import models
    from quantship.runtimes.base import open_runtime
    from quantship.runtimes.measure import measure

    runtime = open_runtime(Path(path), None, "bfloat16", compiled=compiled)
    found = measure(
        runtime,
        batch_size=1,
        prompt_tokens=prompt,
        decode_tokens=decode,
        vocabulary=models.read_config(Path(path))["vocab_size"],
        seed=0,
    )
    return {
        "device": found["device"],
        "prefill_tokens_per_s": prompt / median(found["prefill_s"]),
        "decode_tokens_per_s": 1 / median(found["decode_s"]),
        MEMORY: found[MEMORY],
    }


def run(request: dict[str, Any]) -> dict[str, Any]:
    """The result of a part; ``backend``: torch.compile's, in place of Inductor."""
    backend = request.pop("backend", None)
    if backend is not None:
        from quantship.quant import compiling
        from quantship.runtimes.compiled import CompiledRuntime

        compiling.BACKEND = CompiledRuntime.backend = backend
    return PARTS[request.pop("part")](**request)


PARTS = {one.__name__: one for one in (write, train, quantize, export, serve)}

if __name__ == "__main__":
    found = run(json.load(sys.stdin))
    sys.stdout.write("\n" + json.dumps(found) + "\n")
