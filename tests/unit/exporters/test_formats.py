from __future__ import annotations

from typing import Any

import pytest

from quantship.exporters import formats
from quantship.exporters.formats import reject
from quantship.quant.scheme import SCHEMES


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: object())


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", [None, *SCHEMES])
def test_openvino_takes_every_scheme(name: str | None) -> None:
    assert reject(SCHEMES[name] if name else None, "auto", "openvino") is None


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("lowering", ["nbits", "integer", "qdq", "hybrid", "float"])
def test_lowerings_are_for_onnx(lowering: Any) -> None:
    reason = reject(SCHEMES["w8a16"], lowering, "openvino")
    assert reason is not None
    assert "leave lowering out" in reason


@pytest.mark.usefixtures("installed")
def test_a_float_model_may_be_called_so() -> None:
    assert reject(None, "float", "openvino") is None


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    reason = reject(SCHEMES["w8a16"], "auto", "openvino")
    assert reason is not None
    assert "pip install 'quantship[openvino]'" in reason
    assert reject(SCHEMES["w8a16"], "auto", "onnx") is None
