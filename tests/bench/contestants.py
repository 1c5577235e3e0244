"""Who takes part: quantship's models, and what users would pick instead."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gguf_writer
import make
from rich.console import Console

Family = Literal["float32", "int8", "int4"]
MODEL = "torch float32"
BASE = "quantship float32"
FORMS: dict[str, tuple[Family, tuple[str, ...]]] = {
    "w8a8": ("int8", ("nbits", "integer", "hybrid")),
    "w8a16": ("int8", ("nbits",)),
    "w4a16-g32": ("int4", ("nbits", "hybrid")),
}
"""Schemes, and the lowerings of each that are meant for speed on a CPU."""
LLAMA_CPP = ("llama_cpp", "gguf")
INSTALL = 'pip install -c docker/constraints.txt -e ".[{}]"'


@dataclass(frozen=True)
class Contestant:
    """A model in one form.

    Args:
        name: What tables call it.
        family: Which others it is compared with.
        how: Words for ``make.py``; empty: it is the model as it came.
        source: Name of the contestant that it is made from.
        ours: Whether it is an ONNX model of quantship's, which the bars are for.
        packages: What must be installed beside quantship.
        exports: Whether making it is an export, whose time and memory count.
        serves: Whether it takes part in serving, or others are only made from it.
    """

    name: str
    family: Family
    how: tuple[str, ...]
    source: str = MODEL
    ours: bool = False
    packages: tuple[str, ...] = ()
    exports: bool = False
    serves: bool = True


@dataclass(frozen=True)
class Made:
    """What became of a contestant.

    Args:
        path: Its directory; None: it is left out.
        reason: Why it is left out.
        seconds: Time that making it took; None for the model as it came.
        peak_rss_bytes: Peak memory of the process that made it.
    """

    path: Path | None
    reason: str = ""
    seconds: float | None = None
    peak_rss_bytes: int | None = None


def contestants(*, openvino: bool = True) -> list[Contestant]:
    """All of them, each after the one that it is made from.

    Args:
        openvino: With OpenVINO IR, whose exports take minutes.
    """
    found = [
        Contestant(MODEL, "float32", ()),
        Contestant(BASE, "float32", ("export", "float", "-"), ours=True, exports=True),
    ]
    for scheme, (family, lowerings) in FORMS.items():
        checkpoint = f"torchao {scheme}"
        how = ("quantize", scheme)  # eager torchao is a tenth as fast; recipes measure it
        found.append(Contestant(checkpoint, family, how, serves=False))
        found += [
            Contestant(
                f"quantship {scheme} {lowering}",
                family,
                ("export", lowering, scheme),
                checkpoint,
                ours=True,
                exports=True,
            )
            for lowering in lowerings
        ]
    if openvino:
        found += [
            Contestant(
                f"openvino {scheme}",
                FORMS[scheme][0],
                ("openvino", scheme),
                f"torchao {scheme}",
                packages=("openvino",),
                exports=True,
            )
            for scheme in ("w8a8", "w4a16-g32")
        ]
    return [*found, *_peers()]


def _peers() -> list[Contestant]:
    genai, llama = "onnxruntime-genai", "llama.cpp"
    return [
        Contestant(f"{genai} float32", "float32", ("builder", "fp32"), exports=True),
        Contestant(f"{genai} int4", "int4", ("builder", "int4"), exports=True),
        Contestant("onnxruntime dynamic int8", "int8", ("dynamic",), BASE),
        Contestant(f"{llama} F32", "float32", ("gguf", "F32"), packages=LLAMA_CPP, serves=False),
        *(
            Contestant(
                f"{llama} {kind}",
                family,
                ("gguf", kind),
                f"{llama} F32",
                packages=LLAMA_CPP,
            )
            for family, kind in (("int8", "Q8_0"), ("int4", "Q4_0"))
        ),
    ]


def make_all(
    console: Console, wanted: list[Contestant], model: Path, work: Path, *, exports_only: bool
) -> dict[str, Made]:
    """Every contestant, each made in a process of its own.

    Args:
        console: Where to say what is being made, and what is left out.
        wanted: The contestants.
        model: Hugging Face directory of the float model.
        work: Directory for what is made.
        exports_only: Make only what exports are made from, and the exports.
    """
    made: dict[str, Made] = {}
    if exports_only:
        sources = {one.source for one in wanted if one.exports}
        wanted = [one for one in wanted if one.exports or one.name in sources]
    for one in wanted:
        made[one.name] = _make(one, model, made, work / one.name.replace(" ", "-"))
        result = made[one.name]
        if result.reason:
            console.print(f"left out: {one.name}: {result.reason}", markup=False)
        elif result.seconds is not None:
            console.print(f"made {one.name} in {result.seconds:.1f} s", markup=False)
    return made


def _make(one: Contestant, model: Path, made: dict[str, Made], out: Path) -> Made:
    if not one.how:
        return Made(model)
    missing = [name for name in one.packages if importlib.util.find_spec(name) is None]
    if missing:
        extra = "openvino" if one.how[0] == "openvino" else "bench"
        return Made(None, f"{' and '.join(missing)} not installed; {INSTALL.format(extra)}")
    source = made[one.source]
    if source.path is None:
        return Made(None, f"there is no {one.source}")
    if one.how == ("gguf", "F32") and (reason := gguf_writer.reject(model)):
        return Made(None, reason)
    out.mkdir(parents=True)
    command = [sys.executable, make.__file__, str(source.path), str(out), *one.how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if one.how[0] in ("quantize", "export"):  # quantship's own
            raise RuntimeError(f"{one.name} could not be made: {last}\n{done.stderr}")
        return Made(None, last)
    measured = json.loads(done.stdout.splitlines()[-1])
    return Made(out, seconds=measured["seconds"], peak_rss_bytes=measured["peak_rss_bytes"])
