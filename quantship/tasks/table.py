"""Every evaluation task by the word that a recipe calls it by."""

from __future__ import annotations

from types import ModuleType

from quantship.tasks import divergence, perplexity

TASKS: dict[str, ModuleType] = {
    "perplexity": perplexity,
    "divergence": divergence,
}
"""Modules with ``Options`` and ``evaluate(subject, options, context) -> Outcome``."""

Options = divergence.Options | perplexity.Options
