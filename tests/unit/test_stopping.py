"""What a stop does to a process that is working, ending, or deep in native code."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import quantship
from quantship import stopping

PREPARED = """
import ctypes, os, signal, subprocess, sys, threading, time
from quantship import stopping
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started by
stopping.watch()
stopping.GRACE_S, stopping.ECHO_S = {grace_s}, 0.3
"""
BOTH = pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name
)
TIMEOUT_S = 60


def start(work: str, *, grace_s: float = 30, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A process that says ``ready`` and then works."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", PREPARED.format(grace_s=grace_s) + work],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(quantship.__file__).parents[1])},
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said.startswith("ready")
    assert not before or said == "ready 1\n"
    return process


def stop(process: subprocess.Popen[str], number: int) -> tuple[str, str, float]:
    """Send a signal; what it says until it ends, and how many seconds that takes."""
    process.send_signal(number)
    began = time.monotonic()
    said, complained = process.communicate(timeout=TIMEOUT_S)
    return said, complained, time.monotonic() - began


@BOTH
def test_a_stop_interrupts_what_is_written_in_python(number: signal.Signals) -> None:
    work = """
try:
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
except KeyboardInterrupt:
    print("interrupted", stopping.requested())
    sys.exit(130)
"""
    process = start(work)
    said, complained, _ = stop(process, number)
    assert (said, complained, process.returncode) == ("interrupted True\n", "", 130)


@BOTH
def test_a_native_call_that_goes_on_is_ended_with_its_children(number: signal.Signals) -> None:
    # A write into a full pipe stands for a long native call: the first byte to arrive proves that
    # the main thread is inside it. Signals are kept from that thread, as a call that never looks up
    # keeps them: one would interrupt the write.
    work = """
child = subprocess.Popen(["sleep", "300"])
reading, writing = os.pipe()
def spare():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])
    os.read(reading, 1)
    print("ready", flush=True)
    time.sleep(300)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
threading.Thread(target=spare, daemon=True).start()
ctypes.CDLL(None).write(writing, bytes(10**7), 10**7)
"""
    process = start(work, grace_s=1)
    child = psutil.Process(process.pid).children()[0]
    _, complained, seconds = stop(process, number)
    assert process.returncode == 130
    assert complained == f"{stopping.MESSAGE}\n"
    assert seconds > 0.9
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="process numbers of one's own need root on Linux",
)
def test_the_first_process_of_a_container_hears_sigterm() -> None:
    work = """
try:
    print("ready", os.getpid(), flush=True)
    time.sleep(300)
except KeyboardInterrupt:
    sys.exit(130)
"""
    process = start(work, before=("unshare", "--pid", "--fork"))
    (first,) = psutil.Process(process.pid).children()
    first.send_signal(signal.SIGTERM)
    _, complained = process.communicate(timeout=TIMEOUT_S)
    assert (complained, process.returncode) == ("", 130)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which signals are caught")
@pytest.mark.parametrize(
    ("module", "words"), [("quantship", f"{stopping.MESSAGE}\n"), ("quantship.launch", "")]
)
def test_a_stop_while_libraries_are_imported_ends_with_130(module: str, words: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(quantship.__file__).parents[1])},
    )
    while not _catches(process.pid, signal.SIGTERM):  # of which the interpreter catches none
        assert process.poll() is None
    said, complained, _ = stop(process, signal.SIGTERM)
    assert (said, complained, process.returncode) == ("", words, 130)


def _catches(pid: int, number: int) -> bool:
    (mask,) = re.findall(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_sigterm_after_all_is_done_makes_no_failure_of_it() -> None:
    work = """
stopping.over()
print("ready", flush=True)
time.sleep(1)
print("done")
"""
    said, complained, _ = stop(process := start(work), signal.SIGTERM)
    assert (said, complained, process.returncode) == ("done\n", "", 0)


def test_work_that_ends_in_its_own_time_is_given_it_and_hears_no_second_sigterm() -> None:
    work = """
