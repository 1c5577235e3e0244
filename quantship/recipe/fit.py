"""Whether schemes, adapters and exports fit the model, seen on the model built without weights.

The libraries are imported, which takes seconds, only where something could fail to fit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from quantship.exporters import architectures
from quantship.mlp import MODEL_TYPE
from quantship.quant.scheme import Override, Scheme, WeightFormat
from quantship.recipe import schemes, search_fit
from quantship.recipe.findings import Finding
from quantship.recipe.language import (
    ExportStep,
    MlpModel,
    QatStep,
    QuantizeStep,
    Recipe,
    TinyModel,
)
from quantship.recipe.rounding_options import Lora
from quantship.recipe.yaml_source import Key
from quantship.runtimes.kinds import kind_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def find_problems(recipe: Recipe, directory: Path | None = None) -> Iterator[Finding]:
    """Groups, overrides, embeddings, adapters and exports that do not fit the recipe's model.

    Args:
        recipe: With the names, inputs and schemes of its steps filled in.
        directory: Where the model lies, for one from the Hub; without it such a model passes.
    """
    used = _used(recipe)
    made, path = recipe.model.tiny or recipe.model.mlp, directory or recipe.model.path
    yield from _undrawable(recipe, path)
    stray = list(_no_encoder(recipe, path))
    if stray:
        yield from stray
        return
    searching = search_fit.searches(recipe)
    if not (used or searching) or (made is None and path is None):
        return
    adapted = list(_adapted(recipe, {name: scheme for name, (scheme, _) in used.items()}))
    plain = all(lora == Lora(rank=lora.rank, alpha=lora.alpha) for _, lora, _ in adapted)
    fits = plain and all(_surely_fits(one, made) for one, _ in used.values() if made is not None)
    if made is not None and fits and not searching:
        return
    told = recipe.model.head is not None
    try:
        content = b"" if path is None else (path / "config.json").read_bytes()
        model = _skeleton(made, path, content, told)
    except Exception as error:  # noqa: BLE001 - whatever a library makes of a foreign config
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        message = f"transformers cannot build the model of {path}/config.json: {first_line}"
        remedy = "Give a causal language model that transformers knows."
        if told:
            remedy = "Give an encoder that transformers knows with a head for sequences, as BERT."
        yield Finding(("model",) if path is None else ("model", "path"), message, remedy)
        return
    yield from search_fit.find_problems(model, recipe)
    misfit: set[str] = set()
    for scheme, key in used.values():
        found = list(_misfits(model, scheme, key, recipe))
        misfit |= {scheme.name} if found else set()
        yield from found
    for index, lora, scheme in adapted:
        if scheme.name not in misfit:  # which layers it quantizes would be a guess
            yield from _stray_adapters(model, scheme, lora, ("steps", index, "lora"))


def _undrawable(recipe: Recipe, path: Path | None) -> Iterator[Finding]:
    """What of the model its exporter would overlook; models that another exporter takes pass."""
    config: object = {}
    if recipe.model.tiny is not None:
        tiny = recipe.model.tiny
        heads = {"hidden_size": tiny.hidden_size, "num_attention_heads": tiny.num_heads}
        config = {"model_type": "llama", **heads}
    elif path is not None:
        try:
            config = json.loads((path / "config.json").read_bytes())
        except (OSError, ValueError):
            return  # whoever builds the model will say more
    if not isinstance(config, dict) or not architectures.knows(config):
        return
    reason = architectures.reject(config)
    for index, step in enumerate(recipe.steps):
        if reason is not None and isinstance(step, ExportStep) and step.format == "onnx":
            remedy = "Export another model, or leave the step out."
            yield Finding(("steps", index), reason, remedy)


def _no_encoder(recipe: Recipe, path: Path | None) -> Iterator[Finding]:
    """Models that are to tell the classes of texts and read them from left to right, as GPT does.

    Those would take the last token's answer, and a decoder's way through the exporters.
    """
    try:
        config = {} if path is None else json.loads((path / "config.json").read_bytes())
    except (OSError, ValueError):
        return  # whoever builds the model will say more
    if not isinstance(config, dict) or "model_type" not in config:
        return
    if recipe.model.head is None and kind_of(config) != "texts":
        return
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES as FILLING,
    )
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as TELLING,
    )

    kind = config["model_type"]
    if kind in FILLING and kind in TELLING and not config.get("is_encoder_decoder"):
        return
    message = f"a {kind} is no encoder with a head for sequences, as BERT is"
    remedy = "Give an encoder; classes by a language model are measured by the task choices."
    key = "hub" if recipe.model.path is None else "path"
    yield Finding(("model", key), message, remedy)


def _used(recipe: Recipe) -> dict[str, tuple[Scheme, Key]]:
    """The schemes of the recipe's steps, each with the key to blame."""
    table = schemes.table(recipe)
    found: dict[str, tuple[Scheme, Key]] = {}
    for index, step in enumerate(recipe.steps):
        if isinstance(step, QatStep | QuantizeStep) and step.scheme in table:
            name = str(step.scheme)
            key: Key = ("scheme",) if name == recipe.scheme else ("steps", index, "scheme")
            if name in recipe.schemes:
                key = ("schemes", name)
            found.setdefault(name, (table[name], key))
    return found


