"""The training benchmark, and one turn of one of its contestants in a process of its own.

    python tests/bench/training.py MODEL CONTESTANT STEPS

prints a line of JSON: median seconds of an optimizer step, and the peak memory of the process.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from quantship import models
from quantship.hardware import peak_rss_bytes
from quantship.recipe.language import FinetuneStep, QatStep

BATCH, TOKENS = 2, 256
CONTESTANTS: dict[str, dict[str, Any]] = {
    "finetune": {},
    "qat w8a8": {"scheme": "w8a8"},
    "qat w4a16-g32": {"scheme": "w4a16-g32"},
    "qat w4a16-g32, learned scales": {"scheme": "w4a16-g32", "scales": "learned"},
    "qat w4a16-g32, LoRA": {"scheme": "w4a16-g32", "lora": True},
    "qat w4a16-g32, QLoRA": {"scheme": "w4a16-g32", "lora": {"base": "nf4"}},
    "torchao qat w8a8": {"torchao": 8},
    "torchao qat w4a16-g32": {"torchao": 4},
}


def compare(source: Path, steps: int, rounds: int) -> list[dict[str, Any]]:
    """Every contestant in turn, each turn in a process of its own; medians over the rounds."""
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name, measured in turns.items():
            command = [sys.executable, __file__, str(source), name, str(steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            measured.append(json.loads(done.stdout.splitlines()[-1]))
    medians = {
        name: {key: statistics.median(turn[key] for turn in measured) for key in measured[0]}
        for name, measured in turns.items()
    }
    base = medians["finetune"]
    return [
        {
            "training": name,
            "s a step": median["seconds"],
            "× finetune": median["seconds"] / base["seconds"],
            "peak MB": median["peak_rss_bytes"] / 1e6,
            "× finetune ": median["peak_rss_bytes"] / base["peak_rss_bytes"],
        }
        for name, median in medians.items()
    ]


def main(source: Path, contestant: str, steps: int) -> dict[str, float]:
    """Train a few steps and say how long one took, and how much memory it needed."""
    import torch
    from datasets import Dataset

    from quantship.training import train

    options = dict(CONTESTANTS[contestant])
    bits = options.pop("torchao", None)
    common = {"batch_size": BATCH, "max_steps": steps, "save_steps": 10_000}
    vocabulary = models.read_config(source)["vocab_size"]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary, (BATCH * steps, TOKENS), generator=generator).tolist()
    dataset = Dataset.from_dict({"input_ids": tokens, "labels": tokens})
    step: FinetuneStep | QatStep = FinetuneStep(stage="finetune", **common)
    if options:
        step = QatStep(stage="qat", **options, **common)
    model = models.load_float(source)
    if bits is not None:
        _prepare_with_torchao(model, bits)
    elif isinstance(step, QatStep):
        model = prepared(model, step)
    with tempfile.TemporaryDirectory() as resume:
        facts = train(model, dataset, step, pad_token_id=0, seed=0, resume=Path(resume))
    return {"seconds": facts["seconds_per_step"], "peak_rss_bytes": peak_rss_bytes()}


def prepared(model: Any, step: QatStep) -> Any:
    """The model that such a step trains: fake-quantized, perhaps with adapters."""
    from quantship.grids import find_grids
    from quantship.quant.lora import add_adapters
    from quantship.quant.modules import prepare_qat
    from quantship.quant.scheme import SCHEMES

    assert step.scheme is not None
    prepare_qat(model, SCHEMES[step.scheme])
    find_grids(
        model,
        step,
        None,
        fixes_weights=step.scales != "current",
        learned=step.scales == "learned",
    )
    return model if step.lora is None else add_adapters(model, step.lora)


def _prepare_with_torchao(model: Any, bits: int) -> None:
    """Fake quantization by torchao's own modules, linear layers only, as it does it."""
    import torch
    from torchao.quantization import (
        Int8DynamicActivationIntxWeightConfig,
        IntxWeightOnlyConfig,
        PerAxis,
        PerGroup,
        quantize_,
    )
    from torchao.quantization.qat import QATConfig

    base: Any = IntxWeightOnlyConfig(torch.int4, PerGroup(32))
    if bits == 8:
        base = Int8DynamicActivationIntxWeightConfig(torch.int8, PerAxis(0))
    quantize_(model, QATConfig(base, step="prepare"))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))) + "\n")
