"""The image as a user runs it."""

from __future__ import annotations

import os
import subprocess
import uuid
from dataclasses import dataclass

import engines

LOCKED = (
    *("--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--memory", "4g"),
)
"""The tightest options that the documentation recommends."""
ONE_THREAD = ("-e", "OMP_NUM_THREADS=1")
"""On matrices as small as those of tests, several threads spend their time waiting."""
ME = f"{os.getuid()}:{os.getgid()}"

RECIPE = """\
model: {tiny: {hidden_size: 64, intermediate_size: 128, num_layers: 1, num_heads: 2}}
data:
  train: [{adapter: builtin, split: train, num_examples: 64}]
  eval: [{adapter: builtin, split: eval, num_examples: 16}]
  max_length: 128
steps:
  - {stage: finetune, learning_rate: 1.0e-3, batch_size: 8, max_steps: 4}
  - {stage: quantize, name: ptq, input: finetune, scheme: w8a8}
  - {stage: export, input: [ptq]}
benchmark: null
"""
"""Goes the whole way in seconds."""


@dataclass(frozen=True)
class Image:
    """An image that is there, and the engine that runs it."""

    engine: str
    name: str

    def run(
        self, *arguments: str, options: tuple[str, ...] = (), timeout_s: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """``docker run`` to its end; standard error is kept apart."""
        name = f"quantship-test-{uuid.uuid4().hex}"
        try:
            return subprocess.run(
                [self.engine, "run", "--rm", "--name", name, *options, self.name, *arguments],
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:  # which ends the client, not the container
            subprocess.run([self.engine, "rm", "-f", name], capture_output=True, check=False)
            raise

    def python(self, code: str, *options: str) -> str:
        """What a program in the image's Python prints."""
        done = self.run("-c", code, options=("--entrypoint", "python", *options))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, *arguments: str) -> str:
        """What the engine says of the image."""
        return engines.ask(self.engine, *arguments, self.name)
