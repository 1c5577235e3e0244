from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from ruamel.yaml import YAML

from quantship.errors import UsageError
from quantship.quant.scheme import SCHEMES
from quantship.recipe import Recipe
from quantship.recipe.explain import explain, json_schema, schema_text
from quantship.recipe.keys import walk
from quantship.recipe.shipped import folder, names


def said(key: str | None) -> str:
    file = io.StringIO()
    Console(file=file, width=200).print(explain(key))
    return file.getvalue()


def test_the_whole_language_names_every_key_at_the_top() -> None:
    text = said(None)
    for key in [*Recipe.model_fields, "extends", "profiles"]:
        assert re.search(rf"^  {key}  ", text, re.MULTILINE), key


@pytest.mark.parametrize("key", list(walk(Recipe)))
def test_every_key_can_be_explained(key: str) -> None:
    assert key in said(key)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("steps.qat", ["Train under fake quantization", "learning_rate  number, above 0", "2e-05"]),
        ("steps.0.qat", ["Train under fake quantization"]),
        ("steps.qat.precision", ["auto | float32 | bfloat16  (default auto)"]),
        ("steps.qat.scheme", ["w8a16 | ", "default: the recipe's.", "groups of 128"]),
        (
            "schemes",
            ["names, each with a mapping", "base  w2a16-g32 | ", "from a row of the table"],
        ),
        ("schemes.any-name", ["embedding  mapping, or float  (default {bits: 8})"]),
        (
            "schemes.any-name.head",
            ["mapping | embedding, or float  (default embedding)", "bits  wh"],
        ),
        ("schemes.mine.overrides", ["layers  text  (required)", "so do their inputs."]),
        ("schemes.mine.activation.ranges", ["dynamic | static  (default dynamic)"]),
        (
            "steps.quantize",
            ["algorithm  awq | gptq | hqq | rtn | ", "(default rtn)", "Sweeps: where"],
        ),
        ("steps.finetune", ["Sweeps: where one value is expected, a list makes a step of each"]),
        ("steps", ["a list makes a step of each.", "makes `ptq-w8a8` and"]),
        (
            "steps.quantize.algorithm",
            [
                "awq | gptq | hqq | rtn | smoothquant, or mapping with kind  (default rtn)",
                "kind: gptq  GPTQ: rounds column by column",
                "More: quantship explain steps.quantize.algorithm.",
            ],
        ),
        ("steps.quantize.algorithm.gptq", ["GPTQ: rounds", "damping  number, above 0, below 1"]),
        ("steps.quantize.algorithm.gptq.act_order", ["true or false  (default true)"]),
        ("steps", ["stage: finetune  Train the float model.", "More: quantship explain steps."]),
        ("data.train.gsm8k", ["GSM8K", "limit  whole number, at least 1, or null"]),
        ("model.tiny", ["hidden_size  whole number, at least 1  (default 128)"]),
        ("model", ["exactly one of `path`, `hub`, `tiny` and `mlp`"]),
        ("name", ["default: the file's name"]),
        ("profiles", ["--profile NAME"]),
        ("extends", ["Mappings merge, lists are replaced whole."]),
    ],
)
def test_types_defaults_and_meanings_are_said(key: str, words: list[str]) -> None:
    for word in words:
        assert word in said(key)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("qat", "Did you mean steps.qat?"),
        ("learning_rate", "Did you mean steps.finetune.learning_rate or steps.qat.learning_rate?"),
        ("steps.qat.learning_rat", "Did you mean learning_rate? Keys of steps.qat: name, input"),
        (
            "steps.quat",
            "Did you mean qat or quantize? Keys of steps: finetune, qat, quantize, search, export.",
        ),
        ("schemes.mine.wieght", "Did you mean weight? Keys of schemes.NAME: base, weight"),
        ("schemes.", "Keys of schemes: NAME"),
        ("seed.more", "Keys of seed"),
        ("zzz", "Keys at the top: extends, profiles, name"),
        ("", "Keys at the top"),
        ("model.", "Keys of model: path"),
    ],
)
def test_an_unknown_key_names_close_ones(key: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        explain(key)
    assert hint in str(caught.value)


def test_the_schema_beside_the_recipes_is_up_to_date(repository: Path) -> None:
    committed = (repository / "recipes" / "schema.json").read_text()
    assert committed == schema_text(), "run: quantship schema > recipes/schema.json"


@pytest.mark.parametrize("name", names())
def test_every_shipped_recipe_names_the_schema_and_conforms(name: str) -> None:
    text = (folder() / f"{name}.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    assert faults(YAML(typ="safe", pure=True).load(text)) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"sed": 1}, "sed"),
        ({"seed": -1}, "seed"),
        ({"seed": "x"}, "seed"),
        ({"scheme": 8}, "scheme"),
        ({"schemes": {"mine": {"activation": "float"}}}, "schemes"),
        ({"schemes": {"mine": {"weight": {"bits": 9}}}}, "schemes"),
        ({"schemes": {"mine": {"weight": "float"}}}, "schemes"),
        ({"schemes": {"mine": {"base": "w8a9"}}}, "schemes"),
        ({"schemes": {"mine": {"base": "w8a8", "overrides": [{"weight": "float"}]}}}, "schemes"),
        ({"model": {"tiny": {"hiden_size": 3}}}, "model"),
        ({"model": 5}, "model"),
        ({"steps": []}, "steps"),
        ({"steps": [{"stage": "qta"}]}, "steps"),
        ({"steps": [{"stage": "qat", "epochs": 0}]}, "steps"),
        ({"steps": [{"stage": "qat", "epochs": [1]}]}, "steps"),
        ({"steps": [{"stage": "qat", "epochs": [1, 0]}]}, "steps"),
        ({"steps": [{"stage": ["qat", "finetune"]}]}, "steps"),
        ({"steps": [{"stage": "qat", "name": ["a", "b"]}]}, "steps"),
        ({"steps": [{"stage": "qat", "scheme": ["w8a8", ["w8a16"]]}]}, "steps"),
        ({"steps": [{"stage": "quantize", "algorithm": "gtpq"}]}, "steps"),
        ({"steps": [{"stage": "quantize", "algorithm": {"damping": 0.1}}]}, "steps"),
        ({"steps": [{"stage": "quantize", "algorithm": {"kind": "rtn", "damping": 0.1}}]}, "steps"),
        ({"data": {"eval": [{"adapter": "gsm8k", "limit": 0}]}}, "data"),
        ({"profiles": {"smoke": 5}}, "profiles"),
        ({"extends": 5}, "extends"),
    ],
)
def test_the_schema_refuses_what_check_refuses(change: dict[str, Any], fault: str) -> None:
    plain = {"model": "a/b", "data": {"eval": [{"adapter": "builtin"}]}, "steps": [QAT]}
    assert faults(plain) == []
    assert fault in str(faults(plain | change))


