"""How far an exported model may be from its checkpoint on a task, by how the two compute.

The integers are equal to the bit in any case. What is left is how a runtime computes with them:

===================================== ========== =============== ===== ==========================
how checkpoint and export compute     perplexity right answers   nats  seen, SmolLM2-135M (w8a8)
===================================== ========== =============== ===== ==========================
in float                              0.01 %     0.1 points      1e-4  0.00002 %, 0 points
inputs rounded by token or block      3 %        2 points        0.03  0.32 %, 0.26 points
inputs rounded by tensor              15 %       5 points        0.15
===================================== ========== =============== ===== ==========================

Where inputs are rounded, a float sum in another order moves a value to the next code now and then,
and a runtime that rounds by block what another rounds by token is as good, not equal. Text that is
generated token by token goes another way from the first token that differs: so, of answers that are
right or wrong, an interval that holds 0 is enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from quantship.reporting.evidence_schema import MetricFacts


@dataclass(frozen=True)
class Tolerance:
    """Largest differences, either way.

    Args:
        why: What it is for, in words.
        perplexity: Of the quotient of two perplexities from 1.
        share: Of two shares of right answers, tokens or equal predictions.
        nats: Of two means in nats.
    """

    why: str
    perplexity: float
    share: float
    nats: float

    def of(self, metric: MetricFacts) -> float | None:
        """What is allowed of a metric; None: nothing is stated of numbers of any kind."""
        by_kind = {"perplexity": self.perplexity, "share": self.share, "nats": self.nats}
        return by_kind.get(metric.kind)


FLOAT = Tolerance("both compute in float", 1e-4, 1e-3, 1e-4)
ROUNDED = Tolerance("inputs of layers are rounded by token or block", 0.03, 0.02, 0.03)
BY_TENSOR = Tolerance("inputs of layers are rounded by tensor", 0.15, 0.05, 0.15)


def choose(one: str | None, other: str | None) -> Tolerance:
    """The tolerance of two models by how they compute with activations; None: in float."""
    arithmetics = [arithmetic or "float32" for arithmetic in (one, other)]
    if any(" a tensor" in arithmetic for arithmetic in arithmetics):
        return BY_TENSOR
    return FLOAT if all(one == "float32" for one in arithmetics) else ROUNDED
