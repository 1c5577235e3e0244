"""Statistics of inputs as a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from quantship.quant.statistics import FeatureStatistics, InputStatistics

FILE = "statistics.safetensors"
"""What the file is called in an artifact."""
_SEPARATOR = "|"
"""Between the name of a layer and the name of what it holds."""
_EXTREMES = ("lowest", "highest", "average_lowest", "average_highest")


def save(layers: Mapping[str, InputStatistics], path: Path) -> None:
    """Write statistics as safetensors."""
    from safetensors.torch import save_file

    tensors = {}
    for name, seen in layers.items():
        for key, tensor in _parts(seen).items():
            tensors[f"{name}{_SEPARATOR}{key}"] = tensor.detach().cpu().clone().contiguous()
    save_file(tensors, path)


def load(path: Path) -> dict[str, InputStatistics]:
    """Read statistics that ``save`` has written, equal to the bit."""
    from safetensors.torch import load_file

    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(path).items():
        name, _, part = key.rpartition(_SEPARATOR)
        parts.setdefault(name, {})[part] = tensor
    return {name: _from_parts(found) for name, found in parts.items()}


def _parts(seen: InputStatistics) -> dict[str, Tensor]:
    found = {"shape": torch.tensor([seen.num_tokens, seen.num_dims])}
    for field in _EXTREMES:
        tensor = getattr(seen, field)
        assert tensor is not None
        found[field] = tensor
    if seen.features is not None:
        found |= {field.name: getattr(seen.features, field.name) for field in fields(seen.features)}
    if seen.histogram is not None:
        found["counts"] = seen.histogram.counts
    return found


def _from_parts(parts: dict[str, Tensor]) -> InputStatistics:
    seen = InputStatistics(of_features="total_I" in parts)
    seen.num_tokens, seen.num_dims = (int(number) for number in parts["shape"])
    for field in _EXTREMES:
        setattr(seen, field, parts[field])
    if seen.of_features:
        seen.features = FeatureStatistics(
            **{field.name: parts[field.name] for field in fields(FeatureStatistics)}
        )
    if "counts" in parts:
        seen.empty_histogram().counts.copy_(parts["counts"])
    return seen
