from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantship.quant.scheme import SCHEMES, Scheme
from quantship.recipe.language import TinyModel

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def make_checkpoint(tiny_tokenizer: Any, tmp_path_factory: Any) -> MakeCheckpoint:
    """Quantize a tiny model of given dimensions; returns the checkpoint's directory."""

    def make(scheme: str | Scheme = "w8a8", **dimensions: Any) -> Path:
        import torch

        from quantship.quant.calibration import static_inputs
        from quantship.quant.convert import convert
        from quantship.quant.modules import prepare_qat
        from quantship.quant.numerics import Grid, input_grid
        from quantship.tiny import build_model

        path: Path = tmp_path_factory.mktemp("checkpoint")
        model = build_model(TinyModel(**dimensions), tiny_tokenizer, seed=0)
        prepare_qat(model, SCHEMES[scheme] if isinstance(scheme, str) else scheme)
        for rounding in static_inputs(model).values():
            grid = input_grid(torch.tensor(-3.0), torch.tensor(4.0), rounding.fmt)
            shaped = (None if part is None else part.view(1, 1, 1) for part in grid)
            rounding.set_grid(Grid(*shaped), learned=False)
        convert(model, path)
        tiny_tokenizer.save_pretrained(path)
        return path

    return make


@pytest.fixture(scope="session")
def checkpoint_dir(make_checkpoint: MakeCheckpoint) -> Path:
    """A w8a8 checkpoint of the usual tiny model; not to be written to."""
    return make_checkpoint()
