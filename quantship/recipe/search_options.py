"""Options of the step that searches: what may be chosen, and under which constraint."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from quantship.frozen import Frozen
from quantship.quant.scheme import RangeName
from quantship.recipe.own_scheme import SchemeName

UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20}
UNITS["GiB"] = 1 << 30
CONSTRAINTS = ("target_bits", "max_bytes", "max_latency_ms", "max_perplexity_increase")
"""Keys of which a search has one."""


class SearchData(Frozen):
    """The training data that sensitivities are measured on."""

    sequences: Annotated[int, Field(ge=1)] = 16
    """Training sequences to look at."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Which of the training sequences: a random choice by this seed; null: the first ones."""


class SearchOptions(Frozen):
    """What a search chooses from, and what bounds it."""

    candidates: tuple[SchemeName, ...] = Field(min_length=2)
    """Schemes whose formats of weights may be chosen for each linear layer. One whose groups do not
    divide a layer is no choice for that layer."""
    embedding: bool = False
    """Choose for the token embedding and the output head as well, among the formats that the
    candidates have for them."""
    target_bits: float | None = Field(default=None, gt=0)
    """Bits a weight, scales and zero points included, on an average over all weights that are
    chosen for: at most so many."""
    max_bytes: int | str | None = None
    """Size of the model's weights in the runtime's file: a number of bytes, text as ``90 MB``, or
    a scheme, to be as large as that makes the model."""
    max_latency_ms: float | None = Field(default=None, gt=0)
    """Time of one decoded token on this machine, in milliseconds."""
    max_perplexity_increase: float | str | None = None
    """What the perplexity of the calibration data may rise by: ``2%`` or 0.02. It takes as few
    bytes as that allows."""
    measure: Literal["fisher", "kl", "loss"] = "fisher"
    """What a layer's rounding costs: ``kl``: how far the model's predictions move when that layer
    alone is rounded; ``loss``: what its loss rises by then; ``fisher``: an estimate of ``kl`` from
    gradients, from one backward pass for all layers and candidates."""
    runtime: Literal["onnxruntime", "torchao"] = "onnxruntime"
    """Whose files and times the constraint is about."""
    range: RangeName = "minmax"
    """How far grids reach while it is measured; see ``steps.quantize.range``."""
    percentile: float = Field(default=99.9, gt=50, le=100)
    """Per cent of the weights that a grid holds, for ``percentile``."""
    calibration: SearchData = SearchData()
    """The data that it is measured on."""

    @field_validator("max_bytes")
    @classmethod
    def _size(cls, value: int | str | None) -> int | str | None:
        number = _bytes(value) if isinstance(value, str) else value
        if isinstance(number, int) and number < 1:
            raise ValueError("give a number of bytes above zero")
        return value if number is None else number

    @field_validator("max_perplexity_increase")
    @classmethod
    def _share(cls, value: float | str | None) -> float | None:
        if isinstance(value, str):
            found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(%?)\s*", value)
            if found is None:
                raise ValueError("give a share, as 2% or 0.02")
            value = float(found[1]) / (100 if found[2] else 1)
        if value is not None and not 0 < value < 10:
            raise ValueError("give a share above zero, as 2% or 0.02")
        return value

    @model_validator(mode="after")
    def _one_constraint(self) -> SearchOptions:
        given = [name for name in CONSTRAINTS if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"found {' and '.join(given)}" if given else "found none"
            raise ValueError(f"a search has one of {', '.join(CONSTRAINTS)}; {found}")
        return self

    @property
    def constraint(self) -> str:
        """Name of the constraint that is given."""
        return next(name for name in CONSTRAINTS if getattr(self, name) is not None)


def _bytes(text: str) -> int | None:
    """The number of bytes that a text says; None where it is the name of a scheme."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2] not in UNITS:
        return None
    return round(float(found[1]) * UNITS[found[2]])
