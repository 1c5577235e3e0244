"""Codes to torchao's tensors and back, as they lie in a checkpoint's file.

torchao has one tensor for each family of formats, and this file is the map:

``IntxUnpackedToInt8Tensor``  codes of 2 to 8 bits, one a byte, any granularity by rows; inputs in
                              float or quantized asymmetrically for each token. Runs anywhere.
``Int8Tensor``                8-bit symmetric codes; inputs quantized in any way.
``Int4Tensor``                4-bit symmetric codes, two a byte, inputs in float: what the CUDA
                              kernels take.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quantship.quant.layers import is_transposed
from quantship.quant.numerics import Codes, Grid
from quantship.quant.scheme import ActivationFormat, LayerFormat, WeightFormat, packs

SMALLEST_WIDE_GROUP = 64
"""From this group size on, zero points in bfloat16 stay within 0.30 of a bfloat16 matrix."""


@dataclass(frozen=True)
class StoredCodes:
    """One quantized matrix as it lies in a checkpoint.

    Args:
        name: Module it belongs to, as ``model.layers.0.mlp.up_proj``.
        codes: The integers and their grid, as (out features, in features).
        bits: Bits of one code.
        activation: How the layer's input is quantized when it runs; None: it is not.
        input_grid: Grid of a static input range.
    """

    name: str
    codes: Codes
    bits: int
    activation: ActivationFormat | None = None
    input_grid: Grid | None = None

    @property
    def quantizes_input(self) -> bool:
        """Whether the layer's input is quantized when it runs."""
        return self.activation is not None


def encode(
    codes: Codes, format: LayerFormat, input_grid: Grid | None, *, packed: bool, transposed: bool
) -> Tensor:
    """The torchao tensor that holds these codes.

    Args:
        codes: Of the layer, as (out features, in features).
        format: Its format.
        input_grid: Grid of its static input range, or None.
        packed: Two codes a byte, where ``packs`` says that this can be.
        transposed: The layer keeps its matrix as (in features, out features).
    """
    activation = format.activation
    if packed and packs(format) and not transposed:
        return _int4_tensor(codes)
    if format.scales_products:
        return _int8_tensor(codes, activation, input_grid, transposed=transposed)
    return _intx_tensor(codes, format, transposed=transposed)


def config_of(format: LayerFormat, *, packed: bool) -> Any:
    """Torchao's name for a layer's format: an ``AOBaseConfig``."""
    from torchao import quantization as ao

    weight, activation = format.weight, format.activation
    if packed and packs(format):
        return ao.Int4WeightOnlyConfig(group_size=weight.group_size)
    row_or_tensor = ao.PerTensor() if weight.granularity == "per_tensor" else ao.PerRow()
    if activation is None and weight.granularity == "per_tensor":
        return ao.Int8WeightOnlyConfig(granularity=row_or_tensor)
    mapping = ao.MappingType.SYMMETRIC if weight.symmetric else ao.MappingType.ASYMMETRIC
    dtype, granularity = _dtype(weight), _granularity(weight)
    scale_dtype = torch.bfloat16 if weight.scale_dtype == "bfloat16" else None
    if activation is None:
        return ao.IntxWeightOnlyConfig(
            dtype, granularity, mapping_type=mapping, scale_dtype=scale_dtype
        )
    if not format.scales_products:
        return ao.Int8DynamicActivationIntxWeightConfig(
            dtype, granularity, weight_mapping_type=mapping, weight_scale_dtype=scale_dtype
        )
    both = [_input_granularity(activation), row_or_tensor]
    mapping = _input_mapping(activation)
    if activation.ranges == "static":
        return ao.Int8StaticActivationInt8WeightConfig(granularity=both, act_mapping_type=mapping)
    return ao.Int8DynamicActivationInt8WeightConfig(granularity=both, act_mapping_type=mapping)


