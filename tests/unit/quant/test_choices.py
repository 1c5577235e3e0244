from __future__ import annotations

from typing import Any

import pytest

from quantship.quant.choices import bits_of, bits_range, layers_of, scheme_of, uniform
from quantship.quant.layers import formats
from quantship.quant.scheme import SCHEMES, Override, Scheme, WeightFormat

BASE = SCHEMES["w4a16-g32"]
FOUR = BASE.model_copy(update={"name": "four", "embedding": WeightFormat(bits=4, group_size=32)})
CANDIDATES = {
    "w8a16": SCHEMES["w8a16"],
    "w4a16-g32": BASE,
    "w2a16-g32": SCHEMES["w2a16-g32"],
    "four": FOUR,
}


def test_linear_layers_are_chosen_for_and_the_embedding_is_the_bases(tiny_model: Any) -> None:
    layers = layers_of(tiny_model, BASE, CANDIDATES, embedding=False)
    assert {layer.name for layer in layers} == formats(tiny_model, BASE).keys()
    for layer in layers:
        assert layer.is_chosen == (layer.place == "linear")
        if layer.place == "embedding":
            (only,) = layer.formats.values()
            assert only.weight == BASE.embedding
            assert layer.is_multiplied  # it is the head as well


def test_a_format_counts_once(tiny_model: Any) -> None:
    layers = layers_of(tiny_model, BASE, CANDIDATES, embedding=True)
    for layer in layers:
        wanted = ["w8a16", "four"] if layer.place == "embedding" else list(CANDIDATES)[:3]
        assert list(layer.formats) == wanted


def test_groups_that_do_not_divide_a_layer_are_no_choice_for_it(tiny_model: Any) -> None:
    wide = BASE.model_copy(update={"weight": WeightFormat(bits=4, group_size=256)})
    layers = layers_of(tiny_model, BASE, {"wide": wide, "w8a16": SCHEMES["w8a16"]}, embedding=False)
    for layer in layers:
        if layer.is_chosen:
            assert ("wide" in layer.formats) == (layer.num_in % 256 == 0)
    assert uniform(layers, "wide") is None
    with pytest.raises(ValueError, match="none of the candidates wide fits layer"):
        layers_of(tiny_model, BASE, {"wide": wide}, embedding=False)


def test_what_the_base_overrides_is_left_alone(tiny_model: Any) -> None:
    mine = BASE.model_copy(
        update={
            "overrides": (
                Override(layers="*.q_proj", weight=WeightFormat(bits=8)),
                Override(layers="*.k_proj", weight=None),
            )
        }
    )
    layers = {one.name: one for one in layers_of(tiny_model, mine, CANDIDATES, embedding=False)}
    assert not any(name.endswith("k_proj") for name in layers)
    for name, layer in layers.items():
        assert layer.is_chosen == (layer.place == "linear" and not name.endswith("q_proj"))


@pytest.mark.parametrize("embedding", [False, True])
def test_the_scheme_of_an_allocation_is_that_allocation(tiny_model: Any, embedding: bool) -> None:
    layers = layers_of(tiny_model, BASE, CANDIDATES, embedding=embedding)
    chosen = {
        layer.name: list(layer.formats)[index % len(layer.formats)]
        for index, layer in enumerate(layers)
        if layer.is_chosen
    }
    scheme = scheme_of(BASE, "mixed", layers, chosen)
    made = formats(tiny_model, scheme)
    for layer in layers:
        name = chosen.get(layer.name, next(iter(layer.formats)))
        assert made[layer.name] == layer.formats[name]
    assert Scheme.model_validate_json(scheme.model_dump_json()) == scheme


def test_one_candidate_everywhere_needs_no_overrides(tiny_model: Any) -> None:
    layers = layers_of(tiny_model, BASE, CANDIDATES, embedding=False)
    chosen = uniform(layers, "w8a16")
    assert chosen is not None
    scheme = scheme_of(BASE, "mixed", layers, chosen)
    assert scheme.overrides == ()
    assert scheme.weight == SCHEMES["w8a16"].weight


def test_bits_are_those_of_codes_scales_and_zero_points() -> None:
    assert bits_of(SCHEMES["w4a16-g32"].weight, 8, 64) / (8 * 64) == 4.5
    assert bits_of(SCHEMES["w4a16-g32-asymmetric"].weight, 8, 64) / (8 * 64) == 4.625
    assert bits_of(SCHEMES["w8a16"].weight, 8, 64) / (8 * 64) == 8.5
    assert bits_of(SCHEMES["w8a8-per-tensor"].weight, 8, 64) / (8 * 64) == 8.5


def test_averages_lie_between_those_of_the_extremes(tiny_model: Any) -> None:
    layers = layers_of(tiny_model, BASE, CANDIDATES, embedding=False)
    least, most = bits_range(layers)
    assert least == 2.5
    assert 8 < most < 8.3
