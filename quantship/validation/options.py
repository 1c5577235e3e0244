"""What a validation is asked for."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from quantship.frozen import Frozen
from quantship.validation.report import Tolerance


class Options(Frozen):
    """What to feed to both models, and what to call equal."""

    text: Path | None = None
    """File whose text both models read; None: a built-in text."""
    sequences: int = Field(default=4, ge=1)
    """Sequences, or batches for a model that answers in one pass."""
    length: int = Field(default=128, ge=2)
    """Tokens of a sequence; fewer where a model takes no more."""
    new_tokens: int = Field(default=24, ge=1)
    """Tokens of the greedy continuation."""
    seed: int = Field(default=0, ge=0)
    """Of random tokens and inputs."""
    tolerance: float | None = Field(default=None, ge=0)
    """Largest difference of outputs at a position; None: what the models have in common says it."""
    min_top1: float | None = Field(default=None, ge=0, le=1)
    """Least share of positions with the same most likely token; None: as above."""
    max_kl: float | None = Field(default=None, ge=0)
    """Largest KL(A || B), in nats a token; None: as above."""
    outputs_only: bool = False
    """Whether stored numbers may differ."""

    def over(self, tolerance: Tolerance) -> Tolerance:
        """A tolerance with what was asked for in place of its own numbers."""
        asked = {"relative": self.tolerance, "max_kl": self.max_kl, "min_top1": self.min_top1}
        given = {name: value for name, value in asked.items() if value is not None}
        return tolerance.model_copy(update=given)
