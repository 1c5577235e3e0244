"""What JSON Schema says of sweeps, and of words that stand for mappings."""

from __future__ import annotations

import json
import re
from typing import Any

Rule = dict[str, Any]
_NOTES = ("title", "description", "default")
_LONG = 100
"""Letters of a rule that gets a name of its own."""


def allow_sweeps(definitions: dict[str, Rule], step: Rule) -> None:
    """Let lists stand in steps where they sweep, in place; and words for algorithms.

    Args:
        definitions: Rules by their names.
        step: The rule of a step.
    """
    for name in _reached(definitions, step):
        rules = definitions[name].get("properties", {})
        for key, rule in rules.items():
            if "const" in rule:
                _require(definitions[name], key)  # the tag, which has a default only in Python
            elif key != "name" and "array" not in _types(rule):
                rules[key] = _or_many(_or_word(rule), f"One{key.title()}", definitions)


def _reached(definitions: dict[str, Rule], rule: Rule) -> list[str]:
    """Names of the definitions that a rule uses, and of those that they use."""
    found: list[str] = []
    waiting = [rule]
    while waiting:
        for name in re.findall(r'"#/\$defs/(\w+)"', json.dumps(waiting.pop())):
            if name not in found:
                found.append(name)
                waiting.append(definitions[name])
    return found


def _require(definition: Rule, key: str) -> None:
    required = definition.setdefault("required", [])
    if key not in required:
        required.append(key)


def _types(rule: Rule) -> list[str]:
    """The types that a value may have, as far as the rule itself says."""
    own = [rule["type"]] if isinstance(rule.get("type"), str) else []
    return own + [one for way in rule.get("anyOf", ()) for one in _types(way)]


def _or_word(rule: Rule) -> Rule:
    """The rule, or one of the words that tell its mappings apart, where they are called kinds."""
    mapping = rule.get("discriminator", {})
    if mapping.get("propertyName") != "kind":
        return rule
    inner, notes = _split(rule)
    return {"anyOf": [{"enum": list(mapping["mapping"])}, inner], **notes}


def _or_many(rule: Rule, name: str, definitions: dict[str, Rule]) -> Rule:
    inner, notes = _split(rule)
    if len(json.dumps(inner)) > _LONG and definitions.setdefault(name, inner) == inner:
        inner = {"$ref": f"#/$defs/{name}"}  # said once, and not twice in each step
    many = {"type": "array", "items": inner, "minItems": 2}
    return {"anyOf": [inner, many], **notes}


def _split(rule: Rule) -> tuple[Rule, Rule]:
    """A rule without what it says to people, and that."""
    notes = {name: rule[name] for name in _NOTES if name in rule}
    return {name: item for name, item in rule.items() if name not in notes}, notes
