"""Take out of an environment what never runs in the image, and compile what does.

    python trim.py SITE_PACKAGES

The image has no compiler, so nothing reads C headers or links static libraries; libraries' own
tests, profilers and the parts for other hardware cannot run in it either. What debuggers read at
the end of shared libraries goes as well: half a gigabyte. Compiled modules stay: a container cannot
keep what it compiles, and without them every start compiles again.
"""

from __future__ import annotations

import compileall
import re
import shutil
import struct
import sys
from pathlib import Path

UNUSED = (
    "**/tests",
    "nvidia/**/*.a",
    "nvidia/**/include",
    "nvidia/**/libcusolverMg.so*",  # for several GPUs in one process; nothing links to it
    "nvidia/**/libnvperf_*",  # counters of the GPU, for profilers
    "nvidia/**/libnvrtc*.alt.so*",  # a second build of the same library, for special cases
    "nvidia/nvshmem/lib/*.bc",  # for compiling kernels that reach into other GPUs
    "onnx/backend/test",
    "openvino/cmake",
    "openvino/include",
    "openvino/libs/*_gpu_plugin.so",  # of Intel: it and the NPU need drivers that are not here
    "openvino/libs/*_npu_plugin.so",
    "openvino/libs/cache.json",  # the GPU plugin's
    "pyarrow/*_flight*",  # a server, loaded by its own module alone
    "pyarrow/include",
    "torch/bin/[!t]*",
    "torch/bin/test_*",
    "torch/include",
    "torch/lib/*.a",
    "torch/lib/*test*.so",
    "torch/share/cmake",
    "torch/test",
    "triton/FileCheck",
    "triton/backends/nvidia/lib/cupti",  # for its profiler; PyTorch's has its own
    "triton/instrumentation",
)

STRIPPED = (
    "nvidia/nccl/lib/libnccl.so*",
    "torch/lib/lib*.so",
    "triton/_C/*.so",
)
"""Where symbols and debugging information are large."""

NOT_COMPILED = re.compile(
    r"/transformers/models/.*/(modeling|modular|processing|image_processing|video_processing)_"
    r"(?!.*(llama|gemma|gpt2|distilbert|bert|mistral|phi|qwen2|qwen3|smollm3)\.py$)"
    r"|/(sympy/physics|torch/testing/_internal|pygments/lexers|torchao/prototype|nltk|setuptools)/"
    r"|/(lm_eval/tasks|onnxruntime/(transformers|tools)|pydantic/v1|huggingface_hub/cli)/"
)
"""Hundreds of models and other parts of which a run loads none or one."""

ELF64_LITTLE = b"\x7fELF\x02\x01"
HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")


def remove(packages: Path) -> int:
    """Remove what never runs; how many bytes that was."""
    freed = 0
    for pattern in UNUSED:
        for path in sorted(packages.glob(pattern)):
            files = path.rglob("*") if path.is_dir() else [path]
            freed += sum(file.lstat().st_size for file in files if file.is_file())
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return freed


def strip(library: Path) -> int:
    """Cut a shared library off after what is loaded of it; how many bytes that was.

    Symbols and debugging information come last, with the table of sections, and are for linkers and
    debuggers: what runs a program reads the table of segments alone.
    """
    with library.open("r+b") as file:
        start = file.read(HEADER.size)
        if not start.startswith(ELF64_LITTLE):
            return 0
        kind, machine, version, entry, segments, _, flags, ehsize, size, count, *_ = HEADER.unpack(
            start
        )
        assert size == SEGMENT.size
        file.seek(segments)
        table = [SEGMENT.unpack(file.read(size)) for _ in range(count)]
        end = max(offset + length for _, _, offset, _, _, length, _, _ in table)
        file.seek(16)
        file.write(
            HEADER.pack(
                *(kind, machine, version, entry, segments, 0, flags, ehsize, size, count, 0, 0, 0)
            )[16:]
        )
        before = library.stat().st_size
        file.truncate(end)
    return before - end


if __name__ == "__main__":
    packages = Path(sys.argv[1])
    removed = remove(packages)
    libraries = [path for pattern in STRIPPED for path in packages.glob(pattern)]
    stripped = sum(strip(path) for path in libraries if not path.is_symlink())
    sys.stdout.write(
        f"removed {removed / 1e6:.0f} MB that never run, and {stripped / 1e6:.0f} MB of symbols\n"
    )
    # Some packages ship files of a newer syntax, or templates: those cannot be compiled, nor run.
    compileall.compile_dir(packages, quiet=2, rx=NOT_COMPILED, workers=0)
