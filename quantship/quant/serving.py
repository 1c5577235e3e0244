"""Make a loaded model compute in bfloat16, by the kernels that its GPU has for its codes.

The codes stay what they are; what is rounded to bfloat16 is what they become floats of, and all
that is not quantized.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantship.hardware import Capability
from quantship.quant import gpu_kernels
from quantship.quant.convolution import QuantizedConv2d
from quantship.quant.loading import fill_gaps
from quantship.quant.scheme import LayerFormat, WeightFormat
from quantship.quant.tensors import unpack_int4

TILE_IN = 1024
"""Input features are padded to a multiple of this for PyTorch's own 4-bit kernel, as torchao does
before it (int4_tile_packed_to_4d_tensor.py)."""
TILE_OUT = 8
INNER_TILES = 8


def in_bfloat16(model: nn.Module, capability: Capability | None) -> None:
    """Make a model that is where it will run compute in bfloat16, in place.

    Buffers keep their dtype: transformers wants frequencies of positions in float32.

    Args:
        model: As ``loading.mapped`` gives it: gaps are filled here.
        capability: Of the GPU; None: it runs on a CPU.
    """
    fill_gaps(model, set() if capability is None else _choose_kernels(model, capability))
    made: dict[int, nn.Parameter] = {}  # what is tied stays tied
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in made:
                made[id(parameter)] = _in_bfloat16(parameter)
            setattr(module, name, made[id(parameter)])
        if isinstance(module, QuantizedConv2d):
            module.dtype = torch.bfloat16
    if hasattr(model, "config"):
        model.config.dtype = torch.bfloat16


def tile_packed(weight: Any) -> Any:
    """A packed 4-bit tensor of a checkpoint in the layout of PyTorch's own 4-bit kernel."""
    from torchao.quantization.quantize_.workflows import Int4TilePackedTo4dTensor

    codes_OI, scale_and_zero_GO2 = tiles(unpack_int4(weight.qdata), weight.scale.t())
    packed = (codes_OI[:, 0::2] << 4) | codes_OI[:, 1::2]
    tiled = torch.ops.aten._convert_weight_to_int4pack(packed.contiguous(), INNER_TILES)
    return Int4TilePackedTo4dTensor(
        qdata=tiled,
        scale_and_zero=scale_and_zero_GO2,
        block_size=list(weight.block_size),
        shape=weight.shape,
    )


def tiles(codes_OI: Tensor, scale_OG: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and grid as the kernel takes them: (code - 8) × scale + zero, all zeros being 0.

    Args:
        codes_OI: int8 in [-8, 7].
        scale_OG: bfloat16.

    Returns:
        uint8 codes in [0, 15], padded to whole tiles, and scales beside zeros, (G, O, 2).
    """
    num_out, num_in = codes_OI.shape
    group = num_in // scale_OG.shape[1]
    more_in, more_out = -num_in % TILE_IN, -num_out % TILE_OUT
    codes_OI = F.pad((codes_OI + 8).to(torch.uint8), (0, more_in, 0, more_out), value=8)
    scale_OG = F.pad(scale_OG, (0, more_in // group, 0, more_out))
    pairs_OG2 = torch.stack((scale_OG, torch.zeros_like(scale_OG)), dim=-1)
    return codes_OI, pairs_OG2.transpose(0, 1).contiguous()


def _choose_kernels(model: nn.Module, capability: Capability) -> set[nn.Module]:
    """Give packed 4-bit layers the tensor of the GPU's kernel, where it has one; returns these."""
    from torchao.quantization import Int4Tensor

    looked_up = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)
    }
    served: set[nn.Module] = set()
    for module in model.modules():
        weight: Any = getattr(module, "weight", None)
        if not isinstance(module, nn.Linear) or id(weight) in looked_up:
            continue  # no kernel looks rows of packed codes up
        if not isinstance(weight.data, Int4Tensor):
            continue
        width = WeightFormat(bits=4, group_size=weight.data.block_size[1], scale_dtype="bfloat16")
        kernel = gpu_kernels.kernel(
            LayerFormat(weight=width), capability, packed=True, mslk=gpu_kernels.has_mslk()
        )
        if kernel == "mslk":
            module.weight = nn.Parameter(_widened(weight.data), requires_grad=False)
        elif kernel == "tinygemm":
            module.weight = nn.Parameter(tile_packed(weight.data), requires_grad=False)
        if kernel != "unpacked":
            served.add(module)
    return served


def _widened(weight: Any) -> Any:
    """With zero points in the dtype that mslk's kernel takes."""
    from torchao.quantization import Int4Tensor

    zero_point = weight.zero_point.to(weight.scale.dtype)
    return Int4Tensor(weight.qdata, weight.scale, zero_point, weight.block_size, weight.shape)


def _in_bfloat16(parameter: nn.Parameter) -> nn.Parameter:
    from torchao.quantization import Int8Tensor, IntxUnpackedToInt8Tensor
    from torchao.utils import TorchAOBaseTensor

    made: Any = parameter.data
    if isinstance(made, IntxUnpackedToInt8Tensor):
        # Scales stay in float32: a grid that is a little off is off for a whole row.
        made = IntxUnpackedToInt8Tensor(
            made.qdata,
            made.scale,
            made.zero_point,
            made.target_dtype,
            tuple(made.block_size),
            torch.bfloat16,
            made.activation_quantization,
        )
    elif isinstance(made, Int8Tensor):
        made = Int8Tensor(
            made.qdata,
            made.scale,
            list(made.block_size),
            torch.bfloat16,
            zero_point=made.zero_point,
            act_quant_scale=made.act_quant_scale,
            act_quant_zero_point=made.act_quant_zero_point,
            act_quant_kwargs=made.act_quant_kwargs,
        )
    elif not isinstance(made, TorchAOBaseTensor) and made.is_floating_point():
        made = made.to(torch.bfloat16)
    return nn.Parameter(made, requires_grad=False)