with stopping.in_own_time() as asked:
    print("ready", flush=True)
    while not asked.is_set():
        time.sleep(0.01)
    time.sleep(2)  # far longer than the time that a stop may stay unanswered
    print("saved")
sys.exit(130)
"""
    process = start(work, grace_s=0.5)
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    said, complained, _ = stop(process, signal.SIGTERM)
    assert (said, complained, process.returncode) == ("saved\n", "", 130)


def test_a_second_ctrl_c_ends_at_once_but_not_the_echo_of_the_first() -> None:
    work = """
with stopping.in_own_time():
    print("ready", flush=True)
    time.sleep(300)
"""
    process = start(work)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    _, complained, seconds = stop(process, signal.SIGINT)
    assert process.returncode == 130
    assert complained == f"{stopping.MESSAGE}\n"
    assert seconds < 20


def test_a_forked_child_is_stopped_alone() -> None:
    work = """
child = os.fork()
if child == 0:
    time.sleep(300)
    os._exit(0)
print("ready", flush=True)
time.sleep(0.3)
os.kill(child, signal.SIGTERM)
_, status = os.waitpid(child, 0)
time.sleep(1.5)
print(os.waitstatus_to_exitcode(status), stopping.requested())
"""
    process = start(work, grace_s=0.5)
    said, complained = process.communicate(timeout=TIMEOUT_S)
    assert (said, complained, process.returncode) == ("-15 False\n", "", 0)


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    work = """
print("ready", flush=True)
"""
    ignoring = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    code = PREPARED.format(grace_s=1).replace("signal.default_int_handler", "signal.SIG_IGN")
    process = subprocess.Popen(
        [sys.executable, "-c", f"{ignoring}{code}{work}time.sleep(2)\nprint('done')"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(quantship.__file__).parents[1])},
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=TIMEOUT_S)
    assert (said, process.returncode) == ("done\n", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="the system does so on Linux only")
def test_what_is_to_end_with_its_parent_ends_when_that_is_killed() -> None:
    work = """
code = "from quantship import stopping; import time; stopping.end_with_parent(); "
code += "print('up', flush=True); time.sleep(300)"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
child.stdout.readline()
print("ready", flush=True)
time.sleep(300)
"""
    process = start(work)
    child = psutil.Process(process.pid).children()[0]
    process.kill()
    process.communicate()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_without_a_watch_a_stop_waits_as_well_and_the_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stopping.in_own_time() as asked:
        assert not asked.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert asked.is_set()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@BOTH
def test_a_stop_in_a_destructor_is_put_off_and_says_nothing(number: signal.Signals) -> None:
    work = """
class Slow:
    def __del__(self):
        print("ready", flush=True)
        while not stopping.requested():
            time.sleep(0.01)
        time.sleep(0.2)
try:
    Slow()
    time.sleep(300)
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(130)
"""
    process = start(work)
    said, complained, _ = stop(process, number)
    assert (said, complained, process.returncode) == ("interrupted\n", "", 130)


@BOTH
def test_a_stop_that_somebody_swallows_comes_again(number: signal.Signals) -> None:
    work = """
stopping.LOST_S = 0.5
try:
    print("ready", flush=True)
    time.sleep(300)
except KeyboardInterrupt:
    pass
try:
    time.sleep(300)
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(130)
"""
    process = start(work)
    said, complained, _ = stop(process, number)
    assert (said, complained, process.returncode) == ("interrupted\n", "", 130)


def test_an_error_that_an_interrupt_was_turned_into_is_no_failure() -> None:
    work = """
from quantship.console import errors_shown
with errors_shown(debug=False):
    print("ready", flush=True)
    try:
        time.sleep(300)
    except KeyboardInterrupt:
        raise ValueError("could not determine the shape of object type") from None
"""
    process = start(work)
    _, complained, _ = stop(process, signal.SIGTERM)
    assert complained.startswith(stopping.MESSAGE)
    assert "could not determine" not in complained
