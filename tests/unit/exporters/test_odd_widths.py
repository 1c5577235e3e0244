"""Widths that no power of two divides: padded in the file, exact in what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from quantship.algorithms import rtn
from quantship.exporters import codes
from quantship.exporters.decoder import MODEL_FILE, export
from quantship.exporters.lowering import Lowering
from quantship.quant.convert import convert
from quantship.quant.scheme import Scheme, WeightFormat
from quantship.runtimes.base import Logits, open_runtime

pytestmark = pytest.mark.usefixtures("one_thread")

DIMENSIONS = {
    "hidden 80": {"hidden_size": 80, "num_heads": 5, "num_kv_heads": 1, "intermediate_size": 200},
    "feed-forward 99": {
        "hidden_size": 48,
        "num_heads": 3,
        "num_kv_heads": 3,
        "intermediate_size": 99,
    },
    "feed-forward 8": {
        "hidden_size": 32,
        "num_heads": 2,
        "num_kv_heads": 1,
        "intermediate_size": 8,
        "tied": False,
    },
}


def logits(path: Path) -> Logits:
    tokens = np.random.default_rng(0).integers(4, 260, (2, 32))
    return open_runtime(path).logits(tokens, np.ones_like(tokens))


@pytest.mark.parametrize("lowering", ["nbits", "integer"])
@pytest.mark.parametrize("scheme", ["w8a8", "w4a8"])
@pytest.mark.parametrize("dimensions", DIMENSIONS.values(), ids=DIMENSIONS)
def test_odd_widths_keep_codes_and_logits(
    make_checkpoint: Any, dimensions: Any, scheme: str, lowering: Lowering, tmp_path: Path
) -> None:
    source = make_checkpoint(scheme, **dimensions)
    export(source, lowering, scheme, tmp_path)
    compared = codes.compare(tmp_path, source)
    assert compared.equal
    assert compared.tensors_compared == 15 + (not dimensions.get("tied", True))
    ours, theirs = logits(tmp_path), logits(source)
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < 0.03 * theirs.std()


@pytest.mark.parametrize(("scheme", "zero"), [("w8a8", 128), ("w4a8", 0x88)])
def test_padding_is_whole_blocks_of_zeros(
    make_checkpoint: Any, scheme: str, zero: int, tmp_path: Path
) -> None:
    dimensions = DIMENSIONS["feed-forward 99"]
    export(make_checkpoint(scheme, **dimensions), "nbits", scheme, tmp_path)
    model = ir.load(tmp_path / MODEL_FILE)
    place = codes.metadata(model)["places"]["model.layers.0.mlp.down_proj"]
    assert place["in_features"] == 99
    value = model.graph.initializers[place["codes"]].const_value
    assert value is not None
    packed = value.numpy()
    bits = 8 if scheme == "w8a8" else 4
    assert packed.shape == (48, 7, 16 * bits // 8)  # 7 blocks of 16 hold 99 features
    rows = packed.reshape(48, -1)
    first_whole = -(-99 * bits // 8)  # the byte after the one that code 98 may share
    assert (rows[:, first_whole:] == zero).all()
    if bits == 4:
        assert (rows[:, first_whole - 1] >> 4 == 8).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_a_padded_embedding_is_looked_up_without_its_padding(
    tiny_tokenizer: Any, bits: int, tmp_path: Path
) -> None:
    config = LlamaConfig(
        vocab_size=288,
        hidden_size=40,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        tie_word_embeddings=True,
    )
    scheme = Scheme(name="s", weight=WeightFormat(bits=8), embedding=WeightFormat(bits=bits))
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    torch.manual_seed(0)
    convert(LlamaForCausalLM(config), scheme, rtn.quantize, source)
    tiny_tokenizer.save_pretrained(source)
    export(source, "nbits", "s", out)
    assert codes.compare(out, source).equal
    operators = [node.op_type for node in ir.load(out / MODEL_FILE).graph]
    assert operators.index("Slice") > operators.index("GatherBlockQuantized")
    ours, theirs = logits(out), logits(source)
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < 0.03 * theirs.std()
