"""quantship beside the same algorithm of a peer: same weights, data, groups and options.

    nox -s bench -- peers --model DIR --data RUN/steps/data-... --text wiki.test.txt \
        --peer llm_compressor=VENV/bin/python --peer gpt_q_model=VENV/bin/python

Each peer lives in an environment of its own (``pip install llmcompressor``, ``gptqmodel``); one
that is not named is left out. All quantize the linear layers of the blocks, symmetrically; head and
embedding stay in float. Everyone's perplexity is measured by quantship's evaluation, on torch.
``--rounds`` turns each contestant so often, every other round backwards; seconds are medians.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apart
import texts
from rich.console import Console

from quantship import models
from quantship.quant.scheme import INT8, STATIC, Scheme, WeightFormat

HERE = Path(__file__).parent
OURS = "quantship"
MOST_TIME = 1.2
"""Of the peer's, for the same algorithm."""
DAMPING, GRID_POINTS, STRENGTH = 0.01, 20, 0.5


@dataclass(frozen=True)
class Contest:
    """One algorithm in one scheme.

    Args:
        name: What tables call it.
        algorithm: Word that peers know it by.
        ours: Keys of quantship's step, for the same options.
        tuned: Keys of quantship's step as it is by default, where that is another.
        scheme: quantship's scheme, but for its groups.
        peers: Scripts of the peers that have it.
    """

    name: str
    algorithm: str
    ours: dict[str, Any]
    tuned: dict[str, Any] | None
    scheme: Scheme
    peers: tuple[str, ...]


INT4 = Scheme(name="int4", weight=WeightFormat(bits=4, group_size=128), embedding=None)
INT8_STATIC = Scheme(name="int8-static", weight=INT8, activation=STATIC, embedding=None)
LLM_COMPRESSOR, GPT_Q_MODEL, TORCHAO = "llm_compressor", "gpt_q_model", "torchao_prototype"
CONTESTS = (
    Contest(
        "GPTQ, 4 bits",
        "gptq",
        {"algorithm": {"kind": "gptq", "damping": DAMPING, "grid": "range"}},
        {"algorithm": "gptq"},
        INT4,
        (LLM_COMPRESSOR, GPT_Q_MODEL),
    ),
    Contest(
        "AWQ, 4 bits",
        "awq",
        {"algorithm": {"kind": "awq", "grid_points": GRID_POINTS, "clip": False}},
        {"algorithm": "awq"},
        INT4,
        (LLM_COMPRESSOR,),
    ),
    Contest(
        "SmoothQuant, 8 bits, static inputs",
        "smoothquant",
        {
            "algorithm": {"kind": "smoothquant", "strength": STRENGTH},
            "calibration": {"range": "minmax"},
        },
        {"algorithm": "smoothquant"},
        INT8_STATIC,
        (LLM_COMPRESSOR, TORCHAO),
    ),
)


def main(words: list[str]) -> None:
    """Measure, and print a table and the bars as Markdown."""
    options = parse(words)
    console = Console(width=170)
    results = gather(console, options)
    text = render(results)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    if options.markdown:
        options.markdown.write_text(text)


def parse(words: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="directory of a float model")
    parser.add_argument("--data", type=Path, required=True, help="steps/data-* of a run")
    parser.add_argument("--text", type=Path, help="text file to measure perplexity on as well")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PYTHON", help="interpreter of a peer"
    )
    parser.add_argument("--contests", nargs="+", help="words that their names hold; default: all")
    parser.add_argument("--group-size", type=int, help="default: 128, or 64 where that is no fit")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sequences", type=int, default=32, help="calibration sequences")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of each text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="turns of every contestant")
    parser.add_argument("--out", type=Path, default=Path("peers.json"), help="results; goes on")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    return parser.parse_args(words)


def gather(console: Console, options: argparse.Namespace) -> dict[str, Any]:
    """All results: what the file holds, and what was missing in it."""
    config = models.read_config(options.model)
    widths = (config["hidden_size"], config["intermediate_size"])
    group = options.group_size or (64 if any(width % 128 for width in widths) else 128)
    pythons = dict(one.split("=", 1) for one in options.peer)
    pythons.setdefault(TORCHAO, sys.executable)
    measured_on = texts.gather(options.model, options.data, options.text, options.tokens)
    results: dict[str, Any] = {"group_size": group, "turns": {}}
    if options.out.exists():
        results = json.loads(options.out.read_text())
    wanted = [
        (contest, who, seed, number)
        for number in range(options.rounds)
        for contest in CONTESTS
        if options.contests is None or any(word in contest.name for word in options.contests)
        for seed in options.seeds
        for who in _order(contest, pythons, number)
    ]
    for contest, who, seed, number in wanted:
        key = f"{contest.name} | {who} | {seed} | {number}"
        if key in results["turns"]:
            continue
        sequences = texts.calibration(options.data, options.sequences, seed)
        if who.startswith(OURS):
            step = contest.ours if who == OURS else contest.tuned
            found = _ours(contest, step or {}, group, seed, measured_on, options)
        else:
            request = _request(contest, group, sequences, measured_on, options)
            script = HERE / "peers" / f"{who}.py"
            found = _tried(script, request, options.threads, pythons[who])
        results["turns"][key] = {"contest": contest.name, "who": who, "seed": seed, **found}
        options.out.write_text(json.dumps(results, indent=1) + "\n")
        told = found.get("error") or ", ".join(
            f"{name} {one['perplexity']:.3f}" for name, one in found["losses"].items()
        )
        console.print(f"{key}: {told}", markup=False)
    return results


