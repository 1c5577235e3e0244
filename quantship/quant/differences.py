"""Whether two roundings of the same matrices are one and the same, to the bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from quantship.quant.numerics import Codes


def differing(one: Mapping[str, Codes], other: Mapping[str, Codes]) -> list[str]:
    """Names of the matrices whose codes or grids are not the same in both."""
    return sorted(
        name
        for name in one.keys() | other.keys()
        if name not in one or name not in other or not _same(one[name], other[name])
    )


def _same(one: Codes, other: Codes) -> bool:
    zeros = [
        torch.zeros_like(codes.scale_OG) if codes.zero_OG is None else codes.zero_OG.float()
        for codes in (one, other)
    ]
    return (
        torch.equal(one.codes_OI, other.codes_OI)
        and torch.equal(one.scale_OG.float(), other.scale_OG.float())
        and torch.equal(*(zero.float() for zero in zeros))
    )
