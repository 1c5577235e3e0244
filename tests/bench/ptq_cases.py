"""Which algorithms are compared in which schemes, and on which seeds of calibration data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from quantship.algorithms.table import ALGORITHMS
from quantship.quant.scheme import SCHEMES, Scheme

WANTED_GROUP = 128
FLOAT = "float"
BASELINE = "rtn"
"""What the others are to recover the loss of: round to nearest between the outermost weights."""


@dataclass(frozen=True)
class Way:
    """One way to quantize.

    Args:
        name: What tables call it.
        step: Keys of the step.
        only_static: Whether it says something only where input ranges are static.
        only_few_bits: Whether it is meant for weights of 4 bits.
        key: Whether a bar of the comparison hangs on it; those run first.
    """

    name: str
    step: dict[str, Any] = field(default_factory=dict)
    only_static: bool = False
    only_few_bits: bool = False
    key: bool = False

    @property
    def algorithm(self) -> str:
        """Word of the algorithm."""
        given = self.step.get("algorithm", "rtn")
        return str(given["kind"] if isinstance(given, dict) else given)

    @property
    def needs_data(self) -> bool:
        """Whether its result hangs on calibration data, whatever the scheme."""
        return bool(ALGORITHMS[self.algorithm].NEEDS_DATA or self.step.get("bias_correction"))


WAYS = (
    Way(BASELINE, key=True),
    Way("gptq", {"algorithm": "gptq"}, key=True),
    Way("awq", {"algorithm": "awq"}, key=True),
    Way("smoothquant", {"algorithm": "smoothquant"}, key=True),
    Way("rtn, percentile", {"range": "percentile"}),
    Way("rtn, mse", {"range": "mse"}),
    Way("rtn, outermost", {"range": "outermost"}),
    Way("hqq", {"algorithm": "hqq"}, only_few_bits=True),
    Way("gptq, as published", {"algorithm": {"kind": "gptq", "damping": 0.01, "grid": "range"}}),
    Way(
        "awq + gptq",
        {"algorithm": {"kind": "awq", "rounding": "gptq"}},
        only_few_bits=True,
        key=True,
    ),
    Way(
        "smoothquant + gptq",
        {"algorithm": {"kind": "smoothquant", "rounding": "gptq"}},
        only_static=True,
    ),
    Way("rtn + bias correction", {"bias_correction": True}),
    Way("rtn, inputs minmax", {"calibration": {"range": "minmax"}}, only_static=True),
    Way("rtn, inputs percentile", {"calibration": {"range": "percentile"}}, only_static=True),
    Way("rtn, inputs mse", {"calibration": {"range": "mse"}}, only_static=True),
    Way("rtn, inputs entropy", {"calibration": {"range": "entropy"}}, only_static=True),
    Way(
        "smoothquant, inputs mse",
        {"algorithm": "smoothquant", "calibration": {"range": "mse"}},
        only_static=True,
    ),
)


@dataclass(frozen=True)
class Case:
    """One quantization of the table.

    Args:
        scheme: Of the model.
        way: How it is quantized.
        seed: Which calibration data; None: it looks at none.
    """

    scheme: Scheme
    way: Way
    seed: int | None

    @property
    def key(self) -> str:
        """Tells it apart in a file of results."""
        return f"{self.scheme.name} | {self.way.name} | {self.seed}"

    def step(self, sequences: int) -> dict[str, Any]:
        """Keys of the step, calibration included."""
        calibration = {"sequences": sequences, "seed": self.seed}
        return {
            **self.way.step,
            "calibration": {**calibration, **self.way.step.get("calibration", {})},
        }


def schemes(widths: Iterable[int]) -> list[Scheme]:
    """The schemes that are compared, with groups that divide the model's widths.

    Where 128 does not, 64 and the common divisor next above 128 stand for it, for what holds for
    finer and for coarser groups holds for those between.
    """
    row = SCHEMES["w4a16-g128"]
    grouped = [row]
    sizes = set(widths)
    if any(size % WANTED_GROUP for size in sizes):
        coarser = [size for size in range(129, min(sizes) + 1) if not any(w % size for w in sizes)]
        grouped = [
            row.model_copy(
                update={
                    "name": f"w4a16-g{size}",
                    "weight": row.weight.model_copy(update={"group_size": size}),
                }
            )
            for size in (WANTED_GROUP // 2, *coarser[:1])
        ]
    names = ("w4a8", "w8a8", "w8a8-static")
    return [*grouped, SCHEMES["w4a16-g32"], *(SCHEMES[name] for name in names)]


def cases(compared: Iterable[Scheme], seeds: Iterable[int], *, has_biases: bool) -> Iterator[Case]:
    """Every case, those that bars hang on first, and the first seed of all before the next.

    Args:
        compared: Schemes.
        seeds: Of the choice of calibration data.
        has_biases: Whether the model's layers have biases to correct.
    """
    every = [
        Case(scheme, way, seed)
        for scheme in compared
        for way in WAYS
        if _fits(way, scheme, has_biases)
        for seed in (seeds if way.needs_data or scheme.is_static else (None,))
    ]
    order = {seed: place for place, seed in enumerate((None, *seeds))}
    ranked = sorted(every, key=lambda case: (not case.way.key, max(order[case.seed], 1)))
    yield from ranked


def _fits(way: Way, scheme: Scheme, has_biases: bool) -> bool:
    from pydantic import TypeAdapter

    from quantship.algorithms import table

    if way.only_static and not scheme.is_static:
        return False
    if way.algorithm == "smoothquant" and scheme.activation is None:
        return False  # it moves outliers out of inputs that are rounded
    if way.only_few_bits and scheme.weight.bits > 4:
        return False
    if way.step.get("bias_correction") and not has_biases:
        return False
    if way.name == "rtn, outermost" and not scheme.weight.symmetric:
        return False
    given = way.step.get("algorithm", "rtn")
    given = {"kind": given} if isinstance(given, str) else given
    options: Any = TypeAdapter(table.Options).validate_python(given)
    return ALGORITHMS[way.algorithm].reject(scheme, options) is None
