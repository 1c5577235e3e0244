from __future__ import annotations

from pathlib import Path

import pytest

from quantship.errors import UsageError
from quantship.lockstep import Member, require_shares
from quantship.recipe import load
from quantship.showing import company

RECIPE = """\
model: {tiny: {hidden_size: 32, num_layers: 1, num_heads: 2, num_kv_heads: 1}}
data:
  train: [{adapter: builtin, num_examples: 8}]
  eval: [{adapter: builtin, split: eval, num_examples: 8}]
  max_length: 96
steps:
  - {stage: finetune, batch_size: 2, gradient_accumulation: 3}
  - {stage: qat, scheme: w8a8, batch_size: 5, gradient_accumulation: 3}
evaluation: null
benchmark: null
"""


@pytest.mark.parametrize(("processes", "step"), [("1", None), ("2", "qat"), ("5", "finetune")])
def test_the_first_step_that_cannot_be_shared_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: str, step: str | None
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    recipe = load(path)
    monkeypatch.setenv("WORLD_SIZE", processes)
    if step is None:
        require_shares(recipe)
        return
    with pytest.raises(UsageError, match=f"step '{step}': .*to {processes} processes"):
        require_shares(recipe)


def test_processes_are_told_of_with_what_they_compute_with() -> None:
    one = Member("a", 16, 8, None)
    assert str(company([one, one])) == "2 processes on 1 machine, each with 8 threads"
    other = Member("b", 16, 1, "H100")
    said = str(company([other, one, other]))
    assert said == "3 processes on 2 machines, each with 1 or 8 threads and a GPU (H100)"


def test_idle_cores_are_told_of() -> None:
    said = str(company([Member("a", 16, 1, None)] * 2))
    assert "each with 1 thread\n" in said
    assert "OMP_NUM_THREADS=8" in said
