from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantship.estimate import TINY_VOCABULARY, Needs, mlp_parameters, needs, tiny_parameters
from quantship.job import Node
from quantship.mlp.model import build_model as build_classifier
from quantship.quant.scheme import SCHEMES, Scheme
from quantship.recipe.language import MlpModel, QatStep, QuantizeStep, TinyModel
from quantship.stages import qat, quantize
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


@given(st.lists(st.integers(1, 40), min_size=2, max_size=4))
def test_parameters_of_a_classifier_are_counted_as_it_counts_them(sizes: list[int]) -> None:
    model = build_classifier(sizes, seed=0)
    assert mlp_parameters(MlpModel(sizes=tuple(sizes))) == model.num_parameters()


def test_training_holds_weights_gradients_and_two_moments() -> None:
    one, two = (estimate("finetune", num_parameters=n * MILLION).memory_bytes for n in (1, 2))
    assert two - one == 16 * MILLION
    assert estimate("qat", W8).memory_bytes == estimate("finetune").memory_bytes + 4 * MILLION


def test_a_teacher_is_held_beside_the_student() -> None:
    taught = Node("n", "qat", None, {"model": "a", "teacher": "b"}, W8, "", "")
    assert needs(taught, MILLION).memory_bytes - estimate("qat", W8).memory_bytes == 4 * MILLION
    assert needs(taught, MILLION).disk_bytes == estimate("qat", W8).disk_bytes


def test_training_writes_two_checkpoints_beside_the_model() -> None:
    assert estimate("finetune").disk_bytes == (1 + 2 * 3) * 4 * MILLION
    assert estimate("finetune").disk_bytes - estimate("qat", W8).disk_bytes == 3 * MILLION


def test_quantized_models_are_smaller_by_their_container() -> None:
    whole = estimate("tiny").disk_bytes
    assert whole == 4 * MILLION
    assert estimate("export", W8).disk_bytes * 4 == whole


def test_what_is_quantized_lies_in_parts_beside_the_checkpoint() -> None:
    assert estimate("quantize", W8).disk_bytes == 2 * estimate("export", W8).disk_bytes


def test_a_model_is_quantized_in_less_memory_than_it_is_loaded_in() -> None:
    assert estimate("quantize", W8).memory_bytes < estimate("evaluate", W8).memory_bytes


def trained(scheme: Scheme = W8, **options: object) -> Needs:
    step = QatStep.model_validate({"stage": "qat", **options})
    left = None if step.output == "float" else scheme
    settings = qat.Settings(step=step, scheme=scheme, seed=0)
    return needs(Node("n", "qat", settings, {}, left, "", ""), MILLION)


def quantized(scheme: Scheme, **options: object) -> Needs:
    step = QuantizeStep.model_validate({"stage": "quantize", **options})
    settings = quantize.Settings(step=step, scheme=scheme)
    return needs(Node("n", "quantize", settings, {}, scheme, "", ""), MILLION)


def test_two_codes_of_four_bits_share_a_byte_where_they_are_packed() -> None:
    packed = estimate("export", W4).disk_bytes
    assert MILLION / 2 < packed < MILLION
    assert quantized(W4).disk_bytes == 2 * packed
    assert quantized(W4, packed=False).disk_bytes == 2 * MILLION
    assert quantized(SCHEMES["w2a16-g32"]).disk_bytes == 2 * MILLION


def test_a_model_trained_for_a_later_step_is_left_in_bfloat16() -> None:
    assert trained(output="float").disk_bytes - trained().disk_bytes == MILLION


def test_adapters_take_no_room_beside_the_weights_that_they_stand_on() -> None:
    assert trained(lora=True).memory_bytes == trained().memory_bytes - 3 * 4 * MILLION
    assert trained(lora=True).disk_bytes == MILLION
    assert trained(lora={"base": "nf4"}).memory_bytes < trained(lora=True).memory_bytes


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
