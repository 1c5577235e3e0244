"""What a model reads and answers, told from its ``config.json``; nothing heavy is imported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from quantship.mlp import MODEL_TYPE

Kind = Literal["language", "samples", "texts"]
"""Predicts tokens of a text; tells the classes of samples; tells the classes of texts."""
_HEAD = "ForSequenceClassification"
"""What the names of transformers' classes for texts end in."""


def kind_of(config: Mapping[str, Any]) -> Kind:
    """What the model of a ``config.json`` reads and answers.

    Args:
        config: Content of the file.
    """
    if config.get("model_type") == MODEL_TYPE:
        return "samples"
    named = config.get("architectures")
    is_list = isinstance(named, list) and bool(named)
    return "texts" if is_list and str(named[0]).endswith(_HEAD) else "language"  # type: ignore[index]


def read_kind(path: Path) -> Kind:
    """What the model of a directory reads and answers."""
    return kind_of(json.loads((path / "config.json").read_bytes()))


def class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes of the model of a ``config.json`` in the order of its logits.

    Args:
        config: Content of the file; what it does not say is transformers' default, two classes.
            Those of samples have their numbers for names.
    """
    if kind_of(config) == "samples":
        return tuple(map(str, range(config["sizes"][-1])))
    named = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    return tuple(str(named[key]) for key in sorted(named, key=int))


def is_unnamed(names: Sequence[str]) -> bool:
    """Whether classes have no names but those that transformers makes up."""
    return all(name == f"LABEL_{index}" for index, name in enumerate(names))


def places(classes: Sequence[str], known: Sequence[str]) -> tuple[int, ...] | None:
    """Where each class of the data is among those that a model knows, or None: they are others.

    Names are compared whatever their case; a model whose classes have no names has the data's, in
    their order.
    """
    if len(classes) != len(known):
        return None
    if is_unnamed(known):
        return tuple(range(len(classes)))
    there = {name.casefold(): index for index, name in enumerate(known)}
    found = [there.get(name.casefold()) for name in classes]
    indices = tuple(index for index in found if index is not None)
    return indices if len(set(indices)) == len(classes) else None
