"""A safetensors file, written piece by piece: its tensors were never in memory all at once.

The layout is that of ``safetensors.torch.save_file``: the length of the header in eight bytes, the
header as JSON, then the tensors' bytes, those of wide numbers first so that each lies aligned.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import torch
from torch import Tensor

from quantship import header as headers

METADATA = "__metadata__"
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
SIZES = {name: dtype.itemsize for dtype, name in DTYPES.items()}
COPIED_BYTES = 1 << 22
"""Bytes that are copied from file to file at a time."""


@dataclass(frozen=True)
class Spec:
    """What a file says of a tensor before its bytes come.

    Args:
        dtype: In safetensors' words, as ``BF16``.
        shape: Sizes of the axes.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * SIZES[self.dtype]


def spec_of(tensor: Tensor) -> Spec:
    """What a file says of this tensor, which may be on the ``meta`` device."""
    return Spec(DTYPES[tensor.dtype], tuple(tensor.shape))


class Writer:
    """A file whose tensors are known by shape, and filled in any order.

    Args:
        path: The file.
        specs: Its tensors by name; each of them has to be filled.
        metadata: Texts by name.
    """

    def __init__(self, path: Path, specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> None:
        header: dict[str, object] = {METADATA: dict(metadata)}
        offsets: dict[str, int] = {}
        end = 0
        for name in sorted(specs, key=lambda name: (-SIZES[specs[name].dtype], name)):
            spec, start = specs[name], end
            end += spec.size_bytes
            offsets[name] = start
            header[name] = {
                "dtype": spec.dtype,
                "shape": list(spec.shape),
                "data_offsets": [start, end],
            }
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._offsets = {name: 8 + len(text) + offset for name, offset in offsets.items()}
        self._file: BinaryIO = path.open("wb")
        self._file.write(struct.pack("<Q", len(text)) + text)
        self._file.truncate(8 + len(text) + end)

    def put(self, name: str, tensor: Tensor, start: int = 0) -> None:
        """Write a tensor, or a part of it that begins at a byte of it."""
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        self._file.seek(self._offsets[name] + start)
        self._file.write(memoryview(flat.view(torch.uint8).numpy()))  # type: ignore[arg-type]

    def copy(self, name: str, source: BinaryIO, size: int) -> None:
        """Write the bytes that follow in another file."""
        self._file.seek(self._offsets[name])
        while size:
            read = source.read(min(size, COPIED_BYTES))
            assert read, "the file that is copied from is shorter than its header says"
            self._file.write(read)
            size -= len(read)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


@dataclass(frozen=True)
class Header:
    """What a file says before the bytes of its tensors come.

    Args:
        specs: Tensors by name, in the order of their bytes.
        metadata: Texts by name.
        size_bytes: Of the header itself: where the first tensor begins.
    """

    specs: Mapping[str, Spec]
    metadata: Mapping[str, str]
    size_bytes: int


def read_header(path: Path) -> Header:
    """Header of a file; QuantshipError where it has none that can be believed."""
    entries, size = headers.read(path)
    metadata = entries.pop(METADATA, {})
    names = sorted(entries, key=lambda name: entries[name]["data_offsets"])
    specs = {name: Spec(entries[name]["dtype"], tuple(entries[name]["shape"])) for name in names}
    return Header(specs, metadata, size)


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors that are all there."""
    specs = {name: spec_of(tensor) for name, tensor in tensors.items()}
    with Writer(path, specs, metadata) as file:
        for name, tensor in tensors.items():
            file.put(name, tensor)
