"""What every peer's script does alike: read the request, measure, answer.

These scripts run in environments of their peers, where quantship is not installed; its evaluation
is imported from the repository, so that perplexity is measured by one and the same code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parents[1]
sys.path[:0] = [str(BENCH), str(BENCH.parents[1])]

Quantize = Callable[[Any, dict[str, Any]], Any]
"""From a float32 model and the request to a model that computes with the rounded numbers."""


def serve(quantize: Quantize, *packages: str) -> None:
    """Answer the request of standard input: what quantizing took, and the losses afterwards.

    Args:
        quantize: The peer's way.
        packages: Distributions whose versions are told.
    """
    import texts
    import torch
    from apart import Cost
    from transformers import AutoModelForCausalLM

    from quantship.runtimes.pytorch import TorchRuntime

    request = json.load(sys.stdin)
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    torch.set_num_threads(request["threads"])
    cost = Cost()
    model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32).eval()
    model = quantize(model, request)
    found: dict[str, Any] = cost.so_far()
    found["losses"] = texts.losses(TorchRuntime.of(model.eval()), request["texts"])
    names = (*packages, "torch", "transformers")
    found["versions"] = {name: metadata.version(name) for name in names}
    answers.write("\n" + json.dumps(found) + "\n")


def sequences(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The calibration sequences, each a batch of its own."""
    import torch

    rows = [torch.tensor([ids]) for ids in request["calibration"]]
    return [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows]
