from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir import tape

from quantship.models import weight_bytes
from quantship.runtimes import weights
from quantship.tiny import build_tokenizer, vocab_size

FLOAT_BYTES = 4
WIDTH, HEADS, KV_HEADS, INNER, LAYERS = 128, 4, 2, 256, 2
EMBEDDING = vocab_size() * WIDTH
BLOCKS = LAYERS * (WIDTH * (2 * WIDTH + 2 * WIDTH * KV_HEADS // HEADS + 3 * INNER + 2)) + WIDTH


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    path = tmp_path_factory.mktemp("checkpoint")
    tokenizer = build_tokenizer(128)
    config = LlamaConfig(
        vocab_size=vocab_size(),
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=128,
        tie_word_embeddings=request.param,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_a_checkpoint_reads_its_head_and_not_its_table(checkpoint: Path) -> None:
    assert weights.bytes_per_token(checkpoint) == FLOAT_BYTES * (BLOCKS + EMBEDDING)


def test_a_graph_reads_what_its_checkpoint_does(checkpoint: Path, tmp_path: Path) -> None:
    from quantship.exporters import decoder

    decoder.export(checkpoint, "float", None, tmp_path, "x86")
    found = weights.bytes_per_token(tmp_path)
    assert found is not None
    assert 0 <= found - FLOAT_BYTES * (BLOCKS + EMBEDDING) < 1000  # small constants
    assert found < weight_bytes(tmp_path)


def test_positions_are_a_table(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2, n_positions=128)
    model = GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path)
    numbers = sum(one.numel() for one in model.parameters()) - 128 * 32
    assert weights.bytes_per_token(tmp_path) == FLOAT_BYTES * numbers


def test_a_classifier_reads_all_it_has(tmp_path: Path) -> None:
    from quantship.mlp.model import Mlp, MlpConfig

    model = Mlp(MlpConfig(sizes=[8, 16, 4]))
    model.save_pretrained(tmp_path)
    numbers = sum(one.numel() for one in model.parameters())
    assert weights.bytes_per_token(tmp_path) == FLOAT_BYTES * numbers


def save(path: Path, *, shared: bool, through: str | None) -> dict[str, int]:
    """A graph of a table, looked up through another operator or not, and a matrix."""
    table = ir.Tensor(np.zeros((50, 8), np.float32), name="table")
    matrix = ir.Tensor(np.zeros((8, 50), np.float32), name="matrix")
    drawing = tape.Tape()
    looked_up = drawing.initializer(table)
    product = looked_up if shared else drawing.initializer(matrix)
    ids = ir.Value(name="ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["n"]))
    rows = drawing.op(through, [looked_up]) if through else looked_up
    hidden = drawing.op("Gather", [rows, ids])
    if shared:
        product = drawing.op("Transpose", [product], {"perm": [1, 0]})
    output = drawing.op("MatMul", [hidden, product])
    output.name = "logits"
    graph = ir.Graph(
        [ids],
        [output],
        nodes=drawing.nodes,
        initializers=drawing.initializers,
        name="g",
        opset_imports={"": 21},
    )
    ir.save(ir.Model(graph, ir_version=10), path / "model.onnx")
    return {"table": table.nbytes, "matrix": matrix.nbytes}


@pytest.mark.parametrize("through", [None, "Identity"])
def test_a_table_that_is_looked_up_only_is_not_read(tmp_path: Path, through: str | None) -> None:
    sizes = save(tmp_path, shared=False, through=through)
    assert weights.bytes_per_token(tmp_path) == sizes["matrix"]


def test_a_table_that_is_multiplied_too_is_read_once(tmp_path: Path) -> None:
    sizes = save(tmp_path, shared=True, through=None)
    assert weights.bytes_per_token(tmp_path) == sizes["table"]


def test_of_a_directory_without_a_model_nothing_is_known(tmp_path: Path) -> None:
    assert weights.bytes_per_token(tmp_path) is None