def _adapted(recipe: Recipe, used: Mapping[str, Scheme]) -> Iterator[tuple[int, Lora, Scheme]]:
    """The steps that train adapters."""
    for index, step in enumerate(recipe.steps):
        if isinstance(step, QatStep) and step.lora is not None and step.scheme in used:
            yield index, step.lora, used[str(step.scheme)]


def _surely_fits(scheme: Scheme, made: TinyModel | MlpModel) -> bool:
    """Whether arithmetic alone shows that a scheme fits a model that is yet to be made."""
    formats = (scheme.weight, scheme.embedding, scheme.head_format)
    groups = [format.group_size for format in formats if format is not None and format.group_size]
    if isinstance(made, MlpModel):
        widths = made.sizes[:-1]
    else:
        widths = (made.hidden_size, made.intermediate_size)
    return not scheme.overrides and not any(width % group for width in widths for group in groups)


@lru_cache(maxsize=2)
def _skeleton(
    made: TinyModel | MlpModel | None, path: Path | None, content: bytes, has_head: bool
) -> PreTrainedModel:
    """The model without its weights; ``content``, of config.json, tells a changed one apart."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    with torch.device("meta"):
        if isinstance(made, TinyModel):
            from quantship.tiny import build_model, build_tokenizer

            return build_model(made, build_tokenizer(made.max_positions), seed=0)
        stored = json.loads(content) if made is None else {}
        if made is not None or stored.get("model_type") == MODEL_TYPE:
            from quantship.mlp.model import build_model as build_classifier

            return build_classifier(made.sizes if made else stored["sizes"], seed=0)
        assert path is not None
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        tells_classes = has_head or kind_of(stored) == "texts"
        auto = AutoModelForSequenceClassification if tells_classes else AutoModelForCausalLM
        model: PreTrainedModel = auto.from_config(config)  # type: ignore[no-untyped-call]
        return model


def _misfits(model: PreTrainedModel, scheme: Scheme, key: Key, recipe: Recipe) -> Iterator[Finding]:
    from quantship.quant.layers import formats

    matching: list[Override] = []
    for index, override in enumerate(scheme.overrides):
        message = _matches_nothing(model, scheme, override)
        if message is None:
            matching.append(override)
        else:
            remedy = "A pattern is compared with whole names: `*` stands for any text, dots too."
            yield Finding(_override_key(key, index, recipe), message, remedy)
    try:
        formats(model, scheme.model_copy(update={"overrides": tuple(matching)}))
    except ValueError as error:
        yield _finding(key, error)


def _stray_adapters(
    model: PreTrainedModel, scheme: Scheme, lora: Lora, key: Key
) -> Iterator[Finding]:
    """Adapters that no layer can have, and bases that cannot be kept in 4 bits."""
    from quantship.quant.layers import ends, formats, is_linear, matrix
    from quantship.quant.nf4 import BLOCK
    from quantship.quant.targets import match_targets

    layers = dict(model.named_modules())
    linear = [name for name in formats(model, scheme) if is_linear(layers[name])]
    _, head = ends(model)
    head_name = next((name for name in linear if layers[name] is head), None)
    for index, target in enumerate(lora.targets):
        try:
            matched = match_targets(linear, head_name, [target])
        except ValueError as error:
            yield _finding((*key, "targets", index), error)
            continue
        for name in matched if lora.base != "float32" else ():
            size = matrix(layers[name]).numel()
            if size % BLOCK:
                message = (
                    f"the {size} weights of layer '{name}' cannot be cut into blocks of {BLOCK}"
                )
                remedy = "Keep the base in float32, or leave the layer out of the targets."
                yield Finding((*key, "base"), message, remedy)
                return


def _matches_nothing(model: PreTrainedModel, scheme: Scheme, override: Override) -> str | None:
    """Why an override does nothing; None where it matches a layer."""
    from quantship.quant.layers import formats

    # Any layer can take this scheme, so only the pattern can be wrong.
    anything = Scheme(
        name=scheme.name,
        weight=WeightFormat(bits=8),
        embedding=None,
        overrides=(override.model_copy(update={"weight": None, "activation": None}),),
    )
    try:
        formats(model, anything)
    except ValueError as error:
        return str(error).partition("; ")[0]
    return None


def _override_key(key: Key, index: int, recipe: Recipe) -> Key:
    own = recipe.schemes.get(str(key[-1])) if key[:1] == ("schemes",) else None
    if own is None:
        return key
    written = index - len(own.base_overrides)
    return (*key, "base") if written < 0 else (*key, "overrides", written)


def _finding(key: Key, error: ValueError) -> Finding:
    """What a layer complains of, which is one sentence: what is wrong; what to do."""
    message, _, remedy = str(error).partition("; ")
    return Finding(key, message, f"{remedy[:1].upper()}{remedy[1:]}.")
