"""Headers of safetensors files: what is stored where, without reading it."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantship.errors import QuantshipError

DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
}
"""Names of data types in the file, and NumPy's names for them."""
LARGEST_HEADER = 100_000_000
"""What the format allows; a length beyond it is no length."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a file.

    Args:
        file: The file.
        name: Its name in the file.
        dtype: As NumPy names it.
        shape: As stored.
        start: Its first byte in the file.
        size_bytes: Bytes that it takes.
    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int

    @property
    def size(self) -> int:
        """Numbers in it."""
        return int(np.prod(self.shape, dtype=np.int64))

    def read(self) -> NDArray[Any]:
        """The numbers, mapped from the file rather than copied."""
        name = self.dtype
        if name.startswith(("bfloat", "float8")):  # not NumPy's own
            dtype = ir.DataType[name.upper().replace("_", "")].numpy()
        else:
            dtype = np.dtype(name)
        if self.size == 0:
            return np.empty(self.shape, dtype)
        return np.memmap(self.file, dtype, "r", self.start, self.shape)


def read(file: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Tensors of a file by name, and its metadata.

    Raises:
        QuantshipError: It is no safetensors file, or is cut off.
    """
    total = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else LARGEST_HEADER + 1
        text = stream.read(length) if length <= min(LARGEST_HEADER, total) else b""
    try:
        header: dict[str, Any] = json.loads(text)
        metadata: dict[str, str] = header.pop("__metadata__", {})
        entries = {name: _entry(file, name, one, 8 + length) for name, one in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise QuantshipError(f"{file} is no safetensors file, or its header is cut off") from error
    end = max((one.start + one.size_bytes for one in entries.values()), default=8 + length)
    if end > total:
        raise QuantshipError(
            f"{file} is cut off: its header promises {end:,} bytes, and it has {total:,}"
        )
    return entries, metadata


def _entry(file: Path, name: str, given: dict[str, Any], base: int) -> Entry:
    begin, end = given["data_offsets"]
    dtype = DTYPES.get(given["dtype"], given["dtype"].lower())
    shape = tuple(int(size) for size in given["shape"])
    return Entry(file, name, dtype, shape, base + int(begin), int(end) - int(begin))
