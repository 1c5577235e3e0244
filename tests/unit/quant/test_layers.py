from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from quantship.quant.layers import ends, formats, is_linear, is_tied, is_transposed, matrix
from quantship.quant.scheme import SCHEMES, LayerFormat, Override, Scheme, WeightFormat

pytestmark = pytest.mark.usefixtures("one_thread")

INT8, INT4 = WeightFormat(bits=8), WeightFormat(bits=4)
W8A8, W4A8 = SCHEMES["w8a8"], SCHEMES["w4a8"]
EIGHT = LayerFormat(weight=INT8)


def with_overrides(*overrides: Override, **options: Any) -> Scheme:
    return Scheme(name="mine", weight=INT4, overrides=overrides, **options)


def test_every_matrix_of_a_llama_is_named_once(tied: Any, untied: Any) -> None:
    matrices = {name for name, tensor in untied.named_parameters() if tensor.ndim == 2}
    assert {f"{name}.weight" for name in formats(untied, W8A8)} == matrices
    assert {f"{name}.weight" for name in formats(tied, W8A8)} == matrices - {"lm_head.weight"}


def test_gpt2s_transposed_layers_are_linear_layers(build: Callable[[str], Any]) -> None:
    model = build("gpt2")
    found = formats(model, W4A8)
    blocks = [f"transformer.h.{block}" for block in range(2)]
    parts = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    linear = {f"{block}.{part}" for block in blocks for part in parts}
    assert found.keys() == linear | {"transformer.wte"}
    assert all(found[name] == found["transformer.h.0.mlp.c_fc"] for name in linear)
    layer = model.transformer.h[0].mlp.c_fc
    assert is_transposed(layer)
    assert is_linear(layer)
    assert matrix(layer).shape == (256, 64)
    assert matrix(layer).data_ptr() == layer.weight.data_ptr()


def test_berts_other_embeddings_stay_in_float(build: Callable[[str], Any]) -> None:
    found = formats(build("bert"), W8A8)
    embeddings = [name for name in found if "embeddings" in name]
    assert embeddings == ["bert.embeddings.word_embeddings"]
    assert {"bert.pooler.dense", "classifier"} <= found.keys()
    assert len(found) == 2 * 6 + 3


def test_a_plain_module_is_taken_layer_by_layer() -> None:
    model = nn.Sequential(
        nn.Embedding(10, 32), nn.Linear(32, 64), nn.ReLU(), nn.LayerNorm(64), nn.Linear(64, 3)
    )
    found = formats(model, W4A8)
    assert found == {
        "0": EIGHT,
        "1": LayerFormat(weight=W4A8.weight, activation=W4A8.activation),
        "4": LayerFormat(weight=W4A8.weight, activation=W4A8.activation),
    }
    assert formats(model, SCHEMES["w8a8-linear"]).keys() == {"1", "4"}
    assert ends(model) == (None, None)
    assert not is_tied(model)


def test_the_ends_of_the_model_follow_the_embeddings_format(untied: Any) -> None:
    found = formats(untied, W4A8)
    for end in ("model.embed_tokens", "lm_head"):
        assert found[end] == EIGHT
    layer = found["model.layers.0.mlp.up_proj"]
    assert layer.weight.bits == 4
    assert layer.activation is not None


def test_a_head_of_its_own_may_have_a_format_of_its_own(untied: Any, tied: Any) -> None:
    scheme = with_overrides(head=INT4, embedding=INT8)
    found = formats(untied, scheme)
    assert found["lm_head"] == LayerFormat(weight=INT4)
    assert found["model.embed_tokens"] == EIGHT
    # A tied head is the embedding, and has its format.
    assert "lm_head" not in formats(tied, scheme)
    assert formats(tied, scheme)["model.embed_tokens"] == EIGHT


def test_float_ends_are_left_out(untied: Any, tied: Any) -> None:
    all_but_ends = formats(untied, W8A8).keys() - {"model.embed_tokens", "lm_head"}
    for model in (untied, tied):
        assert formats(model, with_overrides(embedding=None)).keys() == all_but_ends
    only_head = formats(untied, with_overrides(embedding=None, head=INT8))
    assert only_head.keys() == all_but_ends | {"lm_head"}


