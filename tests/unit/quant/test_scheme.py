from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from quantship.quant.scheme import (
    SCHEMES,
    ActivationFormat,
    LayerFormat,
    Override,
    Scheme,
    WeightFormat,
    unserved,
)

INT8 = WeightFormat(bits=8)
DYNAMIC = ActivationFormat()
STATIC = ActivationFormat(granularity="per_tensor", ranges="static")

weight_formats = st.sampled_from(["per_tensor", "per_channel", "per_group"]).flatmap(
    lambda granularity: st.builds(
        WeightFormat,
        bits=st.integers(2, 8),
        granularity=st.just(granularity),
        group_size=st.sampled_from([16, 32, 64, 128] if granularity == "per_group" else [None]),
        symmetric=st.booleans(),
        scale_dtype=st.sampled_from(["float32", "bfloat16"]),
    )
)
activation_formats = (
    st.none()
    | st.builds(
        ActivationFormat,
        granularity=st.sampled_from(["per_token", "per_tensor"]),
        symmetric=st.booleans(),
    )
    | st.builds(
        ActivationFormat,
        granularity=st.just("per_tensor"),
        ranges=st.just("static"),
        symmetric=st.booleans(),
    )
)


# The table


def test_each_scheme_is_found_by_its_own_name() -> None:
    assert SCHEMES
    assert all(name == scheme.name for name, scheme in SCHEMES.items())


def test_names_say_what_the_numbers_are() -> None:
    for name, scheme in SCHEMES.items():
        activation, group = scheme.activation, scheme.weight.group_size
        words = [f"w{scheme.weight.bits}a{activation.bits if activation else 16}"]
        words += [f"g{group}"] if group and activation is None else []
        if activation is not None:
            words += ["static"] if activation.ranges == "static" else []
            words += ["symmetric"] if activation.symmetric else []
            dynamic_tensor = (activation.granularity, activation.ranges) == (
                "per_tensor",
                "dynamic",
            )
            words += ["per", "tensor"] if dynamic_tensor else []
        words += [] if scheme.weight.symmetric else ["asymmetric"]
        words += ["linear"] if scheme.embedding is None else []
        assert name == "-".join(words)


def test_what_the_field_deploys_is_there() -> None:
    wanted = {"w8a16", "w4a16-g32", "w4a16-g128", "w8a8", "w8a8-static", "w4a8", "w8a8-linear"}
    assert wanted <= SCHEMES.keys()


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_a_row_survives_being_written_in_a_recipe(scheme: Scheme) -> None:
    assert Scheme.model_validate_json(scheme.model_dump_json()) == scheme
    assert Scheme.model_validate(scheme.model_dump(exclude_defaults=True)) == scheme
    LayerFormat(weight=scheme.weight, activation=scheme.activation)


def test_only_static_schemes_want_calibration() -> None:
    assert [name for name, scheme in SCHEMES.items() if scheme.is_static] == ["w8a8-static"]
    override = Override(layers="*", weight=INT8, activation=STATIC)
    assert Scheme(name="x", weight=INT8, overrides=(override,)).is_static


# Formats


@pytest.mark.parametrize("bits", [0, 1, 9, 16])
def test_codes_have_two_to_eight_bits(bits: int) -> None:
    with pytest.raises(ValidationError, match="bits"):
        WeightFormat(bits=bits)


@pytest.mark.parametrize("wrong", [{"bits": 4}, {"granularity": "per_channel"}, {"zero": 1}])
def test_activations_that_nothing_computes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ActivationFormat(**wrong)


@pytest.mark.parametrize("group", [0, -32])
def test_groups_hold_something(group: int) -> None:
    with pytest.raises(ValidationError, match="group_size"):
        WeightFormat(bits=4, group_size=group)


def test_a_group_size_means_groups() -> None:
    assert WeightFormat(bits=4, group_size=32).granularity == "per_group"
    assert WeightFormat.model_validate({"bits": 4, "group_size": 32}).granularity == "per_group"
    assert WeightFormat(bits=4).granularity == "per_channel"


@pytest.mark.parametrize(
    "wrong",
    [
        {"granularity": "per_group"},
        {"granularity": "per_channel", "group_size": 32},
        {"granularity": "per_tensor", "group_size": 32},
    ],
)
def test_groups_and_their_size_come_together(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="group_size goes with granularity per_group"):
        WeightFormat(bits=8, **wrong)


def test_static_ranges_are_for_whole_tensors() -> None:
    with pytest.raises(ValidationError, match=r"static ranges .* use per_tensor"):
        ActivationFormat(ranges="static")
    assert STATIC.ranges == "static"


