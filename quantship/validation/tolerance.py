"""What is still called equal, from what two models have in common.

Outputs are compared position by position: the root mean square difference over the entries, in
standard deviations of A's numbers, of the position where it is largest.

======================================== ============ =========== ===== ===========================
what the two models are                  difference   KL in nats  top-1 seen on SmolLM2-135M
======================================== ============ =========== ===== ===========================
float arithmetic on the same weights     0.001        0.00001     0.98  4e-6, 1e-11, 1
inputs rounded by token or block, with   1            0.1         0.8   0.45, 0.041, 0.88
the same codes or 8-bit ones of either
inputs rounded by tensor, the same       2            0.5         0.6   1.2, 0.25, 0.74
other weights of fewer than 8 bits       not asked    not asked   none  1.0, 0.40, 0.70 (4 bits)
======================================== ============ =========== ===== ===========================

Float sums in another order differ by 1e-6 of a deviation. Where inputs are rounded, such a
difference moves a value to the next code now and then; from there on the two are two draws of one
noise, also when they do the very same. Stored integers are compared to the bit in any case: this
is about what is done with them.
"""

from __future__ import annotations

from quantship.validation.report import Tolerance
from quantship.validation.subjects import FLOAT_ARITHMETIC, Subject

FLOAT = Tolerance(
    why="float arithmetic on the same weights", relative=1e-3, max_kl=1e-5, min_top1=0.98
)
ROUNDED = Tolerance(
    why="inputs of layers are rounded by token or block", relative=1.0, max_kl=0.1, min_top1=0.8
)
ROUNDED_BY_TENSOR = Tolerance(
    why="inputs of layers are rounded by tensor", relative=2.0, max_kl=0.5, min_top1=0.6
)
EIGHT_BITS = ROUNDED.model_copy(update={"why": "weights of 8 bits on one side"})
FEW_BITS = Tolerance(
    why="other weights of fewer than 8 bits, and how far is too far was not said", relative=None
)
BY_TENSOR = " a tensor"
"""In an arithmetic: one range for all tokens."""
CACHE_FLOAT, CACHE_ROUNDED = 1e-3, 1.0


def choose(a: Subject, b: Subject, *, same_codes: bool | None) -> Tolerance:
    """The tolerance of a pairing.

    Args:
        a: One model.
        b: The other.
        same_codes: Whether they hold the same integers; None: not both hold integers.
    """
    return _of(a, b, same_codes).model_copy(update={"cache": (_cache(a), _cache(b))})


def _of(a: Subject, b: Subject, same_codes: bool | None) -> Tolerance:
    bits = [bits for bits in (a.fewest_bits, b.fewest_bits) if bits is not None]
    if not same_codes and min(bits, default=8) < 8:
        return FEW_BITS
    if BY_TENSOR in a.arithmetic + b.arithmetic:
        return ROUNDED_BY_TENSOR
    if not a.arithmetic == b.arithmetic == FLOAT_ARITHMETIC:
        return ROUNDED
    return EIGHT_BITS if bits and not same_codes else FLOAT


def _cache(subject: Subject) -> float | None:
    """None where what is read at once changes the codes."""
    if subject.arithmetic == FLOAT_ARITHMETIC:
        return CACHE_FLOAT
    return None if BY_TENSOR in subject.arithmetic else CACHE_ROUNDED
