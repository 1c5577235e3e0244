from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import nn

import quantship
from quantship.exporters import codes
from quantship.exporters.decoder import export
from quantship.exporters.hybrid import FEW_TOKENS
from quantship.exporters.lowering import Lowering
from quantship.exporters.targets import Target
from quantship.models import weight_bytes
from quantship.runtimes.base import Logits, open_runtime

pytestmark = pytest.mark.usefixtures("one_thread")

Export = Callable[[str, Lowering, Target], Path]
FORMS = [("w8a8", "x86"), ("w8a8", "x86-vnni"), ("w4a16-g32", "x86-vnni")]


@pytest.fixture(scope="module")
def exported(make_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Export a tiny model of a scheme, each once; returns a directory not to be written to."""
    made: dict[tuple[str, ...], Path] = {}
    sources: dict[str, Path] = {}

    def make(scheme: str, lowering: Lowering, target: Target) -> Path:
        sources.setdefault(scheme, make_checkpoint(scheme))
        key = (scheme, lowering, target)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("exported")
            export(sources[scheme], lowering, scheme, made[key], target)
            shutil.copytree(sources[scheme], made[key] / "source")
        return made[key]

    return make


def logits(path: Path, num_tokens: int) -> Logits:
    ids = np.random.default_rng(num_tokens).integers(4, 260, (1, num_tokens))
    return open_runtime(path).logits(ids, np.ones_like(ids))


def operators(path: Path) -> set[str]:
    graph = ir.load(path / "model.onnx").graph
    return {node.op_type for node in ir.traversal.RecursiveGraphIterator(graph)}


def distance(ours: Logits, theirs: Logits) -> float:
    """Root mean square of the difference, of the deviation of theirs."""
    return float(np.sqrt(np.mean((ours - theirs) ** 2) / theirs.var()))


@pytest.mark.parametrize(("scheme", "target"), FORMS)
def test_both_branches_read_the_one_set_of_codes_in_the_file(
    scheme: str, target: Target, exported: Export
) -> None:
    path = exported(scheme, "hybrid", target)
    assert "If" in operators(path)
    compared = codes.compare(path, path / "source")
    assert compared.equal, compared.different
    nbits = exported(scheme, "nbits", target)
    data = "model.onnx_data"
    assert (path / data).stat().st_size <= (nbits / data).stat().st_size + 4096
    assert weight_bytes(path) < 1.5 * weight_bytes(nbits)


@pytest.mark.parametrize("num_tokens", [1, FEW_TOKENS])
def test_a_few_tokens_take_the_branch_of_nbits(num_tokens: int, exported: Export) -> None:
    ours, theirs = (
        logits(exported("w4a16-g32-linear", form, "x86-vnni"), num_tokens)
        for form in ("hybrid", "nbits")
    )
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("num_tokens", [1, FEW_TOKENS])
def test_blocks_of_whole_rows_are_larger_than_in_nbits(num_tokens: int, exported: Export) -> None:
    ours, theirs = (
        logits(exported("w8a8", form, "x86-vnni"), num_tokens) for form in ("hybrid", "nbits")
    )
    assert 0 < distance(ours, theirs) < 0.02


@pytest.mark.parametrize("target", ["x86", "x86-vnni"])
def test_a_prompt_multiplies_the_integers_of_integer(target: Target, exported: Export) -> None:
    ours = logits(exported("w8a8-linear", "hybrid", target), FEW_TOKENS + 1)
    integer = logits(exported("w8a8-linear", "integer", target), FEW_TOKENS + 1)
    nbits = logits(exported("w8a8-linear", "nbits", target), FEW_TOKENS + 1)
    # Sums of floats differ in their order, and so may the code of an input on the edge of two.
    assert distance(ours, integer) < 1e-3
    assert distance(ours, nbits) > 2e-3


def test_codes_of_either_sign_make_the_same_products(exported: Export) -> None:
    signed, unsigned = (exported("w8a8", "hybrid", target) for target in ("x86-vnni", "x86"))
    assert np.array_equal(logits(signed, 40), logits(unsigned, 40))


def test_wider_codes_are_the_same_codes(exported: Export) -> None:
    wide, narrow = (exported("w4a16-g32", form, "x86-vnni") for form in ("hybrid", "nbits"))
    assert distance(logits(wide, 40), logits(narrow, 40)) < 0.02  # inputs are rounded in both


def test_a_cache_filled_by_one_branch_serves_the_other(exported: Export) -> None:
    runtime = open_runtime(exported("w8a8", "hybrid", "x86"))
    ids = np.random.default_rng(0).integers(4, 260, (1, 40))
    whole = runtime.logits(ids, np.ones_like(ids))
    steps = [runtime.prefill(ids[:, :30], 41)] + [
        runtime.decode(ids[:, at]) for at in range(30, 40)
    ]
    alone = runtime.logits(ids[:, :30], np.ones((1, 30), np.int64))
    np.testing.assert_allclose(steps[0], alone[:, -1], atol=1e-5)
    assert distance(np.stack(steps, axis=1), whole[:, 29:]) < 0.1


@pytest.mark.parametrize(("scheme", "target"), [("w8a16", "x86-vnni"), ("w4a16-g32", "arm")])
def test_where_prompts_gain_nothing_there_is_one_branch(
    scheme: str, target: Target, exported: Export
) -> None:
    assert "If" not in operators(exported(scheme, "hybrid", target))


def test_a_mistake_in_turning_codes_is_found(exported: Export, tmp_path: Path) -> None:
    path = exported("w8a8", "hybrid", "x86-vnni")
    model = ir.load(path / "model.onnx")
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    moved = next(node for node in nodes if node.op_type == "BitwiseXor")
    middle = moved.inputs[1]
    assert middle is not None
    middle.const_value = ir.tensor(np.array(129, np.uint8), name=middle.name)
    ir.save(model, tmp_path / "model.onnx")
    shutil.copy(path / "model.onnx_data", tmp_path)
    compared = codes.compare(tmp_path, path / "source")
    assert len(compared.different) == compared.tensors_compared - 1  # all but the embedding


def test_a_model_without_a_cache_has_the_branch_of_prompts_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 16))
    quantized = quantship.quantize(module, "w8a8")
    inputs = torch.randn(5, 48)
    quantship.export(quantized, tmp_path, inputs, lowering="hybrid", target="x86-vnni")
    assert operators(tmp_path) >= {"QGemm"}
    assert operators(tmp_path).isdisjoint({"If", "MatMulNBits"})
    session = ort.InferenceSession(tmp_path / "model.onnx")
    for batch in (inputs, inputs[:1]):
        ours = session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0]
        np.testing.assert_allclose(ours, quantized(batch).detach(), atol=1e-5)
