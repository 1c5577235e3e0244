"""Models that answer in one pass: encoders, classifiers, and any ONNX graph, on random inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantship.errors import QuantshipError
from quantship.progress import track
from quantship.validation.report import Agreement, Check
from quantship.validation.subjects import Subject

Array = NDArray[Any]
BATCH = 2
FREE_SIZE = 16
"""Of an axis without a size that is no batch."""
FEWEST_TOKENS = 2
"""Codes that an integer input may take where nothing says how many there are."""
OF_ONNX = {
    "FLOAT": np.float32,
    "DOUBLE": np.float64,
    "FLOAT16": np.float16,
    "INT64": np.int64,
    "INT32": np.int32,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}
LOOKUPS = ("Gather", "GatherBlockQuantized")


@dataclass(frozen=True)
class Input:
    """One declared input.

    Args:
        name: Of the input.
        dtype: Of its numbers.
        shape: Sizes, and names of those that are free.
        below: What integers stay below.
    """

    name: str
    dtype: type[np.generic]
    shape: tuple[int | str, ...]
    below: int = FEWEST_TOKENS


def declared_by(a: Subject, b: Subject) -> tuple[dict[str, Input], dict[str, Input]]:
    """The inputs of both models, by name; PyTorch takes those of an ONNX model by their names.

    Raises:
        QuantshipError: An input is of a type that is not fed.
    """
    if a.kind != "onnx" and b.kind != "onnx":
        return _of_checkpoint(a), _of_checkpoint(b)
    ours = _of_onnx(a if a.kind == "onnx" else b)
    theirs = _of_onnx(b if b.kind == "onnx" else a)
    return ours, theirs


def _of_onnx(subject: Subject) -> dict[str, Input]:
    found = {}
    initializers = subject.model.graph.initializers
    for value in subject.model.graph.inputs:
        if value.name in initializers:
            continue
        kind = "nothing" if value.dtype is None else value.dtype.name
        if kind not in OF_ONNX or value.shape is None:
            raise QuantshipError(
                f"the input '{value.name}' of {subject.label} is of {kind} without a known shape "
                "or of a type that is not fed"
            )
        shape = tuple(
            size if isinstance(size, int) else str(getattr(size, "value", size))
            for size in value.shape
        )
        name = str(value.name)
        found[name] = Input(name, OF_ONNX[kind], shape, _rows_looked_up(value))
    return found


def same_inputs(a: Mapping[str, Input], b: Mapping[str, Input]) -> Check:
    """Whether two models take the same inputs."""
    alone = [
        f"only {side} has the input '{name}'"
        for side, names in (("A", a.keys() - b.keys()), ("B", b.keys() - a.keys()))
        for name in sorted(names)
    ]
    for name in sorted(a.keys() & b.keys()):
        one, other = a[name], b[name]
        if one.dtype != other.dtype:
            alone.append(f"'{name}' is {one.dtype.__name__} in A and {other.dtype.__name__} in B")
        elif len(one.shape) != len(other.shape) or any(
            isinstance(x, int) and isinstance(y, int) and x != y
            for x, y in zip(one.shape, other.shape, strict=True)
        ):
            alone.append(f"'{name}' is {list(one.shape)} in A and {list(other.shape)} in B")
    return Check(
        name="inputs", passed=not alone, detail="; ".join(alone) or ", ".join(sorted(a)) or "none"
    )


def draw(
    a: Mapping[str, Input], b: Mapping[str, Input], *, batches: int, seed: int
) -> list[dict[str, Array]]:
    """Random inputs that both models take; masks are ones and positions count."""
    generator = np.random.default_rng(seed)
    feeds = []
    for _ in range(batches):
        feed = {}
        for name, one in a.items():
            sizes = zip(one.shape, b[name].shape, strict=True)
            shape = tuple(_size(axis, pair) for axis, pair in enumerate(sizes))
            feed[name] = _numbers(generator, one, shape, min(one.below, b[name].below))
        feeds.append(feed)
    return feeds


def run(subject: Subject, feeds: list[dict[str, Array]]) -> list[dict[str, Array]]:
    """Every output of every batch, by name."""
    forward = _onnx_forward(subject) if subject.kind == "onnx" else _torch_forward(subject)
    return [forward(feed) for feed in track(feeds, f"{subject.label}: running", len(feeds))]


def compare(ours: list[dict[str, Array]], theirs: list[dict[str, Array]]) -> list[Agreement]:
    """Compare the outputs that both have; where each has one, names do not matter.

    Raises:
        QuantshipError: They have no output of one name, or of other shapes.
    """
    from quantship.validation import agreement

    names = [(name, name) for name in ours[0] if name in theirs[0]]
    if not names and len(ours[0]) == len(theirs[0]) == 1:
        names = [(*ours[0], *theirs[0])]  # type: ignore[list-item]
    if not names:
        raise QuantshipError(
            f"no output has one name in both: A has {', '.join(ours[0])}, and B "
            f"{', '.join(theirs[0])}"
        )
    found = []
    for name, other in names:
        pairs = [(one[name], two[other]) for one, two in zip(ours, theirs, strict=True)]
        for one, two in pairs:
            if one.shape != two.shape:
                raise QuantshipError(
                    f"the output '{name}' is {list(one.shape)} in A and {list(two.shape)} in B"
                )
        first, second = zip(*pairs, strict=True)
        predicts = "logits" in name and first[0].shape[-1] > 1
        found.append(agreement.compare(name, first, second, predicts=predicts))
    return found


def _of_checkpoint(subject: Subject) -> dict[str, Input]:
    config = subject.config
    if "sizes" in config:
        return {"features": Input("features", np.float32, ("batch", config["sizes"][0]))}
    shape = ("batch", "sequence")
    below = subject.vocab_size or FEWEST_TOKENS
    return {
        "input_ids": Input("input_ids", np.int64, shape, below),
        "attention_mask": Input("attention_mask", np.int64, shape),
    }


def _rows_looked_up(value: Any) -> int:
    """Rows of the table that an integer input picks from."""
    rows = [
        node.inputs[0].shape[0]
        for node, index in value.uses()
        if node.op_type in LOOKUPS and index == 1 and node.inputs[0].shape is not None
    ]
    return min((row for row in rows if isinstance(row, int)), default=FEWEST_TOKENS)


def _size(axis: int, sizes: tuple[int | str, int | str]) -> int:
    fixed = [size for size in sizes if isinstance(size, int)]
    if fixed:
        return fixed[0]
    name = str(sizes[0])
    if "past" in name and "+" not in name and "total" not in name:
        return 0  # an empty cache
    return BATCH if axis == 0 else FREE_SIZE


def _numbers(
    generator: np.random.Generator, one: Input, shape: tuple[int, ...], below: int
) -> Array:
    if one.dtype is np.bool_ or "mask" in one.name:
        return np.ones(shape, one.dtype)
    if "position" in one.name and shape:
        return np.broadcast_to(np.arange(shape[-1]), shape).astype(one.dtype)
    if np.issubdtype(one.dtype, np.integer):
        return generator.integers(below, size=shape).astype(one.dtype)
    return generator.standard_normal(shape).astype(one.dtype)


def _onnx_forward(subject: Subject) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(subject.model_file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def forward(feed: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(names, session.run(names, feed), strict=True))

    return forward


def _torch_forward(subject: Subject) -> Any:
    import torch

    from quantship.quant.loading import load

    model: Any = load(subject.path, dtype=torch.float32)

    def forward(feed: dict[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            output = model(**{name: torch.from_numpy(array) for name, array in feed.items()})
        return {
            name: value.float().numpy() for name, value in output.items() if torch.is_tensor(value)
        }

    return forward
