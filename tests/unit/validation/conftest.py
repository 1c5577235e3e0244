from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from quantship.quant.scheme import SCHEMES, Scheme

Models = Callable[[str], Path]
Copy = Callable[[Path], Path]

EXPORTS = {
    "onnx float": ("float", "float"),
    "onnx w8a8 nbits": ("w8a8", "nbits"),
    "onnx w8a8 integer": ("w8a8", "integer"),
    "onnx w4a16 nbits": ("w4a16-g32", "nbits"),
    "onnx static integer": ("w8a8-static", "integer"),
}


def quantized(source: Path, scheme: Scheme, out: Path) -> Path:
    """Round the float model of a directory, its static ranges fixed on random tokens."""
    import torch

    from quantship.models import copy_tokenizer, load_float
    from quantship.quant.calibration import calibrate
    from quantship.quant.convert import convert
    from quantship.quant.modules import prepare_qat
    from quantship.recipe.rounding_options import Calibration

    model: Any = prepare_qat(load_float(source).eval(), scheme)
    if scheme.is_static:
        batch = torch.randint(4, 260, (4, 32), generator=torch.Generator().manual_seed(4))
        calibrate(model, [batch], lambda ids: model(input_ids=ids), Calibration())
    convert(model, out)
    copy_tokenizer(source, out)
    return out


@pytest.fixture(scope="session")
def models(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Directory of a model: ``float``, a scheme, or one of ``EXPORTS``; not to be written to."""
    from quantship.exporters import decoder

    @cache
    def find(name: str) -> Path:
        if name == "float":
            return tiny_model_dir
        out = tmp_path_factory.mktemp("model")
        if name not in EXPORTS:
            return quantized(tiny_model_dir, SCHEMES[name], out)
        scheme, lowering = EXPORTS[name]
        known = None if scheme == "float" else scheme
        decoder.export(find(scheme), lowering, known, out, "x86")  # type: ignore[arg-type]
        return out

    return find


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """Copy a directory to where it may be changed."""

    def copied(source: Path) -> Path:
        target = tmp_path / f"copy of {source.name}"
        shutil.copytree(source, target)
        return target

    return copied


@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread: None) -> None:
    """Everything in this room is small."""
