"""What a checkpoint's ``config.json`` says about its quantization, in words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantship.errors import QuantshipError
from quantship.inspection.report import Role

SMALL = {
    "norm": "a vector of a norm: too small to be worth integers",
    "bias": "a bias: it is added after the product",
    "other": "no matrix that is multiplied or looked up",
}
"""Why parameters of these roles are in float in any model."""


def read(path: Path | None) -> dict[str, Any]:
    """The configuration of a model; empty where it has none.

    Raises:
        QuantshipError: The file is no JSON object.
    """
    if path is None:
        return {}
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise QuantshipError(f"{path} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise QuantshipError(f"{path} is no configuration of a model")
    return config


def quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """Its ``quantization_config``; empty for a float model."""
    found = config.get("quantization_config") or {}
    return dict(found)


def in_words(config: Mapping[str, Any]) -> str:
    """How a model was quantized: ``torchao: Int4WeightOnlyConfig, IntxWeightOnlyConfig``."""
    given = quantization(config)
    if not given:
        return "none"
    method = str(given.get("quant_method", "unknown method"))
    entries = _by_name(given)
    kinds = dict.fromkeys(one["_type"] for one in entries.values() if one)
    if not kinds:
        kinds = dict.fromkeys(_kinds(given))
    bits = given.get("bits")
    words = [*kinds, *([f"{bits} bits"] if bits else [])]
    return f"{method}: {', '.join(words)}" if words else method


def reason(layer: str, role: Role, config: Mapping[str, Any], *, quantized: bool) -> str:
    """Why a layer is in float, as far as the configuration tells.

    Args:
        layer: Name of its module.
        role: What it is for.
        config: Of the model.
        quantized: Whether any weight of the model is quantized.
    """
    if not quantized:
        return "nothing in this model is quantized"
    if role in SMALL:
        return SMALL[role]
    given = quantization(config)
    for pattern in given.get("modules_to_not_convert") or ():
        if pattern in layer:
            return f"quantization_config lists '{pattern}' in modules_to_not_convert"
    entries = _by_name(given)
    pattern = _matching(layer, entries)
    if pattern is not None and entries[pattern] is None:
        return f"quantization_config says none for '{pattern}'"
    at_ends = role in ("embedding", "head")
    if at_ends and given.get("include_input_output_embeddings") is False:
        return "quantization_config leaves embedding and head out"
    if entries and pattern is None:
        return "no entry of quantization_config fits its name"
    return "its exporter left it in float; the file does not say why"


def _by_name(given: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of torchao's FqnToConfig, by name or pattern; empty for other configurations."""
    try:
        found = given["quant_type"]["default"]["_data"]["fqn_to_config"]
    except (KeyError, TypeError):
        return {}
    return dict(found)


def _kinds(given: Mapping[str, Any]) -> list[str]:
    default = given.get("quant_type")
    if isinstance(default, dict):
        default = default.get("default", default)
    kind = default.get("_type") if isinstance(default, dict) else default
    return [str(kind)] if kind else []


def _matching(layer: str, entries: Mapping[str, Any]) -> str | None:
    if layer in entries:
        return layer
    for pattern in entries:
        if pattern.startswith("re:") and re.fullmatch(pattern.removeprefix("re:"), layer):
            return pattern
    return "_default" if "_default" in entries else None
