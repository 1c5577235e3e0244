from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantship.errors import RecipeError
from quantship.recipe import load

PLAIN = """\
model: {tiny: {}}
scheme: w8a8
data:
  train: [{adapter: builtin}]
  eval: [{adapter: builtin, split: eval}]
steps:
  - stage: finetune
  - stage: qat
  - stage: export
"""


@pytest.fixture
def plain_recipe() -> str:
    """A short recipe without a fault."""
    return PLAIN


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe file; by default the short faultless one."""

    def write(text: str = PLAIN, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def complaints() -> Callable[..., str]:
    """All that is wrong with a recipe file, as its user reads it."""

    def complaints(path: Path, **options: object) -> str:
        with pytest.raises(RecipeError) as caught:
            load(path, **options)  # type: ignore[arg-type]
        return str(caught.value)

    return complaints