def _order(contest: Contest, pythons: dict[str, str], number: int) -> list[str]:
    tuned = [f"{OURS}, its defaults"] if contest.tuned else []
    everyone = [OURS, *tuned, *(peer for peer in contest.peers if peer in pythons)]
    return everyone[:: 1 if number % 2 == 0 else -1]


def _request(
    contest: Contest,
    group: int,
    sequences: list[list[int]],
    measured_on: dict[str, texts.Text],
    options: argparse.Namespace,
) -> dict[str, Any]:
    return {
        "model": str(options.model),
        "threads": options.threads,
        "texts": measured_on,
        "calibration": sequences,
        "algorithm": contest.algorithm,
        "bits": contest.scheme.weight.bits,
        "group_size": group if contest.scheme.weight.group_size else None,
        "static_inputs": contest.scheme.is_static,
        "act_order": True,
        "damping": DAMPING,
        "grid_points": GRID_POINTS,
        "strength": STRENGTH,
    }


def _ours(
    contest: Contest,
    step: dict[str, Any],
    group: int,
    seed: int,
    measured_on: dict[str, texts.Text],
    options: argparse.Namespace,
) -> dict[str, Any]:
    scheme = contest.scheme
    if scheme.weight.group_size:
        weight = scheme.weight.model_copy(update={"group_size": group})
        scheme = scheme.model_copy(update={"weight": weight})
    calibration = {"sequences": options.sequences, "seed": seed, **step.get("calibration", {})}
    room = Path(tempfile.mkdtemp(prefix="peers-"))
    request = {
        "model": str(options.model),
        "data": str(options.data),
        "scheme": scheme.model_dump(),
        "step": {**step, "calibration": calibration},
        "out": str(room / "out"),
        "resume": str(room / "resume"),
        "threads": options.threads,
        "texts": measured_on,
    }
    try:
        return _tried(HERE / "ptq_turn.py", request, options.threads, sys.executable)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _tried(script: Path, request: dict[str, Any], threads: int, python: str) -> dict[str, Any]:
    try:
        return apart.run(script, request, threads=threads, python=python)
    except apart.Failed as error:
        return {"error": str(error)[-600:]}


def render(results: dict[str, Any]) -> str:
    """The table and the bars as Markdown: means over the seeds, medians of the times."""
    turns = [one for one in results["turns"].values() if "error" not in one]
    if not turns:
        return "nothing was measured\n"
    names = list(turns[0]["losses"])
    header = ["algorithm", "by", "seeds", *names, "s", "CPU s", "peak MB"]
    lines = [f"Groups of {results['group_size']} where weights have 4 bits.", ""]
    lines += [f"| {' | '.join(header)} |", f"| --- | --- |{' ---: |' * (len(header) - 2)}"]
    bars = []
    for contest in dict.fromkeys(turn["contest"] for turn in turns):
        rows: dict[str, dict[str, Any]] = {}
        for who in dict.fromkeys(turn["who"] for turn in turns if turn["contest"] == contest):
            mine = [turn for turn in turns if (turn["contest"], turn["who"]) == (contest, who)]
            rows[who] = _mean(mine, names)
            lines.append(f"| {contest} | {who} | {' | '.join(_cells(rows[who], names))} |")
        for peer, row in rows.items():
            if not peer.startswith(OURS) and OURS in rows:
                bars += [_bar(contest, who, rows[who], peer, row, names) for who in _mine(rows)]
    failed = [
        f"- {key}: {one['error'].strip().splitlines()[-1]}"
        for key, one in results["turns"].items()
        if "error" in one
    ]
    return "\n".join([*lines, "", *bars, *failed]) + "\n"


def _mine(rows: dict[str, Any]) -> list[str]:
    return [who for who in rows if who.startswith(OURS)]


def _mean(turns: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    by_seed = {turn["seed"]: turn for turn in turns}
    return {
        "seeds": len(by_seed),
        **{
            name: statistics.fmean(turn["losses"][name]["perplexity"] for turn in by_seed.values())
            for name in names
        },
        "seconds": statistics.median(turn["seconds"] for turn in turns),
        "cpu_seconds": statistics.median(turn["cpu_seconds"] for turn in turns),
        "peak_rss_bytes": max(turn["peak_rss_bytes"] for turn in turns),
    }


def _cells(row: dict[str, Any], names: list[str]) -> list[str]:
    return [
        str(row["seeds"]),
        *(f"{row[name]:.3f}" for name in names),
        f"{row['seconds']:.1f}",
        f"{row['cpu_seconds']:.1f}",
        f"{row['peak_rss_bytes'] / 1e6:.0f}",
    ]


def _bar(
    contest: str,
    who: str,
    ours: dict[str, Any],
    peer: str,
    row: dict[str, Any],
    names: list[str],
) -> str:
    better = all(ours[name] <= row[name] for name in names)
    time = ours["seconds"] / row["seconds"]
    by = ", ".join(f"{name} {100 * (ours[name] / row[name] - 1):+.2f} %" for name in names)
    return (
        f"- {contest}, {who} against {peer}: perplexity {by} ({'held' if better else 'missed'}); "
        f"time × {time:.2f}, at most {MOST_TIME} ({'held' if time <= MOST_TIME else 'missed'}), "
        f"CPU time × {ours['cpu_seconds'] / row['cpu_seconds']:.2f}"
    )
