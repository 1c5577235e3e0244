"""Small recipes: one with every stage in it but the benchmark, and one with that."""

from __future__ import annotations

import json
from pathlib import Path

FAULTS, MEASURED = "faults", "measured"

RECIPES = {
    FAULTS: """\
model:
  tiny: {hidden_size: 64, intermediate_size: 96, num_layers: 2, num_heads: 2, num_kv_heads: 1,
         max_positions: 128}
data:
  train: [{adapter: builtin, num_examples: 48}]
  eval: [{adapter: builtin, split: eval, num_examples: 8}]
  max_length: 96
steps:
  - {stage: finetune, max_steps: 12, save_steps: 2, logging_steps: 5, learning_rate: 1.0e-3}
  - {stage: quantize, name: gptq, input: finetune, scheme: w4a16-g32, algorithm: gptq}
  - {stage: quantize, name: static, input: finetune, scheme: w8a8-static}
  - {stage: qat, input: finetune, scheme: w8a8, max_steps: 8, save_steps: 2, learning_rate: 1.0e-3}
  - {stage: export, input: [gptq, qat]}
  - {stage: search, name: mixed, input: finetune, candidates: [w4a16-g32, w8a16],
     scheme: w4a16-g32, target_bits: 6, calibration: {sequences: 4}}
  - {stage: quantize, name: found, input: finetune, scheme: mixed}
evaluation:
  parity_sequences: 4
  online: true
  tasks:
    - {task: mbpp, source: {adapter: mbpp, path: problems.jsonl}, max_new_tokens: 8,
       models: [gptq]}
benchmark: null
""",
    MEASURED: """\
model:
  tiny: {hidden_size: 64, intermediate_size: 96, num_layers: 1, num_heads: 2, num_kv_heads: 1,
         max_positions: 128}
data: {eval: [{adapter: builtin, split: eval, num_examples: 8}], max_length: 96}
steps: [{stage: quantize, scheme: w8a8}]
evaluation: null
benchmark: {prompt_tokens: 16, decode_tokens: 4, rounds: 1}
""",
}
"""By name, as YAML."""


def write(folder: Path) -> None:
    """The recipes and their data, in a folder that is made; runs start there."""
    folder.mkdir(parents=True, exist_ok=True)
    problems = [
        {
            "task_id": number,
            "text": "Add two numbers.",
            "test_setup_code": "",
            "test_list": ["assert add(1, 2) == 3"],
            "code": "def add(a, b):\n    return a + b",
        }
        for number in (11, 12, 13)
    ]
    lines = "".join(json.dumps(problem) + "\n" for problem in problems)
    (folder / "problems.jsonl").write_text(lines)
    for name, text in RECIPES.items():
        path_of(folder, name).write_text(text)


def path_of(folder: Path, name: str) -> Path:
    """Where a recipe lies."""
    return folder / f"{name}.yaml"
