"""Recipes from data to deployable quantized models: the integers trained are the integers shipped.

>>> import quantship
>>> recipe = quantship.check("recipe.yaml")      # raises RecipeError with every problem
>>> result = quantship.run("recipe.yaml")        # RunResult: report, directories
>>> model = quantship.load("artifacts/runs/recipe/models/qat")

Any module of PyTorch can be quantized without a recipe:

>>> fake = quantship.prepare_qat(module, "w8a8")              # train it as you trained the module
>>> quantized = quantship.convert(fake)                       # the integers that were trained
>>> rounded = quantship.quantize(module, "w8a8")              # or round without training
>>> quantship.compare(module, fake, quantized, inputs).show() # size, speed, memory, error
>>> quantship.save(quantized, "model.safetensors")
>>> quantized = quantship.load_into(module, "model.safetensors")
>>> quantship.export(quantized, "onnx", inputs)                # the same integers as ONNX
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantship.pipeline import RunResult
    from quantship.plain.comparison import Comparison, compare
    from quantship.plain.exporting import export
    from quantship.plain.files import load_into, save
    from quantship.plain.folding import fold_batch_norms
    from quantship.plain.quantization import convert, prepare_qat, quantize
    from quantship.quant.loading import load
    from quantship.recipe import Recipe

__all__ = [
    "Comparison",
    "check",
    "compare",
    "convert",
    "export",
    "fold_batch_norms",
    "load",
    "load_into",
    "prepare_qat",
    "quantize",
    "run",
    "save",
]
__version__ = "0.1.0"

_HOMES = {
    "Comparison": "quantship.plain.comparison",
    "compare": "quantship.plain.comparison",
    "convert": "quantship.plain.quantization",
    "export": "quantship.plain.exporting",
    "fold_batch_norms": "quantship.plain.folding",
    "load": "quantship.quant.loading",
    "load_into": "quantship.plain.files",
    "prepare_qat": "quantship.plain.quantization",
    "quantize": "quantship.plain.quantization",
    "save": "quantship.plain.files",
}
"""Where the names live that need PyTorch, which is imported when one of them is asked for."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'quantship' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


def check(
    recipe: str | Path, *, overrides: Sequence[str] = (), profile: str | None = None
) -> Recipe:
    """Read a recipe and check all of it, creating nothing.

    Args:
        recipe: Path of a YAML file.
        overrides: ``KEY=VALUE`` each, as on the command line.
        profile: Name of one of the recipe's profiles.

    Raises:
        RecipeError: With every problem found, each with file, line and remedy.
    """
    import quantship.recipe

    return quantship.recipe.check(Path(recipe), overrides=overrides, profile=profile)


def run(
    recipe: str | Path,
    *,
    overrides: Sequence[str] = (),
    profile: str | None = None,
    artifacts: str | Path = "artifacts",
    allow_code: bool = False,
) -> RunResult:
    """Run a recipe; whatever is in ``artifacts`` already is reused.

    Args:
        recipe: Path of a YAML file.
        overrides: ``KEY=VALUE`` each, as on the command line.
        profile: Name of one of the recipe's profiles.
        artifacts: Where models and reports land.
        allow_code: Run tasks that run code of others, as what models write.

    Raises:
        QuantshipError: As ``errors`` draws them.
    """
    from quantship import pipeline

    checked = check(recipe, overrides=overrides, profile=profile)
    return pipeline.run(checked, Path(artifacts), allow_code=allow_code)
