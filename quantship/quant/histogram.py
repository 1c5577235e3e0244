"""How often numbers occur, and the ranges that can be read off that."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quantship.quant import numerics
from quantship.quant.numerics import Grid
from quantship.quant.scheme import ActivationFormat

BINS = 4096
"""Bins between the least and the greatest number."""
SHRINK_STEPS = 80
"""Ranges that the search for the least squared error tries, down to a fifth."""
CLIP_STEPS = 60
"""Places of an end that the search for the least divergence tries, from its own to a sixteenth."""
LEVELS = 256
"""Codes of 8 bits."""
ROUNDS = 4
"""Times that the search for the least divergence moves each end at most."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of numbers in bins of equal width.

    Args:
        lowest: Where the first bin begins.
        highest: Where the last one ends.
        counts: Numbers in each bin, float64.
    """

    lowest: float
    highest: float
    counts: Tensor

    @classmethod
    def between(cls, lowest: Tensor, highest: Tensor) -> Histogram:
        """An empty histogram between two numbers."""
        first, last = float(lowest), max(float(highest), float(lowest) + 1e-12)
        return cls(first, last, torch.zeros(BINS, dtype=torch.float64))

    def count(self, numbers: Tensor) -> Tensor:
        """How many of some numbers each bin holds; they are not added."""
        flat = numbers.detach().float().flatten().cpu()
        return torch.histc(flat, BINS, self.lowest, self.highest)

    def percentile(self, percentile: float) -> tuple[Tensor, Tensor]:
        """The range without the same share of numbers on either side."""
        share = self.counts.cumsum(0) / self.counts.sum()
        outside = (100 - percentile) / 200
        first = int((share <= outside).sum())
        last = int((share < 1 - outside).sum())
        edges = self._edges()
        return edges[first], edges[min(last, BINS - 1) + 1]

    def least_error(self, fmt: ActivationFormat) -> tuple[Tensor, Tensor]:
        """The range, shrunk from the extremes, with the least squared rounding error."""
        edges, centres = self._edges(), self._centres()
        best, least = (edges[0], edges[-1]), float("inf")
        for step in range(SHRINK_STEPS):
            share = 1 - step / (SHRINK_STEPS + SHRINK_STEPS / 4)
            lowest, highest = edges[0] * share, edges[-1] * share
            grid: Grid = numerics.input_grid(lowest, highest, fmt)
            rounded = numerics.fake_quantize_input(centres, fmt, grid)
            error = float(((rounded - centres).double().square() * self.counts).sum())
            if error < least:
                best, least = (lowest, highest), error
        return best

    def least_divergence(self, fmt: ActivationFormat) -> tuple[Tensor, Tensor]:
        """The range whose codes tell least wrong how the numbers are distributed (entropy, KL).

        Both ends are drawn in together first, then one at a time, as long as that helps.

        Source:
            Migacz, 8-bit Inference with TensorRT, 2017; there for ranges around zero. Here the
            codes are those of the grid that such a range gets, zero among them.
        """
        edges = self._edges()
        lowest, highest = edges[0], edges[-1]
        share_C = 1 - torch.arange(CLIP_STEPS) / CLIP_STEPS * (1 - LEVELS / BINS)
        best = float("inf")
        whole_C = torch.ones_like(share_C)
        turns = [(share_C, share_C)]
        if not fmt.symmetric and lowest < 0 < highest:
            turns += [(whole_C, share_C), (share_C, whole_C)] * ROUNDS
        unmoved = 0
        for low_C, high_C in turns:
            ends = lowest * low_C, highest * high_C
            divergence_C = self.divergence(*ends, fmt)
            chosen = int(divergence_C.argmin())
            moved = float(divergence_C[chosen]) < best
            if moved:
                best = float(divergence_C[chosen])
                lowest, highest = ends[0][chosen], ends[1][chosen]
            unmoved = 0 if moved else unmoved + 1
            if unmoved == 2:
                break
        return lowest, highest

    def divergence(self, lowest_C: Tensor, highest_C: Tensor, fmt: ActivationFormat) -> Tensor:
        """Kullback-Leibler divergence (C), in nats, from the numbers to their codes in C ranges.

        The numbers outside of a range count to its outermost bins, as they are clipped to its ends.
        What is known of a code is how many numbers inside of the range have it: they are spread
        evenly over its bins that are not empty. A range that holds no number has infinity. Zero is
        a code of every grid, so zeros beyond those that the neighbouring bins let expect, as a ReLU
        leaves them, are left out: they would count against every code that is wider than a bin.
        """
        counts_B = self._without_zeros()
        grid = numerics.input_grid(lowest_C[:, None], highest_C[:, None], fmt)
        zero_C1 = torch.zeros_like(grid.scale) if grid.zero is None else grid.zero
        low, high = numerics.code_range(fmt.bits)
        centres_B = self._centres()
        level_CB = (centres_B / grid.scale).round_().add_(zero_C1)
        inside_CB = (level_CB >= low) & (level_CB <= high)
        index_CB = level_CB.clamp_(low, high).sub_(low).long()
        kept_CB = counts_B * inside_CB
        filled_CB = (kept_CB > 0).double()
        mass_CL = torch.zeros(len(index_CB), LEVELS, dtype=torch.float64)
        bins_CL = mass_CL.clone().scatter_add_(1, index_CB, filled_CB)
        mass_CL.scatter_add_(1, index_CB, kept_CB)
        coded_CB = (mass_CL / bins_CL.clamp(min=1)).gather(1, index_CB) * filled_CB
        # Clipping moves what lies outside to the outermost bins inside.
        clipped_CB = (counts_B * ~inside_CB).expand_as(kept_CB)
        first_C = inside_CB.to(torch.int8).argmax(dim=1)
        below_CB = torch.arange(BINS) < first_C[:, None]
        kept_CB.scatter_add_(1, _column(first_C), _column((clipped_CB * below_CB).sum(dim=1)))
        last_C = BINS - 1 - inside_CB.flip(1).to(torch.int8).argmax(dim=1)
        kept_CB.scatter_add_(1, _column(last_C), _column((clipped_CB * ~below_CB).sum(dim=1)))
        total = counts_B.sum().clamp(min=1)
        # A bin that no number inside fills but clipped ones do counts as if one number filled it.
        coded_CB = torch.where(kept_CB > 0, coded_CB.clamp(min=1), 0)
        expected_CB = kept_CB / total
        found_CB = coded_CB / coded_CB.sum(dim=1, keepdim=True).clamp(min=1)
        divergence_C = torch.xlogy(expected_CB, expected_CB / found_CB.clamp(min=1e-300)).sum(dim=1)
        divergence_C[mass_CL.sum(dim=1) == 0] = float("inf")
        return divergence_C

    def _without_zeros(self) -> Tensor:
        """The counts, with no more in the bin of zero than in the fuller one of its neighbours."""
        counts_B = self.counts.clone()
        if self.lowest <= 0 <= self.highest:
            width = (self.highest - self.lowest) / BINS
            bin = min(int(-self.lowest / width), BINS - 1)
            beside = torch.cat([counts_B[max(bin - 1, 0) : bin], counts_B[bin + 1 : bin + 2]])
            counts_B[bin].clamp_(max=float(beside.max()))
        return counts_B

    def _edges(self) -> Tensor:
        return torch.linspace(self.lowest, self.highest, BINS + 1)

    def _centres(self) -> Tensor:
        edges = self._edges()
        return (edges[:-1] + edges[1:]) / 2


def _column(numbers_C: Tensor) -> Tensor:
    return numbers_C[:, None]
