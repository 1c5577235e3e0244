"""Load what quantship writes, also where transformers and torchao have gaps.

Most checkpoints need none of this: plain ``AutoModelForCausalLM.from_pretrained`` does. Three kinds
do, and ``load`` fills what transformers 5.23 and torchao 0.18 leave open:

- static input ranges: transformers does not know the two tensors of them by name;
- 4-bit codes, two a byte: torchao multiplies them in bfloat16 on few GPUs only (see
  ``gpu_kernels``); elsewhere they are unpacked;
- GPT-2's Conv1D: torchao's tensors know linear layers, so Conv1D becomes one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from quantship.errors import QuantshipError
from quantship.mlp import MODEL_TYPE
from quantship.model_folder import read_config, require_data_only
from quantship.reading import reading

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TorchAoConfig

    from quantship.quant.scheme import Scheme

STATIC_PARTS = ("act_quant_scale", "act_quant_zero_point")


def load(
    path: Path | str, device: str = "cpu", *, bfloat16: bool = False, **options: Any
) -> PreTrainedModel:
    """Load a model directory, quantized or not, ready to run.

    Args:
        path: Hugging Face directory.
        device: Where it will run.
        bfloat16: Compute in bfloat16, by the kernels that the GPU has for it; else as the file
            says, and packed 4-bit codes become floats of its dtype.
        options: For ``from_pretrained``; ``dtype`` is the checkpoint's own by default.

    Returns:
        The model in evaluation mode, of the class that its configuration names.

    Raises:
        QuantshipError: The directory holds no model, or a broken one.
    """
    model = mapped(Path(path), **options)
    model.to(device)  # type: ignore[arg-type]
    if bfloat16:
        from quantship.quant.serving import in_bfloat16

        is_gpu = torch.device(device).type == "cuda"
        in_bfloat16(model, torch.cuda.get_device_capability(device) if is_gpu else None)
    elif hasattr(model.config, "quantization_config"):
        fill_gaps(model)
    model.eval()
    return model


def mapped(path: Path, **options: Any) -> PreTrainedModel:
    """The model of a directory as transformers loads it: its tensors are the file's pages.

    Args:
        path: Hugging Face directory.
        options: See ``load``.

    Raises:
        QuantshipError: The directory holds no model, or a broken one.
    """
    options = {"dtype": "auto", "use_safetensors": True, **options}
    with _static_parts_known(), reading(path):
        model: PreTrainedModel = model_class(path).from_pretrained(path, **options)
    return model


def model_class(path: Path) -> Any:
    """The class that the configuration of a directory names: transformers' own, or ``Mlp``.

    Raises:
        QuantshipError: It names none, or code of the model's own.
    """
    import transformers

    require_data_only(path)
    config = read_config(path)
    if config.get("model_type") == MODEL_TYPE:
        from quantship.mlp.model import Mlp

        return Mlp
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    found = getattr(transformers, first, None) if isinstance(first, str) else None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise QuantshipError(
            f"{path / 'config.json'} names no model that transformers has: architectures is "
            f"{named!r:.80}"
        )
    return found


def load_online(path: Path, scheme: Scheme) -> PreTrainedModel:
    """Load a float model directory and let torchao round its weights on the way.

    Raises:
        ValueError: A layer cannot take its format.
    """
    from quantship.quant.checkpoint import torchao_config
    from quantship.quant.layers import formats, is_transposed

    auto = model_class(path)
    with torch.device("meta"):
        skeleton = auto._from_config(auto.config_class.from_pretrained(path))
    layers = formats(skeleton, scheme)
    rounding = torchao_config(skeleton, layers, packed=False)
    options = {"dtype": torch.float32, "use_safetensors": True}
    transposed = [name for name in layers if is_transposed(skeleton.get_submodule(name))]
    biased = any(getattr(skeleton.get_submodule(name), "bias", None) is not None for name in layers)
    if transposed or biased:
        model: PreTrainedModel = auto.from_pretrained(path, **options)
        _round_loaded(model, transposed, rounding)
    else:
        model = auto.from_pretrained(path, quantization_config=rounding, **options)
    model.eval()
    return model


def _round_loaded(model: PreTrainedModel, transposed: list[str], rounding: TorchAoConfig) -> None:
    """Let torchao round a model that is loaded, in place.

    While loading, it would round Conv1D layers across the wrong features, and any layer's bias too.
    """
    from torchao.quantization import quantize_

    for name in transposed:
        layer = model.get_submodule(name)
        weight_OI = layer.weight.t().contiguous()  # type: ignore[operator]
        linear = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], device="meta")
        linear.weight, linear.bias = nn.Parameter(weight_OI), layer.bias  # type: ignore[assignment]
        model.set_submodule(name, linear)
    quantize_(model, rounding.get_apply_tensor_subclass(), filter_fn=None)
    model.tie_weights()
    model.config.quantization_config = rounding


def fill_gaps(model: nn.Module, served: Collection[nn.Module] = ()) -> None:
    """Make every quantized layer of a loaded model one that torchao can run, in place.

    Args:
        model: As ``mapped`` gives it.
        served: Layers that need nothing of it.
    """
    from torchao.quantization import Int4Tensor
    from torchao.utils import TorchAOBaseTensor

    from quantship.quant.layers import is_transposed

    usable: dict[nn.Parameter, nn.Parameter] = {}  # what is tied stays tied
    for name, module in list(model.named_modules()):
        weight = getattr(module, "weight", None)
        if not isinstance(weight, TorchAOBaseTensor) or module in served:
            continue
        if is_transposed(module):
            model.set_submodule(name, _as_linear(module))
        elif isinstance(weight.data, Int4Tensor):
            if weight not in usable:
                usable[weight] = nn.Parameter(runnable(weight.data), requires_grad=False)
            module.weight = usable[weight]


def runnable(weight: Any) -> Any:
    """A torchao tensor of a checkpoint as torchao can multiply by it in float32, anywhere."""
    from torchao.quantization import Int4Tensor

    return _unpacked(weight) if isinstance(weight, Int4Tensor) else weight


def _as_linear(layer: nn.Module) -> nn.Linear:
    from torchao.quantization import Int8Tensor, IntxUnpackedToInt8Tensor

    weight: Any = layer.weight.data
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[0], weight.shape[1])
    block = list(weight.block_size)[::-1]
    turned: Any
    if isinstance(weight, IntxUnpackedToInt8Tensor):
        parts = [part.t().contiguous() for part in (weight.qdata, weight.scale, weight.zero_point)]
        turned = IntxUnpackedToInt8Tensor(
            *parts, weight.target_dtype, tuple(block), weight.dtype, weight.activation_quantization
        )
    else:
        assert isinstance(weight, Int8Tensor)
        turned = Int8Tensor(
            weight.qdata.t().contiguous(),
            weight.scale.t().contiguous(),
            block,
            weight.dtype,
            zero_point=weight.zero_point.t().contiguous(),
            act_quant_scale=weight.act_quant_scale,
            act_quant_zero_point=weight.act_quant_zero_point,
            act_quant_kwargs=weight.act_quant_kwargs,
        )
    linear.weight = nn.Parameter(turned, requires_grad=False)
    linear.bias = layer.bias  # type: ignore[assignment]
    return linear


def _unpacked(weight: Any) -> Any:
    from torchao.quantization import IntxUnpackedToInt8Tensor

    from quantship.quant.tensors import unpack_int4

    scale_OG = weight.scale.t().contiguous().float()
    return IntxUnpackedToInt8Tensor(
        qdata=unpack_int4(weight.qdata),
        scale=scale_OG,
        zero_point=torch.zeros_like(scale_OG, dtype=torch.int8),
        target_dtype=torch.int4,  # type: ignore[attr-defined]
        block_size=tuple(weight.block_size),
        dtype=torch.float32,
        activation_quantization=None,
    )


@contextmanager
def _static_parts_known() -> Iterator[None]:
    """Tell transformers' torchao loader the names of the parts that hold static input ranges."""
    from transformers.quantizers.quantizer_torchao import TorchAoHfQuantizer

    own = TorchAoHfQuantizer.serialized_names

    def with_static_parts(self: Any) -> dict[str, list[str]]:
        names: dict[str, list[str]] = own.fget(self)  # type: ignore[attr-defined]
        more = {name: [f"_{name}_{part}" for part in STATIC_PARTS] for name in names}
        return {name: [*more[name], *parts] for name, parts in names.items()}

    TorchAoHfQuantizer.serialized_names = property(with_static_parts)  # type: ignore[assignment]
    try:
        yield
    finally:
        TorchAoHfQuantizer.serialized_names = own  # type: ignore[method-assign]
