"""The model that a run started from, as far as its publication is concerned: its card, its terms.

A directory says no more of itself than is in its README.md. Nothing is guessed: what is not there
is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from quantship.recipe.model_options import Model

CARD = "README.md"
TEXTS = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "COPYING*")
"""Files with the terms of a model, which go along with everything made from it."""


@dataclass(frozen=True)
class Base:
    """Where a run's models come from.

    Args:
        kind: On the Hub, in a directory, or made by the recipe with random weights.
        name: Its Hub id; None: it has none that is known.
        revision: Its commit on the Hub; None: not known.
        card: The metadata of its model card; empty: it has none that can be read.
        texts: Its license and notices.
    """

    kind: Literal["hub", "directory", "made"]
    name: str | None = None
    revision: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    texts: tuple[Path, ...] = ()

    @property
    def title(self) -> str | None:
        """What to call it in a text."""
        return self.name

    @property
    def is_gated(self) -> bool:
        """Whether its card asks users to accept terms first."""
        return any(str(key).startswith("extra_gated") for key in self.card)

    def listed(self, key: str) -> list[str]:
        """A value of the card that may be one or many, as a list."""
        value = self.card.get(key)
        if value is None:
            return []
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def base_of(model: Model, directory: Path | None, named: str | None = None) -> Base:
    """What is known of the model that a recipe starts from.

    Args:
        model: As in the recipe.
        directory: Where its files are; of a Hub model, the snapshot of its commit.
        named: Hub id that the recipe gives a directory.
    """
    if model.tiny is not None or model.mlp is not None:
        return Base("made", named)
    card = {} if directory is None else _read_card(directory)
    texts = () if directory is None else _texts(directory)
    if model.hub is None:
        return Base("directory", named, None, card, texts)
    commit = directory.name if directory is not None else None
    return Base("hub", model.hub, commit, card, texts)


def _read_card(directory: Path) -> dict[str, Any]:
    """Metadata of README.md; empty where there is none, or none that is YAML."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError  # type: ignore[import-untyped]

    if not (directory / CARD).is_file():
        return {}
    try:
        found: dict[str, Any] | None = metadata_load(directory / CARD)
    except (YAMLError, ValueError):  # not YAML, no mapping, or not UTF-8
        return {}
    return found or {}


def _texts(directory: Path) -> tuple[Path, ...]:
    found = {file for pattern in TEXTS for file in directory.glob(pattern) if file.is_file()}
    return tuple(sorted(found))
