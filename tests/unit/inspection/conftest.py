from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantship.quant.scheme import SCHEMES

MakeOnnx = Callable[..., Path]
MakeCheckpoint = Callable[[str], Path]


@pytest.fixture
def make_onnx(tmp_path: Path) -> MakeOnnx:
    """Write an ONNX model: nodes, and initializers by name; x is (b, K) and y (b, N)."""

    def make(
        nodes: list[Any],
        arrays: dict[str, Any],
        *,
        name: str = "model.onnx",
        external: bool = False,
        opset: int = 21,
        ir_version: int = 10,
        metadata: dict[str, str] | None = None,
        size: tuple[int, int] = (64, 32),
    ) -> Path:
        ends = [
            helper.make_tensor_value_info(end, TensorProto.FLOAT, ["batch", width])
            for end, width in zip("xy", size, strict=True)
        ]
        tensors = [numpy_helper.from_array(array, key) for key, array in arrays.items()]
        graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], tensors)
        imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
        helper.set_model_props(model, metadata or {})
        path = tmp_path / name
        onnx.save(
            model,
            path,
            save_as_external_data=external,
            location=f"{name}.data",
            size_threshold=0,
        )
        return path

    return make


@pytest.fixture
def float_model(make_onnx: MakeOnnx) -> Path:
    """One linear layer in float."""
    weight = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "fc.weight"], ["y"], name="/fc/MatMul")
    return make_onnx([node], {"fc.weight": weight}, name="float.onnx")


@pytest.fixture(scope="session")
def make_checkpoint(
    tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> MakeCheckpoint:
    """Quantize the tiny model by a scheme, once for all tests; returns its directory."""
    made: dict[str, Path] = {}

    def make(scheme: str) -> Path:
        import torch

        from quantship.quant.calibration import static_inputs
        from quantship.quant.convert import convert
        from quantship.quant.modules import prepare_qat
        from quantship.quant.numerics import Grid, input_grid
        from quantship.recipe.language import TinyModel
        from quantship.tiny import build_model

        if scheme not in made:
            path = tmp_path_factory.mktemp(scheme)
            model = build_model(TinyModel(), tiny_tokenizer, seed=0)
            prepare_qat(model, SCHEMES[scheme])
            for rounding in static_inputs(model).values():
                grid = input_grid(torch.tensor(-3.0), torch.tensor(4.0), rounding.fmt)
                shaped = (None if part is None else part.view(1, 1, 1) for part in grid)
                rounding.set_grid(Grid(*shaped), learned=False)
            convert(model, path)
            tiny_tokenizer.save_pretrained(path)
            made[scheme] = path
        return made[scheme]

    return make


@pytest.fixture(scope="session")
def make_export(
    make_checkpoint: MakeCheckpoint, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Any], Path]:
    """Export the tiny model by scheme and lowering, once for all tests; returns its directory."""
    made: dict[tuple[str, str], Path] = {}

    def make(scheme: str, lowering: Any) -> Path:
        from quantship.exporters import decoder

        if (scheme, lowering) not in made:
            out = tmp_path_factory.mktemp(f"{scheme}-{lowering}")
            source = tiny_model_dir if lowering == "float" else make_checkpoint(scheme)
            named = None if lowering == "float" else scheme
            decoder.export(source, lowering, named, out, "x86")
            made[scheme, lowering] = out
        return made[scheme, lowering]

    return make
