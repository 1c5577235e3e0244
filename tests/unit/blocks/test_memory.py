"""Memory for one block: a model four times as deep needs no more of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
WIDTH, INNER = 512, 1536
BLOCK_BYTES = 4 * (4 * WIDTH * WIDTH + 3 * WIDTH * INNER)
"""Of a block in float32: 13.6 million."""

# The peak is of the whole process, mapped pages of its files included.
MEASURED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from quantship.blocks.engine import Task, quantize
from quantship.blocks.parts import Parts
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import QuantizeStep
source, out, scheme = Path(sys.argv[1]), Path(sys.argv[2]), SCHEMES[sys.argv[3]]
(out / "made").mkdir(parents=True)
generator = torch.Generator().manual_seed(0)
ids = [torch.randint(90, (1, 16), generator=generator) for _ in range(2)]
batches = [{"input_ids": one} for one in ids] if scheme.is_static else []
step = QuantizeStep(stage="quantize")
quantize(source, Task(step, scheme, batches, Parts(out / "parts", "")), out / "made")
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Directories of a model of 4 and of 16 blocks."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    made = {}
    for depth in (4, 16):
        made[depth] = tmp_path_factory.mktemp("deep") / str(depth)
        config = LlamaConfig(
            vocab_size=96,
            hidden_size=WIDTH,
            intermediate_size=INNER,
            num_hidden_layers=depth,
            num_attention_heads=8,
            num_key_value_heads=8,
        )
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(made[depth])
    return made


def peak_bytes(source: Path, out: Path, scheme: str) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    given = [sys.executable, "-c", MEASURED, str(source), str(out), scheme]
    run = subprocess.run(given, env=environment, capture_output=True, text=True, check=True)
    return int(run.stdout.split()[-1])


@pytest.mark.parametrize("scheme", ["w8a8", "w4a16-g32", "w8a8-static"])
def test_memory_does_not_grow_with_depth(
    models: dict[int, Path], tmp_path: Path, scheme: str
) -> None:
    """Twelve blocks more: 12 of them in float32, 6 in the file, 3 as codes of 8 bits."""
    peaks = {
        depth: peak_bytes(source, tmp_path / str(depth), scheme) for depth, source in models.items()
    }
    assert peaks[16] - peaks[4] < 2 * BLOCK_BYTES, peaks
