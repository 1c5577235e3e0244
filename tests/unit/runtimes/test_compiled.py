from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from quantship import hardware
from quantship.errors import QuantshipError
from quantship.quant.convert import convert
from quantship.quant.gpu_kernels import INT_MM_ROWS
from quantship.quant.loading import load
from quantship.quant.modules import prepare_qat
from quantship.quant.scheme import SCHEMES
from quantship.runtimes import compiled
from quantship.runtimes.base import open_runtime
from quantship.runtimes.compiled import CompiledRuntime
from quantship.runtimes.pytorch import TorchRuntime, explained

pytestmark = pytest.mark.usefixtures("one_thread")
TOKENS = np.random.default_rng(0).integers(4, 260, (3, 9))
RTX_3090 = hardware.Gpu("NVIDIA GeForce RTX 3090", (8, 6))


@pytest.fixture(autouse=True)
def _without_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a minute a model; tests/unit/quant/test_compiling.py runs it once."""
    torch._dynamo.reset()
    monkeypatch.setattr(CompiledRuntime, "backend", "aot_eager")


@pytest.mark.parametrize("scheme", [None, "w8a16", "w4a16-g32"])
def test_compiled_it_says_what_eager_pytorch_says(
    scheme: str | None, tiny_model: PreTrainedModel, tiny_model_dir: Path, tmp_path: Path
) -> None:
    path = tiny_model_dir
    if scheme is not None:
        convert(prepare_qat(tiny_model, SCHEMES[scheme]), tmp_path)
        path = tmp_path
    ours, theirs = open_runtime(path, compiled=True), open_runtime(path)
    assert (ours.name, ours.device, ours.pads) == (theirs.name, "cpu", False)
    for _ in range(2):  # the second prompt uses the cache of the first again
        close(ours.prefill(TOKENS, 16), theirs.prefill(TOKENS, 16))
        for column in range(3):
            close(ours.decode(TOKENS[:, column]), theirs.decode(TOKENS[:, column]))
    rows = np.array([2, 0])
    ours.keep(rows)
    theirs.keep(rows)
    close(ours.decode(TOKENS[:2, 5]), theirs.decode(TOKENS[:2, 5]))
    mask = np.ones_like(TOKENS)
    close(ours.logits(TOKENS, mask), theirs.logits(TOKENS, mask))


def test_a_token_after_the_first_compiles_nothing_anew(tiny_model_dir: Path) -> None:
    runtime = CompiledRuntime(tiny_model_dir)
    runtime.prefill(TOKENS, 16)
    runtime.decode(TOKENS[:, 0])
    with torch._dynamo.config.patch(error_on_recompile=True):
        runtime.decode(TOKENS[:, 1])
        runtime.prefill(TOKENS, 16)
        runtime.decode(TOKENS[:, 2])


@pytest.mark.parametrize("scheme", ["w8a8-symmetric", "w8a8-per-tensor"])
def test_rows_that_are_added_change_nothing(
    scheme: str, tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    convert(prepare_qat(tiny_model, SCHEMES[scheme]), tmp_path)
    plain, padded = load(tmp_path), load(tmp_path)
    compiled.give_enough_rows(padded)
    inside = [one for one in padded.modules() if isinstance(one, compiled.EnoughRows)]
    assert len(inside) == 14
    seen: list[int] = []
    inside[0].layer.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].numel() // given[0].shape[-1])
    )
    for length in (1, 5, INT_MM_ROWS + 3):
        ids = torch.arange(4, 4 + length)[None]
        with torch.inference_mode():
            assert torch.equal(padded(input_ids=ids).logits, plain(input_ids=ids).logits)
        assert seen.pop() >= INT_MM_ROWS


def test_layers_that_multiply_floats_are_left_alone(
    tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    convert(prepare_qat(tiny_model, SCHEMES["w8a8"]), tmp_path)
    model = load(tmp_path)
    compiled.give_enough_rows(model)
    assert not any(isinstance(one, compiled.EnoughRows) for one in model.modules())


def test_a_kernel_that_is_missing_is_told_of_in_words(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = TorchRuntime(tiny_model_dir)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("cutlass cannot initialize")

    monkeypatch.setattr(nn.Linear, "forward", fail)
    with pytest.raises(RuntimeError, match=r"^cutlass"):  # not a GPU: not known what it is
        runtime.prefill(TOKENS, 16)
    monkeypatch.setattr(hardware, "gpu", lambda: RTX_3090)
    for call in (
        lambda: runtime.prefill(TOKENS, 16),
        lambda: runtime.logits(TOKENS, np.ones_like(TOKENS)),
    ):
        with pytest.raises(QuantshipError, match=r"RTX 3090 .*8\.6.*packed: false"):
            call()


def test_other_errors_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpu", lambda: RTX_3090)
    with pytest.raises(ValueError, match=r"^shapes$"), explained():
        raise ValueError("shapes")


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
