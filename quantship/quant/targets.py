"""Which layers get an adapter, by the ends of their names."""

from __future__ import annotations

from collections.abc import Sequence

ALL_LINEAR = "all-linear"
"""Names all linear layers but the output head."""


def match_targets(names: Sequence[str], head: str | None, targets: Sequence[str]) -> list[str]:
    """Names of the layers that get an adapter, in their own order.

    Args:
        names: All layers that can have one: the linear layers that are fake-quantized.
        head: The output head, where it is one of them.
        targets: Ends of names, as ``q_proj`` or ``mlp.up_proj``, or ``all-linear``.

    Raises:
        ValueError: A target matches nothing.
    """
    found: set[str] = set()
    for target in targets:
        matched = [name for name in names if _is_meant(name, head, target)]
        if not matched:
            ends = sorted({name.rpartition(".")[2] for name in names})
            raise ValueError(
                f"the LoRA target '{target}' matches no linear layer that the scheme quantizes; "
                + (f"what could match: {ALL_LINEAR}, {', '.join(ends)}" if ends else "it has none")
            )
        found.update(matched)
    return [name for name in names if name in found]


def _is_meant(name: str, head: str | None, target: str) -> bool:
    if target == ALL_LINEAR:
        return name != head
    return name == target or name.endswith(f".{target}")
