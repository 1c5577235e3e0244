from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_onnx_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as ONNX, in float; not to be written to."""
    from quantship.exporters import decoder

    path = tmp_path_factory.mktemp("onnx")
    decoder.export(tiny_model_dir, "float", None, path, "x86")
    return path
