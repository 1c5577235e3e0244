from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantship import hardware
from quantship.recipe import exports, load

RECIPE = """\
model: {tiny: {}}
scheme: w8a8
data: {train: [{adapter: builtin}], eval: [{adapter: builtin}]}
steps:
  - {stage: export, name: first, input: model}
  - {stage: finetune}
  - {stage: quantize, name: ptq, scheme: w4a16-g32}
  - {stage: qat, name: merged, output: float}
  - {stage: qat}
  - {stage: export, input: [finetune, ptq, merged, qat]}
  - {stage: export, name: named, input: qat, lowering: integer, target: arm}
  - {stage: export, name: open, input: qat, target: portable}
"""


@pytest.mark.parametrize("kind", ["x86", "x86-vnni"])
def test_every_export_is_found_with_its_words_resolved(
    kind: str, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "kind", lambda: kind)
    found = [
        (one.name, one.lowering, one.target, one.scheme and one.scheme.name)
        for one in exports.find(load(write(RECIPE)))
    ]
    assert found == [
        ("first", "float", kind, None),
        ("finetune-onnx", "float", kind, None),
        ("ptq-onnx", "nbits", kind, "w4a16-g32"),
        ("merged-onnx", "float", kind, None),
        ("qat-onnx", "hybrid", kind, "w8a8"),
        ("named", "integer", "arm", "w8a8"),
        ("open", "qdq", "portable", "w8a8"),
    ]


def test_other_formats_have_no_lowering(write: Callable[..., Path]) -> None:
    pytest.importorskip("openvino")
    recipe = load(write(RECIPE + "  - {stage: export, name: ov, input: qat, format: openvino}\n"))
    *_, last = exports.find(recipe)
    assert (last.name, last.format, last.lowering) == ("ov", "openvino", None)
