"""Runs one program that is not trusted, after giving up what it must not have.

Started by ``sandbox`` as a script of its own, with an interpreter that sees nothing of quantship;
it uses the standard library alone. On standard input it finds the length of a JSON object as 8
digits, the object (``program``, ``cpu_s``, ``memory_bytes``, ``file_bytes``) and a password. On
standard output it says in a line what it gave up. Only after the program has run to its end does it
read the password from the pipe, and give it back: a program that leaves early cannot.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOBODY = 65534
NEW_USER, NEW_NET = 0x10000000, 0x40000000
SET_PARENT_DEATH_SIGNAL, SET_SECCOMP, SET_NO_NEW_PRIVILEGES, FILTER = 1, 22, 38, 2
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
"""System calls; the same on all machines."""
EXECUTE, WRITE, READ, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Version of Landlock to how many rights over files it knows."""
FORBIDDEN = {
    # socket connect clone fork vfork execve kill ptrace mount tkill tgkill unshare perf_event_open
    # setns process_vm_writev bpf execveat pidfd_send_signal io_uring_setup clone3
    "x86_64": (
        0xC000003E,
        *(41, 42, 56, 57, 58, 59, 62, 101, 165, 200, 234, 272, 298, 308, 311, 321, 322, 424, 425),
        435,
    ),
    "aarch64": (
        0xC00000B7,
        *(198, 203, 220, 221, 129, 117, 40, 130, 131, 97, 241, 268, 271, 280, 281, 424, 425, 435),
    ),
}
"""Machine to its name in the kernel, and the numbers of system calls that fail from now on."""
NO_PROCESSES = "no further processes or threads (seccomp)"
NO_FILES = "no files but its own and Python's (landlock)"
BLOCKED_EVENTS = (
    *("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"),
    *(
        "os.kill",
        "pty.",
        "os.chmod",
        "os.chown",
        "os.chflags",
        "os.setxattr",
        "signal.pthread_kill",
    ),
)
PATH_EVENTS = (
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"),
    *("os.utime", "shutil."),
)


def main() -> None:
    """Give up rights, run the program, and give the password back if it ran to its end."""
    source, result = os.dup(0), os.dup(1)
    request = json.loads(_read(source, int(_read(source, 8))))
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    own = os.path.realpath(".")
    code = request["program"]
    given_up = give_up(request, own)
    end_with_parent()  # asked for last: who becomes another user has it forgotten
    os.write(result, json.dumps(given_up).encode() + b"\n")
    try:
        exec(compile(code, "program.py", "exec"), {"__name__": "program"})
    except BaseException as error:  # noqa: BLE001 (whatever it raises, it has failed)
        with contextlib.suppress(BaseException):
            os.write(result, type(error).__name__.encode("ascii", "replace"))
        os._exit(1)
    os.write(result, os.read(source, 64))
    os._exit(0)  # nothing that the program left behind may run


def end_with_parent() -> None:
    """Have the system end this process when its judge ends, even if that is killed."""
    with contextlib.suppress(OSError, AttributeError):
        _libc().prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def give_up(request: dict[str, Any], own: str) -> list[str]:
    """Lose what can be lost on this system; returns what it was, in words."""
    steps: list[tuple[str, Callable[[], bool]]] = [
        ("limits on CPU time, memory and file size", lambda: limit(request)),
        ("a network of its own without connections (namespace)", leave_network),
        ("the rights of nobody", lambda: become_nobody(own)),
        (NO_FILES, lambda: forget_files(own)),
        (NO_PROCESSES, forget_calls),
    ]
    given_up = [words for words, step in steps if _works(step)]
    hold_to_own_folder(own, no_native_code=NO_PROCESSES not in given_up)
    return [*given_up, "no sockets, processes or foreign files from Python (audit hook)"]


