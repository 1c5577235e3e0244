from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from transformers import OPTConfig, OPTForCausalLM

from quantship.artifact import digest_file
from quantship.errors import QuantshipError
from quantship.exporters import codes
from quantship.exporters.decoder import MODEL_FILE, export
from quantship.exporters.hooks import HOOKED
from quantship.exporters.lowering import Lowering
from quantship.quant.checkpoint import load_codes

pytestmark = pytest.mark.usefixtures("one_thread")


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """The builder's methods are what they were."""
    from onnxruntime_genai.models.builders.base import Model

    methods = {name: getattr(Model, name) for name in HOOKED}
    yield
    assert {name: getattr(Model, name) for name in HOOKED} == methods


@pytest.mark.parametrize("lowering", ["nbits", "integer"])
def test_the_directory_holds_all_that_a_runtime_needs(
    checkpoint_dir: Path, tmp_path: Path, lowering: Lowering, capfd: pytest.CaptureFixture[str]
) -> None:
    with nothing_left_behind():
        facts = export(checkpoint_dir, lowering, "w8a8", tmp_path)
    assert capfd.readouterr().out == ""
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {MODEL_FILE, "model.onnx.data", "genai_config.json", "tokenizer.json"}
    assert (tmp_path / "export.log").read_text()
    config = json.loads((tmp_path / "genai_config.json").read_text())["model"]
    assert (config["type"], config["eos_token_id"], config["pad_token_id"]) == ("llama", 3, 0)
    assert facts["num_quantized"] == 15
    assert facts["architecture"] == "LlamaForCausalLM"
    assert facts["lowering"] == lowering
    json.dumps(facts)


def test_the_model_says_where_it_comes_from(checkpoint_dir: Path, tmp_path: Path) -> None:
    facts = export(checkpoint_dir, "integer", "w8a8", tmp_path)
    described = codes.metadata(ir.load(tmp_path / MODEL_FILE))
    assert described.pop("places").keys() == load_codes(checkpoint_dir).keys()
    assert described == {key: facts[key] for key in described}
    assert described["scheme"] == "w8a8"
    opsets = onnx.load(tmp_path / MODEL_FILE, load_external_data=False).opset_import
    assert facts["opset"] == next(entry.version for entry in opsets if not entry.domain)
    assert described["source_sha256"] == digest_file(checkpoint_dir / "model.safetensors")
    assert "zero point a token" in described["activation_arithmetic"]


def test_the_module_search_path_is_what_it_was(tiny_model_dir: Path, tmp_path: Path) -> None:
    program = (  # in a process that has not imported the builder yet
        "import sys; before = list(sys.path); from pathlib import Path; "
        "from quantship.exporters.decoder import export; "
        f"export(Path({str(tiny_model_dir)!r}), 'float', None, Path({str(tmp_path)!r})); "
        "sys.exit(before != sys.path)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_nbits_layers_ask_for_integer_arithmetic(checkpoint_dir: Path, tmp_path: Path) -> None:
    export(checkpoint_dir, "nbits", "w8a8", tmp_path)
    nodes = [node for node in ir.load(tmp_path / MODEL_FILE).graph if node.op_type == "MatMulNBits"]
    assert len(nodes) == 2 * 5 + 1  # query, key and value are one
    assert all(node.attributes["accuracy_level"].as_int() == 4 for node in nodes)


def test_exporting_twice_gives_the_same_bytes(checkpoint_dir: Path, tmp_path: Path) -> None:
    digests = []
    for name in ("first", "second"):
        out = tmp_path / name
        out.mkdir()
        export(checkpoint_dir, "nbits", "w8a8", out)
        digests.append([digest_file(out / file) for file in (MODEL_FILE, "model.onnx.data")])
    assert digests[0] == digests[1]


def test_the_source_is_left_as_it_was(checkpoint_dir: Path, tmp_path: Path) -> None:
    before = {path.name: digest_file(path) for path in checkpoint_dir.iterdir()}
    export(checkpoint_dir, "nbits", "w8a8", tmp_path)
    assert {path.name: digest_file(path) for path in checkpoint_dir.iterdir()} == before


def test_a_float_model_is_exported_without_codes(tiny_model_dir: Path, tmp_path: Path) -> None:
    with nothing_left_behind():
        facts = export(tiny_model_dir, "float", None, tmp_path)
    assert (facts["num_quantized"], facts["scheme"], facts["source_sha256"]) == (0, None, None)
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
        export(source, "float", None, out)
    assert "cannot export" in str(caught.value)
    assert not (out / MODEL_FILE).exists()


def test_heads_that_onnxruntime_cannot_run_are_refused(
    make_checkpoint: Any, tmp_path: Path
) -> None:
    source = make_checkpoint(hidden_size=96, intermediate_size=64, num_heads=4, num_kv_heads=2)
    with nothing_left_behind(), pytest.raises(QuantshipError, match="multiple of 16") as caught:
        export(source, "nbits", "w8a8", tmp_path)
    assert "have 24" in str(caught.value)


def test_metadata_of_models_from_elsewhere_is_empty() -> None:
    graph = onnx.helper.make_graph([], "g", [], [])
    assert codes.metadata(ir.from_proto(onnx.helper.make_model(graph))) == {}
