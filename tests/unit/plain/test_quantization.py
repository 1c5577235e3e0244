from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from quantship import convert, prepare_qat, quantize
from quantship.quant.convolution import QuantizedConv2d
from quantship.quant.differences import differing
from quantship.quant.modules import FakeQuantLinear, FakeQuantModule, codes_of, input_grids
from quantship.quant.scheme import SCHEMES, LayerFormat, Override, Scheme, WeightFormat
from quantship.quant.tensors import codes_in
from quantship.recipe.rounding_options import Calibration

if TYPE_CHECKING:
    from transformers import PreTrainedModel

W8A8_PER_TENSOR = Scheme(
    name="per tensor",
    weight=WeightFormat(bits=8, granularity="per_tensor"),
    activation=SCHEMES["w8a8-static"].activation,
)
SHAPED = [scheme for scheme in SCHEMES.values() if scheme.weight.group_size != 128]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def float_linear(name: str) -> Scheme:
    return Scheme(
        name=name,
        weight=WeightFormat(bits=4, group_size=32),
        overrides=(Override(layers="*", weight=None),),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scheme", SHAPED, ids=lambda scheme: scheme.name)
def test_a_converted_module_holds_the_codes_and_computes_the_outputs(
    reader: nn.Module, ids: Tensor, scheme: Scheme, dtype: torch.dtype
) -> None:
    fake = prepare_qat(reader.to(dtype).eval(), scheme, [ids])
    quantized = convert(fake)
    codes = codes_of(fake)
    assert len(codes) == (3 if scheme.embedding else 2)
    assert differing(codes, codes_in(quantized)) == []
    ours, theirs = fake(ids), quantized(ids)
    assert ours.dtype == theirs.dtype == dtype
    # Where torchao adds up integers, a narrow float rounds other sums than it does.
    if (
        dtype == torch.bfloat16
        and LayerFormat(weight=scheme.weight, activation=scheme.activation).scales_products
    ):
        assert (ours - theirs).norm() <= 0.02 * ours.norm()
    else:
        assert torch.equal(ours, theirs)


def test_training_changes_the_codes_that_are_converted(reader: nn.Module, ids: Tensor) -> None:
    fake = prepare_qat(reader, "w4a8")
    before = codes_of(fake)
    optimizer = torch.optim.AdamW(fake.parameters(), lr=0.05)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(fake(ids).flatten(0, 1), ids.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    after = codes_of(fake)
    assert differing(before, after) == sorted(before)
    quantized = convert(fake)
    assert differing(after, codes_in(quantized)) == []
    assert torch.equal(fake.eval()(ids), quantized(ids))


def test_nothing_but_the_result_changes(reader: nn.Module, ids: Tensor) -> None:
    before = copy.deepcopy(reader.state_dict())
    outputs = reader(ids)
    fake = prepare_qat(reader, "w4a8")
    fake_state, fake_outputs = copy.deepcopy(fake.state_dict()), fake(ids)
    quantized = convert(fake)
    assert torch.equal(reader(ids), outputs)
    assert torch.equal(fake(ids), fake_outputs)
    for kept, state in ((before, reader.state_dict()), (fake_state, fake.state_dict())):
        assert kept.keys() == state.keys()
        assert all(torch.equal(kept[name], state[name]) for name in kept)
    assert not any(isinstance(one, FakeQuantModule) for one in reader.modules())
    assert not any(one.requires_grad for one in quantized.parameters())


def test_in_place_the_parameters_stay_the_same_objects(reader: nn.Module) -> None:
    weights = dict(reader.named_parameters())
    assert prepare_qat(reader, "w8a8", inplace=True) is reader
    found = dict(reader.named_parameters())
    assert found.keys() == weights.keys()
    assert all(found[name] is weights[name] for name in weights)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_kept_and_a_converted_module_is_for_evaluation(
    reader: nn.Module, training: bool
) -> None:
    fake = prepare_qat(reader.train(training), "w8a8")
    assert {one.training for one in fake.modules()} == {training}
    assert {one.training for one in convert(fake).modules()} == {False}


def test_a_layer_under_two_names_is_quantized_once(reader: nn.Module) -> None:
    fake = prepare_qat(reader, "w8a8")
    assert isinstance(fake.inner, FakeQuantLinear)
    assert fake.again is fake.inner
    quantized = convert(fake)
    assert quantized.again is quantized.inner


def test_matrices_that_are_tied_stay_tied(reader: nn.Module, ids: Tensor) -> None:
    reader.out.weight = reader.words.weight  # type: ignore[union-attr]
    fake = prepare_qat(reader, "w8a16")
    quantized = convert(fake)
    assert quantized.out.weight is quantized.words.weight  # type: ignore[union-attr]
    assert torch.equal(fake.eval()(ids), quantized(ids))


def test_tied_matrices_of_two_formats_are_quantized_apart(reader: nn.Module, ids: Tensor) -> None:
    reader.out.weight = reader.words.weight  # type: ignore[union-attr]
    fake = prepare_qat(reader, "w8a8")
    quantized = convert(fake)
    assert quantized.out.weight is not quantized.words.weight  # type: ignore[union-attr]
    assert torch.equal(fake.eval()(ids), quantized(ids))


@pytest.mark.parametrize("name", ["w8a8", "w8a8-static", "w4a16-g32"])
def test_a_language_model_is_a_module_like_any_other(
    tiny_model: PreTrainedModel, name: str
) -> None:
    tokens = torch.randint(250, (2, 9))
    fake = prepare_qat(tiny_model.eval(), name, [{"input_ids": tokens}])
    quantized: Any = convert(fake)
    assert differing(codes_of(fake), codes_in(quantized)) == []
    assert torch.equal(fake(tokens).logits, quantized(tokens).logits)
    assert quantized.lm_head.weight is quantized.model.embed_tokens.weight


def test_a_transformer_layer_takes_no_way_around_its_linear_layers() -> None:
    """In evaluation PyTorch's own would read the float weights of linear1 and linear2."""
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    input = torch.randn(2, 5, 32)
    fake = prepare_qat(encoder, "w4a8")
    assert set(codes_of(fake)) == {f"layers.{i}.linear{j}" for i in (0, 1) for j in (1, 2)}
    with torch.inference_mode():
        outputs, quantized = fake(input), convert(fake)(input)
        assert torch.equal(outputs, quantized)
        assert not torch.allclose(outputs, encoder(input), atol=1e-3)


def test_layers_can_stay_in_float_or_take_another_format(reader: nn.Module, ids: Tensor) -> None:
    scheme = Scheme(
        name="mixed",
        weight=WeightFormat(bits=4, group_size=32),
        embedding=None,
        overrides=(
            Override(layers="inner", weight=WeightFormat(bits=8)),
            Override(layers="out", weight=None),
        ),
    )
    quantized = quantize(reader, scheme)
    assert codes_in(quantized).keys() == {"inner"}
    assert codes_in(quantized)["inner"].scale_OG.shape == (64, 1)


def test_quantize_is_preparing_and_converting(reader: nn.Module, ids: Tensor) -> None:
    one, other = quantize(reader, "w4a8"), convert(prepare_qat(reader, "w4a8"))
    assert differing(codes_in(one), codes_in(other)) == []
    assert torch.equal(one(ids), other(ids))


# Convolutions


@pytest.mark.parametrize("scheme", [SCHEMES["w8a8-static"], W8A8_PER_TENSOR], ids=lambda s: s.name)
def test_convolutions_are_folded_and_computed_to_the_bit(
    convolutions: nn.Module, images: Tensor, scheme: Scheme
) -> None:
    fake = prepare_qat(convolutions, scheme, [images])
    quantized = convert(fake)
    kinds = [type(one) for one in quantized.children()]
    assert kinds.count(QuantizedConv2d) == 3
    assert nn.BatchNorm2d not in kinds
    codes = codes_of(fake)
    for name in ("0", "3", "6"):
        layer = quantized.get_submodule(name)
        assert torch.equal(layer.codes.flatten(1), codes[name].codes_OI)  # type: ignore[operator]
    outputs, floats = quantized(images), convolutions(images)
    assert torch.equal(fake(images), outputs)
    assert 0 < (outputs - floats).norm() < 0.05 * floats.norm()


def test_convolutions_train_under_fake_quantization(
    convolutions: nn.Module, images: Tensor
) -> None:
    fake = prepare_qat(convolutions, "w8a8-static", [images]).train()
    before = codes_of(fake)
    optimizer = torch.optim.SGD(fake.parameters(), lr=0.1)
    fake(images).square().mean().backward()
    assert all(parameter.grad is not None for parameter in fake.parameters())
    optimizer.step()
    assert differing(before, codes_of(fake)) == sorted(before)
    assert torch.equal(fake.eval()(images), convert(fake)(images))


def test_a_scheme_that_no_convolution_can_take_is_refused(
    convolutions: nn.Module, images: Tensor
) -> None:
    with pytest.raises(ValueError, match=r"does not fit convolution '0'.* static inputs") as caught:
        prepare_qat(convolutions, "w8a8", [images])
    assert "with an override" in str(caught.value)
    left = Scheme(
        name="left",
        weight=WeightFormat(bits=4, group_size=16),
        overrides=tuple(Override(layers=layer, weight=None) for layer in "036"),
    )
    quantized = quantize(convolutions, left)
    assert codes_in(quantized).keys() == {"8"}
    assert isinstance(quantized.get_submodule("1"), nn.BatchNorm2d)


# Calibration


def test_batches_are_tensors_tuples_or_mappings(reader: nn.Module, ids: Tensor) -> None:
    grids = [
        input_grids(prepare_qat(reader, "w8a8-static", [batch]))
        for batch in (ids, (ids,), {"ids": ids})
    ]
    assert grids[0].keys() == {"inner", "out"}
    for other in grids[1:]:
        assert all(torch.equal(grids[0][name].scale, other[name].scale) for name in other)


def test_options_say_how_ranges_are_found(reader: nn.Module, ids: Tensor) -> None:
    clipped = Calibration(range="percentile", percentile=80)
    wide = prepare_qat(reader, "w8a8-static", [ids], options=Calibration(range="minmax"))
    narrow = prepare_qat(reader, "w8a8-static", [ids], options=clipped)
    assert input_grids(narrow)["out"].scale < 0.9 * input_grids(wide)["out"].scale


def test_static_ranges_need_data(reader: nn.Module, ids: Tensor) -> None:
    for batches in (None, []):
        with pytest.raises(ValueError, match="give calibration a list of batches"):
            prepare_qat(reader, "w8a8-static", batches)


def test_an_iterator_of_batches_is_used_in_full(reader: nn.Module, ids: Tensor) -> None:
    options = Calibration(range="minmax")
    each = [
        input_grids(prepare_qat(reader, "w8a8-static", [one], options=options))
        for one in ids.split(1)
    ]
    together = input_grids(prepare_qat(reader, "w8a8-static", iter(ids.split(1)), options=options))
    assert together["out"].scale >= max(one["out"].scale for one in each)


# What cannot be


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def weight_normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)))


