from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM, OPTConfig, OPTForCausalLM

import quantship
from quantship.artifact import digest_file
from quantship.errors import QuantshipError
from quantship.exporters import codes
from quantship.exporters.decoder import MODEL_FILE, export
from quantship.exporters.hooks import REPLACED
from quantship.exporters.lowering import Lowering
from quantship.models import load_float
from quantship.quant.checkpoint import load_codes
from quantship.quant.scheme import ActivationFormat, Override, Scheme, WeightFormat
from quantship.runtimes.base import open_runtime

pytestmark = pytest.mark.usefixtures("one_thread")


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """The builder's methods are what they were."""
    from onnxruntime_genai.models.builders.base import Model

    methods = {name: getattr(Model, name) for name in REPLACED}
    yield
    assert {name: getattr(Model, name) for name in REPLACED} == methods


@pytest.mark.parametrize("lowering", ["nbits", "integer"])
def test_the_directory_holds_all_that_a_runtime_needs(
    checkpoint_dir: Path, tmp_path: Path, lowering: Lowering, capfd: pytest.CaptureFixture[str]
) -> None:
    with nothing_left_behind():
        facts = export(checkpoint_dir, lowering, "w8a8", tmp_path, "x86")
    assert capfd.readouterr().out == ""
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {MODEL_FILE, "model.onnx_data", "genai_config.json", "tokenizer.json"}
    assert (tmp_path / "export.log").read_text()
    config = json.loads((tmp_path / "genai_config.json").read_text())["model"]
    assert (config["type"], config["eos_token_id"], config["pad_token_id"]) == ("llama", 3, 0)
    assert facts["num_quantized"] == 15
    assert facts["architecture"] == "LlamaForCausalLM"
    assert facts["lowering"] == lowering
    json.dumps(facts)


def test_the_model_says_where_it_comes_from(checkpoint_dir: Path, tmp_path: Path) -> None:
    facts = export(checkpoint_dir, "integer", "w8a8", tmp_path, "x86")
    described = codes.metadata(ir.load(tmp_path / MODEL_FILE))
    assert described.pop("places").keys() == load_codes(checkpoint_dir).keys()
    assert described == {key: facts[key] for key in described}
    assert described["scheme"] == "w8a8"
    assert described["quantship_version"] == quantship.__version__
    assert (described["lowering"], described["target"]) == ("integer", "x86")
    opsets = onnx.load(tmp_path / MODEL_FILE, load_external_data=False).opset_import
    assert facts["opset"] == next(entry.version for entry in opsets if not entry.domain)
    assert described["source_sha256"] == digest_file(checkpoint_dir / "model.safetensors")
    assert "zero point a token" in described["activation_arithmetic"]


