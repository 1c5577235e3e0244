from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
from torchao.quantization import Int4Tensor, Int8Tensor, IntxUnpackedToInt8Tensor, quantize_

from quantship.quant.numerics import Codes, Grid, code_range, dequantize, input_grid
from quantship.quant.scheme import ActivationFormat, LayerFormat, WeightFormat, packs
from quantship.quant.tensors import (
    StoredCodes,
    config_of,
    decode,
    encode,
    pack_int4,
    unpack_int4,
)

pytestmark = pytest.mark.usefixtures("one_thread")

DYNAMIC = ActivationFormat()
INT8 = WeightFormat(bits=8)
WHOLE = WeightFormat(bits=8, granularity="per_tensor")
INTX = [
    LayerFormat(weight=WeightFormat(bits=bits, symmetric=symmetric, **shared), activation=inputs)
    for bits in range(2, 9)
    for symmetric in (True, False)
    for shared in ({}, {"group_size": 16}, {"group_size": 32, "scale_dtype": "bfloat16"})
    for inputs in (None, DYNAMIC)
]
INT8_KIND = [
    LayerFormat(weight=weight, activation=inputs)
    for weight in (INT8, WHOLE)
    for inputs in (
        None,
        DYNAMIC,
        ActivationFormat(symmetric=True),
        ActivationFormat(granularity="per_tensor"),
        ActivationFormat(granularity="per_tensor", symmetric=True),
        ActivationFormat(granularity="per_tensor", ranges="static"),
        ActivationFormat(granularity="per_tensor", ranges="static", symmetric=True),
    )
]
FORMATS = [*INTX, *INT8_KIND]
PACKED = LayerFormat(weight=WeightFormat(bits=4, group_size=32, scale_dtype="bfloat16"))


def spelled(format: LayerFormat) -> str:
    weight, inputs = format.weight, format.activation
    parts = [f"w{weight.bits}", weight.group_size or weight.granularity, weight.scale_dtype]
    parts += ["symmetric" if weight.symmetric else "asymmetric"]
    if inputs is not None:
        parts += [inputs.granularity, inputs.ranges, "symmetric" if inputs.symmetric else "zero"]
    return "-".join(map(str, parts))


every_format = pytest.mark.parametrize("format", FORMATS, ids=spelled)


