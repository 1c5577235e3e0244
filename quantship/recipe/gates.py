"""Gates: limits that the models of a recipe have to keep to before they are pushed."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
)

from quantship.frozen import Frozen

UNITS = {"": 1.0, "%": 0.01, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_QUANTITY = re.compile(r"\s*(-?[0-9.]+(?:e[-+]?[0-9]+)?)\s*([a-z%]*)\s*", re.IGNORECASE)


def _as_text(value: object) -> object:
    """A number as text; true and false stay what they are, and are refused."""
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _readable(text: str) -> str:
    number(text)
    return text


def number(text: str) -> float:
    """What a quantity stands for: ``200 MB`` is 2e8, ``2%`` is 0.02.

    Raises:
        ValueError: It is no number, or of a unit that nobody knows.
    """
    found = _QUANTITY.fullmatch(text)
    units = {unit.lower(): factor for unit, factor in UNITS.items()}
    if found is None or found[2].lower() not in units:
        known = ", ".join(unit for unit in UNITS if unit)
        raise ValueError(f"'{text}' is no number; units that may follow one: {known}")
    try:
        value = float(found[1]) * units[found[2].lower()]
    except ValueError:
        raise ValueError(f"'{text}' is no number") from None
    if not math.isfinite(value):
        raise ValueError(f"'{text}' is no number")
    return value


def unit(text: str) -> str:
    """What stands behind the number of a quantity; empty: nothing."""
    found = _QUANTITY.fullmatch(text)
    assert found is not None
    return next(known for known in UNITS if known.lower() == found[2].lower())


Quantity = Annotated[
    str,
    BeforeValidator(_as_text),
    AfterValidator(_readable),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]}),
]
"""A number, or text with a unit behind the number; kept as it was written."""


class _Brief(Frozen):
    """What is written without the keys that nobody gave."""

    @model_serializer(mode="wrap")
    def _given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class Limit(_Brief):
    """What a number has to keep to: bounds of its own, or bounds over another model's number."""

    min: Quantity | None = None
    """The least it may be: 0.9, 90%, 1.5."""
    max: Quantity | None = None
    """The most it may be: 20, 200 MB."""
    min_ratio: float | None = Field(default=None, gt=0)
    """The least it may be, by the other model's number."""
    max_ratio: float | None = Field(default=None, gt=0)
    """The most it may be, by the other model's number: 0.3 is at most three tenths of it."""
    max_increase: Quantity | None = None
    """How far it may be above the other model's number: 2% of that number, or 0.5 in the metric's
    own unit. Of a share, 0.02 is two percentage points and 2% a fiftieth of the other's share."""
    max_decrease: Quantity | None = None
    """How far it may be below the other model's number; as ``max_increase``."""
    over: str | None = None
    """The other model: ``model``, a step, an export."""
    confidence: float | None = Field(default=None, ge=0.5, lt=1)
    """Hold the one-sided bound of the paired bootstrap against the limit, at this confidence, so
    that it is kept to for sure and not by luck; null: the measured number. Of perplexity, token
    accuracy and the metrics of tasks."""


class Gate(_Brief):
    """Limits for some models. Metrics of tasks are limited as ``<task>.<metric>``.

    ``{models: [qat], perplexity: {max_increase: 2%, over: finetune}, gsm8k.exact_match:
    {max_decrease: 0.02, over: finetune, confidence: 0.95}, codes_equal: true}``.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Limit] = Field(init=False)

    models: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Models that have to keep to the limits: steps, exports (``qat-onnx``); default: every
    quantized model for which the metric is measured."""
    perplexity: Limit | None = None
    """Perplexity on ``data.eval``."""
    token_accuracy: Limit | None = None
    """Share of tokens predicted right on ``data.eval``."""
    kl: Limit | None = None
    """Divergence of an exported model from its checkpoint, in nats a token; of a QAT checkpoint
    from what was trained."""
    top1_agreement: Limit | None = None
    """Share of tokens for which an exported model and its checkpoint find the same most likely."""
    codes_equal: bool | None = None
    """true: every integer and scale of an exported model equals its checkpoint's, to the bit."""
    size: Limit | None = None
    """Weights on disk, in bytes: ``200 MB``."""
    compression: Limit | None = None
    """Size of the float32 model in the same kind of file, by this size."""
    prefill_speed: Limit | None = None
    """Prompt tokens a second."""
    decode_speed: Limit | None = None
    """Generated tokens a second."""
    prefill_speedup: Limit | None = None
    """Prompt tokens a second by those of ``over``; default: of the float model on the same runtime.
    """
    decode_speedup: Limit | None = None
    """Generated tokens a second by those of ``over``; default: of the float model on the same
    runtime."""
    peak_memory: Limit | None = None
    """Resident memory of a process that runs this model alone, in bytes: ``1 GB``."""

    @property
    def limits(self) -> dict[str, Limit]:
        """The limits that were given, by metric, in the order of the language."""
        own = {name: getattr(self, name) for name in Gate.model_fields}
        limits = {name: value for name, value in own.items() if isinstance(value, Limit)}
        return {**limits, **(self.__pydantic_extra__ or {})}
