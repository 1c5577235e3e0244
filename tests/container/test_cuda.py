"""The image for NVIDIA GPUs, as far as a machine without one can try it."""

from __future__ import annotations

import engines
import pytest
from images import LOCKED, ME, Image

pytestmark = pytest.mark.slow


def test_it_is_within_its_limit(cuda_image: Image) -> None:
    size = str(engines.size_bytes(cuda_image.engine, cuda_image.name))
    done = cuda_image.run(engines.SIZES, "cuda", size, options=("--entrypoint", "python"))
    assert done.returncode == 0, done.stdout
    assert "limit 400 MB" in done.stdout


def test_its_libraries_are_those_for_cuda(cuda_image: Image) -> None:
    code = (
        "import torch, onnxruntime\n"
        "print(torch.version.cuda is not None, torch.backends.cudnn.version() is not None)\n"
        "print('CUDAExecutionProvider' in onnxruntime.get_available_providers())\n"
    )
    assert cuda_image.python(code, "--user", ME, *LOCKED).split() == ["True"] * 3


def test_it_helps_and_checks_without_a_gpu(cuda_image: Image) -> None:
    assert "Usage: quantship" in cuda_image.run().stdout
    checked = cuda_image.run("check", "quickstart", options=("--user", ME, *LOCKED))
    assert checked.returncode == 0, checked.stderr
