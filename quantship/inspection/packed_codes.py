"""Quantized tensors of checkpoints: torchao's classes, quantship's convolutions, GPTQ's and AWQ's.

Only headers are read, and zero points, which are small.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from quantship.inspection.grids import Sharing
from quantship.inspection.safetensors_header import Entry

ALIASES, CONVOLUTIONS = "quantship_aliases", "quantship_convolutions"
"""Metadata of files that ``quantship.save`` writes."""
PREFIX = "module."
"""What such files put in front of every name."""
NARROW = ("int8", "uint8", "float8_e4m3fn", "float8_e5m2", "int32", "uint32")
"""Types of tensors that hold codes, be it several in one number."""
STATIC = "act_quant_scale"


@dataclass(frozen=True)
class Packed:
    """One quantized matrix of a checkpoint.

    Args:
        layer: Module that it is the weight of.
        operator: Class or method that it belongs to.
        codes: Its codes.
        parts: All of its tensors, the codes among them.
        bits: Bits of a code.
        container_bits: Bits that a code takes in the file.
        shape: Logical.
        sharing: What shares a scale.
        symmetric: Whether there are no zero points; None: it cannot be told.
        activation: What becomes of the layer's input, in words.
        input_dtype: Of the input's codes; None: it stays in float.
        scale_dtype: Of the scales in the file.
    """

    layer: str
    operator: str
    codes: Entry
    parts: tuple[Entry, ...]
    bits: int
    container_bits: int
    shape: tuple[int, ...]
    sharing: Sharing
    symmetric: bool | None
    activation: str
    input_dtype: str | None
    scale_dtype: str | None


def find(
    entries: Mapping[str, Entry], metadata: Mapping[str, str], config: Mapping[str, Any]
) -> Iterator[Packed]:
    """All quantized matrices of a checkpoint.

    Args:
        entries: Tensors of all its files, by name.
        metadata: Of these files.
        config: The ``quantization_config``; empty where there is none.
    """
    yield from _torchao(entries, metadata)
    yield from _convolutions(entries, metadata)
    yield from _foreign(entries, config)


def _torchao(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> Iterator[Packed]:
    for name in json.loads(metadata.get("tensor_names", "[]")):
        described = json.loads(metadata.get(name, "{}"))
        kind = described.get("_type", "Tensor")
        if kind == "Tensor":
            continue
        module, _, parameter = name.rpartition(".")
        start = f"{module}._{parameter}_"
        parts = {
            key.removeprefix(start): one for key, one in entries.items() if key.startswith(start)
        }
        if parts:
            yield _of_class(module, kind, described.get("_data", {}), parts)


def _of_class(module: str, kind: str, data: dict[str, Any], parts: dict[str, Entry]) -> Packed:
    codes = parts.get("qdata") or max(parts.values(), key=lambda one: one.size_bytes)
    bits = container = _bits_of(codes.dtype)
    shape = codes.shape
    if kind == "IntxUnpackedToInt8Tensor":
        bits = int(str(data["target_dtype"]["_data"]).removeprefix("int"))
    elif kind == "Int4Tensor":
        bits = container = 4
        shape = (*shape[:-1], shape[-1] * 2)
    zero, scale = parts.get("zero_point"), parts.get("scale")
    words, dtype = _activation(data, STATIC in parts)
    return Packed(
        layer=module,
        operator=kind,
        codes=codes,
        parts=tuple(parts.values()),
        bits=bits,
        container_bits=container,
        shape=shape,
        sharing=_sharing(data.get("block_size"), shape),
        symmetric=zero is None or not bool((zero.read() != 0).any()),
        activation=words,
        input_dtype=dtype,
        scale_dtype=None if scale is None else scale.dtype,
    )


def _sharing(block: list[int] | None, shape: tuple[int, ...]) -> Sharing:
    if not block or len(block) != len(shape):
        return Sharing("unknown")
    if list(block) == list(shape):
        return Sharing("per_tensor")
    spans = [size == whole for size, whole in zip(block, shape, strict=True)]
    if sum(spans) >= len(spans) - 1 and all(spans[place] or block[place] == 1 for place in (0, -1)):
        return Sharing("per_channel")
    return Sharing("per_group", max(block))


def _activation(data: dict[str, Any], static: bool) -> tuple[str, str | None]:
    if data.get("activation_quantization") == "int8_asym_per_token":
        return "int8, asymmetric, dynamic, one scale a token", "int8"
    kwargs = data.get("act_quant_kwargs")
    if not kwargs:
        return "float", None
    given = kwargs["_data"]
    grain = "token" if given["granularity"]["_type"] == "PerRow" else "tensor"
    mapping = given.get("mapping_type", {}).get("_data", "SYMMETRIC")
    symmetry = "symmetric" if mapping == "SYMMETRIC" else "asymmetric"
    return f"int8, {symmetry}, {'static' if static else 'dynamic'}, one scale a {grain}", "int8"


def _convolutions(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> Iterator[Packed]:
    for layer in json.loads(metadata.get(CONVOLUTIONS, "{}")):
        names = ("codes", "weight_scale", "input_scale", "input_zero")
        found = {name: entries.get(f"{PREFIX}{layer}.{name}") for name in names}
        codes, scale = found["codes"], found["weight_scale"]
        if codes is None or scale is None:
            continue
        symmetry = "symmetric" if found["input_zero"] is None else "asymmetric"
        yield Packed(
            layer=f"{PREFIX}{layer}",
            operator="QuantizedConv2d",
            codes=codes,
            parts=tuple(one for one in found.values() if one is not None),
            bits=8,
            container_bits=8,
            shape=codes.shape,
            sharing=Sharing("per_tensor" if scale.size == 1 else "per_channel"),
            symmetric=True,
            activation=f"int8, {symmetry}, static, one scale a tensor",
            input_dtype="int8",
            scale_dtype=scale.dtype,
        )


def _foreign(entries: Mapping[str, Entry], config: Mapping[str, Any]) -> Iterator[Packed]:
    """Codes of other tools, known by the names that these give to their parts."""
    method = str(config.get("quant_method", "unknown"))
    if method == "torchao":
        return
    for name, codes in entries.items():
        module, _, last = name.rpartition(".")
        if last not in ("qweight", "weight", "weight_packed") or codes.dtype not in NARROW:
            continue
        beside = ("qzeros", "scales", "g_idx") if last == "qweight" else ()
        parts = tuple(
            one
            for other, one in entries.items()
            if other == name
            or other.startswith((f"{module}.weight_", f"{module}.weight."))
            or other in {f"{module}.{part}" for part in beside}
        )
        container = _bits_of(codes.dtype)
        bits = _configured_bits(config) or container
        numbers = codes.size * max(container // bits, 1)
        width = codes.shape[-1] if last == "qweight" else codes.shape[0]
        group = config.get("group_size")
        scale = next((one for one in parts if "scale" in one.name or "absmax" in one.name), None)
        yield Packed(
            layer=module,
            operator=method,
            codes=codes,
            parts=parts,
            bits=bits,
            container_bits=bits if container > bits else container,
            shape=(width, numbers // max(width, 1)),
            sharing=Sharing("per_group", int(group)) if group and int(group) > 0 else _by(scale),
            symmetric=config.get("sym"),
            activation="float" if _configured_bits(config) else "not told by the file",
            input_dtype=None,
            scale_dtype=None if scale is None else scale.dtype,
        )


def _by(scale: Entry | None) -> Sharing:
    if scale is None:
        return Sharing("unknown")
    if scale.size == 1:
        return Sharing("per_tensor")
    return Sharing("per_channel" if prod(scale.shape) == max(scale.shape) else "per_group")


def _configured_bits(config: Mapping[str, Any]) -> int | None:
    if config.get("bits"):
        return int(config["bits"])
    if config.get("load_in_4bit") or config.get("_load_in_4bit"):
        return 4
    groups = config.get("config_groups") or {}
    given = [(one.get("weights") or {}).get("num_bits") for one in groups.values()]
    return int(given[0]) if given and given[0] else None


def _bits_of(dtype: str) -> int:
    return 32 if dtype.endswith("32") else 8
