from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from transformers import PreTrainedModel

from quantship.exporters import decoder
from quantship.exporters.lowering import Lowering
from quantship.quant.convert import convert
from quantship.quant.modules import prepare_qat
from quantship.quant.scheme import SCHEMES
from quantship.runtimes.ort import OrtRuntime
from quantship.runtimes.ort_session import CUDA
from quantship.runtimes.pytorch import TorchRuntime

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        CUDA not in ort.get_available_providers(), reason="onnxruntime has no CUDA provider"
    ),
]
TOKENS = np.random.default_rng(0).integers(4, 260, (2, 9))


@pytest.mark.parametrize(
    ("scheme", "lowering"), [(None, "float"), ("w4a16-g32", "nbits"), ("w8a16", "nbits")]
)
def test_the_cuda_provider_says_what_pytorch_says(
    scheme: str | None,
    lowering: Lowering,
    tiny_model: PreTrainedModel,
    tiny_model_dir: Path,
    tmp_path: Path,
) -> None:
    source, out = tiny_model_dir, tmp_path / "onnx"
    out.mkdir()
    if scheme is not None:
        source = tmp_path / "checkpoint"
        source.mkdir()
        convert(prepare_qat(tiny_model, SCHEMES[scheme]), source)
        for file in tiny_model_dir.glob("tokenizer*"):
            (source / file.name).write_bytes(file.read_bytes())
    decoder.export(source, lowering, scheme, out, "cuda")
    ours, theirs = OrtRuntime(out), TorchRuntime(source)
    assert ours.device == "cuda"
    for _ in range(2):
        _close(ours.prefill(TOKENS, 16), theirs.prefill(TOKENS, 16))
        for column in range(3):
            _close(ours.decode(TOKENS[:, column]), theirs.decode(TOKENS[:, column]))
    rows = np.array([1])
    ours.keep(rows)
    theirs.keep(rows)
    _close(ours.decode(TOKENS[:1, 0]), theirs.decode(TOKENS[:1, 0]))


def _close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(theirs)