def test_the_schema_offers_the_table_and_takes_any_schemes_name() -> None:
    offered = json_schema()["properties"]["scheme"]["anyOf"][0]["anyOf"][0]["enum"]
    assert set(offered) == SCHEMES.keys()
    own = {
        "base": "w4a16-g32",
        "weight": {"group_size": 64},
        "activation": "float",
        "head": "float",
    }
    override = {"layers": "*.down_proj", "weight": "float", "activation": "float"}
    plain = {"model": "a/b", "data": {"eval": [{"adapter": "builtin"}]}, "steps": [QAT]}
    adapted = {**QAT, "lora": True, "distill": True}
    assert faults({**plain, "steps": [adapted]}) == []
    schemes = {"mine": {**own, "overrides": [override]}, "plain": {"weight": {"bits": 8}}}
    assert faults({**plain, "scheme": "mine", "schemes": schemes}) == []


@pytest.mark.parametrize(
    "step",
    [
        {"stage": "quantize", "algorithm": "gptq", "scheme": ["w8a8", "mine"]},
        {"stage": "quantize", "algorithm": {"kind": "gptq", "damping": [0.1, 0.2]}},
        {"stage": "quantize", "algorithm": ["rtn", {"kind": "awq", "clip": False}]},
        {"stage": "quantize", "calibration": {"seed": [None, 0, 1]}, "input": ["a", "b"]},
        {"stage": "qat", "lora": [True, {"rank": 8}], "distill": {"teacher": ["a", "b"]}},
        {"stage": "finetune", "learning_rate": [1e-5, 5e-5], "epochs": 2},
        {"stage": "export", "input": ["a", "b"], "lowering": ["nbits", "hybrid"]},
        {"stage": "search", "candidates": ["w8a8", "w4a8"], "target_bits": [5, 6]},
    ],
)
def test_the_schema_takes_words_and_sweeps(step: dict[str, Any]) -> None:
    assert (
        faults({"model": "a/b", "data": {"eval": [{"adapter": "builtin"}]}, "steps": [step]}) == []
    )


