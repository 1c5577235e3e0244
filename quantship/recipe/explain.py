"""The recipe language as text for people and as JSON Schema for editors."""

from __future__ import annotations

import json
from inspect import cleandoc
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from quantship.errors import UsageError
from quantship.quant.scheme import FLOAT, SCHEMES
from quantship.recipe.keys import (
    NAME,
    annotated,
    choices,
    default,
    describe,
    discriminator,
    element,
    generic,
    held,
    models,
    named,
    suggest,
    walk,
)
from quantship.recipe.language import Recipe, Step
from quantship.recipe.scheme_words import scheme_table
from quantship.recipe.sweep_schema import allow_sweeps

FILE_KEYS = {
    "extends": (
        "text, or null",
        "Recipe file whose keys this one changes; a path from this file's folder. Mappings merge, "
        "lists are replaced whole. A dotted key reaches inside: `steps.qat.max_steps: 50`, with an "
        "item of a list called by its name, stage, adapter or index.",
    ),
    "profiles": (
        "mapping, or null",
        "Named sets of changes, each chosen with --profile NAME. Each is written as a file that "
        "extends this one would be: `smoke: {steps.qat.max_steps: 5, data.max_length: 128}`.",
    ),
}
"""Keys of a recipe file that are used up before the recipe is made: type and meaning."""
SWEEPS = """\
Sweeps: where one value is expected, a list makes a step of each of its values, and several lists
make all combinations. ``scheme: [w8a8, w4a16-g32]`` in a step called ``ptq`` makes ``ptq-w8a8`` and
``ptq-w4a16-g32``; a later step that names ``ptq`` means both."""


def explain(key: str | None) -> RenderableType:
    """What a key means, what may stand there, and what stands below it.

    Args:
        key: Dotted, with the items of a list called by their tag: ``steps.qat.learning_rate``,
            ``data.train.gsm8k``. None explains the whole language.

    Raises:
        UsageError: There is no such key; names the closest ones.
    """
    if key is None:
        return Group(_model(Recipe, "", "recipe"), *map(_file_key, FILE_KEYS), _outlook())
    if key in FILE_KEYS:
        return _file_key(key)
    here, field = _find(key)
    if isinstance(here, type):
        stood = _model(here, f"{key}.", key)
        return Group(stood, *_indented(f"\n{SWEEPS}")) if issubclass(here, Step) else stood
    assert field is not None
    lines = [_entry(key, field), *_below(key, here)]
    if key.endswith(("scheme", "schemes")):
        lines += [Text(), scheme_table(SCHEMES.values())]
    if key == "steps":
        lines += _indented(f"\n{SWEEPS}")
    return Group(*lines)


def _find(key: str) -> tuple[Any, FieldInfo | None]:
    """What may stand at a key, a mapping as its class, and its field or the one around it."""
    here: Any = Recipe
    field: FieldInfo | None = None
    for part in key.split("."):
        inner = element(here)
        if inner is not None and part.isdigit():
            here = inner
            continue
        if named(here) is not None and part:
            here = named(here)
            continue
        known = models(held(here))
        if "" in known and part in known[""].model_fields:
            field = known[""].model_fields[part]
            here = annotated(field)
        elif part and part in known:
            here = known[part]
        else:
            raise _unknown(key)
    return here, field


def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe file, ``extends`` and ``profiles`` included.

    A file that extends another may leave out what the other gives, and reach into its lists with
    mappings and dotted keys, so the schema asks less of it than ``check`` does.
    """
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    shorthand = {"type": "string", "description": "Local directory, or Hub id."}
    definitions = schema["$defs"]
    allow_sweeps(definitions, schema["properties"]["steps"]["items"])
    definitions["Model"] = {"anyOf": [shorthand, definitions["Model"]]}
    taught = {"type": "string", "description": "Name of a step, local directory, or Hub id."}
    definitions["Teacher"] = {"anyOf": [taught, definitions["Teacher"]]}
    switch = {"type": "boolean", "description": "With its defaults, or not at all."}
    for kind in ("Distillation", "Lora"):
        definitions[kind] = {"anyOf": [switch, definitions[kind]]}
    definitions["Data"].pop("required", None)
    _loosen_schemes(definitions)
    one_input = definitions["ExportStep"]["properties"]["input"]
    one_input["anyOf"] = [{"type": "string"}, *one_input["anyOf"]]
    keys = schema["properties"]
    keys["steps"]["anyOf"] = [
        {name: keys["steps"].pop(name) for name in ("type", "items", "minItems")},
        {"type": "object"},
    ]
    change = {"type": ["object", "null"], "additionalProperties": {"type": "object"}}
    keys["extends"] = {"type": ["string", "null"], "description": FILE_KEYS["extends"][1]}
    keys["profiles"] = {**change, "description": FILE_KEYS["profiles"][1]}
    required = [key for key in schema.pop("required") if key != "name"]
    schema["anyOf"] = [{"required": required}, {"required": ["extends"]}]
    schema["patternProperties"] = {f"^({'|'.join(Recipe.model_fields)}|profiles)\\.": {}}
    return schema


def _loosen_schemes(definitions: dict[str, Any]) -> None:
    """Let ``float`` stand for a format, and leave to a scheme's base what is not given."""
    for kind in ("OwnScheme", "Override"):
        for option in definitions[kind]["properties"].values():
            ways = option.get("anyOf", [])
            if {"type": "null"} in ways and "Format" in str(ways):
                ways.append({"const": FLOAT})
    definitions["OwnScheme"].pop("required")
    definitions["OwnScheme"]["anyOf"] = [{"required": ["weight"]}, {"required": ["base"]}]
    definitions["WeightFormat"].pop("required")


