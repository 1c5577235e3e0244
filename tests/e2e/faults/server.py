"""Starts runs of quantship in no time: ``python -m faults.server``.

Importing torch and its like takes longer than the small recipe runs. This process has imported all
of it; every run is a fork of it, which from then on is a process like any other. Requests come as
lines of JSON on standard input; answers (``{"pid": 1}``, ``{"pid": 1, "status": 0}``) go to
standard output. It ends with its input, and its runs with it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

POLL_S = 0.005
PRELOADED = (
    *("quantship.cli", "quantship.pipeline", "quantship.training", "quantship.blocks.engine"),
    *("transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto"),
    *("datasets", "accelerate", "peft", "torchao.quantization.qat", "torch.distributed"),
    *("onnx", "onnx_ir", "scipy.optimize", "matplotlib", "quantship.runtimes.pytorch"),
    *("quantship.reporting.terminal", "quantship.quant.checkpoint", "quantship.quant.handoff"),
)
"""Without onnxruntime, which starts a thread when it is imported, and is imported quickly."""
SURVIVES_FORKS = "jemalloc_bg_thd"
"""A thread that pyarrow's allocator starts again in a fork."""
PR_SET_PDEATHSIG = 1
CAPABILITY_VERSION_3 = 0x20080522


def main() -> None:
    """Serve until the input ends; in a fork, return from here as a run."""
    importlib.import_module("quantship.console").quiet_libraries()  # before they are imported
    for name in PRELOADED:
        importlib.import_module(name)
    threads = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    others = [name for name in threads if name != SURVIVES_FORKS]
    assert len(others) == 1, f"a process with these threads cannot be forked: {others}"
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever is printed here is no answer
    running: set[int] = set()
    pending = b""
    while True:
        if select.select([0], [], [], POLL_S)[0]:
            received = os.read(0, 1 << 16)
            if not received:
                break
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                pid = os.fork()
                if pid == 0:
                    os.close(answers)
                    return be_a_run(json.loads(line))
                running.add(pid)
                _answer(answers, pid=pid)
        for pid in tuple(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                running.discard(pid)
                _answer(answers, pid=pid, status=os.waitstatus_to_exitcode(status))
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def be_a_run(request: dict[str, Any]) -> None:
    """Become what was asked for, and run quantship's command line."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    if request.get("cgroup"):
        Path(request["cgroup"], "cgroup.procs").write_text(str(os.getpid()))
    if request.get("memory_bytes"):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (request["memory_bytes"],) * 2)
    if request.get("powerless"):
        _drop_capabilities()
    if request.get("fresh"):
        command = (sys.executable, "-m", "quantship", *request["arguments"])
        os.execv(sys.executable, command)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request.get("watched"):
        from faults import moments

        moments.arm(**request["watched"])
    sys.argv = ["quantship", *request["arguments"]]

    from quantship.__main__ import main as begin

    begin()


def _drop_capabilities() -> None:
    """Be asked for permissions as any other user, root though one is.

    The interpreter's own files stay readable, as they might not be for another user.
    """
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _answer(where: int, **answer: int) -> None:
    os.write(where, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