def test_overrides_change_the_layers_they_match_and_no_others(untied: Any) -> None:
    plain = formats(untied, with_overrides())
    mixed = formats(
        untied,
        with_overrides(
            Override(layers="*.down_proj", weight=INT8),
            Override(layers="model.layers.1.*", weight=None),
            Override(layers="lm_head", weight=WeightFormat(bits=5)),
        ),
    )
    assert mixed.pop("lm_head") == LayerFormat(weight=WeightFormat(bits=5))
    assert plain.pop("lm_head") == EIGHT
    assert mixed.pop("model.layers.0.mlp.down_proj") == EIGHT
    del plain["model.layers.0.mlp.down_proj"]
    assert mixed == {name: one for name, one in plain.items() if "layers.1." not in name}


def test_an_override_that_matches_nothing_is_refused_with_names_to_choose_from(tied: Any) -> None:
    scheme = with_overrides(
        Override(layers="*.down_proj", weight=INT8), Override(layers="*.fc1", weight=INT8)
    )
    with pytest.raises(
        ValueError, match=r"override '\*\.fc1' of scheme 'mine' matches no"
    ) as caught:
        formats(tied, scheme)
    assert "model.layers.0.self_attn.q_proj" in str(caught.value)


def test_an_override_that_changes_nothing_still_matches(tied: Any) -> None:
    formats(tied, with_overrides(Override(layers="*.up_proj", weight=INT4)))
    formats(tied, with_overrides(Override(layers="model.embed_tokens", weight=None)))


def test_an_override_whose_format_is_the_layers_already_is_no_mistake(tied: Any) -> None:
    two = WeightFormat(bits=2)
    override = Override(layers="*.up_proj", weight=two)
    assert formats(tied, Scheme(name="x", weight=two, overrides=(override,)))


def test_a_group_that_does_not_divide_names_the_layer_and_the_remedy() -> None:
    model = nn.Sequential(nn.Linear(64, 80), nn.Linear(80, 4))
    with pytest.raises(ValueError, match="groups of 32") as caught:
        formats(model, SCHEMES["w4a16-g32"])
    assert "80 input features of layer '1'" in str(caught.value)
    assert "leave the layer out with an override" in str(caught.value)
    remedy = SCHEMES["w4a16-g32"].model_copy(
        update={"overrides": (Override(layers="1", weight=None),)}
    )
    assert formats(model, remedy).keys() == {"0"}


def test_a_single_input_feature_is_not_quantized_at_run_time() -> None:
    model = nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 4))
    with pytest.raises(ValueError, match="'1', which has one input feature") as caught:
        formats(model, W8A8)
    assert "override" in str(caught.value)
    left_out = W8A8.model_copy(update={"overrides": (Override(layers="1", weight=INT8),)})
    assert formats(model, left_out)["1"] == EIGHT


def test_a_group_divides_the_in_features_of_a_transposed_layer(
    build: Callable[[str], Any],
) -> None:
    group = WeightFormat(bits=4, group_size=48)
    with pytest.raises(ValueError, match=r"the 64 input features of layer 'transformer\.h\.0"):
        formats(build("gpt2"), Scheme(name="x", weight=group))


def test_an_embedding_that_does_more_than_look_up_is_refused(build: Callable[[str], Any]) -> None:
    model = build("gemma3")
    message = r"'model\.embed_tokens' is a Gemma3TextScaledWordEmbedding"
    with pytest.raises(ValueError, match=message) as caught:
        formats(model, W8A8)
    assert "'w8a8-linear'" in str(caught.value)
    assert len(formats(model, SCHEMES["w8a8-linear"])) == 2 * 7


def test_tied_means_one_matrix(build: Callable[[str], Any]) -> None:
    assert [is_tied(build(name)) for name in ("tied", "untied", "gpt2", "bert")] == [
        True,
        False,
        True,
        False,
    ]
    torch.manual_seed(0)
    equal = build("untied")
    equal.lm_head.weight.data.copy_(equal.model.embed_tokens.weight)
    assert not is_tied(equal)