def test_schemes_are_values() -> None:
    one = Scheme(name="x", weight=WeightFormat(bits=4, group_size=32))
    assert one == Scheme(name="x", weight=WeightFormat(bits=4, group_size=32))
    assert one != Scheme(name="x", weight=WeightFormat(bits=4, group_size=64))
    assert Scheme.model_validate_json(one.model_dump_json()) == one
    assert len({one, Scheme(name="x", weight=WeightFormat(bits=4, group_size=32))}) == 1
    with pytest.raises(ValidationError, match="frozen"):
        one.name = "y"
    with pytest.raises(ValidationError, match="zero_point"):
        Scheme.model_validate({**one.model_dump(), "zero_point": 0})


@given(weight=weight_formats, activation=activation_formats, embedding=weight_formats | st.none())
def test_every_scheme_that_can_be_said_comes_back_from_json(
    weight: WeightFormat, activation: ActivationFormat | None, embedding: WeightFormat | None
) -> None:
    if unserved(weight, activation) or (embedding and unserved(embedding, None)):
        return
    override = Override(layers="*.down_proj", weight=weight, activation=activation)
    scheme = Scheme(
        name="x",
        weight=weight,
        activation=activation,
        embedding=embedding,
        overrides=(override, Override(layers="*.0.*", weight=None)),
    )
    assert Scheme.model_validate_json(scheme.model_dump_json()) == scheme


# What torchao serves


SERVED = [
    (INT8, None),
    (INT8, DYNAMIC),
    (INT8, ActivationFormat(symmetric=True)),
    (INT8, ActivationFormat(granularity="per_tensor")),
    (INT8, ActivationFormat(granularity="per_tensor", symmetric=True)),
    (INT8, STATIC),
    (WeightFormat(bits=8, granularity="per_tensor"), None),
    (WeightFormat(bits=8, granularity="per_tensor"), DYNAMIC),
    (WeightFormat(bits=8, granularity="per_tensor"), STATIC),
    (WeightFormat(bits=3, group_size=16, symmetric=False), None),
    (WeightFormat(bits=2), DYNAMIC),
    (WeightFormat(bits=8, symmetric=False), DYNAMIC),
]
UNSERVED = [
    (WeightFormat(bits=4, granularity="per_tensor"), None, "per-tensor scales on 8-bit symmetric"),
    (
        WeightFormat(bits=8, granularity="per_tensor", symmetric=False),
        DYNAMIC,
        "use per_channel or a group_size",
    ),
    (WeightFormat(bits=4), STATIC, "torchao serves static activations on 8-bit symmetric weights"),
    (WeightFormat(bits=8, group_size=32), STATIC, "one scale a channel or tensor only"),
    (
        WeightFormat(bits=8, symmetric=False),
        ActivationFormat(granularity="per_tensor"),
        "torchao serves per-tensor activations on 8-bit symmetric weights",
    ),
    (
        WeightFormat(bits=4, group_size=32),
        ActivationFormat(symmetric=True),
        "torchao serves symmetric per-token activations on 8-bit symmetric weights",
    ),
]


@pytest.mark.parametrize(("weight", "activation"), SERVED)
def test_what_torchao_serves_is_taken(
    weight: WeightFormat, activation: ActivationFormat | None
) -> None:
    assert unserved(weight, activation) is None
    LayerFormat(weight=weight, activation=activation)
    Scheme(name="x", weight=weight, activation=activation)


@pytest.mark.parametrize(("weight", "activation", "reason"), UNSERVED)
def test_what_torchao_does_not_serve_is_refused_with_the_reason(
    weight: WeightFormat, activation: ActivationFormat | None, reason: str
) -> None:
    assert reason in str(unserved(weight, activation))
    with pytest.raises(ValidationError, match=reason):
        Scheme(name="x", weight=weight, activation=activation)
    with pytest.raises(ValidationError, match=reason):
        LayerFormat(weight=weight, activation=activation)
    override = Override(layers="*", weight=weight, activation=activation)
    with pytest.raises(ValidationError, match=reason):
        Scheme(name="x", weight=INT8, overrides=(override,))


@given(weight=weight_formats, activation=activation_formats)
def test_a_reason_says_what_to_do_instead(
    weight: WeightFormat, activation: ActivationFormat | None
) -> None:
    reason = unserved(weight, activation)
    if reason is not None:
        assert "; use " in reason
    else:
        layer = LayerFormat(weight=weight, activation=activation)
        assert not layer.scales_products or (weight.bits == 8 and weight.symmetric)


@pytest.mark.parametrize("place", ["embedding", "head"])
def test_the_ends_of_the_model_are_held_to_the_same(place: str) -> None:
    with pytest.raises(ValidationError, match="per-tensor scales on 8-bit"):
        Scheme(
            name="x",
            weight=INT8,
            **cast(Any, {place: WeightFormat(bits=4, granularity="per_tensor")}),
        )


