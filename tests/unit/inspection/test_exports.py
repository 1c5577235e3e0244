"""Inspections of quantship's own models, held against what went into them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from quantship import models
from quantship.exporters import hooks
from quantship.inspection import onnx_model
from quantship.inspection.inspect import inspect
from quantship.inspection.report import Inspection, QuantizedTensor
from quantship.quant import checkpoint
from quantship.quant.scheme import SCHEMES

MakeCheckpoint = Callable[[str], Path]
MakeExport = Callable[[str, str], Path]

PAIRS = [
    ("w8a8", "nbits"),
    ("w8a8", "integer"),
    ("w8a8-symmetric", "integer"),
    ("w8a8-per-tensor", "integer"),
    ("w8a8-static", "integer"),
    ("w8a16-linear", "nbits"),
    ("w4a16-g32", "nbits"),
    ("w4a16-g32-asymmetric", "nbits"),
    ("w4a8", "qdq"),
    ("w8a8", "qdq"),
    ("w8a8-static", "qdq"),
    ("w8a8", "hybrid"),
    ("w4a16-g32", "hybrid"),
]

pytestmark = pytest.mark.usefixtures("one_thread")


def by_layer(found: Inspection) -> dict[str, QuantizedTensor]:
    return {layer: one for one in found.quantized for layer in one.layers}


def adds_up(found: Inspection) -> None:
    sizes = found.sizes
    parts = sizes.quantized_bytes + sizes.float_bytes + sizes.other_bytes
    assert parts == sizes.weight_bytes
    assert sizes.other_bytes >= 0
    assert sum(one.share for one in found.quantized) == pytest.approx(
        sizes.quantized_bytes / sizes.weight_bytes
    )
    assert sizes.weight_bytes <= sizes.file_bytes <= (sizes.directory_bytes or 0)


def test_the_metadata_key_is_the_exporters() -> None:
    assert onnx_model.METADATA == hooks.METADATA


@pytest.mark.parametrize(("scheme", "lowering"), PAIRS)
def test_an_export_is_what_its_checkpoint_is(
    scheme: str, lowering: str, make_checkpoint: MakeCheckpoint, make_export: MakeExport
) -> None:
    source = make_checkpoint(scheme)
    found = inspect(make_export(scheme, lowering))
    expected = checkpoint.load_codes(source)
    layers = by_layer(found)
    assert layers.keys() - {"lm_head"} == expected.keys() - {"lm_head"}
    for name, part in expected.items():
        one = layers[name]
        groups = part.codes.scale_OG.shape[1]
        assert one.bits == part.bits, name
        assert one.symmetric == (part.codes.zero_OG is None), name
        assert (one.granularity == "per_group") == (groups > 1), name
        if groups > 1:
            assert one.group_size == part.codes.codes_OI.shape[1] // groups
    num_parameters = sum(part.codes.codes_OI.numel() for part in expected.values())
    assert found.sizes.num_quantized == num_parameters
    adds_up(found)
    assert found.fusion is not None
    assert found.fusion.status == "done"
    assert found.quantship is not None
    assert (found.quantship.scheme, found.quantship.lowering) == (scheme, lowering)
    assert not [one for one in found.hazards if one.code == "metadata-differs"]


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_a_checkpoint_is_what_its_codes_are(scheme: str, make_checkpoint: MakeCheckpoint) -> None:
    source = make_checkpoint(scheme)
    found = inspect(source)
    expected = checkpoint.load_codes(source)
    layers = by_layer(found)
    assert layers.keys() - {"lm_head"} == expected.keys()
    for name, part in expected.items():
        one, codes = layers[name], part.codes
        assert (one.bits, one.symmetric) == (part.bits, codes.zero_OG is None)
        assert one.num_parameters == codes.codes_OI.numel()
        assert (one.granularity == "per_tensor") == (codes.scale_OG.numel() == 1)
        assert (one.granularity == "per_group") == (codes.scale_OG.shape[1] > 1)
        words = one.uses[-1].activation
        if part.activation is not None:
            assert f"one scale a {part.activation.granularity.removeprefix('per_')}" in words
            assert part.activation.ranges in words
            assert ("asymmetric" in words) != part.activation.symmetric
        else:
            assert words in ("float", "looked up by row")
    adds_up(found)


@pytest.mark.parametrize(("scheme", "lowering"), [("w8a8", "nbits"), ("w4a8", "nbits")])
def test_parameters_are_the_float_models(
    scheme: str,
    lowering: str,
    make_checkpoint: MakeCheckpoint,
    make_export: MakeExport,
    tiny_model_dir: Path,
) -> None:
    source = make_checkpoint(scheme)
    whole = inspect(make_export(scheme, lowering)).sizes.num_parameters
    assert whole == inspect(source).sizes.num_parameters
    plain = inspect(tiny_model_dir)
    assert plain.sizes.num_parameters == models.num_parameters(tiny_model_dir)
    assert inspect(make_export("w8a8", "float")).sizes.num_parameters == plain.sizes.num_parameters


def test_a_tied_matrix_is_one_with_two_readers(make_export: MakeExport) -> None:
    found = inspect(make_export("w8a8", "nbits"))
    (tied,) = [one for one in found.quantized if "model.embed_tokens" in one.layers]
    assert tied.layers == ("model.embed_tokens", "lm_head")
    assert {use.does for use in tied.uses} == {"looks up", "multiplies"}
    assert set(tied.runs_as) == {"GatherBlockQuantized", "MatMulNBits"}
    assert not [one for one in found.hazards if one.code == "stored-twice"]


def test_inputs_are_described_as_they_are_rounded(make_export: MakeExport) -> None:
    def words(scheme: str, lowering: str) -> str:
        layers = by_layer(inspect(make_export(scheme, lowering), session=False))
        return layers["model.layers.0.mlp.down_proj"].uses[0].activation

    assert words("w8a8", "nbits") == "int8, symmetric, one scale a token and block"
    assert words("w8a8", "integer").endswith("dynamic, one scale a token")
    assert words("w8a8-per-tensor", "integer").endswith("dynamic, one scale a tensor")
    assert words("w8a8-static", "integer").endswith("static, one scale a tensor")


def test_norms_stay_in_float_and_an_excluded_embedding_says_why(make_export: MakeExport) -> None:
    found = inspect(make_export("w8a16-linear", "nbits"), session=False)
    reasons = {one.role: one.reason for one in found.floats}
    assert "norm" in reasons["norm"]
    assert reasons["embedding"] == "an embedding that scheme w8a16-linear leaves in float"
    assert [one.code for one in found.hazards] == ["float-embedding"]


def test_kv_caches_are_inputs_with_symbolic_sizes(make_export: MakeExport) -> None:
    facts = inspect(make_export("w8a8", "nbits"), session=False).onnx
    assert facts is not None
    ports = {port.name: port for port in facts.inputs}
    assert ports["input_ids"].shape == ("batch_size", "sequence_length")
    assert ports["input_ids"].dtype == "int64"
    cache = ports["past_key_values.1.key"].shape
    assert cache is not None
    assert cache[2] == "past_sequence_length"


def test_both_branches_of_a_hybrid_read_the_same_codes(make_export: MakeExport) -> None:
    found = inspect(make_export("w8a8", "hybrid"))
    assert found.onnx is not None
    assert found.onnx.num_subgraphs == 2
    layer = by_layer(found)["model.layers.0.mlp.down_proj"]
    assert len(layer.uses) == 2
    assert len({use.operator for use in layer.uses}) == 2


def test_an_inspection_survives_json(make_export: MakeExport) -> None:
    found = inspect(make_export("w8a8", "integer"))
    assert Inspection.model_validate_json(found.model_dump_json()) == found
    assert json.loads(found.model_dump_json())["kind"] == "onnx"
