"""Widths that no power of two divides: padded in the file, exact in what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from quantship.exporters import codes
from quantship.exporters.decoder import MODEL_FILE, export
from quantship.exporters.lowering import Lowering
from quantship.quant.checkpoint import load_codes
from quantship.quant.convert import convert
from quantship.quant.modules import prepare_qat
from quantship.quant.scheme import SCHEMES, ActivationFormat, Scheme, WeightFormat
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
W8A8 = SCHEMES["w8a8"]
W4A8 = Scheme(name="w4a8 by rows", weight=WeightFormat(bits=4), activation=ActivationFormat())
ASYMMETRIC = W4A8.model_copy(
    update={"name": "asymmetric", "weight": WeightFormat(bits=4, symmetric=False)}
)
schemes = pytest.mark.parametrize("scheme", [W8A8, W4A8, ASYMMETRIC], ids=lambda one: one.name)


def logits(path: Path) -> Logits:
    tokens = np.random.default_rng(0).integers(4, 260, (2, 32))
    return open_runtime(path).logits(tokens, np.ones_like(tokens))


@pytest.mark.parametrize("lowering", ["nbits", "integer", "qdq"])
@schemes
@pytest.mark.parametrize("dimensions", DIMENSIONS.values(), ids=DIMENSIONS)
def test_odd_widths_keep_codes_and_logits(
    make_checkpoint: Any, dimensions: Any, scheme: Scheme, lowering: Lowering, tmp_path: Path
) -> None:
    source = make_checkpoint(scheme, **dimensions)
    export(source, lowering, scheme.name, tmp_path, "x86")
    compared = codes.compare(tmp_path, source)
    assert compared.equal
    assert compared.tensors_compared == 15 + (not dimensions.get("tied", True))
    ours, theirs = logits(tmp_path), logits(source)
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < 0.03 * theirs.std()


@schemes
def test_padding_is_whole_blocks_of_zeros(
    make_checkpoint: Any, scheme: Scheme, tmp_path: Path
) -> None:
    source = make_checkpoint(scheme, **DIMENSIONS["feed-forward 99"])
    export(source, "nbits", scheme.name, tmp_path, "x86")
    model = ir.load(tmp_path / MODEL_FILE)
    place = codes.metadata(model)["places"]["model.layers.0.mlp.down_proj"]
    assert place["in_features"] == 99
    value = model.graph.initializers[place["codes"]].const_value
    assert value is not None
    packed = value.numpy()
    bits = scheme.weight.bits
    assert packed.shape == (48, 7, 16 * bits // 8)  # 7 blocks of 16 hold 99 features
    codes_OI = packed.reshape(48, -1)
    if bits == 4:
        codes_OI = np.stack((codes_OI & 15, codes_OI >> 4), axis=-1).reshape(48, -1)
    zero_OG = load_codes(source)["model.layers.0.mlp.down_proj"].codes.zero_OG
    zero_O1 = np.zeros((48, 1), np.int8) if zero_OG is None else zero_OG.numpy()
    assert (codes_OI[:, 99:] == zero_O1.astype(int) + (1 << (bits - 1))).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_padded_embedding_is_looked_up_without_its_padding(
    tiny_tokenizer: Any, bits: int, symmetric: bool, tmp_path: Path
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
    embedding = WeightFormat(bits=bits, symmetric=symmetric)
    scheme = Scheme(name="s", weight=WeightFormat(bits=8), embedding=embedding)
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    torch.manual_seed(0)
    convert(prepare_qat(LlamaForCausalLM(config), scheme), source)
    tiny_tokenizer.save_pretrained(source)
    export(source, "nbits", "s", out, "x86")
    assert codes.compare(out, source).equal
    operators = [node.op_type for node in ir.load(out / MODEL_FILE).graph]
    assert operators.index("Slice") > operators.index("GatherBlockQuantized")
    ours, theirs = logits(out), logits(source)
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < 0.03 * theirs.std()
