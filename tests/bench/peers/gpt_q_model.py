"""GPTQ by GPTQModel, in its own environment.

pip install gptqmodel; the request is ``peers_part``'s. Its groups follow the act-order unless they
are static, as they are here.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from shared import sequences, serve

LARGEST_ERROR = 0.8
"""Of a weight, relative. Rounding makes some 10 %, compensation up to three times as much."""


def quantize(model: Any, request: dict[str, Any]) -> Any:
    """The model with its weights on the grid, in float32."""
    # Half the processors by default, which is fewer than it needs where there are two (7.6).
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig
    from safetensors.torch import load_file
    from torch import nn

    assert request["algorithm"] == "gptq"
    config = QuantizeConfig(
        bits=request["bits"],
        group_size=request["group_size"] or -1,
        sym=True,
        desc_act=request["act_order"],
        static_groups=request["act_order"],
        act_group_aware=False,
        damp_percent=request["damping"],
        device="cpu",
        offload_to_disk=False,
    )
    loaded = GPTQModel.load(request["model"], config, dtype=torch.float32)
    rows = [{name: part[0].tolist() for name, part in row.items()} for row in sequences(request)]
    loaded.quantize(rows, batch_size=1, calibration_sort=None)
    with tempfile.TemporaryDirectory() as saved:
        loaded.save(saved)
        tensors: dict[str, Any] = {}
        for file in Path(saved).glob("*.safetensors"):
            tensors |= load_file(file)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and f"{name}.qweight" in tensors:
            weight_OI = _numbers(tensors, name, request["bits"])
            error = (weight_OI - layer.weight).norm() / layer.weight.norm()
            assert error < LARGEST_ERROR, f"{name} was read wrongly: it is off by {error:.0%}"
            with torch.no_grad():
                layer.weight.copy_(weight_OI)
    return model


def _numbers(tensors: dict[str, Any], name: str, bits: int) -> Any:
    """The numbers of a symmetric layer's codes, which lie in 32-bit words along its inputs."""
    import torch

    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    words_WO = tensors[f"{name}.qweight"]
    codes_WSO = (words_WO.unsqueeze(1) >> shifts.view(1, -1, 1)) & (2**bits - 1)
    codes_IO = codes_WSO.reshape(-1, words_WO.shape[1]).float() - 2 ** (bits - 1)
    scale_GO, group_I = tensors[f"{name}.scales"].float(), tensors[f"{name}.g_idx"].long()
    return (codes_IO * scale_GO[group_I]).T.contiguous()


if __name__ == "__main__":
    serve(quantize, "gptqmodel")
