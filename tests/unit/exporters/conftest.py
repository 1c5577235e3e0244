from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantship.recipe.language import TinyModel

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def make_checkpoint(tiny_tokenizer: Any, tmp_path_factory: Any) -> MakeCheckpoint:
    """Quantize a tiny model of given dimensions; returns the checkpoint's directory."""

    def make(scheme: str = "w8a8", **dimensions: Any) -> Path:
        from quantship.algorithms import rtn
        from quantship.quant.convert import convert
        from quantship.quant.scheme import SCHEMES
        from quantship.tiny import build_model

        path: Path = tmp_path_factory.mktemp("checkpoint")
        model = build_model(TinyModel(**dimensions), tiny_tokenizer, seed=0)
        convert(model, SCHEMES[scheme], rtn.quantize, path)
        tiny_tokenizer.save_pretrained(path)
        return path

    return make


@pytest.fixture(scope="session")
def checkpoint_dir(make_checkpoint: MakeCheckpoint) -> Path:
    """A w8a8 checkpoint of the usual tiny model; not to be written to."""
    return make_checkpoint()
