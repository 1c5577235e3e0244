"""Decoders with a KV cache: what to trace them with, and the names that runtimes know."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quantship.errors import QuantshipError
from quantship.exporters.examples import (
    BATCH,
    EXAMPLE_BATCH,
    EXAMPLE_SEQUENCE,
    SEQUENCE,
    Example,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PAST, TOTAL = "past_sequence_length", "total_sequence_length"
LEAF = re.compile(r"(input|output)\.past_key_values\.layers\.(\d+)\.(key|value)s")
"""What transformers' exporter calls a layer's keys or values."""
GENAI_TYPE = "decoder"
"""onnxruntime-genai's word for decoders that it knows nothing else of."""
UNBOUNDED = 1 << 15
"""Tokens of context to name for a model that has no positions to run out of."""
NUM_PAST = 4
"""Tokens in the cache while tracing; unlike any other size there."""


def has_cache(model: PreTrainedModel) -> bool:
    """Whether a model generates text from a cache of keys and values."""
    arguments = inspect.signature(model.forward).parameters
    return model.can_generate() and "past_key_values" in arguments


def for_decoder(model: PreTrainedModel) -> Example:
    """Inputs of a decoder in the middle of a text.

    Raises:
        QuantshipError: The model keeps something other than keys and values.
    """
    from transformers import DynamicCache

    ids = torch.zeros(EXAMPLE_BATCH, NUM_PAST, dtype=torch.int64)
    with torch.no_grad():
        cache: Any = model(input_ids=ids, use_cache=True).past_key_values
    shapes = [getattr(layer, "keys", None) for layer in getattr(cache, "layers", [])]
    if not isinstance(cache, DynamicCache) or any(
        keys is None or keys.dim() != 4 or keys.shape[2] != NUM_PAST for keys in shapes
    ):
        raise QuantshipError(
            f"a {type(model).__name__} keeps more between tokens than keys and values, and "
            "quantship exports no such cache"
        )
    total = NUM_PAST + EXAMPLE_SEQUENCE
    shape = (EXAMPLE_BATCH, EXAMPLE_SEQUENCE)
    inputs: dict[str, Any] = {
        "input_ids": torch.zeros(shape, dtype=torch.int64),
        "attention_mask": torch.ones(EXAMPLE_BATCH, total, dtype=torch.int64),
    }
    axes = {"input_ids": {0: BATCH, 1: SEQUENCE}, "attention_mask": {0: BATCH, 1: TOTAL}}
    if "position_ids" in inspect.signature(model.forward).parameters:
        inputs["position_ids"] = torch.arange(NUM_PAST, total).expand(shape).contiguous()
        axes["position_ids"] = {0: BATCH, 1: SEQUENCE}
    inputs |= {"past_key_values": cache, "use_cache": True}
    axes["past_key_values"] = {0: BATCH, 2: PAST}
    return Example(inputs, axes)


def runtime_name(name: str) -> str:
    """What onnxruntime-genai calls an input or output of the graph."""
    found = LEAF.fullmatch(name)
    if found is None:
        return name
    side, layer, kind = found.groups()
    return f"{'past_key_values' if side == 'input' else 'present'}.{layer}.{kind}"


def write_genai_config(model: PreTrainedModel, inputs: list[str], out: Path) -> None:
    """Say to onnxruntime-genai what the graph takes and gives.

    Args:
        model: The decoder.
        inputs: Names of the graph's inputs.
        out: Directory of the model.
    """
    config = model.config
    length = getattr(config, "max_position_embeddings", None) or UNBOUNDED
    keys: Any = (
        model(input_ids=torch.zeros(1, 1, dtype=torch.int64), use_cache=True)
        .past_key_values.layers[0]
        .keys
    )
    _, num_heads, _, head_size = keys.shape
    given = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    if "position_ids" in inputs:
        given["position_ids"] = "position_ids"
    generation = model.generation_config
    stop = generation.eos_token_id
    first_stop = stop[0] if isinstance(stop, list) and stop else stop
    filler = generation.pad_token_id
    described = {
        "model": {
            "bos_token_id": generation.bos_token_id if generation.bos_token_id is not None else 0,
            "context_length": length,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": "model.onnx",
                "head_size": head_size,
                "hidden_size": config.hidden_size,
                "inputs": {
                    **given,
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
                "num_attention_heads": config.num_attention_heads,
                "num_hidden_layers": config.num_hidden_layers,
                "num_key_value_heads": num_heads,
            },
            "eos_token_id": stop if stop is not None else 0,
            "pad_token_id": next((one for one in (filler, first_stop) if one is not None), 0),
            "type": GENAI_TYPE,
            "vocab_size": config.vocab_size,
        },
        "search": {
            "do_sample": False,
            "max_length": length,
            "min_length": 0,
            "num_beams": 1,
            "past_present_share_buffer": False,
        },
    }
    (out / "genai_config.json").write_text(json.dumps(described, indent=4) + "\n")
