from __future__ import annotations

import itertools
import json
import shutil
import warnings
from pathlib import Path
from typing import get_args

import onnx
import pytest

from quantship import hardware
from quantship.runtimes import built_for
from quantship.runtimes.built_for import BuiltFor
from quantship.runtimes.ort import OrtRuntime
from quantship.runtimes.ort_module import OrtModule

KINDS: tuple[hardware.Kind, ...] = get_args(hardware.Kind)


@pytest.fixture
def signed_dir(tiny_onnx_dir: Path, tmp_path: Path) -> Path:
    """A model that says that it multiplies by signed weights, for VNNI."""
    path = tmp_path / "signed"
    shutil.copytree(tiny_onnx_dir, path)
    model = onnx.load(path / "model.onnx", load_external_data=False)
    (entry,) = (one for one in model.metadata_props if one.key == built_for.METADATA)
    known = {"lowering": "hybrid", "target": "x86-vnni", "signed_weights": True}
    entry.value = json.dumps(json.loads(entry.value) | known)
    onnx.save(model, path / "model.onnx")
    return path


def test_a_file_says_what_it_was_made_for(tiny_onnx_dir: Path, signed_dir: Path) -> None:
    assert built_for.read(tiny_onnx_dir) == BuiltFor("float", "x86", False)
    assert built_for.read(signed_dir) == BuiltFor("hybrid", "x86-vnni", True)


def test_models_from_elsewhere_say_nothing(tiny_model_dir: Path) -> None:
    assert built_for.read(tiny_model_dir) is None
    assert built_for.parse({}) is None
    assert built_for.parse({"quantship": "{}"}) is None


@pytest.mark.parametrize("signed", [True, False])
def test_only_signed_weights_are_wrong_and_only_without_vnni(signed: bool) -> None:
    found = {
        kind: built_for.inexact(BuiltFor("qdq", "x86-vnni", signed), kind) is not None
        for kind in KINDS
    }
    assert found == {"x86": signed, "x86-vnni": False, "arm": False}


def test_speeds_are_another_machines_unless_it_is_this_one() -> None:
    for target, kind in itertools.product((*KINDS, "portable", "cuda"), KINDS):
        found = built_for.slower(BuiltFor("integer", target, False), kind)
        assert bool(found) == (target not in (kind, "portable"))
        assert not built_for.slower(BuiltFor("float", target, False), kind)
    assert "x86-vnni" in built_for.slower(BuiltFor("integer", "x86", False), "x86-vnni")[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("runtime", [OrtRuntime, OrtModule])
def test_loading_warns_once_where_results_are_wrong(
    runtime: type[OrtRuntime | OrtModule],
    kind: hardware.Kind,
    signed_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "kind", lambda: kind)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            runtime(signed_dir, 1)
    ours = [one for one in caught if one.category is UserWarning]
    assert len(ours) == (kind == "x86")
    for one in ours:
        assert str(signed_dir) in str(one.message)
        assert one.filename == __file__  # where the model was loaded, not inside of quantship
