from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import quantship
from quantship.errors import ParityError, QuantshipError
from quantship.exporters import codes
from quantship.runtimes.ort_module import OrtModule


class Pictures(nn.Module):
    """Convolutions of every kind of padding, between them a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, (3, 2), stride=(2, 1), groups=2, padding=1, dilation=(1, 2))
        self.third = nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect")
        self.out = nn.LazyLinear(10)

    def forward(self, images: Tensor, brightness: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.norm(self.first(images * brightness)))
        hidden = torch.relu(self.third(torch.relu(self.second(hidden))))
        return {"classes": self.out(hidden.flatten(1)), "map": hidden}


def close(ours: np.ndarray, theirs: Tensor, allowed: float = 1e-5) -> bool:
    expected = theirs.detach().numpy()
    return bool(np.linalg.norm(ours - expected) <= allowed * np.linalg.norm(expected))


def test_convolutions_are_exact_and_take_any_batch(tmp_path: Path) -> None:
    module = Pictures().eval()
    given = (torch.randn(4, 3, 8, 8), torch.rand(4, 1, 1, 1))
    module(*given)
    quantized = quantship.quantize(module, "w8a8-static", [given])
    facts = quantship.export(quantized, tmp_path, given, target="x86")
    assert (facts["codes_equal"], facts["tensors_compared"], facts["lowering"]) == (
        True,
        4,
        "integer",
    )
    runtime = OrtModule(tmp_path)
    assert runtime.inputs == ("images", "brightness")
    for batch in (1, 4, 9):
        inputs = (torch.randn(batch, 3, 8, 8), torch.rand(batch, 1, 1, 1))
        expected = quantized(*inputs)
        found = runtime(*(one.numpy() for one in inputs))
        assert found.keys() == {"classes", "map"}
        assert all(close(found[name], expected[name]) for name in found)
    operators = {node.op_type for node in ir.load(tmp_path / "model.onnx").graph}
    assert "ConvInteger" in operators
    assert not operators & {"Conv", "MatMul", "Gemm"}


def test_a_layer_used_twice_lies_in_the_file_once(reader: nn.Module, tmp_path: Path) -> None:
    ids = torch.randint(40, (3, 7))
    quantized = quantship.quantize(reader, "w8a8")
    quantship.export(quantized, tmp_path, ids, lowering="integer", axes={"ids": {0: "b", 1: "s"}})
    graph = ir.load(tmp_path / "model.onnx").graph
    assert [name for name in graph.initializers if name.endswith(".codes")] == [
        "/words.codes",
        "/inner.codes",
        "/out.codes",
    ]
    shapes = {str(one.name): [str(size) for size in one.shape or ()] for one in graph.inputs}
    assert shapes == {"ids": ["b", "s"]}
    other = torch.randint(40, (1, 12))
    (found,) = OrtModule(tmp_path)(other.numpy()).values()
    assert close(found, quantized(other), 2e-3)


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4)])
def test_ids_of_any_shape_are_looked_up(shape: tuple[int, ...], tmp_path: Path) -> None:
    module = nn.Sequential(nn.Embedding(30, 32), nn.ReLU())
    quantized = quantship.quantize(module, "w8a16")
    for lowering in ("nbits", "qdq"):
        out = tmp_path / lowering
        quantship.export(quantized, out, torch.zeros(shape, dtype=torch.int64), lowering=lowering)  # type: ignore[arg-type]
        ids = torch.randint(30, (shape[0] + 1, *shape[1:]))
        (found,) = OrtModule(out)(ids.numpy()).values()
        assert np.array_equal(found, quantized(ids).numpy())


def test_a_fake_quantized_module_is_exported_as_what_it_converts_to(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 4)).bfloat16()
    fake = quantship.prepare_qat(module, "w8a8-symmetric")
    facts = quantship.export(fake, tmp_path, torch.zeros(1, 32), scheme="mine", lowering="integer")
    noted = codes.metadata(ir.load(tmp_path / "model.onnx"))
    assert noted["scheme"] == facts["scheme"] == "mine"
    assert noted["quantship_version"] == quantship.__version__
    assert noted["places"].keys() == {"0", "2"}
    assert facts["opset"] == 21
    rows = torch.randn(5, 32)
    expected = quantship.convert(quantship.prepare_qat(module.float(), "w8a8-symmetric"))(rows)
    (found,) = OrtModule(tmp_path)(rows.numpy()).values()
    assert close(found, expected, 0.02)  # scales were found in bfloat16


def test_a_float_module_is_exported_as_it_is(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 4)).eval()
    facts = quantship.export(module, tmp_path, torch.zeros(2, 32))
    assert (facts["lowering"], facts["num_quantized"], facts["scheme"]) == ("float", 0, None)
    rows = torch.randn(5, 32)
    (found,) = OrtModule(tmp_path)(rows.numpy()).values()
    assert close(found, module(rows))


def test_a_module_is_left_as_it_was(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 4))
    quantized = quantship.quantize(module, "w8a16")
    before = {name: id(one) for name, one in quantized.named_parameters()}
    kinds = [type(one) for one in quantized.modules()]
    quantship.export(quantized, tmp_path, torch.zeros(2, 32))
    assert {name: id(one) for name, one in quantized.named_parameters()} == before
    assert [type(one) for one in quantized.modules()] == kinds


def test_a_directory_of_an_encoder_becomes_one_that_clients_read(tmp_path: Path) -> None:
    from transformers import AutoConfig, BertConfig, BertForMaskedLM

    from quantship.quant.convert import convert
    from quantship.quant.modules import prepare_qat
    from quantship.quant.scheme import SCHEMES

    config = BertConfig(
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=96,
        vocab_size=200,
        max_position_embeddings=32,
    )
    source, out = tmp_path / "checkpoint", tmp_path / "onnx"
    source.mkdir()
    convert(prepare_qat(BertForMaskedLM(config).eval(), SCHEMES["w8a8"]), source)  # type: ignore[arg-type]
    facts = quantship.export(source, out, lowering="integer", scheme="w8a8")
    assert (facts["task"], facts["codes_equal"], facts["scheme"]) == ("fill-mask", True, "w8a8")
    assert len(facts["source_sha256"]) == 64
    assert codes.compare(out, source).equal
    told = json.loads((out / "config.json").read_text())
    assert "quantization_config" not in told
    assert AutoConfig.from_pretrained(out).model_type == "bert"

    model: Any = quantship.load(source)
    ids = torch.randint(200, (2, 9))
    found = OrtModule(out)(ids.numpy(), np.ones((2, 9), np.int64), np.zeros((2, 9), np.int64))
    assert close(found["logits"], model(input_ids=ids).logits, 0.02)
    # The head is the embedding: one set of codes, two readers.
    graph = ir.load(out / "model.onnx").graph
    tied = [name for name in graph.initializers if "word_embeddings" in name and "codes" in name]
    assert len(tied) == 1
    operators = {node.op_type for node, _ in graph.initializers[tied[0]].uses()}
    assert operators == {"Reshape", "MatMulNBits"}


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(32, 32)
        self.unused = nn.Linear(32, 32)

    def forward(self, rows: Tensor) -> Tensor:
        return self.inner(rows) if rows.sum() > 0 else rows


class Hoarder(Branching):
    def forward(self, rows: Tensor) -> Tensor:
        hidden: Tensor = self.inner(rows)
        return hidden


def test_what_cannot_be_exported_is_refused_with_the_reason(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    rows = torch.ones(2, 32)
    with pytest.raises(QuantshipError, match=r"cannot trace a Branching: .*export\.log has more"):
        quantship.export(Branching(), tmp_path, rows)
    with pytest.raises(QuantshipError, match=r"do not reach the layers unused"):
        quantship.export(quantship.quantize(Hoarder(), "w8a16"), tmp_path, rows)
    with pytest.raises(QuantshipError, match=r"do not fit the module: too many positional"):
        quantship.export(Hoarder(), tmp_path, (rows, rows))
    with pytest.raises(QuantshipError, match=r"no input 'row'; the inputs are rows"):
        quantship.export(Hoarder(), tmp_path, rows, axes={"row": {0: "batch"}})
    with pytest.raises(QuantshipError, match=r"'rows' is a list"):
        quantship.export(Hoarder(), tmp_path, {"rows": [1]})
    with pytest.raises(ValueError, match=r"give example_inputs"):
        quantship.export(Hoarder(), tmp_path)
    with pytest.raises(ValueError, match=r"no integers for the lowering 'nbits'"):
        quantship.export(Hoarder(), tmp_path, rows, lowering="nbits")
    small = T5Config(d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2, vocab_size=50)
    with pytest.raises(QuantshipError, match=r"has an encoder and a decoder"):
        quantship.export(T5ForConditionalGeneration(small), tmp_path)


def test_a_file_that_does_not_hold_the_codes_is_no_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantship.exporters import integer

    store = integer.store

    def careless(graph: Any, parts: Any, name: str) -> Any:
        changed = parts[0].codes.codes_OI.clone()
        changed[0, 0] ^= 1
        codes_with_an_error = parts[0].codes._replace(codes_OI=changed)
        from dataclasses import replace

        return store(graph, [replace(parts[0], codes=codes_with_an_error)], name)

    monkeypatch.setattr(integer, "store", careless)
    quantized = quantship.quantize(nn.Sequential(nn.Linear(32, 16)), "w8a8")
    with pytest.raises(ParityError, match=r"1 of 1 matrices are not the module's"):
        quantship.export(quantized, tmp_path, torch.zeros(2, 32), lowering="integer")