@pytest.mark.parametrize(
    ("make", "scheme", "message"),
    [
        (
            lambda: nn.Sequential(nn.Linear(8, 8)),
            "w8a9",
            r"unknown scheme 'w8a9'. Did you mean w8a8",
        ),
        (lambda: nn.Sequential(nn.ReLU()), "w8a8", "quantizes no layer of this module"),
        (lambda: nn.Sequential(nn.Linear(8, 8)), float_linear("none"), "quantizes no layer"),
        (lambda: nn.Linear(8, 8), "w8a8", "wrap it, as in nn.Sequential"),
        (lambda: nn.Sequential(nn.Linear(8, 8)), "w4a8", "groups of 32"),
        (lambda: nn.Sequential(nn.Linear(8, 8)).double(), "w8a8", "'0' is torch.float64"),
        (lambda: nn.Sequential(Doubled(8, 8)), "w8a8", "'0' is a Doubled, whose forward"),
        (lambda: nn.Sequential(nn.LazyLinear(8)), "w8a8", "has no weight yet; run the module"),
        (weight_normed, "w8a8", "'0' makes its weight anew at each call"),
        (lambda: nn.Sequential(nn.Embedding(9, 8, max_norm=1.0)), "w8a8", "to max_norm"),
        (lambda: quantize(nn.Sequential(nn.Linear(8, 8)), "w8a8"), "w8a8", "quantized already"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_cannot_be_quantized_is_refused_and_left_as_it_was(
    make: Any, scheme: Any, message: str
) -> None:
    module = make()
    before = [type(one) for one in module.modules()]
    with pytest.raises(ValueError, match=message):
        prepare_qat(module, scheme, inplace=True)
    assert [type(one) for one in module.modules()] == before


def test_only_what_was_prepared_can_be_converted(reader: nn.Module) -> None:
    with pytest.raises(ValueError, match="call prepare_qat before"):
        convert(reader)
