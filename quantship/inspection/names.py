"""Names of layers as people know them, and patterns that stand for many."""

from __future__ import annotations

import re
from collections.abc import Iterable

NUMBER = re.compile(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])")
OPERATORS = (
    "Conv",
    "ConvInteger",
    "Gather",
    "GatherBlockQuantized",
    "Gemm",
    "MatMul",
    "MatMulInteger",
    "MatMulNBits",
    "QLinearConv",
    "QLinearMatMul",
)
ENDING = re.compile(
    rf"([./_]*({'|'.join(OPERATORS)})(_Q4|_Q8|_Q4G|_quant|_quantized|_nbits|_\d+)*)+$",
    re.IGNORECASE,
)
TENSOR_ENDINGS = (
    "_quantized",
    "_Q4",
    "_Q8",
    ".codes",
    ".qweight",
    ".weight",
    "_DQ_Q4",
    "_scaled",
    ".bias",
)


def layer_of(node: str, tensor: str) -> str:
    """A layer's name, from those of its node and of its tensor, whichever says more.

    ``/model/layers.0/mlp/up_proj/MatMul_Q4`` becomes ``model.layers.0.mlp.up_proj``.
    """
    by_tensor = _of_tensor(tensor)
    if "::" not in by_tensor and ("." in by_tensor or "/" in by_tensor):
        return by_tensor
    by_node = _dotted(node)
    return by_tensor if by_node in ("", "node") else by_node


def _of_tensor(name: str) -> str:
    before = None
    while before != name:
        before = name
        for ending in TENSOR_ENDINGS:
            name = name.removesuffix(ending)
        shorter = _dotted(name)
        name = shorter or name
    return name


def _dotted(name: str) -> str:
    name = re.sub(r"/output_\d+(/products)?$", "", name)
    return re.sub(r"[/.]+", ".", ENDING.sub("", name)).strip(".")


def pattern(name: str) -> str:
    """A name with a star for every number that stands alone: ``model.layers.*.mlp.up_proj``."""
    return NUMBER.sub("*", name)


def numbered(names: Iterable[str]) -> str:
    """Names of one pattern as one, with the numbers that occur: ``model.layers.[0-3,7].mlp``.

    Where more than one number differs, or there is one name only, see ``pattern``.
    """
    listed = list(dict.fromkeys(names))
    if len(listed) == 1:
        return listed[0]
    star = pattern(listed[0])
    numbers = [[int(found) for found in NUMBER.findall(name)] for name in listed]
    differing = [
        place for place, column in enumerate(zip(*numbers, strict=True)) if len(set(column)) > 1
    ]
    if len(differing) != 1 or any(pattern(name) != star for name in listed):
        return star
    place = differing[0]
    parts = iter(enumerate(numbers[0]))

    def fill(_: re.Match[str]) -> str:
        at, number = next(parts)
        return (
            f"[{ranges(sorted({one[place] for one in numbers}))}]" if at == place else str(number)
        )

    return NUMBER.sub(fill, listed[0])


def ranges(numbers: list[int]) -> str:
    """Ascending numbers as ranges: ``0-3,7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def joined(names: tuple[str, ...]) -> str:
    """Layers of one tensor as one name: ``model.layers.0.self_attn.{q_proj,k_proj,v_proj}``."""
    if len(names) == 1:
        return names[0]
    heads = {name.rpartition(".")[0] for name in names}
    if len(heads) == 1 and (head := heads.pop()):
        return f"{head}.{{{','.join(name.rpartition('.')[2] for name in names)}}}"
    return " + ".join(names)