def random_codes(fmt: WeightFormat, rows: int = 12, columns: int = 64, seed: int = 0) -> Codes:
    """Codes that no rounding ever made: what is stored is what was given."""
    generator = torch.Generator().manual_seed(seed)
    low, high = code_range(fmt.bits)
    shape = (1, 1)
    if fmt.granularity != "per_tensor":
        shape = (rows, columns // (fmt.group_size or columns))
    scale = torch.rand(shape, generator=generator) + 0.01
    zero = torch.randint(low, high + 1, shape, generator=generator, dtype=torch.int8)
    return Codes(
        torch.randint(low, high + 1, (rows, columns), generator=generator, dtype=torch.int8),
        scale.bfloat16().float() if fmt.scale_dtype == "bfloat16" else scale,
        None if fmt.symmetric else zero,
    )


def static_grid(format: LayerFormat) -> Grid | None:
    if format.activation is None or format.activation.ranges == "dynamic":
        return None
    return input_grid(torch.full((1, 1, 1), -1.5), torch.full((1, 1, 1), 2.5), format.activation)


def through_a_file(tensor: Tensor, *, transposed: bool = False) -> StoredCodes:
    """Decode what torchao itself says that a file would hold."""
    flat, metadata = flatten_tensor_state_dict({"layer.weight": tensor})
    entry = json.loads(metadata["layer.weight"])

    def read(part: str) -> Tensor | None:
        found: Tensor | None = flat.get(f"layer._weight_{part}")
        return found

    return decode("layer", entry["_type"], entry["_data"], read, transposed=transposed)


def assert_same(one: Codes, other: Codes) -> None:
    assert torch.equal(one.codes_OI, other.codes_OI)
    assert torch.equal(one.scale_OG.float(), other.scale_OG.float())
    if one.zero_OG is None or other.zero_OG is None:
        assert one.zero_OG is other.zero_OG is None
    else:
        assert torch.equal(one.zero_OG, other.zero_OG)


# There and back


@pytest.mark.parametrize("transposed", [False, True])
@every_format
def test_decoding_gives_what_was_encoded(format: LayerFormat, transposed: bool) -> None:
    codes, grid = random_codes(format.weight), static_grid(format)
    tensor = encode(codes, format, grid, packed=False, transposed=transposed)
    assert tensor.shape == ((64, 12) if transposed else (12, 64))
    stored = through_a_file(tensor, transposed=transposed)
    assert_same(stored.codes, codes)
    assert stored.name == "layer"
    assert stored.bits == format.weight.bits
    assert stored.activation == format.activation
    assert stored.quantizes_input == (format.activation is not None)
    if grid is None:
        assert stored.input_grid is None
    else:
        assert stored.input_grid is not None
        assert torch.equal(stored.input_grid.scale, grid.scale)
        zero = torch.zeros_like(grid.scale) if grid.zero is None else grid.zero
        theirs = stored.input_grid.zero
        assert torch.equal(torch.zeros_like(zero) if theirs is None else theirs, zero)


@pytest.mark.parametrize("group", [16, 32, 64])
def test_packed_codes_come_back(group: int) -> None:
    fmt = WeightFormat(bits=4, group_size=group, scale_dtype="bfloat16")
    codes = random_codes(fmt)
    tensor = encode(codes, LayerFormat(weight=fmt), None, packed=True, transposed=False)
    assert isinstance(tensor, Int4Tensor)
    stored = through_a_file(tensor)
    assert_same(stored.codes, codes)
    assert (stored.bits, stored.activation) == (4, None)


@every_format
def test_a_tensor_stands_for_the_numbers_that_its_codes_do(format: LayerFormat) -> None:
    codes = random_codes(format.weight)
    expected = dequantize(codes)
    for transposed in (False, True):
        grid = static_grid(format)
        tensor: Any = encode(codes, format, grid, packed=False, transposed=transposed)
        numbers = tensor.dequantize()
        assert torch.equal(numbers.t() if transposed else numbers, expected)


# Static ones torchao makes in two steps, with observers between.
@pytest.mark.parametrize(
    "format", [format for format in FORMATS if static_grid(format) is None], ids=spelled
)
def test_torchao_makes_the_same_kind_of_tensor_of_the_same_name(format: LayerFormat) -> None:
    codes = random_codes(format.weight)
    ours: Any = encode(codes, format, None, packed=False, transposed=False)
    linear = nn.Linear(64, 12, bias=False)
    linear.weight.data.copy_(dequantize(codes))
    quantize_(linear, config_of(format, packed=False))
    theirs: Any = linear.weight
    assert type(theirs) is type(ours)
    assert theirs.qdata.shape == ours.qdata.shape
    assert theirs.scale.shape == ours.scale.shape
    assert tuple(theirs.block_size) == tuple(ours.block_size)
    for attribute in ("target_dtype", "activation_quantization", "act_quant_kwargs"):
        assert getattr(theirs, attribute, None) == getattr(ours, attribute, None)


@pytest.mark.parametrize(
    ("format", "kind"),
    [
        (LayerFormat(weight=INT8), IntxUnpackedToInt8Tensor),
        (LayerFormat(weight=INT8, activation=DYNAMIC), IntxUnpackedToInt8Tensor),
        (LayerFormat(weight=WHOLE), Int8Tensor),
        (LayerFormat(weight=INT8, activation=ActivationFormat(symmetric=True)), Int8Tensor),
        (PACKED, IntxUnpackedToInt8Tensor),
    ],
)
def test_each_family_of_formats_has_its_tensor(format: LayerFormat, kind: type) -> None:
    codes = random_codes(format.weight)
    assert isinstance(encode(codes, format, None, packed=False, transposed=False), kind)


@every_format
def test_encoding_leaves_the_codes_alone(format: LayerFormat) -> None:
    codes = random_codes(format.weight)
    encode(codes, format, static_grid(format), packed=True, transposed=True)
    assert_same(codes, random_codes(format.weight))


def test_another_tensor_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"weight of 'a\.b' is a Float8Tensor"):
        decode("a.b", "Float8Tensor", {}, lambda part: None, transposed=False)


