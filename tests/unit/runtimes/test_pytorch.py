from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from quantship.errors import QuantshipError
from quantship.runtimes.pytorch import TorchRuntime

pytestmark = pytest.mark.usefixtures("one_thread")


def test_logits_are_the_models(tiny_model_dir: Path) -> None:
    tokens = np.random.default_rng(0).integers(4, 260, (2, 9))
    ours = TorchRuntime(tiny_model_dir).logits(tokens, np.ones_like(tokens))
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    with torch.inference_mode():
        theirs = model(input_ids=torch.from_numpy(tokens)).logits.numpy()
    assert ours.shape == (2, 9, 288)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_prefill_and_decode_give_one_row_a_sequence(tiny_model_dir: Path, batch: int) -> None:
    runtime = TorchRuntime(tiny_model_dir)
    tokens = np.random.default_rng(0).integers(4, 260, (batch, 9))
    assert runtime.prefill(tokens, 12).shape == (batch, 288)
    assert runtime.decode(tokens[:, 0]).shape == (batch, 288)


def test_weights_keep_their_type_and_logits_are_float32(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    tokens = np.full((1, 4), 9)
    halved = TorchRuntime(tmp_path).logits(tokens, np.ones_like(tokens))
    assert halved.dtype == np.float32
    assert np.array_equal(halved, torch.from_numpy(halved).bfloat16().float().numpy())


def test_threads_are_set(tiny_model_dir: Path) -> None:
    TorchRuntime(tiny_model_dir, threads=2)
    assert torch.get_num_threads() == 2
    TorchRuntime(tiny_model_dir, threads=1)
    assert torch.get_num_threads() == 1


def test_pickled_weights_are_not_read(tiny_model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "pickled"
    shutil.copytree(tiny_model_dir, path)
    (path / "model.safetensors").unlink()
    state = AutoModelForCausalLM.from_pretrained(tiny_model_dir).state_dict()
    torch.save(state, path / "pytorch_model.bin")
    with pytest.raises(QuantshipError, match="safetensors"):
        TorchRuntime(path)
