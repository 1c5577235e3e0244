from __future__ import annotations

from pathlib import Path

import pytest
import torch

from quantship.algorithms import gptq, rtn
from quantship.blocks.engine import Task, quantize
from quantship.blocks.parts import Parts
from quantship.quant import checkpoint
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import Algorithm, QuantizeStep

pytestmark = pytest.mark.gpu


def made(source: Path, out: Path, algorithm: Algorithm, device: str) -> dict[str, torch.Tensor]:
    (out / "parts").mkdir(parents=True)
    (out / "model").mkdir()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 260, (4, 32), generator=generator)
    batches = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]
    step = QuantizeStep(stage="quantize", algorithm=algorithm)
    task = Task(step, SCHEMES["w4a16-g32"], batches, Parts(out / "parts", "test"), device)
    assert quantize(source, task, out / "model")["parity"]["codes_equal"]
    stored = checkpoint.load_codes(out / "model")
    return {name: part.codes.codes_OI for name, part in stored.items()}


@pytest.mark.parametrize(
    ("algorithm", "equal"), [(rtn.Options(), 1.0), (gptq.Options(), 0.97)], ids=["rtn", "gptq"]
)
def test_blocks_round_alike_on_both_devices(
    algorithm: Algorithm, equal: float, tiny_model_dir: Path, tmp_path: Path
) -> None:
    here = made(tiny_model_dir, tmp_path / "cpu", algorithm, "cpu")
    before = torch.cuda.memory_allocated()
    there = made(tiny_model_dir, tmp_path / "cuda", algorithm, "cuda")
    assert torch.cuda.memory_allocated() - before < 2**20  # blocks that are done are gone
    shares = [float((here[name] == there[name]).float().mean()) for name in here]
    assert min(shares) >= equal
