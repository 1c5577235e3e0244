"""What may stand at each key of a recipe, read from the language's own classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from quantship.quant.scheme import FLOAT, ActivationFormat, WeightFormat

_WORDS = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    Path: "path",
    dict: "mapping",
    NoneType: "null",
}
NAME = "NAME"
"""Stands for a name that the recipe's author chooses."""
_BOUNDS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))


def _word_as_kind(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


WORD = BeforeValidator(_word_as_kind)
"""Lets a word stand for the mapping of that ``kind``, where the mappings are told apart by it."""


def annotated(field: FieldInfo) -> Any:
    """A field's type with everything said about it, as the other functions here take it."""
    return Annotated.__class_getitem__((field.annotation, field))  # type: ignore[attr-defined]


def models(annotation: Any) -> dict[str, type[BaseModel]]:
    """The mappings that may stand here, by the tag that tells them apart; '' for a lone one."""
    discriminator = _discriminator(annotation)
    found = [leaf for leaf in _leaves(annotation) if _is_model(leaf)]
    if discriminator is None:
        return {"": found[0]} if found else {}
    return {
        tag: model
        for model in found
        for tag in get_args(model.model_fields[discriminator].annotation)
    }


def discriminator(annotation: Any) -> str | None:
    """The key whose value tells the mappings that may stand here apart."""
    return _discriminator(annotation)


def takes_words(annotation: Any) -> bool:
    """Whether a tag alone may stand here for the mapping that it tells apart."""
    notes = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return WORD in notes or any(WORD in info.metadata for info in _field_infos(annotation))


def named(annotation: Any) -> Any | None:
    """What stands under each name of a mapping with free names; None where none may stand."""
    for leaf in _leaves(annotation):
        if get_origin(leaf) is dict:
            return get_args(leaf)[1]
    return None


def free_keys(model: type[BaseModel]) -> Any | None:
    """What stands under keys that a mapping takes beside its own; None where it takes none."""
    hints = get_type_hints(model) if model.model_config.get("extra") == "allow" else {}
    return named(hints.get("__pydantic_extra__"))


def held(annotation: Any) -> Any:
    """What the items of a list, or the names of a mapping, hold here; else what stands here."""
    inner = element(annotation)
    inner = named(annotation) if inner is None else inner
    return annotation if inner is None else inner


def element(annotation: Any) -> Any | None:
    """What the items of a list here are; None where no list may stand."""
    for leaf in _leaves(annotation):
        if get_origin(leaf) in (tuple, list):
            return get_args(leaf)[0]
    return None


def choices(annotation: Any) -> list[str]:
    """The values allowed here, where they can be listed."""
    found: list[str] = []
    for leaf in _leaves(annotation):
        if get_origin(leaf) is Literal:
            found += [str(value) for value in get_args(leaf)]
    for info in _field_infos(annotation):
        if isinstance(info.json_schema_extra, dict):
            extra = info.json_schema_extra
            for rule in (extra, *_listed(extra.get("anyOf"))):
                assert isinstance(rule, dict)
                found += [str(value) for value in _listed(rule.get("enum"))]
    return [*found, *(models(annotation) if takes_words(annotation) else ())]


def describe(field: FieldInfo) -> str:
    """What may stand at a field, in a few words: ``whole number, at least 1, or null``."""
    return _words(annotated(field))


def default(field: FieldInfo) -> str | None:
    """A field's default as YAML would write it; None where it has to be given."""
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True)
    if value is None and _is_format(field.annotation):
        return FLOAT
    if isinstance(value, BaseModel):
        changed = value.model_dump(mode="json", exclude_defaults=True)
        if takes_words(annotated(field)):
            return _as_yaml(changed) if changed else str(value.model_dump()["kind"])
        return _as_yaml(changed) if changed else "its defaults"
    return _as_yaml(value)


def _as_yaml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_as_yaml(item)}' for key, item in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return str(value) if value != "" else "''"


def walk(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key below a mapping, dotted.

    A list's items are called by their tags, and what stands under a free name by ``NAME``.
    """
    for name, field in model.model_fields.items():
        path = prefix + name
        yield path
        annotation = annotated(field)
        if named(annotation) is not None:
            path = f"{path}.{NAME}"
            yield path
        for tag, below in models(held(annotation)).items():
            if tag:
                yield f"{path}.{tag}"
            yield from walk(below, f"{path}.{tag}." if tag else f"{path}.")


def generic(key: str, model: type[BaseModel]) -> str:
    """A dotted key with its free names replaced by ``NAME``, as ``walk`` calls it."""
    for path in walk(model):
        if path.endswith(f".{NAME}"):
            above = path.removesuffix(NAME)
            name, dot, rest = key.removeprefix(above).partition(".")
            if key.startswith(above) and name:
                return f"{path}{dot}{rest}"
    return key


def suggest(word: str, known: Iterable[str]) -> str:
    """A question that names the closest known words, or nothing when none is close."""
    close = get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(close)}? " if close else ""


def _words(annotation: Any) -> str:
    infos = list(_field_infos(annotation))
    listed = choices(annotation)
    nothing = FLOAT if _is_format(annotation) else "null"
    nullable = f", or {nothing}" if NoneType in _leaves(annotation) else ""
    tag = _discriminator(annotation)
    if takes_words(annotation):
        return f"{' | '.join(listed)}, or mapping with {tag}" + nullable
    limits = [
        f"{text} {getattr(constraint, bound)}"
        for info in infos
        for constraint in info.metadata
        for bound, text in _BOUNDS
        if getattr(constraint, bound, None) is not None
    ]
    if listed:
        mapping = ["mapping"] if models(annotation) else []
        numbers = [_WORDS[leaf] for leaf in _leaves(annotation) if leaf in (int, float)]
        number = f"{', '.join([*numbers, *limits])}, or " if numbers else ""
        return number + " | ".join([*mapping, *listed]) + nullable
    if tag is not None:
        return f"mapping with {tag}: {' | '.join(models(annotation))}" + nullable
    inner = element(annotation)
    if inner is not None:
        return f"list of: {_words(inner)}" + nullable
    if named(annotation) is not None:
        return f"names, each with a {_words(named(annotation))}" + nullable
    if models(annotation):
        return "mapping" + nullable
    kinds = [_WORDS.get(get_origin(leaf) or leaf) for leaf in _leaves(annotation)]
    words = " or ".join(dict.fromkeys(kind for kind in kinds if kind and kind != "null"))
    return ", ".join([words, *limits]) + nullable


def _leaves(annotation: Any) -> list[Any]:
    """The alternatives of a union, with the annotations around them taken off."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _leaves(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [leaf for part in get_args(annotation) for leaf in _leaves(part)]
    return [annotation]


def _field_infos(annotation: Any) -> Iterator[FieldInfo]:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *notes = get_args(annotation)
        yield from (note for note in notes if isinstance(note, FieldInfo))
        yield from _field_infos(inner)
    elif origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from _field_infos(part)


def _discriminator(annotation: Any) -> str | None:
    for info in _field_infos(annotation):
        if isinstance(info.discriminator, str):
            return info.discriminator
    return None


def _is_format(annotation: Any) -> bool:
    """Whether a format of numbers stands here, so that nothing means that they stay in float."""
    return any(leaf in (WeightFormat, ActivationFormat) for leaf in _leaves(annotation))


def _is_model(leaf: Any) -> bool:
    return isinstance(leaf, type) and issubclass(leaf, BaseModel)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []
