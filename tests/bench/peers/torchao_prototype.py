"""SmoothQuant by torchao's prototype, which keeps the scales beside the weights.

Its AWQ and GPTQ cannot be compared on a CPU: the first needs tensors that scale their input, of
which 4-bit ones multiply on CUDA only, and the second asserts CUDA. The request is
``peers_part``'s.
"""

from __future__ import annotations

from typing import Any

from shared import sequences, serve


def quantize(model: Any, request: dict[str, Any]) -> Any:
    """The model with int8 weights and static int8 inputs in torchao's tensors; the head in float.

    Its observer joins the inputs of all sequences as a batch, which needs equal lengths; here they
    are joined end to end. Its running observer fails with static inputs (0.18).
    """
    import torch
    from torch import nn
    from torchao.prototype.smoothquant import SmoothQuantConfig
    from torchao.prototype.smoothquant.core import SmoothQuantObserver
    from torchao.quantization import PerRow, PerTensor, quantize_
    from torchao.quantization.quant_api import Int8StaticActivationInt8WeightConfig
    from torchao.quantization.quant_primitives import MappingType

    assert request["algorithm"] == "smoothquant"
    assert request["static_inputs"]
    batches = sequences(request)

    def within(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and "lm_head" not in name

    def config(step: str) -> Any:
        base = Int8StaticActivationInt8WeightConfig(
            granularity=[PerTensor(), PerRow()], act_mapping_type=MappingType.ASYMMETRIC
        )
        return SmoothQuantConfig(base, step, alpha=request["strength"])

    def observe(self: Any, input: torch.Tensor) -> torch.Tensor:
        self.inputs = [torch.cat([*self.inputs, input], dim=1)]
        return input

    SmoothQuantObserver.forward = observe
    with torch.no_grad():
        quantize_(model, config("prepare"), filter_fn=within)
        for batch in batches:
            model(**batch, use_cache=False)
        quantize_(model, config("convert"), filter_fn=within)
    return model


if __name__ == "__main__":
    serve(quantize, "torchao")
