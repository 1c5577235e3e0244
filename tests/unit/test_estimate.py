from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantship.estimate import TINY_VOCABULARY, Needs, needs, tiny_parameters
from quantship.job import Node
from quantship.quant.scheme import SCHEMES, Scheme
from quantship.recipe.language import TinyModel
from quantship.tiny import build_model, build_tokenizer

W8, W4 = SCHEMES["w8a8"], SCHEMES["w4a16-g32"]
MILLION = 1_000_000


def estimate(stage: str, scheme: Scheme | None = None, num_parameters: int = MILLION) -> Needs:
    return needs(Node("n", stage, None, {}, scheme, "", ""), num_parameters)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([(32, 2, 1), (48, 3, 3), (64, 4, 2), (96, 3, 1)]),
    st.integers(8, 80),
    st.booleans(),
)
def test_parameters_are_counted_as_the_model_counts_them(
    num_layers: int, widths: tuple[int, int, int], intermediate_size: int, tied: bool
) -> None:
    hidden_size, num_heads, num_kv_heads = widths
    tiny = TinyModel(
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        tied=tied,
    )
    model = build_model(tiny, build_tokenizer(64), seed=0)
    assert tiny_parameters(tiny) == model.num_parameters()
    assert model.config.vocab_size == TINY_VOCABULARY


def test_training_holds_weights_gradients_and_two_moments() -> None:
    one, two = (estimate("finetune", num_parameters=n * MILLION).memory_bytes for n in (1, 2))
    assert two - one == 16 * MILLION
    assert estimate("qat", W8).memory_bytes == estimate("finetune").memory_bytes + 4 * MILLION


def test_training_writes_two_checkpoints_beside_the_model() -> None:
    assert estimate("finetune").disk_bytes == (1 + 2 * 3) * 4 * MILLION
    assert estimate("finetune").disk_bytes - estimate("qat", W8).disk_bytes == 3 * MILLION


@pytest.mark.parametrize("stage", ["quantize", "export"])
def test_quantized_models_are_smaller_by_their_container(stage: str) -> None:
    whole = estimate("tiny").disk_bytes
    assert whole == 4 * MILLION
    assert estimate(stage, W8).disk_bytes * 4 == whole


def test_only_an_export_packs_two_codes_into_a_byte() -> None:
    assert estimate("quantize", W4).disk_bytes == MILLION
    assert MILLION / 2 < estimate("export", W4).disk_bytes < MILLION


@pytest.mark.parametrize("stage", ["data", "evaluate", "benchmark"])
def test_measuring_leaves_no_weights(stage: str) -> None:
    assert estimate(stage).disk_bytes == 0
    assert estimate(stage).memory_bytes > 4 * MILLION


@given(st.sampled_from(["tiny", "data", "finetune", "qat", "quantize", "export", "evaluate"]))
def test_more_parameters_need_no_less(stage: str) -> None:
    scheme = W8 if stage in ("qat", "quantize") else None
    small, large = (estimate(stage, scheme, n) for n in (MILLION, 5 * MILLION))
    assert small.disk_bytes <= large.disk_bytes
    assert small.memory_bytes < large.memory_bytes