def decode(
    name: str,
    kind: str,
    attributes: dict[str, Any],
    read: Callable[[str], Any],
    *,
    transposed: bool,
) -> StoredCodes:
    """Codes of one tensor of a file.

    Args:
        name: Module that the tensor is the weight of.
        kind: torchao's class.
        attributes: What the file's metadata says of the tensor.
        read: Part of the tensor by its name, as ``qdata``; None where the file has no such part.
        transposed: The tensor is (in features, out features).

    Raises:
        ValueError: quantship does not know the class.
    """
    if kind == "IntxUnpackedToInt8Tensor":
        qdata, scale, zero = read("qdata"), read("scale"), read("zero_point")
        if transposed:
            qdata, scale, zero = (part.t().contiguous() for part in (qdata, scale, zero))
        quantizes = attributes["activation_quantization"] is not None
        return StoredCodes(
            name,
            Codes(qdata, scale, zero if bool(zero.any()) else None),
            int(_last(attributes["target_dtype"]).removeprefix("int")),
            ActivationFormat() if quantizes else None,
        )
    if kind == "Int8Tensor":
        qdata, scale = read("qdata"), read("scale")
        if transposed:
            qdata, scale = qdata.t().contiguous(), scale.t().contiguous()
        activation, grid = _stored_activation(attributes["act_quant_kwargs"], read)
        return StoredCodes(name, Codes(qdata, scale), 8, activation, grid)
    if kind == "Int4Tensor":
        # Products of codes and scales need the bits of a float32.
        scale_OG = read("scale").t().contiguous().float()
        return StoredCodes(name, Codes(unpack_int4(read("qdata")), scale_OG), 4)
    raise ValueError(f"the weight of '{name}' is a {kind}, which quantship does not write")


def codes_in(model: nn.Module) -> dict[str, Codes]:
    """Codes of every torchao tensor of a loaded model, by module name."""
    return {name: part.codes for name, part in stored_in(model).items()}


def stored_in(model: nn.Module) -> dict[str, StoredCodes]:
    """Every torchao tensor of a loaded model, by the name of the first module that has it."""
    return {name: stored(name, module) for name, module in quantized_modules(model)}


def quantized_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a loaded model whose weight is a torchao tensor, each tensor once."""
    from torchao.utils import TorchAOBaseTensor

    seen: set[int] = set()
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, TorchAOBaseTensor) and id(weight) not in seen:
            seen.add(id(weight))  # a tied head is the embedding
            yield name, module


def stored(name: str, module: nn.Module) -> StoredCodes:
    """What a module's torchao tensor holds."""
    from torchao.prototype.safetensors.safetensors_utils import TensorSubclassAttributeJSONEncoder

    tensor: Any = module.weight.data
    described = json.loads(json.dumps(tensor, cls=TensorSubclassAttributeJSONEncoder))

    def read(part: str) -> Any:
        return getattr(tensor, part, None)

    kind, attributes = described["_type"], described["_data"]
    return decode(name, kind, attributes, read, transposed=is_transposed(module))


def pack_intx(tensor: Any) -> Tensor:
    """The same codes two a byte, where torchao has a tensor for that; else the tensor itself."""
    from torchao.quantization import IntxUnpackedToInt8Tensor

    packable = (
        isinstance(tensor, IntxUnpackedToInt8Tensor)
        and tensor.target_dtype == torch.int4  # type: ignore[attr-defined]
        and tensor.activation_quantization is None
        and tensor.dtype == torch.float32
        and tensor.block_size[0] == 1
        and tensor.block_size[1] % 2 == 0
        and tensor.block_size[1] < tensor.shape[1]
        and not bool(tensor.zero_point.any())
        and torch.equal(tensor.scale, tensor.scale.bfloat16().float())
    )
    packed: Tensor = _int4_tensor(Codes(tensor.qdata, tensor.scale)) if packable else tensor
    return packed


def pack_int4(codes_OI: Tensor) -> Tensor:
    """Two signed 4-bit codes a byte, the even column in the low half: int8 of (O, I / 2)."""
    return (codes_OI[:, 0::2] & 15) | (codes_OI[:, 1::2] << 4)


def unpack_int4(packed: Tensor) -> Tensor:
    """The codes that ``pack_int4`` has packed: int8 of (O, I)."""
    low, high = (packed << 4) >> 4, packed >> 4  # shifts to the right keep the sign
    return torch.stack((low, high), dim=-1).view(packed.shape[0], -1)


