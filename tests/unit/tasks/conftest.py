"""A tiny model on every runtime that evaluations are the same on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from quantship.artifact import Artifact
from quantship.job import Job
from quantship.runtimes.base import open_runtime
from quantship.tasks.base import Context, Subject

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def model_dirs(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model: float, as a w8a8 checkpoint, and both as ONNX; not to be written to."""
    from quantship.exporters import lowering
    from quantship.quant.scheme import SCHEMES, Scheme
    from quantship.recipe.language import QuantizeStep
    from quantship.stages import export, quantize

    def make(run: Callable[[Job], Any], settings: Any, source: Path) -> Path:
        out = tmp_path_factory.mktemp("made") / "model"
        out.mkdir()
        model = Artifact(source, "model", "", {})
        run(Job(settings, {"model": model}, out, out.with_name("no-resume")))
        return out

    scheme = SCHEMES["w8a8"]
    step = QuantizeStep(stage="quantize", scheme="w8a8")
    quantized = make(quantize.run, quantize.Settings(step=step, scheme=scheme), tiny_model_dir)

    def export_of(source: Path, scheme: Scheme | None) -> Path:
        form = lowering.choose(scheme, "x86")
        settings = export.Settings(lowering=form, target="x86", scheme=scheme)
        return make(export.run, settings, source)

    return {
        "torch": tiny_model_dir,
        "torchao": quantized,
        "onnxruntime": export_of(tiny_model_dir, None),
        "onnxruntime of torchao": export_of(quantized, scheme),
    }


@pytest.fixture(scope="session")
def subjects(
    model_dirs: dict[str, Path], tiny_tokenizer: PreTrainedTokenizerFast
) -> dict[str, Subject]:
    """The tiny model, loaded on each runtime."""
    return {
        name: Subject(path, open_runtime(path, threads=1), tiny_tokenizer)
        for name, path in model_dirs.items()
    }


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., Context]:
    """What a task is evaluated with; what is given replaces a default."""

    def context(**given: Any) -> Context:
        defaults: dict[str, Any] = {
            "data": tmp_path / "eval",
            "reference": None,
            "chat_template": None,
            "max_length": 200,
            "batch_size": 3,
            "seed": 0,
            "resume": tmp_path / "resume",
        }
        return Context(**(defaults | given))

    return context