def test_the_module_search_path_is_what_it_was(tiny_model_dir: Path, tmp_path: Path) -> None:
    program = (  # in a process that has not imported the builder yet
        "import sys; before = list(sys.path); from pathlib import Path; "
        "from quantship.exporters.decoder import export; "
        f"export(Path({str(tiny_model_dir)!r}), 'float', None, Path({str(tmp_path)!r}), 'x86'); "
        "sys.exit(before != sys.path)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_nbits_layers_ask_for_integer_arithmetic(checkpoint_dir: Path, tmp_path: Path) -> None:
    export(checkpoint_dir, "nbits", "w8a8", tmp_path, "x86")
    nodes = [node for node in ir.load(tmp_path / MODEL_FILE).graph if node.op_type == "MatMulNBits"]
    assert len(nodes) == 2 * 5 + 1  # query, key and value are one
    assert all(node.attributes["accuracy_level"].as_int() == 4 for node in nodes)


def test_exporting_twice_gives_the_same_bytes(checkpoint_dir: Path, tmp_path: Path) -> None:
    digests = []
    for name in ("first", "second"):
        out = tmp_path / name
        out.mkdir()
        export(checkpoint_dir, "nbits", "w8a8", out, "x86")
        digests.append([digest_file(out / file) for file in (MODEL_FILE, "model.onnx_data")])
    assert digests[0] == digests[1]


def test_the_source_is_left_as_it_was(checkpoint_dir: Path, tmp_path: Path) -> None:
    before = {path.name: digest_file(path) for path in checkpoint_dir.iterdir()}
    export(checkpoint_dir, "nbits", "w8a8", tmp_path, "x86")
    assert {path.name: digest_file(path) for path in checkpoint_dir.iterdir()} == before


def test_a_float_model_is_exported_without_codes(tiny_model_dir: Path, tmp_path: Path) -> None:
    with nothing_left_behind():
        facts = export(tiny_model_dir, "float", None, tmp_path, "x86")
    assert (facts["num_quantized"], facts["scheme"], facts["algorithm"]) == (0, None, None)
    assert facts["source_sha256"] == digest_file(tiny_model_dir / "model.safetensors")
    described = codes.metadata(ir.load(tmp_path / MODEL_FILE))
    assert described["places"] == {}
    assert described["activation_arithmetic"] == "float32"


def test_an_unknown_architecture_is_named(tmp_path: Path, tiny_tokenizer: Any) -> None:
    config = OPTConfig(
        vocab_size=288, hidden_size=32, ffn_dim=64, num_hidden_layers=1, num_attention_heads=2
    )
    source, out = tmp_path / "source", tmp_path / "out"
    out.mkdir()
    OPTForCausalLM(config).save_pretrained(source)
    tiny_tokenizer.save_pretrained(source)
    with nothing_left_behind(), pytest.raises(QuantshipError, match="OPTForCausalLM") as caught:
        export(source, "float", None, out, "x86")
    assert "cannot be exported" in str(caught.value)
    assert not (out / MODEL_FILE).exists()


def test_heads_that_onnxruntime_cannot_run_are_refused_before_anything_is_read(
    make_checkpoint: Any, tmp_path: Path
) -> None:
    source = make_checkpoint(hidden_size=80, intermediate_size=64, num_heads=4, num_kv_heads=2)
    (source / "model.safetensors").write_bytes(b"")
    with pytest.raises(QuantshipError, match="multiple of 8") as caught:
        export(source, "nbits", "w8a8", tmp_path, "x86")
    assert "have 20" in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("lowering", ["nbits", "integer", "float"])
def test_no_number_of_the_weights_is_in_the_graphs_own_file(
    checkpoint_dir: Path, tiny_model_dir: Path, tmp_path: Path, lowering: Lowering
) -> None:
    """Which ends at 2 GiB."""
    source = tiny_model_dir if lowering == "float" else checkpoint_dir
    export(source, lowering, None if lowering == "float" else "w8a8", tmp_path, "x86")
    proto = onnx.load(tmp_path / MODEL_FILE, load_external_data=False)
    inside = [tensor for tensor in proto.graph.initializer if not tensor.external_data]
    assert len(proto.graph.initializer) - len(inside) > 10
    assert all(tensor.ByteSize() < 1200 for tensor in inside)
    constants = [
        attr.t for node in proto.graph.node for attr in node.attribute if attr.name == "value"
    ]
    assert all(tensor.ByteSize() < 1200 for tensor in constants)


MIXED = Scheme(
    name="mixed",
    weight=WeightFormat(bits=8),
    activation=ActivationFormat(),
    embedding=None,
    overrides=(
        Override(layers="*.layers.0.self_attn.k_proj", weight=WeightFormat(bits=4, group_size=32)),
        Override(layers="*.layers.1.mlp.down_proj", weight=None),
        Override(
            layers="*.layers.1.mlp.up_proj",
            weight=WeightFormat(bits=8),
            activation=ActivationFormat(granularity="per_tensor"),
        ),
    ),
)


def test_layers_of_several_formats_are_each_what_they_are(
    make_checkpoint: Any, tmp_path: Path
) -> None:
    source = make_checkpoint(MIXED)
    facts = export(source, "integer", "mixed", tmp_path, "x86")
    assert facts["num_quantized"] == 13
    graph = ir.load(tmp_path / MODEL_FILE).graph
    named = {
        str(node.outputs[0].name).split("/output_0")[0].removeprefix("/model/layers."): node.op_type
        for node in graph
        if node.op_type in ("MatMul", "MatMulInteger", "MatMulNBits")
    }
    attention = {"0/attn/qkv_proj/MatMul", "1/attn/qkv_proj/MatMul"}
    assert attention & named.keys() == {"1/attn/qkv_proj/MatMul"}  # layer 0 has two formats
    assert named["0/attn/q_proj/MatMul"] == named["1/attn/qkv_proj/MatMul"] == "MatMulInteger"
    assert named["0/attn/k_proj/MatMul"] == "MatMulNBits"
    assert named["1/mlp/down_proj/MatMul"] == "MatMul"
    # The attention of layer 1 is not fed with the keys of layer 0.
    fused = [node for node in graph if node.op_type == "GroupQueryAttention"]
    assert [bool(node.inputs[1] and node.inputs[1].name) for node in fused] == [True, False]
    arithmetic = facts["activation_arithmetic"]
    assert isinstance(arithmetic, str)
    majority, tensor, block = sorted(arithmetic.split("; "), key=arithmetic.index)
    assert "a token, as in training (11 of 13 layers)" in majority
    assert {"(1 of 13 layers)" in part for part in (tensor, block)} == {True}
    assert "a tensor" in tensor + block
    assert "block of input features" in tensor + block


def test_a_static_range_is_never_dropped(make_checkpoint: Any, tmp_path: Path) -> None:
    static = ActivationFormat(granularity="per_tensor", ranges="static")
    source = make_checkpoint(Scheme(name="s", weight=WeightFormat(bits=8), activation=static))
    with nothing_left_behind(), pytest.raises(QuantshipError, match="static input range"):
        export(source, "nbits", "s", tmp_path, "x86")


def test_a_model_stored_in_few_bits_is_computed_in_float32(
    tiny_tokenizer: Any, tmp_path: Path
) -> None:
    """Gemma adds 1 to the weights of its norms: in bfloat16, that would round them."""
    config = GemmaConfig(
        vocab_size=288,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = GemmaForCausalLM(config)
    torch.nn.init.normal_(model.model.norm.weight, std=0.01)
    source, out = tmp_path / "source", tmp_path / "out"
    model.bfloat16().save_pretrained(source)
    tiny_tokenizer.save_pretrained(source)
    out.mkdir()
    export(source, "float", None, out, "x86")
    tokens = np.random.default_rng(0).integers(4, 260, (2, 16))
    ours = open_runtime(out).logits(tokens, np.ones_like(tokens))
    with torch.inference_mode():
        theirs = load_float(source)(torch.from_numpy(tokens)).logits.numpy()
    assert np.abs(ours - theirs).max() < 2e-5 * theirs.std()


def test_metadata_of_models_from_elsewhere_is_empty() -> None:
    graph = onnx.helper.make_graph([], "g", [], [])
    assert codes.metadata(ir.from_proto(onnx.helper.make_model(graph))) == {}
