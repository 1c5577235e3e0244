"""The codes of a model that leaves in float, kept beside it to compare later roundings with.

In the two-step flow a model is trained under fake quantization, written as clean weights, and
rounded again by a later step. Whether that step finds the integers that were trained is counted
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from quantship.artifact import Facts
from quantship.quant.differences import differing
from quantship.quant.numerics import Codes
from quantship.quant.on_demand import OnDemand

FILE = Path("trained", "codes.safetensors")


def save(codes: Mapping[str, Codes], out: Path) -> None:
    """Write the codes that were trained into a model's directory."""
    tensors = {f"{name}.codes": part.codes_OI.contiguous() for name, part in codes.items()}
    tensors |= {f"{name}.scale": part.scale_OG.float() for name, part in codes.items()}
    tensors |= {
        f"{name}.zero": part.zero_OG for name, part in codes.items() if part.zero_OG is not None
    }
    (out / FILE).parent.mkdir()
    save_file(tensors, out / FILE)


def compare(codes: Mapping[str, Codes], source: Path) -> Facts | None:
    """How many codes of a later rounding are those that were trained; see ``count``.

    Returns:
        None where the model at ``source`` was not trained under fake quantization, or not for the
        same layers.
    """
    if not (source / FILE).exists():
        return None
    with safe_open(source / FILE, framework="pt") as file:
        present = set(file.keys())
        names = [name.removesuffix(".codes") for name in present if name.endswith(".codes")]

        def read(name: str) -> Codes:
            zero = f"{name}.zero"
            return Codes(
                file.get_tensor(f"{name}.codes"),
                file.get_tensor(f"{name}.scale"),
                file.get_tensor(zero) if zero in present else None,
            )

        return count(codes, OnDemand(names, read)) if codes.keys() == set(names) else None


def count(codes: Mapping[str, Codes], others: Mapping[str, Codes]) -> Facts:
    """How many codes of two roundings of the same layers are equal.

    Returns:
        ``codes_equal``: all, and all scales, to the bit; ``tensors_compared``,
        ``tensors_different`` and ``share_of_codes_equal``.
    """
    equal = total = 0
    for name in codes.keys() & others.keys():
        same = codes[name].codes_OI == others[name].codes_OI
        equal += int(same.sum())
        total += same.numel()
    different = differing(codes, others)
    return {
        "codes_equal": not different,
        "tensors_compared": len(codes.keys() | others.keys()),
        "tensors_different": len(different),
        "share_of_codes_equal": equal / total if total else 0.0,
    }
