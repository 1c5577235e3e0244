"""Quantize a model by the stage that recipes use, and measure it, in a process of its own.

Reads a JSON object and writes one; see ``apart``. The request holds ``model`` and perhaps ``data``
(directories), ``scheme`` (all of it) and ``step`` (the step's keys), ``out`` and ``resume``
(directories), ``threads``, and perhaps ``texts`` to measure perplexity on afterwards.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from apart import Cost


def quantize(request: dict[str, Any]) -> dict[str, Any]:
    """What it took to write the checkpoint, and what the stage found out."""
    import torch

    from quantship.artifact import Artifact, size_bytes
    from quantship.job import Job
    from quantship.quant.scheme import Scheme
    from quantship.recipe.language import QuantizeStep
    from quantship.stages import quantize as stage

    torch.set_num_threads(request["threads"])
    scheme = Scheme.model_validate(request["scheme"])
    step = QuantizeStep(stage="quantize", name="ptq", scheme=scheme.name, **request["step"])
    out, resume = Path(request["out"]), Path(request["resume"])
    out.mkdir(parents=True, exist_ok=True)
    inputs = {"model": Artifact(Path(request["model"]), "model", "", {})}
    if request.get("data"):
        inputs["data"] = Artifact(Path(request["data"]), "data", "", {})
    cost = Cost()
    facts = stage.run(Job(stage.Settings(step=step, scheme=scheme), inputs, out, resume))
    return {**cost.so_far(), "size_bytes": size_bytes(out), "facts": facts}


def main(request: dict[str, Any]) -> dict[str, Any]:
    """What the request asks for."""
    found = quantize(request)
    if request.get("texts"):
        import texts

        from quantship.runtimes.base import open_runtime

        runtime = open_runtime(Path(request["out"]), request["threads"])
        found["losses"] = texts.losses(runtime, request["texts"])
    return found


if __name__ == "__main__":
    answer = main(json.load(sys.stdin))
    sys.stdout.write("\n" + json.dumps(answer, default=str) + "\n")
