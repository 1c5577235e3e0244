"""Read the integers back out of OpenVINO IR and hold them against a checkpoint's.

This is written against the operators' definitions, not against the code that emits them, so that a
mistake there is found here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantship.exporters.codes import CodeComparison
from quantship.exporters.hooks import METADATA
from quantship.exporters.openvino import MODEL_FILE
from quantship.quant import checkpoint
from quantship.quant.tensors import StoredCodes

Array = NDArray[Any]
CODES = ".codes"
"""End of the name of a constant with codes, after the layer's."""
MIDDLES = {"i4": 0, "i8": 0, "u4": 8, "u8": 128}
"""What stands for a signed code of 0 in each type of constant."""


class _Matrix(NamedTuple):
    """Numbers that a graph makes of integers, (codes - zeros) * scales, and who uses them."""

    codes_OI: Array
    scale_OG: Array
    zero_OG: Array
    users: list[Any]


def compare(model_dir: Path, checkpoint_dir: Path) -> CodeComparison:
    """Compare every quantized matrix of a checkpoint with its place in an OpenVINO model."""
    stored = checkpoint.load_codes(checkpoint_dir)
    constants: dict[str, list[Any]] = {}
    model = _read(model_dir)
    for node in model.get_ops():
        if node.get_type_name() == "Constant":
            constants.setdefault(node.get_friendly_name(), []).append(node)
    different = [
        name for name, part in stored.items() if not _same(part, constants.get(name + CODES, []))
    ]
    return CodeComparison(len(stored), tuple(different))


def metadata(model_dir: Path) -> dict[str, Any]:
    """What quantship wrote into a model's metadata; empty for models from elsewhere."""
    model = _read(model_dir)
    if not model.has_rt_info([METADATA]):
        return {}
    parsed: dict[str, Any] = json.loads(model.get_rt_info([METADATA]).astype(str))
    return parsed


def _read(model_dir: Path) -> Any:
    import openvino

    return openvino.Core().read_model(model_dir / MODEL_FILE)


def _same(part: StoredCodes, constants: list[Any]) -> bool:
    if len(constants) != 1:
        return False
    converts = _users(constants[0])
    matrices = [_matrix(constants[0], convert) for convert in converts]
    return bool(converts) and all(_equal(matrix, part) for matrix in matrices)


def _matrix(codes: Any, convert: Any) -> _Matrix | None:
    """What becomes of a constant on its way to the layers that use it; None: no weight."""
    if convert.get_type_name() != "Convert":
        return None
    numbers, last = _signed(codes), convert
    zeros: Array | None = np.zeros((1, 1), np.int16)
    after = _only_user(last)
    if after is not None and after.get_type_name() == "Subtract":
        if not _comes_from(after, last):
            return None
        zeros, last = _signed(_source(_source(after, 1), 0)), after
        after = _only_user(last)
    if after is None or after.get_type_name() != "Multiply" or not _comes_from(after, last):
        return None
    scales, last = _constant(_source(after, 1)), after
    after = _only_user(last)
    if after is not None and after.get_type_name() == "Reshape":
        last = after
    shape = list(last.get_output_shape(0))
    if numbers is None or zeros is None or scales is None or len(shape) != 2:
        return None
    ends = (shape[0], -1)
    zero_OG = zeros if zeros.size == 1 else zeros.reshape(ends)
    return _Matrix(numbers.reshape(shape), scales.reshape(ends), zero_OG, _users(last))


def _equal(found: _Matrix | None, part: StoredCodes) -> bool:
    if found is None:
        return False
    codes_OI, scale_OG, zero_OG = part.codes
    shape = found.scale_OG.shape
    zeros = np.zeros((1, 1), np.int16) if zero_OG is None else zero_OG.numpy()
    return (
        np.array_equal(found.codes_OI, codes_OI.numpy())
        and np.array_equal(found.scale_OG, np.broadcast_to(scale_OG.float().numpy(), shape))
        and np.array_equal(np.broadcast_to(found.zero_OG, shape), np.broadcast_to(zeros, shape))
        and bool(found.users)
        and all(_is_layer(user, part) for user in found.users)
    )


def _is_layer(node: Any, part: StoredCodes) -> bool:
    """Whether a node looks rows up in a matrix, or multiplies by its rows as was trained."""
    shape = list(part.codes.codes_OI.shape)
    if node.get_type_name() == "Gather":
        axis = _constant(_source(node, 2))
        return list(node.get_input_shape(0)) == shape and axis is not None and int(axis) == 0
    if node.get_type_name() != "MatMul" or list(node.get_input_shape(1)) != shape:
        return False
    turned = node.get_attributes()
    if not turned["transpose_b"] or turned["transpose_a"]:
        return False
    input = _source(node, 0)
    rounded = input.get_type_name() == "FakeQuantize"
    if part.input_grid is None or not rounded:
        return part.input_grid is None and not rounded
    ends = [_constant(_source(input, index)) for index in range(1, 5)]
    scale, zero = part.input_grid
    step, middle = float(scale), 0.0 if zero is None else float(zero)
    reach = [np.float32((code - middle) * step) for code in (-128, 127)] * 2
    return bool(input.get_attributes()["levels"] == 256) and all(
        end is not None and end.size == 1 and end.item() == expected
        for end, expected in zip(ends, reach, strict=True)
    )


def _users(node: Any) -> list[Any]:
    return [target.get_node() for target in node.output(0).get_target_inputs()]


def _only_user(node: Any) -> Any:
    users = _users(node)
    return users[0] if len(users) == 1 else None


def _source(node: Any, index: int) -> Any:
    return node.input_value(index).get_node()


def _comes_from(node: Any, source: Any) -> bool:
    name: str = _source(node, 0).get_name()
    return bool(name == source.get_name())


def _signed(node: Any) -> Array | None:
    """Integers of a constant, as signed codes; None for what is no such constant."""
    if node.get_type_name() != "Constant":
        return None
    kind = node.get_element_type().get_type_name()
    if kind not in MIDDLES:
        return None
    raw = np.array(node.data).reshape(-1)
    if kind.endswith("8"):
        return raw.reshape(node.get_output_shape(0)).astype(np.int16) - MIDDLES[kind]
    bytes_ = raw.view(np.uint8)
    halves = np.stack([bytes_ & 15, bytes_ >> 4], axis=-1).reshape(-1).astype(np.int16)
    numbers = halves[: int(np.prod(list(node.get_output_shape(0))))]
    if kind == "i4":
        numbers = np.where(numbers > 7, numbers - 16, numbers)
    return numbers.reshape(list(node.get_output_shape(0))) - MIDDLES[kind]


def _constant(node: Any) -> Array | None:
    """Numbers of a constant, be it stored in another width."""
    if node.get_type_name() == "Convert":
        return _constant(_source(node, 0))
    if node.get_type_name() != "Constant":
        return None
    kind, raw = node.get_element_type().get_type_name(), np.array(node.data)
    if kind == "bf16":
        raw = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return raw.reshape(list(node.get_output_shape(0)))
