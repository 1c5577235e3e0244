from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import quantship
from quantship.artifact import MANIFEST, digest_file
from quantship.exporters.origin import algorithm, describe, digest_weights


def step(path: Path, stage: str, **facts: Any) -> Path:
    (path / MANIFEST).write_text(json.dumps({"stage": stage, "facts": facts}))
    return path


@pytest.mark.parametrize(
    ("stage", "facts", "expected"),
    [
        ("quantize", {"algorithm": "rtn"}, "rtn"),
        ("quantize", {"algorithm": "gptq"}, "gptq"),
        ("qat", {"scheme": "w8a8"}, "qat"),
        ("finetune", {}, None),
    ],
)
def test_a_step_says_how_its_codes_were_found(
    tmp_path: Path, stage: str, facts: dict[str, Any], expected: str | None
) -> None:
    assert algorithm(step(tmp_path, stage, **facts)) == expected


def test_a_directory_from_elsewhere_does_not_say(tmp_path: Path) -> None:
    assert algorithm(tmp_path) is None


def test_one_file_of_weights_has_its_own_digest(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"numbers")
    assert digest_weights(tmp_path) == hashlib.sha256(b"numbers").hexdigest()
    (tmp_path / "config.json").write_text("{}")
    assert digest_weights(tmp_path) == digest_file(tmp_path / "model.safetensors")


def test_no_shard_can_change_or_change_places_unseen(tmp_path: Path) -> None:
    first, second = tmp_path / "model-1.safetensors", tmp_path / "model-2.safetensors"
    first.write_bytes(b"a")
    second.write_bytes(b"b")
    digests = {digest_weights(tmp_path)}
    second.write_bytes(b"c")
    digests.add(digest_weights(tmp_path))
    first.write_bytes(b"c")
    second.write_bytes(b"a")
    digests.add(digest_weights(tmp_path))
    second.unlink()
    digests.add(digest_weights(tmp_path))
    assert len(digests) == 4


def test_a_float_model_has_no_algorithm(tmp_path: Path) -> None:
    described = describe(step(tmp_path, "quantize", algorithm="rtn"), "float", None, "arm")
    assert described["algorithm"] is None
    quantized = describe(tmp_path, "nbits", "w8a8", "arm")
    assert quantized | {"source_sha256": None} == {
        "quantship_version": quantship.__version__,
        "lowering": "nbits",
        "target": "arm",
        "scheme": "w8a8",
        "algorithm": "rtn",
        "source_sha256": None,
    }
