from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from quantship import hardware
from quantship.quant import gpu_kernels, serving
from quantship.quant.convert import convert
from quantship.quant.loading import load
from quantship.quant.modules import prepare_qat
from quantship.quant.numerics import Codes, dequantize
from quantship.quant.scheme import SCHEMES, LayerFormat
from quantship.quant.tensors import encode
from quantship.runtimes.base import open_runtime
from quantship.runtimes.measure import measure

pytestmark = pytest.mark.gpu
DYNAMIC = ["w8a8", "w8a8-symmetric", "w8a8-per-tensor", "w8a16", "w4a8", "w4a16-g32", "w2a16-g32"]
TOKENS = np.random.default_rng(0).integers(4, 260, (2, 9))


@pytest.fixture
def checkpoint_of(tiny_model: PreTrainedModel, tmp_path: Path) -> Any:
    def make(scheme: str) -> Path:
        path = tmp_path / scheme
        path.mkdir()
        convert(prepare_qat(tiny_model, SCHEMES[scheme]), path)
        return path

    return make


def close(ours: Any, theirs: Any, share: float) -> None:
    assert np.linalg.norm(ours - theirs) < share * np.linalg.norm(theirs)


@pytest.mark.parametrize("scheme", DYNAMIC)
def test_the_gpu_computes_what_the_cpu_does(scheme: str, checkpoint_of: Any) -> None:
    path = checkpoint_of(scheme)
    runtime = open_runtime(path)
    assert runtime.device == "cuda"
    ids = torch.from_numpy(TOKENS)
    with torch.inference_mode():
        reference = load(path)(input_ids=ids).logits.float().numpy()
    close(runtime.logits(TOKENS, np.ones_like(TOKENS)), reference, 0.02)
    close(
        open_runtime(path, precision="bfloat16").logits(TOKENS, np.ones_like(TOKENS)),
        reference,
        0.05,
    )


@pytest.mark.parametrize("scheme", ["w8a16", "w8a8", "w8a8-symmetric", "w4a16-g32"])
def test_compiled_it_says_the_same_from_one_row_on(scheme: str, checkpoint_of: Any) -> None:
    path = checkpoint_of(scheme)
    plain, compiled = open_runtime(path), open_runtime(path, compiled=True)
    for _ in range(2):  # the second prompt uses the cache of the first again
        close(compiled.prefill(TOKENS[:1], 16), plain.prefill(TOKENS[:1], 16), 0.02)
        for column in range(3):
            token = TOKENS[:1, column]
            close(compiled.decode(token), plain.decode(token), 0.02)


@pytest.mark.parametrize(("num_out", "num_in", "group"), [(64, 1024, 32), (40, 1536, 128)])
def test_tiles_multiply_as_the_codes_say(num_out: int, num_in: int, group: int) -> None:
    gpu = hardware.gpu()
    assert gpu is not None
    if gpu.capability < gpu_kernels.TINYGEMM:
        pytest.skip(f"{gpu} has no tinygemm")
    generator = torch.Generator().manual_seed(0)
    codes_OI = torch.randint(-8, 8, (num_out, num_in), generator=generator).to(torch.int8)
    scale_OG = torch.rand(num_out, num_in // group, generator=generator).bfloat16().float()
    weight = SCHEMES["w4a16-g32"].weight.model_copy(update={"group_size": group})
    codes = Codes(codes_OI, scale_OG)
    format = LayerFormat(weight=weight)
    packed = encode(codes, format, None, packed=True, transposed=False).cuda()
    input_TI = torch.randn(3, num_in, generator=generator).bfloat16()
    ours = torch.nn.functional.linear(input_TI.cuda(), serving.tile_packed(packed))
    theirs = input_TI.float() @ dequantize(codes).t()
    close(ours.float().cpu().numpy(), theirs.numpy(), 0.01)


def test_memory_on_the_gpu_is_measured(checkpoint_of: Any) -> None:
    runtime = open_runtime(checkpoint_of("w8a16"))
    found = measure(runtime, batch_size=1, prompt_tokens=8, decode_tokens=3, vocabulary=260, seed=0)
    assert found["device"] == "cuda"
    assert found["peak_gpu_bytes"] > 100_000