def _intx_tensor(codes: Codes, format: LayerFormat, *, transposed: bool) -> Tensor:
    from torchao.quantization import IntxUnpackedToInt8Tensor

    codes_OI, scale_OG, zero_OG = codes
    # A file has scales of one dtype; what bfloat16 holds, float32 holds as well.
    scale_OG = scale_OG.float() if format.weight.scale_dtype == "bfloat16" else scale_OG
    zero_OG = torch.zeros_like(scale_OG, dtype=torch.int8) if zero_OG is None else zero_OG
    block = (1, codes_OI.shape[1] // scale_OG.shape[1])
    if transposed:
        codes_OI, scale_OG, zero_OG = (
            part.t().contiguous() for part in (codes_OI, scale_OG, zero_OG)
        )
        block = (block[1], block[0])
    tensor: Tensor = IntxUnpackedToInt8Tensor(
        qdata=codes_OI,
        scale=scale_OG,
        zero_point=zero_OG,
        target_dtype=_dtype(format.weight),
        block_size=block,
        dtype=scale_OG.dtype,
        activation_quantization=None if format.activation is None else "int8_asym_per_token",
    )
    return tensor


def _int8_tensor(
    codes: Codes, activation: ActivationFormat | None, grid: Grid | None, *, transposed: bool
) -> Tensor:
    from torchao.quantization import Int8Tensor
    from torchao.quantization.quantize_.workflows import QuantizeTensorToInt8Kwargs

    codes_OI, scale_OG = codes.codes_OI, codes.scale_OG
    block = [codes_OI.shape[0] // scale_OG.shape[0], codes_OI.shape[1]]
    if transposed:
        codes_OI, scale_OG, block = (
            codes_OI.t().contiguous(),
            scale_OG.t().contiguous(),
            block[::-1],
        )
    kwargs = None
    if activation is not None:
        kwargs = QuantizeTensorToInt8Kwargs(
            granularity=_input_granularity(activation), mapping_type=_input_mapping(activation)
        )
    tensor: Tensor = Int8Tensor(
        codes_OI,
        scale_OG,
        block,
        scale_OG.dtype,
        zero_point=torch.zeros_like(scale_OG, dtype=torch.int8),
        act_quant_kwargs=kwargs,
        act_quant_scale=None if grid is None else grid.scale,
        act_quant_zero_point=(
            None if grid is None or grid.zero is None else grid.zero.to(torch.int8)
        ),
    )
    return tensor


def _int4_tensor(codes: Codes) -> Tensor:
    from torchao.quantization import Int4Tensor

    scale_GO = codes.scale_OG.to(torch.bfloat16).t().contiguous()
    group = codes.codes_OI.shape[1] // scale_GO.shape[0]
    # The kernels take zero points in bfloat16. For small groups these would weigh as much as the
    # scales, so they lie in the file in one byte and are widened by ``loading``.
    dtype = torch.bfloat16 if group >= SMALLEST_WIDE_GROUP else torch.int8
    tensor: Tensor = Int4Tensor(
        qdata=pack_int4(codes.codes_OI),
        scale=scale_GO,
        zero_point=torch.zeros_like(scale_GO, dtype=dtype),
        block_size=[1, group],
        shape=codes.codes_OI.shape,
    )
    return tensor


def _stored_activation(
    kwargs: dict[str, Any] | None, read: Callable[[str], Any]
) -> tuple[ActivationFormat | None, Grid | None]:
    if kwargs is None:
        return None, None
    data = kwargs["_data"]
    scale, zero = read("act_quant_scale"), read("act_quant_zero_point")
    activation = ActivationFormat(
        granularity="per_token" if data["granularity"]["_type"] == "PerRow" else "per_tensor",
        ranges="dynamic" if scale is None else "static",
        symmetric=data["mapping_type"]["_data"] == "SYMMETRIC",
    )
    if scale is None:
        return activation, None
    return activation, Grid(scale, None if zero is None else zero.float())


def _input_granularity(activation: ActivationFormat) -> Any:
    from torchao.quantization import PerRow, PerTensor

    return PerRow() if activation.granularity == "per_token" else PerTensor()


def _input_mapping(activation: ActivationFormat) -> Any:
    from torchao.quantization import MappingType

    return MappingType.SYMMETRIC if activation.symmetric else MappingType.ASYMMETRIC


def _dtype(weight: WeightFormat) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, f"int{weight.bits}")
    return dtype


def _granularity(weight: WeightFormat) -> Any:
    from torchao.quantization import PerAxis, PerGroup

    return PerAxis(0) if weight.group_size is None else PerGroup(weight.group_size)


def _last(stored: Any) -> str:
    text = stored["_data"] if isinstance(stored, dict) else str(stored)
    return str(text).rsplit(".", 1)[-1]