def schema_text() -> str:
    """The JSON Schema as it lies beside the shipped recipes."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _model(model: type[BaseModel], prefix: str, title: str) -> RenderableType:
    # The key that tells a mapping's kind comes first, as people write it.
    keys = sorted(model.model_fields.items(), key=lambda item: not _is_tag(item[1]))
    entries = [_entry(f"{prefix}{name}", field, name) for name, field in keys]
    return Group(Text(title, style="bold"), *_indented(_docstring(model)), *entries)


def _is_tag(field: FieldInfo) -> bool:
    return field.is_required() and len(choices(field.annotation)) == 1


def _below(key: str, annotation: Any) -> list[RenderableType]:
    """What stands below a field: the keys of its mapping, or the kinds that its items may be."""
    below = held(annotation)
    path = f"{key}.{NAME}." if named(annotation) is not None else f"{key}."
    tag = discriminator(below)
    lines: list[RenderableType] = []
    for name, model in models(below).items():
        if tag is None:
            lines.append(_model(model, path, ""))
        else:
            first_line = _docstring(model).partition("\n")[0].replace("``", "`")
            head = Text.assemble((f"{tag}: {name}", "cyan"), f"  {first_line}")
            lines.append(_shifted(head, 6))
    if tag is not None:
        lines.append(Text(f"\nMore: quantship explain {key}.{next(iter(models(below)))}", "dim"))
    return lines


def _entry(path: str, field: FieldInfo, name: str | None = None) -> RenderableType:
    standing = default(field)
    note = "required" if standing is None else f"default {standing}"
    if path == "name":  # of the recipe: the one default that the loader fills in
        note = "default: the file's name"
    head = Text.assemble(
        (name or path, "bold cyan"), f"  {describe(field)}", (f"  ({note})", "dim")
    )
    return Group(_shifted(head, 2), *_indented(cleandoc(field.description or "").rstrip()))


def _file_key(key: str) -> RenderableType:
    kind, meaning = FILE_KEYS[key]
    head = Text.assemble((key, "bold cyan"), f"  {kind}", ("  (default null)", "dim"))
    return Group(_shifted(head, 2), *_indented(meaning))


def _indented(text: str) -> list[RenderableType]:
    """A docstring as a paragraph; nothing for an empty one."""
    return [_shifted(Text(text.replace("``", "`")), 6)] if text else []


def _shifted(text: Text, columns: int) -> RenderableType:
    return Padding(text, (0, 0, 0, columns), expand=False)


def _outlook() -> RenderableType:
    return Text("\nMore: quantship explain steps, data.train, steps.qat.learning_rate …", "dim")


def _docstring(model: type[BaseModel]) -> str:
    return cleandoc(model.__doc__ or "")


def _unknown(key: str) -> UsageError:
    known = [*FILE_KEYS, *walk(Recipe)]
    parent, _, last = generic(key, Recipe).rpartition(".")
    while parent and parent not in known:
        parent, _, last = parent.rpartition(".")
    below = f"{parent}." if parent else ""
    siblings = [
        path.removeprefix(below)
        for path in known
        if path.startswith(below) and "." not in path.removeprefix(below)
    ]
    homes = [path for path in known if path.endswith(f".{key}")]
    hint = suggest(last, siblings) or (f"Did you mean {' or '.join(homes[:4])}? " if homes else "")
    keys = f"Keys {f'of {parent}' if parent else 'at the top'}: {', '.join(siblings)}."
    return UsageError(f"the recipe language has no key '{key}'.\n    {hint}{keys}")
