"""Feed every reader with hostile files for a while, and record how that went.

    python tests/fuzz/run.py --minutes 10 --out FOLDER

Each target has its share of the time in a process of its own, whose end by a signal is a failure as
well. FOLDER then holds ``fuzz.json`` and the examples that failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

STALLED_S = 90.0
"""A process that says nothing for so long hangs in native code."""
MOST_STARTS = 40
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}


def main() -> int:
    """Run all targets, or, as a child, one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "quantship-fuzz")
    parser.add_argument("--only", action="append", help="a target; may be given many times")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        target, made, work, seconds = asked.child
        _be_child(target, Path(made), Path(work), float(seconds), asked.seed)
        return 0
    return _run(asked)


def _run(asked: argparse.Namespace) -> int:
    os.environ.update(ENVIRONMENT)
    import seeds
    import targets

    asked.out.mkdir(parents=True, exist_ok=True)
    names = asked.only or list(targets.TARGETS)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "seeds"
        made.mkdir()
        seeds.make(made, with_run=any("run" in targets.TARGETS[name].seeds for name in names))
        share = asked.minutes * 60 / len(names)
        rows = [_target(name, made, Path(scratch), share, asked) for name in names]
    found = {"seed": asked.seed, "minutes": asked.minutes, "targets": rows}
    (asked.out / "fuzz.json").write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write(table(rows))
    return 1 if any(row["failures"] for row in rows) else 0


def _target(
    name: str, made: Path, scratch: Path, seconds: float, asked: argparse.Namespace
) -> dict[str, Any]:
    """Fuzz one target, in as many processes as it brings down."""
    counts: Counter[str] = Counter()
    failures: dict[str, dict[str, Any]] = {}
    began, seed = time.monotonic(), asked.seed
    for _ in range(MOST_STARTS):
        left = seconds - (time.monotonic() - began)
        if left <= 0:
            break
        work = scratch / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        ended = _child(name, made, work, left, seed)
        last = 0
        journal = work / "journal.jsonl"
        for line in journal.read_text().splitlines() if journal.is_file() else ():
            entry = json.loads(line)
            last = entry["number"]
            if entry["outcome"] != "begun":
                counts[entry["outcome"]] += 1
            if entry["outcome"] == "failed":
                failures.setdefault(entry["reason"], {"times": 0, **entry})["times"] += 1
        if ended is not None:
            counts["failed"] += 1
            reason = f"the process ended: {ended}"
            failures.setdefault(reason, {"times": 0, "number": last, "seed": seed})["times"] += 1
            kept = asked.out / f"{name.replace(' ', '-')}-{seed}-{last}"
            shutil.rmtree(kept, ignore_errors=True)
            if (work / "example").is_dir():
                shutil.copytree(work / "example", kept, symlinks=True)
        seed += last + 1
    return {
        "target": name,
        "examples": sum(counts.values()),
        "read": counts["read"],
        "refused": counts["refused"],
        "failed": counts["failed"],
        "seconds": round(time.monotonic() - began, 1),
        "failures": [{"reason": reason, **entry} for reason, entry in failures.items()],
    }


def _child(name: str, made: Path, work: Path, seconds: float, seed: int) -> str | None:
    """Run a child to its end; what ended it, in words, unless it was its time."""
    command = [sys.executable, __file__, "--seed", str(seed), "--child", name, str(made), str(work)]
    with (work / "output").open("wb") as output:
        child = subprocess.Popen([*command, str(seconds)], stdout=output, stderr=output)
        journal, began = work / "journal.jsonl", time.time()
        while child.poll() is None:
            time.sleep(0.2)
            heard = journal.stat().st_mtime if journal.is_file() else began + 60
            if time.time() - heard > STALLED_S:
                child.kill()
                child.wait()
                return f"no word for {STALLED_S} s"
    if child.returncode == 0:
        return None
    tail = (work / "output").read_text(errors="replace")[-300:]
    return f"exit code {child.returncode}" + (f": {tail}" if child.returncode > 0 else "")


def _be_child(name: str, made: Path, work: Path, seconds: float, seed: int) -> None:
    import targets
    from watching import Watch, judge

    shutil.copytree(made / "outside", work / "outside")
    watch = Watch(work / "outside")
    target = targets.TARGETS[name]
    target.read(made / target.seeds[0], made / target.seeds[0], Random(2))  # imports take long
    until, number = time.monotonic() + seconds, 0
    with (work / "journal.jsonl").open("a", buffering=1) as journal:
        while time.monotonic() < until:
            shutil.rmtree(work / "example", ignore_errors=True)
            read, done = targets.prepared(target, made, work / "example", Random(seed + number))
            # Written before it runs, so that one that ends the process can be found again.
            entry = {"number": number, "outcome": "begun"}
            journal.write(json.dumps(entry) + "\n")
            verdict = judge(read, watch, target.allowed)
            entry = {"number": number, "seed": seed + number, "outcome": verdict.outcome}
            if verdict.outcome == "failed":
                entry |= {"reason": verdict.reason, "trace": verdict.trace, "done": done}
            journal.write(json.dumps(entry) + "\n")
            number += 1


def table(rows: list[dict[str, Any]]) -> str:
    """What happened, as Markdown."""
    lines = [
        "| target | examples | read | refused | failed | seconds |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    total = {
        key: sum(row[key] for row in rows) for key in ("examples", "read", "refused", "failed")
    }
    total["seconds"] = round(sum(row["seconds"] for row in rows), 1)
    for row in [*rows, {"target": "all", **total}]:
        keys = ("target", "examples", "read", "refused", "failed", "seconds")
        lines.append("| " + " | ".join(str(row[key]) for key in keys) + " |")
    for row in rows:
        for failure in row["failures"]:
            lines.append(f"\n{row['target']}: {failure['times']} × {failure['reason']}")
            lines.append(f"    seed {failure['seed']}: {failure.get('done', '')}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