# Overrides


def layer_of(scheme: Scheme, name: str) -> LayerFormat | None:
    default = LayerFormat(weight=scheme.weight, activation=scheme.activation)
    return scheme.layer(name, default)


def test_the_last_override_that_matches_counts() -> None:
    scheme = Scheme(
        name="mixed",
        weight=WeightFormat(bits=4, group_size=32),
        activation=DYNAMIC,
        overrides=(
            Override(layers="*.down_proj", weight=INT8, activation=DYNAMIC),
            Override(layers="model.layers.1.*", weight=None),
            Override(layers="*.1.mlp.down_proj", weight=WeightFormat(bits=2)),
        ),
    )
    untouched = layer_of(scheme, "model.layers.0.mlp.up_proj")
    assert untouched == LayerFormat(weight=scheme.weight, activation=DYNAMIC)
    eight = layer_of(scheme, "model.layers.0.mlp.down_proj")
    assert eight == LayerFormat(weight=INT8, activation=DYNAMIC)
    assert layer_of(scheme, "model.layers.1.mlp.up_proj") is None
    two = layer_of(scheme, "model.layers.1.mlp.down_proj")
    assert two == LayerFormat(weight=WeightFormat(bits=2))


def test_an_override_can_quantize_what_is_float_otherwise() -> None:
    scheme = Scheme(
        name="x",
        weight=INT8,
        embedding=None,
        overrides=(Override(layers="model.embed_tokens", weight=INT8),),
    )
    assert scheme.layer("model.embed_tokens", None) == LayerFormat(weight=INT8)
    assert scheme.layer("lm_head", None) is None


def test_an_override_leaves_inputs_in_float_unless_it_says_otherwise() -> None:
    override = Override(layers="*", weight=INT8)
    scheme = Scheme(name="x", weight=INT8, activation=DYNAMIC, overrides=(override,))
    assert layer_of(scheme, "a") == LayerFormat(weight=INT8)


def test_patterns_are_case_sensitive_globs_of_the_whole_name() -> None:
    override = Override(layers="*.Proj", weight=None)
    scheme = Scheme(name="x", weight=INT8, overrides=(override,))
    assert layer_of(scheme, "a.Proj") is None
    for name in ("a.proj", "a.Proj.b", "Proj"):
        assert layer_of(scheme, name) is not None


# Ends of the model


def test_a_head_is_what_the_embedding_is_unless_it_is_said() -> None:
    four = WeightFormat(bits=4)
    assert Scheme(name="x", weight=INT8).head_format == INT8
    assert Scheme(name="x", weight=INT8, embedding=four).head_format == four
    assert Scheme(name="x", weight=INT8, embedding=None).head_format is None
    assert Scheme(name="x", weight=INT8, embedding=None, head=four).head_format == four
    assert Scheme(name="x", weight=INT8, head=None).head_format is None


# As a recipe says it


def test_a_scheme_is_read_from_what_a_recipe_says() -> None:
    scheme = Scheme.model_validate(
        {
            "name": "mine",
            "weight": {"bits": 4, "group_size": 64, "symmetric": False},
            "activation": {"granularity": "per_token"},
            "embedding": "float",
            "head": {"bits": 8},
            "overrides": [
                {"layers": "*.down_proj", "weight": {"bits": 8}, "activation": "float"},
                {"layers": "*.o_proj", "weight": "float"},
            ],
        }
    )
    assert scheme == Scheme(
        name="mine",
        weight=WeightFormat(bits=4, granularity="per_group", group_size=64, symmetric=False),
        activation=DYNAMIC,
        embedding=None,
        head=INT8,
        overrides=(
            Override(layers="*.down_proj", weight=INT8, activation=None),
            Override(layers="*.o_proj", weight=None),
        ),
    )


@pytest.mark.parametrize("place", ["activation", "embedding", "head"])
def test_float_is_a_format_of_everything_but_a_schemes_weights(place: str) -> None:
    said = Scheme.model_validate({"name": "x", "weight": {"bits": 8}, place: "float"})
    assert getattr(said, place) is None
    with pytest.raises(ValidationError, match="weight"):
        Scheme.model_validate({"name": "x", "weight": "float"})


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"embedding": "int8"}, "embedding"),
        ({"head": "tied"}, "head"),
        ({"overrides": [{"layers": "", "weight": "float"}]}, "layers"),
        ({"overrides": [{"layers": "*"}]}, "weight"),
        ({"overrides": [{"layers": "*", "weight": "float", "bits": 4}]}, "bits"),
    ],
)
def test_what_means_nothing_is_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Scheme.model_validate({"name": "x", "weight": {"bits": 8}, **wrong})
