from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantship.inspection.names import joined, layer_of, numbered, pattern, ranges
from quantship.inspection.terminal import amount, sign


@pytest.mark.parametrize(
    ("node", "tensor", "layer"),
    [
        ("/model/layers.0/mlp/up_proj/MatMul_Q4", "w_Q4", "model.layers.0.mlp.up_proj"),
        ("/model/layers.0/mlp/up_proj/MatMul", "onnx::MatMul_12", "model.layers.0.mlp.up_proj"),
        ("node_MatMul_3", "encoder.layer.3.dense.weight", "encoder.layer.3.dense"),
        ("node_MatMul_3", "val_7", "val_7"),
        ("/fc/MatMul_quant", "fc.weight_quantized", "fc"),
        ("/lm_head/MatMul", "/lm_head/MatMul.codes", "lm_head"),
        ("", "w", "w"),
    ],
)
def test_layers_are_called_as_in_pytorch(node: str, tensor: str, layer: str) -> None:
    assert layer_of(node, tensor) == layer


def test_only_numbers_that_stand_alone_become_stars() -> None:
    assert pattern("model.layers.12.fc1") == "model.layers.*.fc1"
    assert pattern("onnx::MatMul_123") == "onnx::MatMul_*"
    assert pattern("blocks.0.1.conv2d") == "blocks.*.*.conv2d"


def test_a_part_of_the_layers_is_named_by_their_numbers() -> None:
    names = [f"model.layers.{number}.mlp" for number in (0, 1, 2, 7)]
    assert numbered(names) == "model.layers.[0-2,7].mlp"
    assert numbered(names[:1]) == names[0]
    assert numbered(["a.0.1", "a.1.0"]) == "a.*.*"
    assert numbered(["a.0.1", "a.2.1"]) == "a.[0,2].1"


@given(st.sets(st.integers(0, 200), min_size=1))
def test_ranges_name_just_their_numbers(numbers: set[int]) -> None:
    read = set()
    for part in ranges(sorted(numbers)).split(","):
        first, _, last = part.partition("-")
        read |= set(range(int(first), int(last or first) + 1))
    assert read == numbers


def test_layers_of_one_tensor_share_what_they_share() -> None:
    assert joined(("a.b.q", "a.b.k", "a.b.v")) == "a.b.{q,k,v}"
    assert joined(("embed", "lm_head")) == "embed + lm_head"
    assert joined(("a.b",)) == "a.b"


def test_signs_are_all_different() -> None:
    assert [sign(place) for place in (0, 25, 26, 27)] == ["a", "z", "aa", "ab"]
    assert len({sign(place) for place in range(1000)}) == 1000


def test_small_amounts_keep_their_digits() -> None:
    texts = [amount(number) for number in (0, 999, 2340, 1_500_000)]
    assert texts == ["0 B", "999 B", "2.3 kB", "1.50 MB"]
