from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from quantship.tasks import sandbox

pytestmark = pytest.mark.skipif(sandbox.reject() is not None, reason="needs a Unix system")

KERNEL = ("become_nobody", "forget_calls", "forget_files", "leave_network")
WRITE_EVERYWHERE = """
import os
for descriptor in range(3, 64):
    try:
        os.write(descriptor, b"passed" * 10_000)
    except OSError:
        pass
"""
CONNECT = """
import urllib.request
try:
    urllib.request.urlopen("http://127.0.0.1:9")
except OSError as error:
    assert "not allowed" in str(error) or "permitted" in str(error)
"""
Run = Callable[..., sandbox.Verdict]


@pytest.fixture(params=["with the kernel's help", "with Python's alone"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a program where everything holds, and where the kernel offers nothing."""
    if request.param == "with Python's alone":
        content = sandbox.CHILD.read_text()
        for name in KERNEL:
            assert f"def {name}(" in content
            content = content.replace(f"def {name}(", f"def {name}_as_it_was(")
        helpless = "".join(f"def {name}(*nothing):\n    return False\n\n\n" for name in KERNEL)
        main = 'if __name__ == "__main__":'
        child = tmp_path / "child.py"
        child.write_text(content.replace(main, helpless + main))
        monkeypatch.setattr(sandbox, "CHILD", child)
    return sandbox.run


def test_a_program_that_comes_to_its_end_has_passed(run: Run) -> None:
    verdict = run("import collections, heapq, math, re\nassert math.gcd(12, 18) == 6")
    assert (verdict.passed, verdict.reason) == (True, None)
    assert "limits on CPU time, memory and file size" in verdict.enforced


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("assert 1 == 2", "AssertionError"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import os; os._exit(0)", "left with status 0"),
        ("import os; os.abort()", "killed by signal 6"),
        ("x = bytearray(1 << 31)", "MemoryError"),
        ("x = [0]\nwhile True: x += x", "MemoryError"),
        ("input()", "EOFError"),
        ("import sys; sys.setrecursionlimit(10**6)\ndef f(): f()\nf()", "killed by signal 11"),
    ],
)
def test_one_that_does_not_has_failed(run: Run, program: str, reason: str) -> None:
    verdict = run(program)
    assert not verdict.passed
    if "recursion" in program:  # how it ends depends on Python's version
        assert verdict.reason in (reason, "MemoryError", "RecursionError")
    elif "abort" in program:  # it may not be able to signal even itself
        assert "signal" in str(verdict.reason)
    else:
        assert verdict.reason == reason


@pytest.mark.parametrize(
    "program",
    [
        "print('passed')",
        "import sys; sys.stdout.write('[\"limits\"]\\n' + 'f' * 64); sys.stdout.flush()",
        WRITE_EVERYWHERE,
    ],
)
def test_saying_so_and_leaving_early_is_no_pass(run: Run, program: str) -> None:
    assert not run(f"{program}\nimport os; os._exit(0)").passed
    assert not run(f"import atexit, os; atexit.register(print)\n{program}\nassert False").passed


@pytest.mark.parametrize("loop", ["while True: pass", "import time; time.sleep(60)"])
def test_an_endless_loop_runs_out_of_time(run: Run, loop: str) -> None:
    began = time.monotonic()
    verdict = run(loop, timeout_s=1)
    assert verdict.reason == "out of time"
    assert time.monotonic() - began < 10


def test_a_flood_of_output_does_no_harm(run: Run) -> None:
    assert run("for _ in range(20000): print('x' * 1000)").passed


def test_processes_cannot_be_started(run: Run) -> None:
    for program in (
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.execv('/bin/true', ['true'])",
        "import multiprocessing\np = multiprocessing.Process(target=print); p.start()",
    ):
        assert run(program).reason == "PermissionError"


def test_what_a_child_left_behind_dies_with_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A child that gives up nothing at all and forks before it runs anything.
    mark = tmp_path / "alive"
    child = tmp_path / "child.py"
    child.write_text(
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    while True:\n"
        f"        open({str(mark)!r}, 'a').write('x')\n"
        "        time.sleep(0.02)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(sandbox, "CHILD", child)
    assert sandbox.run("", timeout_s=1).reason == "out of time"
    before = mark.stat().st_size
    assert before > 0
    time.sleep(0.3)
    assert mark.stat().st_size == before


def test_the_environment_holds_no_secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    program = (
        "import os, sys\n"
        "assert 'hf_secret' not in str(dict(os.environ))\n"
        "assert not {'HF_TOKEN', 'PYTHONPATH', 'VIRTUAL_ENV'} & set(os.environ)\n"
        "assert '/somewhere' not in sys.path and '' not in sys.path\n"
        "assert os.environ['HOME'] == os.getcwd()\n"
    )
    assert run(program).reason is None


def test_sockets_cannot_be_opened(run: Run) -> None:
    assert run("import socket; socket.socket()").reason == "PermissionError"
    assert run(CONNECT).reason is None


def test_files_outside_its_folder_cannot_be_written(run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("kept")
    made = tmp_path / "made.txt"
    for program in (
        f"open({str(made)!r}, 'w').write('x')",
        f"open({str(kept)!r}, 'r+').write('x')",
        f"import os; os.close(os.open({str(made)!r}, os.O_CREAT | os.O_WRONLY))",
        f"import os; os.remove({str(kept)!r})",
        f"import os; os.truncate({str(kept)!r}, 0)",
        f"import os; os.rename({str(kept)!r}, 'mine')",
        f"import os; open('mine', 'w'); os.rename('mine', {str(kept)!r})",
        f"import os; os.mkdir({str(tmp_path / 'folder')!r})",
        f"import os; os.symlink({str(tmp_path)!r}, 'away'); open('away/made.txt', 'w')",
        f"import pathlib; pathlib.Path({str(kept)!r}).write_text('x')",
    ):
        verdict = run(program)
        assert verdict.reason in ("PermissionError", "OSError"), program
    assert kept.read_text() == "kept"
    assert not made.exists()
    assert not (tmp_path / "folder").exists()


def test_its_own_folder_is_there_to_be_written_and_gone_afterwards(run: Run) -> None:
    program = (
        "import os, tempfile\n"
        "open('a.txt', 'w').write('x'); os.mkdir('b'); os.rename('a.txt', 'b/c.txt')\n"
        "with tempfile.TemporaryFile() as file: file.write(b'x')\n"
        "assert os.listdir('b') == ['c.txt']\n"
    )
    assert run(program).reason is None
    assert run("open('big', 'wb').write(bytes(1 << 25))").passed is False
    folders = {path.name for path in Path(os.environ.get("TMPDIR", "/tmp")).glob("tmp*")}
    assert run("assert __import__('os').listdir('.') == []").passed
    after = {path.name for path in Path(os.environ.get("TMPDIR", "/tmp")).glob("tmp*")}
    assert after - folders == set()


def test_the_order_of_sets_is_the_same_every_time() -> None:
    order = "x = [*{'a', 'b', 'c', 'd', 'e'}]\n"
    raised = {
        sandbox.run(f"{order}raise type(''.join(x), (Exception,), {{}})").reason for _ in "ab"
    }
    assert len(raised) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
@pytest.mark.parametrize(
    ("held", "program"),
    [
        ("seccomp", "assert libc.socket(2, 1, 0) == -1"),
        ("seccomp", "assert libc.fork() == -1"),
        ("seccomp", "import os; assert libc.kill(os.getppid(), 0) == -1"),
        ("seccomp", "import os; assert libc.kill(os.getpid(), 9) == -1"),
        ("landlock", "assert libc.open(b'/etc/passwd', 0) == -1"),
        ("landlock", "assert libc.open(b'/tmp/made-by-a-test', 0o101, 0o600) == -1"),
        ("landlock", "assert libc.unlink(b'/etc/hostname') == -1"),
    ],
)
def test_what_is_not_python_is_held_by_the_kernel(held: str, program: str) -> None:
    verdict = sandbox.run(f"import ctypes\nlibc = ctypes.CDLL(None)\n{program}")
    if not any(held in words for words in verdict.enforced):
        pytest.skip(f"this kernel has no {held}: {verdict.enforced}")
    assert verdict.reason is None
    assert not Path("/tmp/made-by-a-test").exists()
