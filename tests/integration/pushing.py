"""A finished run to push, and pushing it in another process, where no token may be seen.

huggingface_hub reads its environment when it is imported, so that each push needs a process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPO = "me/tiny"
WRITER = "hf_writersSecretWritersSecretWriters"
READER = "hf_readersSecretReadersSecretReaders"
MODELS = ("qat", "qat-onnx", "ptq-onnx")
RECIPE = """\
name: pushed
description: A model to push.
model:
  tiny: {hidden_size: 64, intermediate_size: 96, num_layers: 2, num_heads: 2, num_kv_heads: 1,
         max_positions: 128}
data:
  train: [{adapter: builtin, num_examples: 16}]
  eval: [{adapter: builtin, split: eval, num_examples: 6}]
  max_length: 96
steps:
  - {stage: finetune, max_steps: 8, learning_rate: 1.0e-3}
  - {stage: quantize, name: ptq, scheme: w4a16-g32, packed: false}
  - {stage: qat, scheme: w8a8, max_steps: 2, learning_rate: 1.0e-3}
  - {stage: export, input: [finetune, ptq, qat]}
evaluation: {parity_sequences: 2, tasks: [{task: perplexity, name: text, limit: 4}]}
benchmark: null
"""


def make(root: Path) -> Path:
    """Run the recipe in this process; the run's directory."""
    from quantship import pipeline
    from quantship.recipe import load

    recipe = root / "pushed.yaml"
    recipe.write_text(RECIPE)
    return pipeline.run(load(recipe), root / "artifacts").report_dir


def environment(url: str, home: Path, token: str | None = WRITER) -> dict[str, str]:
    """A process's environment in which ``url`` is the Hub and a token is set, if any."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    ours = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return {**kept, **ours, **threads, **({} if token is None else {"HF_TOKEN": token})}


def run(
    arguments: list[str], env: dict[str, str], watched: Path
) -> subprocess.CompletedProcess[str]:
    """Run Python, and see to it that no token is in what it prints or leaves below a directory."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    texts = [done.stdout.encode(), done.stderr.encode()]
    texts += [file.read_bytes() for file in watched.rglob("*") if file.is_file()]
    for secret in (WRITER, READER, env.get("HF_TOKEN") or WRITER):
        assert not any(secret.encode() in text for text in texts)
    return done


def push(
    directory: Path,
    url: str,
    home: Path,
    *arguments: str,
    token: str | None = WRITER,
    models: tuple[str, ...] = MODELS,
    **more: str,
) -> subprocess.CompletedProcess[str]:
    """``quantship push`` a run's directory."""
    chosen = [part for name in models for part in ("--model", name)]
    command = ["-m", "quantship", "push", str(directory), "--repo", REPO, *chosen, *arguments]
    return run(command, environment(url, home, token) | more, directory.parents[1])
