"""What a stage is given: inputs as artifacts, and an empty directory to write into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from quantship.artifact import Artifact
from quantship.job import Job
from quantship.recipe.language import Data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DATA = {
    "train": [{"adapter": "builtin", "num_examples": 24}],
    "eval": [{"adapter": "builtin", "split": "eval", "num_examples": 10}],
    "max_length": 128,
}


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """A job with these settings and inputs; an input is a directory, or an artifact."""

    def job(settings: Any, name: str = "out", **inputs: Path | Artifact) -> Job:
        out = tmp_path / name
        out.mkdir()
        artifacts = {
            role: given if isinstance(given, Artifact) else Artifact(given, "model", "", {})
            for role, given in inputs.items()
        }
        return Job(settings, artifacts, out, tmp_path / f"{name}.resume")

    return job


@pytest.fixture(scope="session")
def data_dir(
    tiny_model_dir: Path,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Prepared data of a few chats; not to be written to."""
    from quantship.stages import data

    out = tmp_path_factory.mktemp("data")
    settings = data.Settings(data=Data.model_validate(DATA), seed=0, file_digests=((), ()))
    model = Artifact(tiny_model_dir, "model", "", {})
    data.run(Job(settings, {"model": model}, out, out.with_name("no-resume")))
    return out


@pytest.fixture(scope="session")
def quantized_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a w8a8 checkpoint; not to be written to."""
    from quantship.quant.scheme import SCHEMES
    from quantship.recipe.language import QuantizeStep
    from quantship.stages import quantize

    out = tmp_path_factory.mktemp("quantized")
    settings = quantize.Settings(
        step=QuantizeStep(stage="quantize", scheme="w8a8"), scheme=SCHEMES["w8a8"]
    )
    model = Artifact(tiny_model_dir, "model", "", {})
    quantize.run(Job(settings, {"model": model}, out, out.with_name("no-resume")))
    return out
