"""How far rounding moves a matrix."""

from __future__ import annotations

import math

from torch import Tensor
from torch.linalg import vector_norm


class RoundingError:
    """The norm of the rounding error of a matrix by the matrix's own, some rows at a time."""

    def __init__(self) -> None:
        self._moved, self._was = 0.0, 0.0

    def add(self, weight_OI: Tensor, rounded_OI: Tensor) -> None:
        """Add some rows as they were, and as they are now."""
        self._moved = math.hypot(self._moved, float(vector_norm(rounded_OI - weight_OI)))
        self._was = math.hypot(self._was, float(vector_norm(weight_OI)))

    @property
    def relative(self) -> float:
        """Frobenius norm of the difference by that of the weight; 0 of a weight of zeros."""
        return self._moved / self._was if self._was else 0.0
