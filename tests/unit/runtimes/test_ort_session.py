from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from quantship import hardware
from quantship.runtimes import ort_session
from quantship.runtimes.ort import OrtRuntime
from quantship.runtimes.ort_session import CPU, CUDA, open_session

pytestmark = pytest.mark.usefixtures("one_thread")
GPU = "NVIDIA RTX A2000"


@pytest.fixture(scope="module")
def cuda_onnx_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from quantship.exporters import decoder

    path = tmp_path_factory.mktemp("cuda")
    decoder.export(tiny_model_dir, "float", None, path, "cuda")
    return path


@pytest.fixture
def with_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])


@pytest.mark.usefixtures("with_provider")
def test_only_what_was_made_for_cuda_asks_for_the_cuda_provider(
    tiny_onnx_dir: Path, cuda_onnx_dir: Path
) -> None:
    assert ort_session._providers(cuda_onnx_dir) == [(CUDA, {"device_id": "0"}), CPU]
    assert ort_session._providers(tiny_onnx_dir) == [CPU]


@pytest.mark.usefixtures("with_provider")
def test_each_process_of_a_machine_asks_for_the_gpu_that_is_its_own(
    cuda_onnx_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert ort_session._providers(cuda_onnx_dir) == [(CUDA, {"device_id": "3"}), CPU]


def test_without_the_provider_the_model_is_not_looked_into(tmp_path: Path) -> None:
    if CUDA in ort.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    assert ort_session._providers(tmp_path / "nowhere") == [CPU]


def test_without_a_gpu_a_model_for_one_runs_on_the_cpu_and_nothing_is_said(
    cuda_onnx_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "installed_gpu", lambda: None)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, device = open_session(cuda_onnx_dir, 1)
    assert device == "cpu"


def test_a_gpu_that_is_not_used_is_told_of_with_the_remedy(
    cuda_onnx_dir: Path, tiny_onnx_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "installed_gpu", lambda: GPU)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    with pytest.warns(UserWarning, match=rf"there is an {GPU}.*install onnxruntime-gpu"):
        open_session(cuda_onnx_dir, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_session(tiny_onnx_dir, 1)


@pytest.mark.usefixtures("with_provider")
def test_a_provider_that_does_not_start_is_told_of(
    cuda_onnx_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no GPU, onnxruntime goes on without the provider that it was asked for."""
    if hardware.installed_gpu() is not None:
        pytest.skip("the provider may start here")
    monkeypatch.setattr(hardware, "installed_gpu", lambda: GPU)
    with pytest.warns(UserWarning, match="could not start its CUDA provider"):
        _, device = open_session(cuda_onnx_dir, 1)
    assert device == "cpu"


@pytest.mark.usefixtures("with_provider")
def test_a_model_for_cuda_computes_the_same_on_the_cpu(
    cuda_onnx_dir: Path, tiny_onnx_dir: Path
) -> None:
    tokens = np.random.default_rng(0).integers(4, 260, (2, 9))
    ours, theirs = OrtRuntime(cuda_onnx_dir, 1), OrtRuntime(tiny_onnx_dir, 1)
    np.testing.assert_allclose(ours.prefill(tokens, 12), theirs.prefill(tokens, 12), atol=1e-4)
    np.testing.assert_allclose(ours.decode(tokens[:, 0]), theirs.decode(tokens[:, 0]), atol=1e-4)
    assert ours.device == theirs.device == "cpu"
