"""Which grid codes lie on, judged by their scales and zero points; and formats in words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from quantship.inspection.onnx_values import Stored, chunks
from quantship.inspection.report import Granularity

SAMPLE_BYTES = 1 << 16
EXACT_REACH = 64
"""Largest signed code for which two products with unsigned bytes fit into 16 bits:
255 × 64 + 255 × 64 < 32,768."""


class Sharing(NamedTuple):
    """What shares a scale."""

    granularity: Granularity
    group_size: int | None = None
    repeated_every: int | None = None
    """Features after which the operator wants the scale again, though it is the same."""


def shared_by_blocks(scale: Stored | None, num_rows: int, block: int, width: int) -> Sharing:
    """What shares a scale where there is one for each row and block of input features.

    Blocks that all repeat the scale of their row count as one scale a row.
    """
    if scale is None:
        return Sharing("unknown")
    if block >= width or scale.size <= num_rows:
        return Sharing("per_channel")
    first = None
    repeats_one = True
    for chunk in chunks(scale.tensor):
        by_row = chunk.reshape(-1, scale.size // num_rows).astype(np.float32)
        if not (by_row == by_row[:, :1]).all():
            return Sharing("per_group", block)
        first = by_row[0, 0] if first is None else first
        repeats_one = repeats_one and bool((by_row == first).all())
    grain: Granularity = "per_tensor" if repeats_one and num_rows > 1 else "per_channel"
    return Sharing(grain, None, block)


def shared(scale: Stored | None, shape: tuple[int, ...], block: int = 0) -> Sharing:
    """What shares a scale where scales have one dimension, or blocks as DequantizeLinear has."""
    if scale is None:
        return Sharing("unknown")
    if block:
        return Sharing("per_group", block)
    if scale.size == 1:
        return Sharing("per_tensor")
    if max(scale.shape) == scale.size:  # one dimension, or others of one
        return Sharing("per_channel")
    channels = max(shape) if len(shape) == 1 else shape[0]
    return Sharing("per_group", int(np.prod(shape)) // scale.size if channels else None)


def is_symmetric(zero: Stored | None, bits: int, *, signed: bool, middle_default: bool) -> bool:
    """Whether zero points are absent or stand for the middle of the range, all of them.

    Args:
        zero: The zero points.
        bits: Bits of a code in the file.
        signed: Whether codes are signed, so that their middle is 0.
        middle_default: Whether absent zero points stand for the middle of unsigned codes.
    """
    if zero is None:
        return signed or middle_default
    middle = 0 if signed else 1 << (bits - 1)
    packed = zero.tensor.dtype == ir.DataType.UINT8 and bits < 8
    if packed:  # several a byte
        middle = sum(middle << shift for shift in range(0, 8, bits))
    return all_equal(zero, middle)


def all_equal(tensor: Stored, number: int) -> bool:
    """Whether every number of a tensor is this one."""
    kind = np.int32 if tensor.is_integer else np.float32
    return all(bool((chunk.astype(kind) == number).all()) for chunk in chunks(tensor.tensor))


def bits_in_use(codes: Stored, bits: int, sharing: Sharing) -> int:
    """Bits that codes need, by a sample of whole rows: 2-bit codes may lie in 4-bit containers.

    Args:
        codes: Unsigned ones in bytes, as MatMulNBits has them.
        bits: Bits of the container.
        sharing: Where a scale is shared by more than the sample shows, the container counts.
    """
    if sharing.granularity not in ("per_group", "per_channel") or bits not in (4, 8):
        return bits
    if codes.tensor.dtype != ir.DataType.UINT8 or codes.size < 1024:
        return bits
    sample = next(chunks(codes.tensor, SAMPLE_BYTES)).reshape(-1)[:SAMPLE_BYTES].astype(np.int16)
    unpacked = sample if bits == 8 else np.concatenate([sample & 15, sample >> 4])
    centred = unpacked - (1 << (bits - 1))
    lowest, highest = int(centred.min()), int(centred.max())
    if lowest == highest:
        return bits
    needed = next(n for n in range(2, 9) if -(1 << (n - 1)) <= lowest and highest < 1 << (n - 1))
    return min(needed, bits)


def may_saturate(codes: Stored) -> bool:
    """Whether signed codes are so large that pairs of products can pass the end of 16 bits."""
    if codes.tensor.dtype.itemsize < 1:
        return False
    for chunk in chunks(codes.tensor):
        numbers = chunk.astype(np.int16)
        if numbers.size and int(np.abs(numbers).max()) > EXACT_REACH:
            return True
    return False


def in_words(
    bits: int,
    container_bits: int,
    sharing: Sharing,
    symmetric: bool | None,
    scale_dtype: str | None,
) -> str:
    """A format as a person says it: ``int4, groups of 32, symmetric, bfloat16 scales``."""
    grain = {
        "per_tensor": "one scale a tensor",
        "per_channel": "one scale a channel",
        "per_group": f"groups of {sharing.group_size}" if sharing.group_size else "groups",
        "unknown": "scales not found",
    }[sharing.granularity]
    if sharing.repeated_every:
        grain += f" (repeated every {sharing.repeated_every})"
    parts = [f"int{bits}" + (f" in {container_bits} bits" if container_bits != bits else ""), grain]
    if symmetric is not None:
        parts.append("symmetric" if symmetric else "asymmetric")
    if scale_dtype is not None:
        parts.append(f"{scale_dtype} scales")
    return ", ".join(parts)
