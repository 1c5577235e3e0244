"""The recipe language, and the way from a YAML file to a checked Recipe."""

from __future__ import annotations

from quantship.recipe.language import Recipe
from quantship.recipe.load import check, load

__all__ = ["Recipe", "check", "load"]
