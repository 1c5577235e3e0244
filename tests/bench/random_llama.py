"""Llamas of any size with random weights, written without ever holding them in memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import torch

BYTES = 2
"""Of a bfloat16 number."""
ROWS = 4096
"""Rows of a matrix that are made at once."""


def write(out: Path, *, layers: int, hidden: int = 2048, seed: int = 0, **shape: int) -> int:
    """Write a model directory with random bfloat16 weights, tied, and return its weights' bytes.

    Args:
        out: Directory to make.
        layers: Transformer blocks.
        hidden: Hidden size.
        seed: Of the weights.
        shape: ``intermediate``, ``heads``, ``kv_heads`` and ``vocab``; default: those of
            Llama 3.2 1B, which has 16 layers.
    """
    sizes = {"intermediate": 8192, "heads": 32, "kv_heads": 8, "vocab": 128256} | shape
    out.mkdir(parents=True)
    shapes = dict(_shapes(layers, hidden, **sizes))
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, dims in shapes.items():
        size = torch.Size(dims).numel() * BYTES
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [end, end + size]}  # type: ignore[assignment,dict-item]
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = torch.Generator().manual_seed(seed)
    with (out / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for dims in shapes.values():
            for part in _parts(dims, hidden, generator):
                file.write(part.view(torch.uint8).numpy().data)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": sizes["intermediate"],
        "num_hidden_layers": layers,
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"],
        "head_dim": hidden // sizes["heads"],
        "vocab_size": sizes["vocab"],
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
        "dtype": "bfloat16",
        "hidden_act": "silu",
    }
    (out / "config.json").write_text(json.dumps(config, indent=2))
    return end


def _shapes(
    layers: int, hidden: int, *, intermediate: int, heads: int, kv_heads: int, vocab: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (vocab, hidden)
    narrow = hidden // heads * kv_heads
    for layer in range(layers):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", (hidden,)
        for name, rows in (("q", hidden), ("k", narrow), ("v", narrow), ("o", hidden)):
            yield f"{at}.self_attn.{name}_proj.weight", (rows, hidden)
        yield f"{at}.post_attention_layernorm.weight", (hidden,)
        yield f"{at}.mlp.gate_proj.weight", (intermediate, hidden)
        yield f"{at}.mlp.up_proj.weight", (intermediate, hidden)
        yield f"{at}.mlp.down_proj.weight", (hidden, intermediate)
    yield "model.norm.weight", (hidden,)


def _parts(
    dims: tuple[int, ...], hidden: int, generator: torch.Generator
) -> Iterator[torch.Tensor]:
    if len(dims) == 1:
        yield torch.ones(dims, dtype=torch.bfloat16)
        return
    rows, width = dims
    for start in range(0, rows, ROWS):
        size = (min(ROWS, rows - start), width)
        yield torch.randn(size, generator=generator).mul_(hidden**-0.5).bfloat16()
