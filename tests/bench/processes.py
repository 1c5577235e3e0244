"""What a second process brings: time and memory of a step, and that the results are the same.

    nox -s bench -- processes                                  the built-in model
    nox -s bench -- processes --model DIR --equality           a model of yours; results too

One process with two threads against two with one thread each, over DDP and over FSDP2, in turns;
× is the ratio to the one process. What glibc keeps of freed memory for itself, which is most where
tensors come and go, is given back in all of them.
``--equality`` compares losses and codes, also of trainings that another number of processes has
begun. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apart
from safetensors.torch import load_file

from quantship.recipe.language import TinyModel
from quantship.tiny import build_model, build_tokenizer

HERE = Path(__file__).parent
TEAMS: dict[str, dict[str, Any]] = {
    "1 process x 2 threads": {"processes": 1, "threads": 2, "sharded": False},
    "2 processes x 1 thread, DDP": {"processes": 2, "threads": 1, "sharded": False},
    "2 processes x 1 thread, FSDP2": {"processes": 2, "threads": 1, "sharded": True},
}
ALONE, DDP, FSDP2 = TEAMS
KINDS = ("finetune", "qat w8a8", "qat w4a16-g32")
CROSSINGS = ((ALONE, DDP), (DDP, ALONE), (ALONE, FSDP2), (FSDP2, ALONE), (DDP, FSDP2))
SMALL = TinyModel(hidden_size=256, intermediate_size=768, num_layers=6, num_heads=4, num_kv_heads=2)
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
"""Bytes from which on glibc takes a tensor's memory from the system, and returns it there."""
HALF, WHOLE = 3, 6
"""Steps of the trainings that are compared, and where another team goes on with them."""


def main(words: list[str]) -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(
        prog="processes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="Hugging Face directory with float weights")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps of a turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--equality", action="store_true", help="compare losses and codes, too")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="processes-") as scratch:
        work = Path(scratch)
        model = options.model or _built_in(work / "model")
        sys.stdout.write(_table(*speed(model, work, options)))
        if options.equality:
            sys.stdout.write("\n" + _table(*equality(model, work, options)))


def speed(
    model: Path, work: Path, options: argparse.Namespace
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Medians of seconds and memory, every team in turn."""
    turns: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        for kind in options.kinds:
            for team in TEAMS:
                request = _request(model, kind, team, options, options.steps)
                turns.setdefault((kind, team), []).append(_turn(request, work, team))
    heads = ("training", "by", "s a step", "×", "first, peak MB", "×", "second", "×")
    rows = []
    for (kind, team), found in turns.items():
        seconds, *peaks = _medians(found)
        base_seconds, base_peak = _medians(turns[kind, ALONE])
        row = [f"{seconds:.3f}", f"{seconds / base_seconds:.2f}"]
        for peak in peaks:
            row += [f"{peak / 1e6:.0f}", f"{peak / base_peak:.2f}"]
        rows.append((kind, team, *row, *["–"] * (len(heads) - 2 - len(row))))
    return heads, rows


def equality(
    model: Path, work: Path, options: argparse.Namespace
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """How far trainings of two processes are from those of one, begun by either."""
    rows = []
    for kind in options.kinds:
        rooms: dict[str, Path] = {}
        wholes: dict[str, tuple[dict[str, Any], Path]] = {}
        for number, (begun_by, team) in enumerate((*((None, one) for one in TEAMS), *CROSSINGS)):
            room = work / kind.replace(" ", "-") / str(number)
            room.mkdir(parents=True)
            request = _request(model, kind, team, options, WHOLE) | {
                "save_steps": HALF,
                "codes": str(room / "codes.safetensors"),
                "begun": str(rooms[begun_by] / f"checkpoint-{HALF}") if begun_by else None,
            }
            found = _turn(request, work, team, room / "resume")
            for left in (room / "resume").iterdir():  # 12 bytes a parameter each
                if begun_by or left.name != f"checkpoint-{HALF}":
                    shutil.rmtree(left)
            if begun_by is None:
                rooms[team], wholes[team] = room / "resume", (found, room)
            if number:
                made = f"{team}, begun by {begun_by}" if begun_by else team
                rows.append((kind, made, *_differences(wholes[ALONE], (found, room))))
        shutil.rmtree(work / kind.replace(" ", "-"))
    heads = ("training", "by", "largest difference of a loss from one process", "codes equal")
    return heads, rows


def _differences(
    one: tuple[dict[str, Any], Path], other: tuple[dict[str, Any], Path]
) -> tuple[str, str]:
    pairs = zip(one[0]["losses"], other[0]["losses"], strict=True)
    largest = max(abs(ours - theirs) for ours, theirs in pairs)
    files = [room / "codes.safetensors" for _, room in (one, other)]
    if not files[0].exists():
        return f"{largest:.1e}", "no codes"
    ours, theirs = map(load_file, files)
    assert ours.keys() == theirs.keys()
    equal = sum(int((ours[name] == theirs[name]).sum()) for name in ours)
    total = sum(codes.numel() for codes in ours.values())
    return f"{largest:.1e}", f"{equal / total:.4%} of {total}"


def _request(
    model: Path, kind: str, team: str, options: argparse.Namespace, steps: int
) -> dict[str, Any]:
    return {
        "model": str(model),
        "kind": kind,
        "steps": steps,
        "tokens": options.tokens,
        "learning_rate": options.learning_rate,
        "save_steps": 10 * steps,
        "codes": None,
        "begun": None,
        **{name: TEAMS[team][name] for name in ("threads", "sharded")},
    }


def _turn(
    request: dict[str, Any], work: Path, team: str, resume: Path | None = None
) -> dict[str, Any]:
    """A training in processes of its own; what its first process has said."""
    number, threads = TEAMS[team]["processes"], TEAMS[team]["threads"]
    with tempfile.TemporaryDirectory(dir=work) as folder:
        file = Path(folder) / "request.json"
        file.write_text(json.dumps(request | {"resume": str(resume or Path(folder) / "resume")}))
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number))
        done = subprocess.run(
            [
                sys.executable,
                *(launcher if number > 1 else ()),
                str(HERE / "processes_turn.py"),
                str(file),
            ],
            env={**os.environ, **apart.environment(threads), **GIVES_BACK},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{team} has failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _medians(found: list[dict[str, Any]]) -> list[float]:
    """Seconds of a step, and the peak memory of each process in bytes."""
    peaks = zip(*(turn["peak_rss_bytes"] for turn in found), strict=True)
    seconds = statistics.median(turn["seconds"] for turn in found)
    return [seconds, *map(statistics.median, peaks)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _built_in(out: Path) -> Path:
    tokenizer = build_tokenizer(SMALL.max_positions)
    build_model(SMALL, tokenizer, seed=0).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out