@pytest.mark.parametrize("format", INT8_KIND, ids=spelled)
def test_an_encoded_layer_runs(format: LayerFormat) -> None:
    codes = random_codes(format.weight)
    tensor = encode(codes, format, static_grid(format), packed=False, transposed=False)
    tokens = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))
    output, exact = F.linear(tokens, tensor), F.linear(tokens, dequantize(codes))
    assert (output - exact).norm() < 0.2 * exact.norm()


# Two codes a byte


@settings(deadline=None)
@given(rows=st.integers(1, 5), pairs=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_unpacking_undoes_packing(rows: int, pairs: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-8, 8, (rows, 2 * pairs), generator=generator, dtype=torch.int8)
    packed = pack_int4(codes)
    assert packed.dtype == torch.int8
    assert packed.shape == (rows, pairs)
    assert torch.equal(unpack_int4(packed), codes)


@settings(deadline=None)
@given(data=st.binary(min_size=1, max_size=40))
def test_packing_undoes_unpacking(data: bytes) -> None:
    packed = torch.frombuffer(bytearray(data), dtype=torch.int8)[None]
    codes = unpack_int4(packed)
    assert int(codes.min()) >= -8
    assert int(codes.max()) <= 7
    assert torch.equal(pack_int4(codes), packed)


def test_the_even_column_lies_in_the_low_half() -> None:
    assert pack_int4(torch.tensor([[1, 2, -1, 0]], dtype=torch.int8)).tolist() == [[0x21, 0x0F]]


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"group_size": 128}, True),
        ({"bits": 3}, False),
        ({"symmetric": False}, False),
        ({"scale_dtype": "float32"}, False),
        ({"group_size": 7}, False),
        ({"group_size": None, "granularity": "per_channel"}, False),
    ],
)
def test_only_symmetric_4_bit_groups_with_small_scales_pack(
    change: dict[str, Any], fits: bool
) -> None:
    weight = WeightFormat(**(PACKED.weight.model_dump() | change))
    assert packs(LayerFormat(weight=weight)) == fits


def test_a_layer_that_rounds_its_input_does_not_pack() -> None:
    assert packs(PACKED)
    assert not packs(PACKED.model_copy(update={"activation": DYNAMIC}))


def test_what_cannot_be_packed_is_stored_a_byte_each() -> None:
    codes = random_codes(PACKED.weight)
    transposed = encode(codes, PACKED, None, packed=True, transposed=True)
    assert isinstance(transposed, IntxUnpackedToInt8Tensor)
    three = LayerFormat(weight=WeightFormat(bits=3))
    tensor = encode(random_codes(three.weight), three, None, packed=True, transposed=False)
    assert isinstance(tensor, IntxUnpackedToInt8Tensor)


@pytest.mark.parametrize("group", [32, 64, 128])
def test_packed_codes_with_their_grid_take_at_most_three_tenths_of_bfloat16(group: int) -> None:
    fmt = WeightFormat(bits=4, group_size=group, scale_dtype="bfloat16")
    codes = random_codes(fmt, rows=64, columns=256)
    tensor = encode(codes, LayerFormat(weight=fmt), None, packed=True, transposed=False)
    flat, _ = flatten_tensor_state_dict({"layer.weight": tensor})
    size_bytes = sum(part.numel() * part.element_size() for part in flat.values())
    assert size_bytes <= 0.30 * codes.codes_OI.numel() * 2
