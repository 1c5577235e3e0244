"""Whatever is changed, cut off or mixed up is caught, and the message names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from quantship.artifact import MANIFEST, digest_file, finish
from quantship.exporters.clients import DATA_FILE as DATA
from quantship.exporters.hooks import METADATA
from quantship.validation.options import Options
from quantship.validation.report import Validation
from quantship.validation.run import validate

QUICK = Options(sequences=1, length=16, new_tokens=2)
LAYER = "model.layers.1.mlp.up_proj"
GRAPH, WEIGHTS = "model.onnx", "model.safetensors"
EXPORTS = ["onnx w8a8 nbits", "onnx w8a8 integer", "onnx w4a16 nbits"]
SOURCE = {
    "onnx w8a8 nbits": "w8a8",
    "onnx w8a8 integer": "w8a8",
    "onnx w4a16 nbits": "w4a16-g32",
    "onnx static integer": "w8a8-static",
}


def failed(found: Validation) -> dict[str, str]:
    assert not found.equal
    return {check.name: check.detail for check in found.checks if not check.passed}


def change_data(path: Path, part: str, at: int, how: Callable[[int], int]) -> None:
    """Change one stored number of a layer, as an integer of its own width."""
    model = ir.load(path / GRAPH)
    place = json.loads(model.metadata_props[METADATA])["places"][LAYER]
    name = place["codes"].replace(".codes", f".{part}")
    tensor: Any = model.graph.initializers[name].const_value
    width = tensor.nbytes // tensor.size
    begin = tensor.offset + at * width
    data = bytearray((path / DATA).read_bytes())
    before = int.from_bytes(data[begin : begin + width], "little")
    data[begin : begin + width] = how(before).to_bytes(width, "little")
    (path / DATA).write_bytes(data)


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize("reverse", [False, True])
def test_one_flipped_bit_of_one_code(models: Any, copy: Any, export: str, reverse: bool) -> None:
    path, source = copy(models(export)), models(SOURCE[export])
    change_data(path, "codes", 5, lambda code: code ^ 1)
    found = validate(*((path, source) if reverse else (source, path)), QUICK)
    assert LAYER in failed(found)["stored numbers"]
    (part,) = found.numbers
    (difference,) = part.different
    assert (difference.name, difference.part, difference.count) == (LAYER, "codes", 1)
    assert difference.a is not None
    assert difference.b is not None
    assert abs(difference.a - difference.b) == 1
    row, column = difference.index
    # The sixth byte: of the first row two codes a byte, or of the first column where rows lie so.
    expected = {"onnx w8a8 nbits": (0, 5), "onnx w8a8 integer": (5, 0), "onnx w4a16 nbits": (0, 10)}
    assert (row, column) == expected[export]
    assert f"codes, row {row}, column {column}: {int(difference.a)} in A" in str(difference)


@pytest.mark.parametrize("export", EXPORTS)
def test_one_scale_by_one_ulp(models: Any, copy: Any, export: str) -> None:
    path = copy(models(export))
    change_data(path, "scales", 3, lambda bits: bits + 1)
    found = validate(models(SOURCE[export]), path, QUICK)
    assert f"{LAYER}: scales, row" in failed(found)["stored numbers"]
    assert "source digest" not in failed(found)
    difference = found.numbers[0].different[0]
    assert difference.part == "scales"
    assert difference.a is not None
    assert difference.b is not None
    assert difference.a < difference.b < difference.a * 1.01


def test_a_sum_that_is_not_of_its_codes(models: Any, copy: Any) -> None:
    path = copy(models("onnx w8a8 integer"))
    change_data(path, "sums", 2, lambda bits: bits ^ (1 << 20))
    named = failed(validate(models("w8a8"), path, QUICK))["stored numbers"]
    assert f"{LAYER}: sum of codes, row 2: B stores" in named


def test_a_static_input_range(models: Any, copy: Any) -> None:
    path = copy(models("onnx static integer"))
    model = onnx.load(path / GRAPH)
    scale = next(one for one in model.graph.initializer if one.name.endswith(".input_scale"))
    changed = np.nextafter(onnx.numpy_helper.to_array(scale), np.float32(np.inf))
    scale.CopyFrom(onnx.numpy_helper.from_array(changed, scale.name))
    onnx.save(model, path / GRAPH)
    found = validate(models("w8a8-static"), path, QUICK)
    assert "input scale" in failed(found)["stored numbers"]


def test_another_model_of_the_same_shape(models: Any) -> None:
    found = validate(models("w8a8"), models("onnx w4a16 nbits"), QUICK)
    assert failed(found).keys() >= {"source digest", "stored numbers"}
    assert len(found.numbers[0].different) > 10


def test_two_onnx_models_that_differ_in_one_code(models: Any, copy: Any) -> None:
    path = copy(models("onnx w8a8 nbits"))
    change_data(path, "codes", 5, lambda code: code ^ 1)
    found = validate(models("onnx w8a8 integer"), path, QUICK)
    assert f"{LAYER}: codes, row 0, column 5" in failed(found)["stored numbers"]


@pytest.mark.parametrize("export", ["onnx w8a8 integer", "onnx float"])
def test_data_that_are_cut_off(models: Any, copy: Any, export: str) -> None:
    path = copy(models(export))
    with (path / DATA).open("r+b") as file:
        file.truncate((path / DATA).stat().st_size - 1)
    found = validate(models("float"), path, QUICK)
    detail = failed(found)["files of B"]
    assert f"{DATA} is truncated" in detail
    assert "ends at byte" in detail
    assert found.outputs == ()


def test_data_that_are_missing(models: Any, copy: Any) -> None:
    path = copy(models("onnx float"))
    (path / DATA).unlink()
    found = validate(path, models("float"), QUICK)
    assert f"{DATA} is missing" in failed(found)["files of A"]


def test_a_length_that_is_not_the_shapes(models: Any, copy: Any) -> None:
    path = copy(models("onnx float"))
    model = onnx.load(path / GRAPH, load_external_data=False)
    tensor = next(one for one in model.graph.initializer if one.external_data)
    length = next(entry for entry in tensor.external_data if entry.key == "length")
    length.value = str(int(length.value) - 4)
    onnx.save(model, path / GRAPH)
    assert f"'{tensor.name}' is FLOAT[" in failed(validate(path, path, QUICK))["files of A"]


def test_a_graph_that_is_cut_off(models: Any, copy: Any) -> None:
    from quantship.errors import QuantshipError

    path = copy(models("onnx float"))
    content = (path / GRAPH).read_bytes()
    (path / GRAPH).write_bytes(content[: len(content) // 2])
    with pytest.raises(QuantshipError, match="no readable ONNX model"):
        validate(path, models("float"), QUICK)


def test_a_checkpoint_that_is_cut_off(models: Any, copy: Any) -> None:
    path = copy(models("w8a8"))
    with (path / WEIGHTS).open("r+b") as file:
        file.truncate((path / WEIGHTS).stat().st_size - 1)
    found = validate(path, models("onnx w8a8 nbits"), QUICK)
    assert f"{WEIGHTS} is broken or truncated" in failed(found)["files of A"]


def test_a_shard_that_is_missing(models: Any, copy: Any) -> None:
    path = copy(models("float"))
    index = {"weight_map": {"lm_head.weight": "model-2.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = validate(path, models("float"), QUICK)
    assert "model-2.safetensors is missing" in failed(found)["files of A"]


def test_a_wrong_digest_in_the_metadata(models: Any, copy: Any) -> None:
    path = copy(models("onnx w8a8 nbits"))
    model = onnx.load(path / GRAPH, load_external_data=False)
    (entry,) = (one for one in model.metadata_props if one.key == METADATA)
    described = json.loads(entry.value)
    described["source_sha256"] = "0" * 64
    entry.value = json.dumps(described)
    onnx.save(model, path / GRAPH)
    found = validate(models("w8a8"), path, QUICK)
    assert failed(found).keys() == {"source digest"}
    actual = digest_file(models("w8a8") / WEIGHTS)
    assert "0" * 64 in failed(found)["source digest"]
    assert actual in failed(found)["source digest"]


def edit_checkpoint(path: Path, name: str) -> None:
    """Raise the first number of a tensor by the least that its dtype can."""
    with safe_open(path / WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    flat = tensors[name].view(-1)
    kind = {2: torch.int16, 4: torch.int32}[flat.element_size()]
    flat.view(kind)[0] += 1
    save_file(tensors, path / WEIGHTS, metadata=metadata)


@pytest.mark.parametrize(
    ("name", "named", "row"),
    [
        (f"{LAYER}._weight_scale", f"{LAYER}: scales, row 0, block 0", True),
        ("model.norm.weight", "model.norm.weight: tensor, at [0]: 1 in A, 1.00000012 in B", False),
    ],
)
def test_a_checkpoint_edited_by_hand(
    models: Any, copy: Any, name: str, named: str, row: bool
) -> None:
    path = copy(models("w8a8"))
    edit_checkpoint(path, name)
    assert named in failed(validate(models("w8a8"), path, QUICK))["stored numbers"]
    against_onnx = failed(validate(path, models("onnx w8a8 integer"), QUICK))
    assert "source digest" in against_onnx
    assert ("stored numbers" in against_onnx) is row


def test_stored_numbers_may_differ_where_that_is_said(models: Any, copy: Any) -> None:
    path = copy(models("w8a8"))
    edit_checkpoint(path, f"{LAYER}._weight_scale")
    found = validate(models("w8a8"), path, QUICK.model_copy(update={"outputs_only": True}))
    assert found.equal
    assert found.numbers[0].different


def finished(path: Path, inputs: dict[str, str], root: Path, fingerprint: str) -> Path:
    """Make an artifact of a directory, as a stage does."""
    partial = root / f"stage-{fingerprint[:16]}.partial"
    path.rename(partial)
    made = finish(
        partial,
        stage="stage",
        fingerprint=fingerprint,
        settings={},
        inputs=inputs,
        facts={},
        duration_s=0.0,
    )
    return made.path


def test_an_artifact_whose_files_were_changed(models: Any, copy: Any, tmp_path: Path) -> None:
    path = finished(copy(models("w8a8")), {}, tmp_path, "a" * 64)
    assert validate(path, models("w8a8"), QUICK).equal
    edit_checkpoint(path, "model.norm.weight")
    found = validate(path, models("w8a8"), QUICK.model_copy(update={"outputs_only": True}))
    assert MANIFEST in failed(found)["manifest of A"]
    assert WEIGHTS in failed(found)["manifest of A"]


def test_an_export_is_held_against_the_checkpoint_that_it_names(
    models: Any, copy: Any, tmp_path: Path
) -> None:
    source = finished(copy(models("w8a8")), {}, tmp_path, "a" * 64)
    exported = finished(copy(models("onnx w8a8 nbits")), {"model": "a" * 64}, tmp_path, "b" * 64)
    found = validate(models("float"), exported, QUICK)
    assert found.equal
    assert [str(source) in part.what for part in found.numbers] == [True]
    change_data(exported, "codes", 5, lambda code: code ^ 1)
    again = validate(models("float"), exported, QUICK)
    assert f"{LAYER}: codes, row 0, column 5" in failed(again)["stored numbers"]


def test_numbers_that_are_none(models: Any, copy: Any) -> None:
    path = copy(models("float"))
    with safe_open(path / WEIGHTS, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, path / WEIGHTS, metadata={"format": "pt"})
    found = validate(models("onnx float"), path, QUICK)
    assert "0 numbers of A and 4,608 of B are NaN" in failed(found)["logits"]
