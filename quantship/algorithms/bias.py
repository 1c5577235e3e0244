"""Bias correction: the mean error that rounding makes of a layer's output, taken off its bias.

Source:
    Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, 2019,
    section 4.2; the mean input is measured here, on calibration data.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def correction(error_OI: Tensor, inputs_TI: Iterable[Tensor]) -> Tensor:
    """What to add to a bias (O) so that the mean output is as before rounding.

    Args:
        error_OI: Float weight less rounded weight.
        inputs_TI: Inputs of the layer, in parts.
    """
    total_I, num_tokens = torch.zeros(error_OI.shape[1], dtype=torch.float64), 0
    for input_TI in inputs_TI:
        total_I = total_I.to(input_TI.device) + input_TI.double().sum(dim=0)
        num_tokens += input_TI.shape[0]
    mean_I = (total_I / max(num_tokens, 1)).to(error_OI)
    return error_OI @ mean_I
