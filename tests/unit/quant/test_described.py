from __future__ import annotations

import pytest
import torch
from torch import nn

import quantship
from quantship.quant.described import format_of, scheme_of
from quantship.quant.layers import formats
from quantship.quant.scheme import SCHEMES, ActivationFormat, Override, Scheme, WeightFormat
from quantship.quant.tensors import stored_in

pytestmark = pytest.mark.usefixtures("one_thread")
MIXED = Scheme(
    name="mixed",
    weight=WeightFormat(bits=4, group_size=32),
    overrides=(
        Override(layers="1", weight=WeightFormat(bits=8, granularity="per_tensor")),
        Override(layers="2", weight=WeightFormat(bits=8), activation=ActivationFormat()),
    ),
)


def module() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 8), nn.Linear(8, 1))


@pytest.mark.parametrize(
    "scheme",
    [one for one in SCHEMES.values() if one.weight.group_size is None],
    ids=lambda one: one.name,
)
def test_codes_tell_their_formats(scheme: Scheme) -> None:
    stored = stored_in(quantship.quantize(module(), scheme, [torch.randn(4, 64)]))
    assert {name: format_of(part) for name, part in stored.items()} == formats(module(), scheme)
    described = scheme_of(stored, "found")
    assert described is not None
    assert (described.weight, described.activation) == (scheme.weight, scheme.activation)
    assert described.overrides == ()


def test_a_mixed_scheme_describes_every_layer() -> None:
    three = module()[:3]
    stored = stored_in(quantship.quantize(three, MIXED))
    described = scheme_of(stored, "found")
    assert described is not None
    # Scales of groups are described as they lie in the tensor: in float32.
    assert (
        formats(three, described)
        == {name: format_of(part) for name, part in stored.items()}
        == formats(three, MIXED)
    )


def test_nothing_quantized_has_no_scheme() -> None:
    assert scheme_of({}, "found") is None
