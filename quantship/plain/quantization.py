"""Train any module under fake quantization, and turn it into one that holds the integers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from quantship.plain.folding import fold_batch_norms
from quantship.quant import modules, tensors
from quantship.quant.calibration import calibrate, static_inputs
from quantship.quant.convolution import FakeQuantConv2d, QuantizedConv2d
from quantship.quant.differences import differing
from quantship.quant.layers import formats, is_transposed, matrix
from quantship.quant.loading import fill_gaps
from quantship.quant.numerics import Codes, Grid
from quantship.quant.scheme import SCHEMES, LayerFormat, Scheme
from quantship.recipe.keys import suggest
from quantship.recipe.rounding_options import Calibration


def prepare_qat(
    module: nn.Module,
    scheme: str | Scheme,
    calibration: Iterable[Any] | None = None,
    *,
    options: Calibration | None = None,
    inplace: bool = False,
) -> nn.Module:
    """Replace every layer that the scheme quantizes by its fake-quantized twin, ready to train.

    Linear and Embedding layers are quantized, and where the scheme quantizes convolutions, batch
    norms are folded into those that they follow. The result has the parameters of the module under
    the same names; give them to the optimizer afterwards.

    Args:
        module: Any module; one layer alone must be wrapped, as in ``nn.Sequential``.
        scheme: Name of a row of ``quant.scheme.SCHEMES``, or a scheme of your own.
        calibration: Batches to find static input ranges with, for schemes that have them: tensors,
            tuples of positional arguments, or mappings of named ones.
        options: How these ranges are found; default: ``Calibration()``.
        inplace: Change the module itself rather than a copy.

    Returns:
        The fake-quantized module, in the mode (training or evaluation) that the module was in.

    Raises:
        ValueError: The scheme is unknown, a layer cannot take its format, nothing would be
            quantized, or calibration data is missing or reaches no layer.
    """
    scheme = _known(scheme)
    found = _checked_formats(module, scheme)
    static = any(one.activation and one.activation.ranges == "static" for one in found.values())
    batches = [] if calibration is None else list(calibration)
    if static and not batches:
        raise ValueError(
            f"scheme '{scheme.name}' fixes input ranges beforehand; give calibration a list of "
            "batches to find them with"
        )
    prepared = module if inplace else copy.deepcopy(module)
    if any(isinstance(prepared.get_submodule(name), nn.Conv2d) for name in found):
        fold_batch_norms(prepared, inplace=True)
    modules.prepare_qat(prepared, scheme)
    _forbid_shortcuts(prepared)
    if static_inputs(prepared):
        calibrate(prepared, batches, lambda batch: call(prepared, batch), options or Calibration())
    return prepared


def convert(module: nn.Module) -> nn.Module:
    """A module of the same architecture that holds the integers of a fake-quantized one.

    Weights become torchao's tensors, convolutions ``QuantizedConv2d``; nothing is rounded again. It
    runs as it is and is not for training. The fake-quantized module is left as it was.

    Args:
        module: As ``prepare_qat`` returns it, trained or not.

    Returns:
        The quantized module, in evaluation mode.

    Raises:
        ValueError: No layer is fake-quantized.
        RuntimeError: A static input range was not calibrated.
    """
    if not any(isinstance(one, modules.FakeQuantModule) for one in module.modules()):
        raise ValueError("no layer of the module is fake-quantized; call prepare_qat before")
    made, grids = copy.deepcopy(module), modules.input_grids(module)
    weights = _Weights()
    done: dict[nn.Module, nn.Module] = {}
    for name, layer in list(made.named_modules(remove_duplicate=False)):
        if isinstance(layer, modules.FakeQuantModule):
            if layer not in done:
                done[layer] = _quantized(layer, grids.get(name), weights)
            made.set_submodule(name, done[layer])
    fill_gaps(made)
    return made.requires_grad_(False).eval()


def quantize(
    module: nn.Module,
    scheme: str | Scheme,
    calibration: Iterable[Any] | None = None,
    *,
    options: Calibration | None = None,
) -> nn.Module:
    """Quantize a trained module without training it further (PTQ): round to nearest.

    Args:
        module: Any module; it is left as it was.
        scheme: See ``prepare_qat``.
        calibration: See ``prepare_qat``.
        options: See ``prepare_qat``.

    Returns:
        The quantized module, in evaluation mode.

    Raises:
        ValueError: See ``prepare_qat``.
    """
    return convert(prepare_qat(module, scheme, calibration, options=options))


def call(module: nn.Module, batch: Any) -> Any:
    """Run a module on a batch: a tensor, a tuple of arguments, or a mapping of named ones."""
    if isinstance(batch, Mapping):
        return module(**batch)
    if isinstance(batch, tuple | list):
        return module(*batch)
    return module(batch)


def _known(scheme: str | Scheme) -> Scheme:
    if isinstance(scheme, Scheme):
        return scheme
    if scheme not in SCHEMES:
        known = f"schemes: {', '.join(sorted(SCHEMES))}"
        raise ValueError(f"unknown scheme '{scheme}'. {suggest(scheme, SCHEMES)}{known}")
    return SCHEMES[scheme]


def _checked_formats(module: nn.Module, scheme: Scheme) -> dict[str, LayerFormat]:
    from torchao.utils import TorchAOBaseTensor

    for name, layer in module.named_modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, TorchAOBaseTensor) or isinstance(layer, QuantizedConv2d):
            raise ValueError(f"'{name}' is quantized already; give the module as it was in float")
    found = formats(module, scheme)
    if not found:
        raise ValueError(f"scheme '{scheme.name}' quantizes no layer of this module")
    if "" in found:
        raise ValueError("the module is itself the layer; wrap it, as in nn.Sequential(layer)")
    for name in found:
        dtype = matrix(module.get_submodule(name)).dtype
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(
                f"the weight of '{name}' is {dtype}, and what torchao computes with is float32, "
                "bfloat16 or float16; convert the module, as by module.float()"
            )
    return found


def _forbid_shortcuts(module: nn.Module) -> None:
    """Keep PyTorch's transformer layers from reading float weights past their layers' forward."""
    for layer in module.modules():
        if isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0  # "neither": the fused kernel then is not taken


class _Weights:
    """Quantized weights by the float weight that they come from, so that tied ones stay tied."""

    def __init__(self) -> None:
        self._made: list[tuple[Tensor, LayerFormat, Codes, nn.Parameter]] = []

    def find(self, weight: Tensor, format: LayerFormat, codes: Codes) -> nn.Parameter | None:
        """The same codes of the same float weight, for inputs of the same format."""
        for other, other_format, other_codes, made in self._made:
            if other is weight and other_format == format:
                is_static = format.activation and format.activation.ranges == "static"
                if not is_static and not differing({"": codes}, {"": other_codes}):
                    return made
        return None

    def add(self, *entry: Any) -> None:
        self._made.append(entry)


def _quantized(
    layer: modules.FakeQuantModule, input_grid: Grid | None, weights: _Weights
) -> nn.Module:
    if isinstance(layer, FakeQuantConv2d):
        assert input_grid is not None
        return layer.quantized(input_grid)
    codes = layer.rounding.codes(matrix(layer).detach())
    found = weights.find(layer.weight, layer.format, codes)
    if found is None:
        tensor = tensors.encode(
            codes, layer.format, input_grid, packed=False, transposed=is_transposed(layer)
        )
        found = nn.Parameter(_in_dtype(tensor, codes, layer.weight.dtype), requires_grad=False)
        weights.add(layer.weight, layer.format, codes, found)
    plain = layer.plain()
    plain.weight = found
    return plain


def _in_dtype(tensor: Any, codes: Codes, dtype: torch.dtype) -> Tensor:
    """The tensor for a layer of this dtype: scales of bfloat16 are kept in files as float32."""
    from torchao.quantization import IntxUnpackedToInt8Tensor

    made: Tensor = tensor
    if isinstance(tensor, IntxUnpackedToInt8Tensor) and tensor.dtype != dtype:
        made = IntxUnpackedToInt8Tensor(
            qdata=tensor.qdata,
            scale=tensor.scale.to(codes.scale_OG.dtype),
            zero_point=tensor.zero_point,
            target_dtype=tensor.target_dtype,
            block_size=tensor.block_size,
            dtype=dtype,
            activation_quantization=tensor.activation_quantization,
        )
    return made
