"""What a recipe writes where a scheme is named, and where it makes one of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, field_validator, model_validator

from quantship.frozen import Frozen
from quantship.quant.scheme import (
    FLOAT,
    SCHEMES,
    ActivationFormat,
    Override,
    Scheme,
    WeightFormat,
)


def _in_the_table(name: str) -> str:
    if name not in SCHEMES:
        raise ValueError(f"no row '{name}' is in the table; there are {', '.join(sorted(SCHEMES))}")
    return name


SchemeName = Annotated[
    str,
    Field(json_schema_extra={"anyOf": [{"enum": sorted(SCHEMES)}, {"type": "string"}]}),
]
"""A row of the table or a scheme of the recipe's own: only the whole recipe shows which exist."""
RowName = Annotated[
    str, AfterValidator(_in_the_table), Field(json_schema_extra={"enum": sorted(SCHEMES)})
]


class OwnScheme(Frozen):
    """A quantization scheme of the recipe's own: from scratch, or from a row of the table.

    With ``base``, a mapping here changes the keys that it names and leaves the others as they are
    in that row; ``granularity`` and ``group_size`` change together.
    """

    base: RowName | None = None
    """Row of the table to start from, as ``w4a16-g32``; null: from nothing."""
    weight: WeightFormat
    """Format of the linear layers' weights; the one key that a scheme without ``base`` needs."""
    activation: ActivationFormat | None = None
    """Format of the linear layers' inputs; ``float``: they stay in float."""
    embedding: WeightFormat | None = WeightFormat(bits=8)
    """Format of the token embedding; ``float``: it stays in float."""
    head: WeightFormat | Literal["embedding"] | None = "embedding"
    """Format of the output head where it has a matrix of its own; ``embedding``: the same as the
    embedding; ``float``: it stays in float."""
    overrides: tuple[Override, ...] = ()
    """Other formats for some layers (mixed precision); they come after those of ``base``."""

    @model_validator(mode="before")
    @classmethod
    def _from_base(cls, value: object) -> object:
        if not isinstance(value, dict) or value.get("base") is None:
            return value
        base = value["base"]
        # Of an unknown base only that is told: any row stands in for it.
        row = SCHEMES.get(base) if isinstance(base, str) else None
        return _changed(row or next(iter(SCHEMES.values())), value)

    @field_validator("activation", "embedding", mode="before")
    @classmethod
    def _float_is_none(cls, value: object) -> object:
        return None if value == FLOAT else value

    @field_validator("head", mode="before")
    @classmethod
    def _format_or_word(cls, value: object) -> object:
        # Told apart here, so that what is wrong with a format is told once, at its own key.
        if value is None or value in (FLOAT, "embedding"):
            return None if value == FLOAT else value
        return WeightFormat.model_validate(value)

    def named(self, name: str) -> Scheme:
        """The scheme that this is, under its name.

        Raises:
            ValueError: No runtime serves its formats.
        """
        return Scheme(
            name=name,
            weight=self.weight,
            activation=self.activation,
            embedding=self.embedding,
            head=self.head,
            overrides=(*self.base_overrides, *self.overrides),
        )

    @property
    def base_overrides(self) -> tuple[Override, ...]:
        """The overrides that come from the row it starts from."""
        return SCHEMES[self.base].overrides if self.base is not None else ()


def _changed(row: Scheme, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A scheme's keys: the row's formats with changes laid over them."""
    keys = dict(changes)
    for name in ("weight", "activation", "embedding", "head"):
        standing = _keys(getattr(row, name))
        if name not in changes:
            keys[name] = standing
        elif isinstance(standing, dict) and isinstance(changes[name], dict):
            together = {"granularity", "group_size"}
            gone = together if together & changes[name].keys() else set()
            kept = {key: item for key, item in standing.items() if key not in gone}
            keys[name] = kept | changes[name]
    return keys


def _keys(format: BaseModel | str | None) -> dict[str, Any] | str | None:
    if isinstance(format, BaseModel):
        return format.model_dump(exclude_defaults=True)
    return format
