"""What a validation finds, as values that are printed or written as JSON."""

from __future__ import annotations

from typing import Literal

from quantship.frozen import Frozen

DIFFERENT = 4
"""Exit code of two models that are not equal within tolerance."""

Kind = Literal["torch", "torchao", "onnx"]
Part = Literal["codes", "scales", "zero points", "input scale", "input zero point", "tensor"]


class Check(Frozen):
    """One question that has a yes or no."""

    name: str
    passed: bool
    detail: str
    """What was compared, or what is wrong."""


class FileFacts(Frozen):
    """A file that holds weights or a graph."""

    name: str
    size_bytes: int
    sha256: str


class Side(Frozen):
    """One of the two models."""

    path: str
    kind: Kind
    scheme: str | None
    """Name of its quantization scheme, where the file says it."""
    arithmetic: str
    """What it does to the inputs of its layers."""
    files: tuple[FileFacts, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of weights and graph."""
        return sum(file.size_bytes for file in self.files)


class Difference(Frozen):
    """Where one stored tensor first differs between the models."""

    name: str
    """Layer or tensor."""
    part: Part
    index: tuple[int, ...]
    """Position of the first number that differs: row and column, or row and block for scales."""
    a: float | None
    b: float | None
    count: int
    """Numbers that differ."""

    def __str__(self) -> str:
        if not self.index:
            return f"{self.name}: {self.part} {_number(self.a)} in A, {_number(self.b)} in B"
        words = ("row", "column" if self.part == "codes" else "block")
        if self.part == "tensor" or len(self.index) != len(words):
            place = f"at {list(self.index)}"
        else:
            pairs = zip(words, self.index, strict=True)
            place = ", ".join(f"{word} {at}" for word, at in pairs)
        more = f" ({self.count:,} differ)" if self.count > 1 else ""
        return (
            f"{self.name}: {self.part}, {place}: {_number(self.a)} in A, {_number(self.b)} in B"
            f"{more}"
        )


class Numbers(Frozen):
    """How the stored numbers of two models compare, to the bit."""

    what: str
    """Whose numbers were compared."""
    compared: int
    """Tensors that both hold."""
    different: tuple[Difference, ...]
    """The first difference of each part of a tensor that is not equal."""
    unreadable: tuple[str, ...] = ()
    """Tensors that are missing in one, or that a graph uses in another way than its codes say."""

    @property
    def equal(self) -> bool:
        """Every tensor is the same in both."""
        return not self.different and not self.unreadable


class Agreement(Frozen):
    """How far the outputs of two models are apart. Differences of A and B, deviations of A."""

    output: str
    positions: int
    """Predictions compared: tokens, or rows of an output."""
    deviation: float
    """Standard deviation of A's numbers."""
    max_abs_diff: float
    mean_abs_diff: float
    relative: float
    """Root mean square difference over the standard deviation."""
    worst_relative: float
    """The same of the position where it is largest."""
    not_finite: tuple[int, int]
    """NaN and infinite numbers in A and in B."""
    top1_agreement: float | None = None
    """Share of positions where both find the same entry largest; None where there are no two."""
    kl_ab_nats: float | None = None
    """Mean of KL(A || B)."""
    kl_ba_nats: float | None = None
    """Mean of KL(B || A)."""


class Continuation(Frozen):
    """The greedy continuations of one prompt."""

    prompt_tokens: int
    a: tuple[int, ...]
    b: tuple[int, ...]
    text_a: str | None
    text_b: str | None
    first_difference: int | None
    """Index of the first new token that differs; None: they are the same."""
    cache: tuple[float, float]
    """How far decoding with a KV cache is from reading at once, in A and in B: the worst position's
    root mean square difference over the standard deviation."""


class Tolerance(Frozen):
    """What is still called equal."""

    why: str
    """What the two models have in common, and so why this much is expected."""
    relative: float | None
    """Largest ``worst_relative``; None: not asked."""
    max_kl: float | None = None
    """Largest mean of KL(A || B), in nats a token; None: not asked."""
    min_top1: float | None = None
    """Least share of positions with the same most likely token; None: not asked."""
    cache: tuple[float | None, float | None] = (None, None)
    """Largest difference between decoding and reading at once, for A and for B; None: not asked."""


class Validation(Frozen):
    """Everything that was found."""

    a: Side
    b: Side
    inputs: str
    """What was fed to both."""
    tolerance: Tolerance
    checks: tuple[Check, ...]
    numbers: tuple[Numbers, ...] = ()
    outputs: tuple[Agreement, ...] = ()
    perplexity: tuple[float, float] | None = None
    """Of A and B on the text; None for random tokens and for models that predict no text."""
    continuation: Continuation | None = None

    @property
    def equal(self) -> bool:
        """Every check has passed."""
        return all(check.passed for check in self.checks)


def _number(value: float | None) -> str:
    if value is None:
        return "nothing"
    return f"{int(value)}" if value == int(value) and abs(value) < 1e6 else f"{value:.9g}"
