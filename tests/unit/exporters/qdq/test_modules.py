"""Whole modules of standard operators: what runtimes elsewhere ask for, and what two compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

import quantship
from quantship.exporters.constants import constant
from quantship.quant.scheme import SCHEMES, ActivationFormat, Scheme, WeightFormat

STATIC = ActivationFormat(granularity="per_tensor", ranges="static", symmetric=True)
BLOCKS = Scheme(name="w4a16 in blocks of 64", weight=WeightFormat(bits=4, group_size=64))
SIGNED = Scheme(name="w8a8 static symmetric", weight=WeightFormat(bits=8), activation=STATIC)


class Classifier(nn.Module):
    """A residual feed-forward block and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(128)
        self.up, self.down = nn.Linear(128, 256), nn.Linear(256, 128)
        self.head = nn.Linear(128, 10)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden = features + self.down(nn.functional.gelu(self.up(self.norm(features))))
        logits: torch.Tensor = self.head(hidden.mean(dim=1))
        return logits


def features(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 6, 128, generator=torch.Generator().manual_seed(batch))


def exported(scheme: Scheme, target: Any, out: Path) -> tuple[nn.Module, onnx.ModelProto]:
    calibration = [features(2)] if scheme.is_static else None
    module = quantship.quantize(Classifier().eval(), scheme, calibration)
    facts = quantship.export(module, out, features(), lowering="qdq", target=target)
    assert facts["codes_equal"]
    assert facts["lowering"] == "qdq"
    return module, onnx.load(out / "model.onnx")


SOME = [SIGNED, *(SCHEMES[name] for name in ("w8a8", "w8a8-static", "w8a16", "w4a16-g32"))]
schemes = pytest.mark.parametrize("scheme", SOME, ids=lambda one: one.name)


@schemes
def test_modules_are_valid_models_of_standard_operators_alone(
    scheme: Scheme, tmp_path: Path
) -> None:
    _, model = exported(scheme, "portable", tmp_path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert [entry.version for entry in model.opset_import if not entry.domain] == [21]


@schemes
def test_runtimes_agree_with_torch(scheme: Scheme, tmp_path: Path) -> None:
    module, model = exported(scheme, "portable", tmp_path)
    x = features(3)
    with torch.inference_mode():
        expected = module(x).numpy()
    (plain,) = list(ReferenceEvaluator(model).run(None, {"features": x.numpy()}))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    fused = session.run(None, {"features": x.numpy()})
    size = np.abs(expected).max()
    # A number at the edge of two codes may be rounded either way, here and there.
    assert np.abs(plain - expected).max() / size < (5e-3 if scheme.activation else 1e-5)
    assert np.abs(fused[0] - expected).max() / size < 0.03


@pytest.mark.parametrize("scheme", [SIGNED, SCHEMES["w8a16"], BLOCKS], ids=lambda one: one.name)
def test_tensorrt_finds_what_it_asks_for(scheme: Scheme, tmp_path: Path) -> None:
    """Of its Quantize and Dequantize layers, in the C++ reference of TensorRT 10.

    Zero points are 0, scales are positive constants: one, a vector along the axis, or one a block
    of the last dimension or the last but one. Codes are INT8, or INT4 where they are constants.
    """
    exported(scheme, "cuda", tmp_path)
    graph = ir.load(tmp_path / "model.onnx").graph
    pairs = [node for node in graph if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) == 3 + 2 * 3 * (scheme.activation is not None)
    for node in pairs:
        scale = constant(node.inputs[1])
        assert scale is not None
        assert (scale > 0).all()
        zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        assert zero is None or (not zero.any() and zero.dtype == np.int8)
        weight = constant(node.inputs[0]) if node.op_type == "DequantizeLinear" else None
        if weight is None:
            assert scale.shape == ()
            continue
        assert weight.dtype in (np.int8, ir.DataType.INT4.numpy())
        if "block_size" in node.attributes:
            assert node.attributes["axis"].as_int() == weight.ndim - 2
            block = node.attributes["block_size"].as_int()
            assert scale.shape == (weight.shape[0] // block, weight.shape[1])
        else:
            assert scale.shape == (weight.shape[node.attributes["axis"].as_int()],)
