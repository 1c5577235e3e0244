"""One training of ``processes``: by this process, or by it and others that torchrun has started.

    python processes_turn.py REQUEST

REQUEST is a JSON file. The first process writes a line of JSON: seconds of a step, losses, and the
peak memory of each process; and its codes, where it is asked to.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import training as training_part
from datasets import Dataset
from safetensors.torch import save_file

from quantship import models, processes
from quantship.hardware import peak_rss_bytes
from quantship.parallel import asked
from quantship.quant.modules import codes_of
from quantship.recipe.language import FinetuneStep, QatStep
from quantship.training import train


def main(request: dict[str, Any]) -> None:
    """Train as asked."""
    torch.set_num_threads(request["threads"])
    os.environ[asked.VARIABLE] = "1" if request["sharded"] else "0"
    with processes.together():
        resume = Path(request["resume"])
        if request["begun"] and processes.is_first():
            shutil.copytree(request["begun"], resume / Path(request["begun"]).name)
        processes.meet()
        found = run(request, resume)
        peaks = processes.gathered(peak_rss_bytes())
        if processes.is_first():
            sys.stdout.write(json.dumps(found | {"peak_rss_bytes": peaks}) + "\n")


def run(request: dict[str, Any], resume: Path) -> dict[str, Any]:
    """Train a model on random tokens."""
    source, steps = Path(request["model"]), request["steps"]
    common: dict[str, Any] = {
        "batch_size": training_part.BATCH,
        "max_steps": steps,
        "save_steps": request["save_steps"],
        "logging_steps": 1,
        "learning_rate": request["learning_rate"],
    }
    options = training_part.CONTESTANTS[request["kind"]]
    step: FinetuneStep | QatStep = FinetuneStep(stage="finetune", **common)
    if options:
        step = QatStep(stage="qat", **options, **common)
    vocabulary = models.read_config(source)["vocab_size"]
    generator = torch.Generator().manual_seed(0)
    shape = (training_part.BATCH * steps - 1, request["tokens"])  # the last step lacks a sequence
    tokens = torch.randint(vocabulary, shape, generator=generator).tolist()
    dataset = Dataset.from_dict({"input_ids": tokens, "labels": tokens})
    model: Any = models.load_float(source)
    if isinstance(step, QatStep):
        model = training_part.prepared(model, step)
    facts = train(model, dataset, step, pad_token_id=0, seed=0, resume=resume)
    if request["codes"] and processes.is_first() and isinstance(step, QatStep):
        made = {name: one.codes_OI.contiguous() for name, one in codes_of(model).items()}
        save_file(made, request["codes"])
    losses = [point["loss"] for point in facts["points"]]
    return {"seconds": facts["seconds_per_step"], "losses": losses}


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
