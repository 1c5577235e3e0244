"""Round to nearest: min-max scales, nearest codes, no data.

The baseline that every other algorithm has to beat. QAT ends in the very same function, since it
trained with it.
"""

from __future__ import annotations

from torch import Tensor

from quantship.quant.numerics import Codes, round_to_nearest
from quantship.quant.scheme import WeightFormat


def quantize(weight_OI: Tensor, fmt: WeightFormat) -> Codes:
    """Codes of a float matrix of shape (out features, in features)."""
    return round_to_nearest(weight_OI, fmt)