def limit(request: dict[str, Any]) -> bool:
    """Set limits that nobody can raise again."""
    import resource

    limits = {
        resource.RLIMIT_CPU: request["cpu_s"],
        resource.RLIMIT_AS: request["memory_bytes"],
        resource.RLIMIT_FSIZE: request["file_bytes"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_NPROC: 0,  # root does not heed it
    }
    for name, value in limits.items():
        resource.setrlimit(name, (value, value))
    return True


def leave_network() -> bool:
    """Move to a network that has no way out."""
    spaces = NEW_NET if os.geteuid() == 0 else NEW_NET | NEW_USER
    return bool(_libc().unshare(spaces) == 0)


def become_nobody(own: str) -> bool:
    """Where this is root: be nobody, if nobody can still read Python's own files."""
    if os.geteuid() != 0:
        return False
    library = str(Path(os.__file__).parent)
    os.seteuid(NOBODY)
    readable = os.access(library, os.R_OK | os.X_OK, effective_ids=True)
    os.seteuid(0)
    if not readable:
        return False
    os.chown(own, NOBODY, NOBODY)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    return True


def forget_files(own: str) -> bool:
    """See no files but Python's own, to read, and those of a folder, to write too."""
    libc = _libc()
    version = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1 or libc.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return False
    every = (1 << RIGHTS[min(version, max(RIGHTS))]) - 1
    network = 3 if version >= 4 else 0  # no TCP
    outside = 3 if version >= 6 else 0  # no sockets and no signals of others
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("QQQ", every, network, outside)[:size]
    rules = libc.syscall(LANDLOCK_CREATE, attributes, len(attributes), 0)
    if rules < 0:
        return False
    seen = {sys.prefix, sys.base_prefix, str(Path(os.__file__).parent)}
    seen |= {"/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime"}
    access = dict.fromkeys(seen, EXECUTE | READ | READ_DIR)
    access |= {"/dev/null": READ | WRITE, "/dev/urandom": READ, own: every}
    for path, allowed in access.items():
        if not Path(path).exists():
            continue
        if not Path(path).is_dir():
            allowed &= EXECUTE | READ | WRITE
        place = os.open(path, os.O_PATH)
        libc.syscall(LANDLOCK_ADD, rules, 1, struct.pack("=Qi", allowed, place), 0)
        os.close(place)
    return bool(libc.syscall(LANDLOCK_RESTRICT, rules, 0) == 0)


def forget_calls() -> bool:
    """Make system calls for sockets, processes and signals fail."""
    if platform.machine() not in FORBIDDEN:
        return False
    machine, *numbers = FORBIDDEN[platform.machine()]
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000
    count = len(numbers)
    program = [
        (load, 0, 0, 4),
        (equal, 1, 0, machine),
        (answer, 0, 0, kill),
        (load, 0, 0, 0),
        (at_least, count + 1, 0, 0x40000000),  # calls of another form
        *((equal, count - index, 0, number) for index, number in enumerate(numbers)),
        (answer, 0, 0, allow),
        (answer, 0, 0, refuse),
    ]
    content = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    held = ctypes.create_string_buffer(content)
    whole = struct.pack("HxxxxxxP", len(program), ctypes.addressof(held))
    libc = _libc()
    if libc.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return False
    return bool(libc.prctl(SET_SECCOMP, FILTER, whole, 0, 0) == 0)


def hold_to_own_folder(own: str, *, no_native_code: bool) -> None:
    """Refuse what Python announces before it does it; holds on every system, for what is Python."""
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    blocked = (*BLOCKED_EVENTS, "ctypes.") if no_native_code else BLOCKED_EVENTS

    def outside(path: object) -> bool:
        if not isinstance(path, (str, bytes)) or path in (os.devnull, os.devnull.encode()):
            return False
        real = os.path.realpath(os.fsdecode(path))
        return real != own and not real.startswith(own + os.sep)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        refused = event.startswith(blocked)
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & writes:
            refused = outside(arguments[0])
        elif event.startswith(PATH_EVENTS):
            refused = any(map(outside, arguments[:2]))
        if refused:
            raise PermissionError(f"{event} is not allowed here")

    sys.addaudithook(watch)


def _works(step: Callable[[], bool]) -> bool:
    try:
        return step()
    except (OSError, ImportError, AttributeError, ValueError):
        return False


def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _read(descriptor: int, count: int) -> bytes:
    content = b""
    while len(content) < count:
        piece = os.read(descriptor, count - len(content))
        assert piece, "the request ends early"
        content += piece
    return content


if __name__ == "__main__":
    main()
