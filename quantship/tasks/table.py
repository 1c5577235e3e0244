"""Every evaluation task by the word that a recipe calls it by."""

from __future__ import annotations

from types import ModuleType

from quantship.tasks import (
    choices,
    classification,
    divergence,
    generations,
    gsm8k,
    lm_eval,
    mbpp,
    perplexity,
    squad,
)

TASKS: dict[str, ModuleType] = {
    "choices": choices,
    "classification": classification,
    "divergence": divergence,
    "generations": generations,
    "gsm8k": gsm8k,
    "lm_eval": lm_eval,
    "mbpp": mbpp,
    "perplexity": perplexity,
    "squad": squad,
}
"""Modules with ``Options`` and ``evaluate(subject, options, context) -> Outcome``."""

Options = (
    choices.Options
    | classification.Options
    | divergence.Options
    | generations.Options
    | gsm8k.Options
    | lm_eval.Options
    | mbpp.Options
    | perplexity.Options
    | squad.Options
)
