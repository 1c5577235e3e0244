"""What machine this is: what decides the speed of integer kernels, and goes into every report."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

TELLING = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
)
"""CPU flags, as Linux names them, that integer matrix kernels are chosen by."""
Kind = Literal["x86", "x86-vnni", "arm"]
"""What CPUs are to integer kernels; ``x86`` has no VNNI."""
IN_WORDS = {
    "x86": {
        "AVX2": {"avx2"},
        "AVX-512": {"avx512f"},
        "VNNI": {"avx_vnni", "avx512_vnni"},
        "AMX": {"amx_int8"},
    },
    "arm": {
        "NEON": {"asimd"},
        "NEON dot product": {"asimddp"},
        "int8 matrix multiply": {"i8mm"},
    },
}
"""What people call instruction sets, and the flags of which each needs one."""
Capability = tuple[int, int]
"""What a GPU's kernels are chosen by: NVIDIA's compute capability, as (8, 6)."""


class Gpu(NamedTuple):
    """A CUDA device."""

    name: str
    """As it names itself."""
    capability: Capability

    def __str__(self) -> str:
        return f"{self.name} (compute capability {'.'.join(map(str, self.capability))})"


DRIVER = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver on Linux describes each GPU."""

LIBRARIES = (
    "quantship",
    "torch",
    "torchao",
    "transformers",
    "datasets",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-genai",
    "openvino",
    "huggingface_hub",
)


@cache
def cpu_model() -> str:
    """The CPU as it names itself."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


@cache
def instruction_sets() -> tuple[str, ...]:
    """Those of ``TELLING`` that this CPU has."""
    info = _cpuinfo()
    flags = (info.get("flags") or info.get("Features") or "").split()
    return tuple(flag for flag in TELLING if flag in flags)


def has_vnni() -> bool:
    """Whether bytes of either sign multiply exactly and fast: x86 VNNI or AMX, or any ARM."""
    return bool({"avx_vnni", "avx512_vnni", "amx_int8", "asimd"} & set(instruction_sets()))


def is_arm() -> bool:
    """Whether the CPU is a 64-bit ARM."""
    return platform.machine().lower() in ("aarch64", "arm64")


def kind() -> Kind:
    """What this CPU is to integer kernels; one whose flags are not known has no VNNI."""
    if is_arm():
        return "arm"
    return "x86-vnni" if has_vnni() else "x86"


def describe() -> str:
    """The instruction sets that decide here, found and missing, and the GPU, in words."""
    known = IN_WORDS["arm" if is_arm() else "x86"]
    if not instruction_sets():
        return "instruction sets are not known here"
    found = [name for name, flags in known.items() if flags & set(instruction_sets())]
    missing = [f"no {name}" for name in known if name not in found]
    return ", ".join([*found, *missing, installed_gpu() or "no NVIDIA GPU"])


def installed_gpu() -> str | None:
    """The first NVIDIA GPU as its driver names it, used or not, or None; PyTorch is not asked."""
    for path in sorted(DRIVER.glob("*/information")):
        for line in path.read_text().splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return None


def num_cpus() -> int:
    """Logical CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_threads() -> int:
    """Physical cores that this process may use: what compute-bound runtimes do best with."""
    import psutil

    return min(num_cpus(), psutil.cpu_count(logical=False) or num_cpus())


def memory_bytes() -> int:
    """Main memory in bytes."""
    import psutil

    return int(psutil.virtual_memory().total)


def gpu() -> Gpu | None:
    """The CUDA device that PyTorch uses in this process, or None."""
    import torch

    if not torch.cuda.is_available():
        return None
    return Gpu(torch.cuda.get_device_name(), torch.cuda.get_device_capability())


def gpu_name() -> str | None:
    """The CUDA device that PyTorch uses in this process as it names itself, or None."""
    found = gpu()
    return None if found is None else found.name


def peak_gpu_bytes() -> int | None:
    """Most bytes of tensors that PyTorch has held on the GPU; None where it has used none."""
    import sys

    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated())


def versions() -> dict[str, str]:
    """Versions of the libraries that make the numbers, by distribution name."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def peak_rss_bytes() -> int:
    """Peak resident memory of this process since it began, in bytes.

    Linux's own count for this address space: ``ru_maxrss`` would carry over what the parent
    process held when it forked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak_rss() -> None:
    """Let ``peak_rss_bytes`` count from here on, where Linux allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    lines = path.read_text().split("\n\n", 1)[0].splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