def test_the_schema_asks_for_what_a_recipe_needs() -> None:
    assert faults({"model": "a/b", "steps": [QAT]})
    assert (
        faults({"extends": "base.yaml", "steps.qat.max_steps": 5, "data": {"packing": True}}) == []
    )
    assert faults({"extends": "base.yaml", "steps": {"qat": {"max_steps": 5}}}) == []


QAT = {"stage": "qat", "scheme": "w8a8"}


def faults(value: Any) -> list[str]:
    schema = json.loads(json.dumps(json_schema()))
    return list(_faults(value, schema, schema["$defs"], "recipe"))


def _faults(value: Any, schema: dict[str, Any], definitions: dict[str, Any], at: str) -> list[str]:
    """What JSON Schema refuses, for the keywords that ours has; an unknown keyword fails."""
    unknown = schema.keys() - NOTES - NESTING - CHECKS.keys()
    assert not unknown, f"teach this test the keywords {unknown}"
    found = [
        f"{at}: {keyword} {schema[keyword]}"
        for keyword in schema.keys() & CHECKS.keys()
        if not CHECKS[keyword](value, schema[keyword])
    ]
    if "$ref" in schema:
        found += _faults(
            value, definitions[schema["$ref"].removeprefix("#/$defs/")], definitions, at
        )
    for keyword, most in (("anyOf", 99), ("oneOf", 1)):
        ways = [_faults(value, option, definitions, at) for option in schema.get(keyword, ())]
        if ways and not 1 <= ways.count([]) <= most:
            found.append(f"{at}: fits {ways.count([])} of {len(ways)}: {ways}")
    below = list(value.items()) if isinstance(value, dict) else []
    if isinstance(value, list) and "items" in schema:
        below = list(enumerate(value))
    for key, item in below:
        rule = schema["items"] if isinstance(value, list) else _rule_for(key, schema)
        if rule is False:
            found.append(f"{at}.{key}: not allowed")
        elif isinstance(rule, dict):
            found += _faults(item, rule, definitions, f"{at}.{key}")
    return found


def _rule_for(key: str, schema: dict[str, Any]) -> Any:
    patterns = schema.get("patternProperties", {})
    fitting = [rule for pattern, rule in patterns.items() if re.search(pattern, key)]
    fallback = fitting[0] if fitting else schema.get("additionalProperties", True)
    return schema.get("properties", {}).get(key, fallback)


NOTES = {"title", "description", "default", "discriminator", "$schema", "$defs", "format"}
NESTING = {
    "$ref",
    "anyOf",
    "oneOf",
    "items",
    "properties",
    "patternProperties",
    "additionalProperties",
}
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def _is_of_type(value: Any, names: str | list[str]) -> bool:
    return any(
        isinstance(value, TYPES[name]) and (isinstance(value, bool) == (name == "boolean"))
        for name in ([names] if isinstance(names, str) else names)
    )


def _is_number(value: Any) -> bool:
    return _is_of_type(value, "number")


CHECKS: dict[str, Any] = {
    "type": _is_of_type,
    "enum": lambda value, rule: value in rule,
    "const": lambda value, rule: value == rule,
    "required": lambda value, rule: not isinstance(value, dict) or set(rule) <= value.keys(),
    "minItems": lambda value, rule: not isinstance(value, list) or len(value) >= rule,
    "minimum": lambda value, rule: not _is_number(value) or value >= rule,
    "maximum": lambda value, rule: not _is_number(value) or value <= rule,
    "exclusiveMinimum": lambda value, rule: not _is_number(value) or value > rule,
    "exclusiveMaximum": lambda value, rule: not _is_number(value) or value < rule,
    "minLength": lambda value, rule: not isinstance(value, str) or len(value) >= rule,
    "maxLength": lambda value, rule: not isinstance(value, str) or len(value) <= rule,
    "pattern": lambda value, rule: not isinstance(value, str) or re.search(rule, value),
}
