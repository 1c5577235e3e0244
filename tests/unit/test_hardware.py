from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from quantship import hardware

MEGABYTE = 2**20


def in_a_process(program: str) -> Any:
    """What a fresh Python prints, as JSON."""
    program = f"import json; import numpy; from quantship import hardware; {program}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_peak_memory_grows_when_memory_is_touched_and_stays_when_it_is_freed() -> None:
    before, touched, freed = in_a_process(
        "peaks = [hardware.peak_rss_bytes()]; array = numpy.ones(200 * 2**20, numpy.uint8); "
        "peaks.append(hardware.peak_rss_bytes()); del array; "
        "peaks.append(hardware.peak_rss_bytes()); print(json.dumps(peaks))"
    )
    assert 195 * MEGABYTE < touched - before < 230 * MEGABYTE
    assert abs(freed - touched) < 5 * MEGABYTE  # the kernel counts in batches


def test_memory_that_is_only_reserved_does_not_count() -> None:
    before, after = in_a_process(
        "peaks = [hardware.peak_rss_bytes()]; array = numpy.empty(200 * 2**20, numpy.uint8); "
        "peaks.append(hardware.peak_rss_bytes()); print(json.dumps(peaks))"
    )
    assert after - before < 20 * MEGABYTE


def test_peak_memory_counts_anew_when_it_is_forgotten() -> None:
    peaks = in_a_process(
        "array = bytearray(200 * 2**20); peaks = [hardware.peak_rss_bytes()]; del array; "
        "hardware.forget_peak_rss(); peaks.append(hardware.peak_rss_bytes()); "
        "print(json.dumps(peaks))"
    )
    assert peaks[1] < peaks[0] - 150 * 2**20


def test_a_child_does_not_carry_its_parents_peak() -> None:
    held = np.ones(400 * MEGABYTE, np.uint8)
    ours = hardware.peak_rss_bytes()
    child = in_a_process("print(json.dumps(hardware.peak_rss_bytes()))")
    assert ours > held.nbytes
    assert child < 300 * MEGABYTE


def test_the_machine_has_a_name_threads_and_memory() -> None:
    assert hardware.cpu_model().strip()
    assert 1 <= hardware.num_threads() <= hardware.num_cpus() <= (os.cpu_count() or 1)
    assert hardware.memory_bytes() == psutil.virtual_memory().total
    assert set(hardware.instruction_sets()) <= set(hardware.TELLING)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="CPUs cannot be assigned here")
def test_only_cpus_that_this_process_may_use_are_counted() -> None:
    counts = in_a_process(
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "print(json.dumps([hardware.num_cpus(), hardware.num_threads()]))"
    )
    assert counts == [1, 1]


@pytest.mark.parametrize(
    ("flags", "has_vnni"),
    [
        ({"flags": "fpu sse avx2 fma"}, False),  # Zen 3, Haswell
        ({"flags": "fpu avx2 avx512f avx512bw"}, False),  # Skylake-X
        ({"flags": "fpu avx2 avx512f avx512_vnni"}, True),  # Zen 4, Ice Lake
        ({"flags": "fpu avx2 avx_vnni"}, True),  # Alder Lake
        ({"Features": "fp asimd evtstrm"}, True),  # Cortex-A72
        ({}, False),
    ],
)
def test_vnni_is_told_from_the_flags(
    flags: dict[str, str], has_vnni: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "_cpuinfo", lambda: flags)
    hardware.instruction_sets.cache_clear()
    try:
        assert hardware.has_vnni() == has_vnni
        words = " ".join(flags.values()).split()
        assert set(hardware.instruction_sets()) == set(words) & set(hardware.TELLING)
    finally:
        hardware.instruction_sets.cache_clear()


@pytest.mark.parametrize(
    ("arm", "sets", "kind", "words"),
    [
        (False, ("avx2",), "x86", "AVX2, no AVX-512, no VNNI, no AMX"),
        (False, ("avx2", "avx_vnni"), "x86-vnni", "AVX2, VNNI, no AVX-512, no AMX"),
        (
            False,
            ("avx2", "avx512f", "avx512_vnni", "amx_int8"),
            "x86-vnni",
            "AVX2, AVX-512, VNNI, AMX",
        ),
        (True, ("asimd", "asimddp"), "arm", "NEON, NEON dot product, no int8 matrix multiply"),
        (True, (), "arm", "instruction sets are not known here"),
        (False, (), "x86", "instruction sets are not known here"),
    ],
)
def test_the_machine_is_described_in_words(
    arm: bool, sets: tuple[str, ...], kind: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "is_arm", lambda: arm)
    monkeypatch.setattr(hardware, "instruction_sets", lambda: sets)
    assert hardware.kind() == kind
    assert hardware.describe().startswith(words)


def test_the_gpu_is_known_from_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "DRIVER", tmp_path)
    assert hardware.installed_gpu() is None
    assert "no NVIDIA GPU" in hardware.describe()
    (tmp_path / "0000:00:05.0").mkdir()
    told = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 0\n"
    (tmp_path / "0000:00:05.0" / "information").write_text(told)
    assert hardware.installed_gpu() == "NVIDIA H100 80GB HBM3"
    assert hardware.describe().endswith("NVIDIA H100 80GB HBM3")


def test_versions_are_those_installed() -> None:
    found = hardware.versions()
    assert found["torch"] == metadata.version("torch")
    assert found["quantship"] == metadata.version("quantship")
    assert found.keys() <= set(hardware.LIBRARIES)


def test_asking_about_the_machine_does_not_import_torch() -> None:
    assert in_a_process(
        "import sys; hardware.cpu_model(); hardware.has_vnni(); hardware.num_threads(); "
        "hardware.versions(); hardware.memory_bytes(); hardware.describe(); "
        "print(json.dumps('torch' not in sys.modules))"
    )


@pytest.mark.gpu
def test_the_gpu_has_a_name() -> None:
    assert hardware.gpu_name()
