"""Run Python programs that are not trusted, each in a process of its own with little to harm.

Everywhere: an interpreter that neither sees quantship's environment variables (``HF_TOKEN`` among
them) nor its folders; a temporary directory of its own, removed afterwards; limits on CPU time,
memory, file size and open files; a limit on the time it takes, after which its whole process group
is killed; no output; and a hook that refuses sockets, processes and writing outside that directory
to what is written in Python.

On Linux, as far as the kernel lets it: a network namespace without connections; where the
evaluation runs as root, the rights of nobody; Landlock, so that no file can be read but Python's
own and none written outside that directory; seccomp, so that sockets, processes, threads and
signals fail whatever the program is written in. ``Verdict.enforced`` says which of these held.

A program has passed when it ran to its end: it then gets a password out of a pipe and gives it
back, which printing or leaving early does not. All the same it shares an interpreter with what
judges it, and one that was written to fool this very module could.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHILD = Path(__file__).with_name("sandbox_child.py")
MEMORY_BYTES = 1 << 30
FILE_BYTES = 16 << 20
TIMEOUT_S = 10.0
MOST_RESULT_BYTES = 4096


@dataclass(frozen=True)
class Verdict:
    """What became of a program.

    Args:
        passed: Whether it ran to its end.
        reason: Why not: the exception's name, ``out of time`` or how the process ended; None where
            it passed.
        enforced: What the process had given up before the program began, in words.
    """

    passed: bool
    reason: str | None
    enforced: tuple[str, ...]


def reject() -> str | None:
    """Why programs cannot be run here; None where they can."""
    if os.name != "posix":
        return "programs that are not trusted run under limits which only Unix systems have"
    return None


def run(program: str, *, timeout_s: float = TIMEOUT_S) -> Verdict:
    """Run a program, which passes if it comes to its end without an exception.

    Args:
        program: Python source.
        timeout_s: Longest time, on the clock and of a processor.
    """
    request = json.dumps(
        {
            "program": program,
            "cpu_s": int(timeout_s) + 1,
            "memory_bytes": MEMORY_BYTES,
            "file_bytes": FILE_BYTES,
        }
    ).encode()
    password = secrets.token_hex(32).encode()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own,
        tempfile.TemporaryFile() as result,  # no pipe: its size is limited, as that of every file
    ):
        # As -I, but for the variable that makes the order of sets the same in every run; the rest
        # of the environment is ours.
        process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-B", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=result,
            stderr=subprocess.DEVNULL,
            cwd=own,
            env=_environment(own),
            start_new_session=True,
        )
        try:
            process.communicate(b"%08d" % len(request) + request + password, timeout_s)
        except subprocess.TimeoutExpired:
            return Verdict(False, "out of time", ())
        finally:
            _kill(process)
        result.seek(0)
        return _verdict(result.read(MOST_RESULT_BYTES), password, process.returncode)


def _verdict(output: bytes, password: bytes, status: int) -> Verdict:
    first, _, rest = output.partition(b"\n")
    try:
        enforced = tuple(map(str, json.loads(first)))
    except ValueError:
        return Verdict(False, f"the process did not begin (status {status})", ())
    if secrets.compare_digest(rest, password):
        return Verdict(True, None, enforced)
    if status < 0:
        return Verdict(False, f"killed by signal {-status}", enforced)
    said = rest.decode("ascii", "replace")
    return Verdict(False, said if said.isidentifier() else f"left with status {status}", enforced)


def _environment(own: str) -> dict[str, str]:
    return {
        "HOME": own,
        "TMPDIR": own,
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
