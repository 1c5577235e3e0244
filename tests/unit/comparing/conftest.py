from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantship import artifact
from quantship.reporting.schema import Report
from quantship.tasks.likelihood import Sequences, write_sequences

ENVIRONMENT = {
    "cpu_model": "AMD EPYC 7B13",
    "instruction_sets": ["avx2"],
    "num_cpus": 2,
    "memory_bytes": 25_000_000_000,
    "gpu": None,
    "os": "Linux",
    "python": "3.11.9",
    "versions": {"torch": "2.13.0"},
}


class Shelf:
    """Puts runs on disk as finished ones leave them, without running anything."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(
        self,
        name: str,
        losses: Mapping[str, float],
        root: str = "artifacts",
        *,
        fingerprints: Mapping[str, str] | None = None,
        steps: bool = True,
        size: int = 60,
        **update: Any,
    ) -> Path:
        """A run whose models have these mean losses; names that start with ``ptq`` are quantized.

        Args:
            name: Of the run.
            losses: By model.
            root: Artifacts root.
            fingerprints: Of models, where another run has made them; default: their own.
            steps: Whether the losses by sequence are there.
            size: Evaluated sequences.
            update: Other fields of the report.
        """
        generator = np.random.default_rng(3)
        num_tokens = generator.integers(40, 400, size)
        hardness = generator.gamma(9.0, 0.2, size)
        hardness -= (hardness * num_tokens).sum() / num_tokens.sum()
        names = {model: f"{name}-{model}".ljust(20, "0") for model in losses}
        names |= dict(fingerprints or {})
        rows = []
        for model, loss in losses.items():
            nll = (loss + hardness) * num_tokens
            made = f"e{names[model]}"
            if steps:
                out = artifact.begin(artifact.directory(self.root / root, "evaluate", made))
                write_sequences(Sequences(nll, num_tokens), out)
                artifact.finish(
                    out,
                    stage="evaluate",
                    fingerprint=made,
                    settings={},
                    inputs={},
                    facts={},
                    duration_s=1.0,
                )
            names[f"evaluate {model}"] = made
            rows.append(_row(model, loss, int(num_tokens.sum())))
        directory = self.root / root / "runs" / name
        directory.mkdir(parents=True)
        report = {
            "quantship_version": "0.1.0",
            "recipe": {"name": name, "steps": [{"name": model} for model in losses]},
            "name": name,
            "created": "2026-03-14T15:09:26Z",
            "duration_s": 1.0,
            "environment": ENVIRONMENT,
            "data": {"eval": {"sources": [{"adapter": "gsm8k", "digests": ["12"]}]}},
            "evaluation_data": {"digest": "ab" * 32, "num_sequences": size, "num_tokens": 9},
            "models": rows,
            "training": [],
            "notes": [],
            **update,
        }
        text = Report.model_validate(report).model_dump_json()
        (directory / "report.json").write_text(text)
        (directory / "artifacts.json").write_text(json.dumps(names))
        return directory


def _row(name: str, loss: float, num_tokens: int) -> dict[str, Any]:
    quantized = name.startswith("ptq")
    kind = name.rpartition("-")[2]
    made = {
        "algorithm": kind,
        "words": kind,
        "settings": {"algorithm": {"kind": kind}},
        "plain": kind == "rtn",
    }
    return {
        "name": name,
        "step": name,
        "kind": "torchao" if quantized else "float",
        "path": name,
        "scheme": "w4a16-g32" if quantized else None,
        "quantization": made if quantized else None,
        "float_source": "tuned",
        "size_bytes": 90_000_000 if quantized else 540_000_000,
        "metrics": {
            "perplexity": math.exp(loss),
            "token_accuracy": 0.5,
            "mean_loss": loss,
            "num_tokens": num_tokens,
        },
        "benchmark": None,
        "group": "ptq" if quantized else "finetune",
    }


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Makes runs in a temporary directory."""
    return Shelf(tmp_path)
