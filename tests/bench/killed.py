"""Kill a quantization in the middle, run it again, and compare with one that was left alone.

    nox -s bench -- killed --model DIR --data RUN/steps/data-... --blocks 5

The process gets SIGKILL when so many blocks are finished. What the second run reused is told from
the files that it found, and the two checkpoints are compared code by code and byte by byte.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import apart
from rich.console import Console

from quantship.quant.scheme import SCHEMES

HERE = Path(__file__).parent
POLL_S = 0.02


def main(words: list[str]) -> None:
    """Do it, and say what became of it; exits with 1 where something differs."""
    parser = argparse.ArgumentParser(
        prog="killed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="directory of a float model")
    parser.add_argument("--data", type=Path, required=True, help="steps/data-* of a run")
    parser.add_argument("--algorithm", default="gptq")
    parser.add_argument("--scheme", default="w4a16-g32")
    parser.add_argument("--sequences", type=int, default=8, help="calibration sequences")
    parser.add_argument("--blocks", type=int, default=5, help="kill when so many are finished")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="killed-") as work:
        found = compare(Path(work), options)
    Console(width=170).print(describe(found), markup=False, highlight=False)
    if not found["equal"]:
        sys.exit(1)


def compare(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Quantize once in one go, and once with a kill in between."""
    whole = _request(work / "whole", options)
    unbroken = apart.run(HERE / "ptq_turn.py", whole, threads=options.threads)
    broken = _request(work / "broken", options)
    killed_after_s = _kill_after(broken, options.blocks, options.threads)
    kept = {file: file.stat().st_mtime_ns for file in _parts(Path(broken["resume"]))}
    _empty(Path(broken["out"]))
    resumed = apart.run(HERE / "ptq_turn.py", broken, threads=options.threads)
    left = Path(broken["resume"])
    reused = [file.name for file, at in kept.items() if file.stat().st_mtime_ns == at]
    assert left.exists()
    return {
        "unbroken_s": unbroken["seconds"],
        "killed_after_s": killed_after_s,
        "resumed_s": resumed["seconds"],
        "finished_before": len(kept),
        "reused": len(reused),
        "equal": _equal(Path(whole["out"]), Path(broken["out"])),
        "bytes_equal": _weights(whole) == _weights(broken),
    }


def describe(found: dict[str, Any]) -> str:
    """In words."""
    return (
        f"left alone: {found['unbroken_s']:.1f} s; killed after {found['killed_after_s']:.1f} s "
        f"with {found['finished_before']} blocks finished; run again: {found['resumed_s']:.1f} s, "
        f"{found['reused']} blocks reused. Codes are "
        f"{'equal' if found['equal'] else 'NOT equal'} to the bit, the files "
        f"{'too' if found['bytes_equal'] else 'not'}."
    )


def _request(room: Path, options: argparse.Namespace) -> dict[str, Any]:
    for name in ("out", "resume"):
        (room / name).mkdir(parents=True)
    return {
        "model": str(options.model),
        "data": str(options.data),
        "scheme": SCHEMES[options.scheme].model_dump(),
        "step": {
            "algorithm": options.algorithm,
            "calibration": {"sequences": options.sequences, "seed": 0},
        },
        "out": str(room / "out"),
        "resume": str(room / "resume"),
        "threads": options.threads,
    }


def _kill_after(request: dict[str, Any], blocks: int, threads: int) -> float:
    """Start it, kill -9 when so many blocks are finished, and return the seconds until then."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, str(HERE / "ptq_turn.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **apart.environment(threads)},
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(json.dumps(request))
        process.stdin.close()
        while len(_parts(Path(request["resume"]))) < blocks:
            if process.poll() is not None:
                raise RuntimeError(
                    f"it ended before it could be killed:\n{process.stderr.read()[-2000:]}"
                )
            time.sleep(POLL_S)
        process.kill()
    return time.perf_counter() - began


def _parts(resume: Path) -> list[Path]:
    """Files of finished blocks; a file that is being written has another ending."""
    return sorted(resume.glob("**/*.safetensors"))


def _empty(out: Path) -> None:
    for file in out.iterdir():
        file.unlink()


def _equal(one: Path, other: Path) -> bool:
    import torch

    from quantship.quant.checkpoint import load_codes

    ours, theirs = load_codes(one), load_codes(other)
    return ours.keys() == theirs.keys() and all(
        torch.equal(part.codes.codes_OI, theirs[name].codes.codes_OI)
        and torch.equal(part.codes.scale_OG, theirs[name].codes.scale_OG)
        for name, part in ours.items()
    )


def _weights(request: dict[str, Any]) -> str:
    from quantship.artifact import digest_file

    return digest_file(Path(request["out"]) / "model.safetensors")
