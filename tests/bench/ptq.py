"""The table of post-training quantization: every algorithm in every scheme, on several seeds.

    nox -s bench -- ptq --model DIR --data RUN/steps/data-... --text wiki.test.txt --out ptq.json

``--model`` is a float model that was trained on the data, ``--data`` what a run prepared for it
(``train`` to calibrate on, ``eval`` to measure on). Each case is quantized through the stage, in a
process of its own; its result is written to ``--out`` at once, so a run that was stopped goes on
where it was. The table is printed as Markdown, with the bars of the comparison below it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import apart
import ptq_cases
import ptq_report
import texts
from rich.console import Console

from quantship import models
from quantship.runtimes.base import open_runtime

HERE = Path(__file__).parent


def main(words: list[str]) -> None:
    """Measure what is not measured yet, and print the table."""
    options = parse(words)
    console = Console(width=170)
    measured = gather(console, options)
    text = ptq_report.render(measured)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    if options.markdown:
        options.markdown.write_text(text)


def parse(words: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="ptq", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="directory of a float model")
    parser.add_argument("--data", type=Path, required=True, help="steps/data-* of a run")
    parser.add_argument("--text", type=Path, help="text file to measure perplexity on as well")
    parser.add_argument("--out", type=Path, default=Path("ptq.json"), help="results; goes on")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sequences", type=int, default=32, help="calibration sequences")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of each text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--schemes", nargs="+", help="only these")
    parser.add_argument("--ways", nargs="+", help="only these")
    parser.add_argument("--limit", type=int, help="measure at most so many cases now")
    return parser.parse_args(words)


def gather(console: Console, options: argparse.Namespace) -> dict[str, Any]:
    """All results: what the file holds, and what was missing in it."""
    measured_on = texts.gather(options.model, options.data, options.text, options.tokens)
    config = models.read_config(options.model)
    setting = {
        "model": str(options.model),
        "texts": {name: texts.num_tokens(text["input_ids"]) for name, text in measured_on.items()},
        "digest": texts.digest(measured_on),
        "sequences": options.sequences,
    }
    results: dict[str, Any] = {"setting": setting, "float": None, "cases": {}}
    if options.out.exists():
        results = json.loads(options.out.read_text())
        if results["setting"] != setting:
            raise SystemExit(f"{options.out} holds results of another model, data or text")
    if results["float"] is None:
        runtime = open_runtime(options.model, options.threads)
        results["float"] = texts.losses(runtime, measured_on)
        del runtime
        _write(results, options.out)
    compared = ptq_cases.schemes((config["hidden_size"], config["intermediate_size"]))
    has_biases = bool(config.get("attention_bias") or config.get("mlp_bias"))
    cases = [
        case
        for case in ptq_cases.cases(compared, options.seeds, has_biases=has_biases)
        if (options.schemes is None or case.scheme.name in options.schemes)
        and (options.ways is None or case.way.name in options.ways)
    ]
    missing = [case for case in cases if case.key not in results["cases"]]
    for number, case in enumerate(missing[: options.limit]):
        began = time.monotonic()
        found = _measure(case, measured_on, options)
        results["cases"][case.key] = found
        _write(results, options.out)
        told = found.get("error") or ", ".join(
            f"{name} {one['perplexity']:.3f}" for name, one in found["losses"].items()
        )
        console.print(
            f"{number + 1} of {len(missing)}: {case.key}: {told} "
            f"({time.monotonic() - began:.0f} s)",
            markup=False,
        )
    return results


def _measure(
    case: ptq_cases.Case, measured_on: dict[str, texts.Text], options: argparse.Namespace
) -> dict[str, Any]:
    known = {
        "scheme": case.scheme.name,
        "way": case.way.name,
        "seed": case.seed,
        "threads": options.threads,
    }
    room = Path(tempfile.mkdtemp(prefix="ptq-"))
    request = {
        "model": str(options.model),
        "data": str(options.data) if case.seed is not None else None,
        "scheme": case.scheme.model_dump(),
        "step": case.step(options.sequences),
        "out": str(room / "out"),
        "resume": str(room / "resume"),
        "threads": options.threads,
        "texts": measured_on,
    }
    try:
        found = apart.run(HERE / "ptq_turn.py", request, threads=options.threads)
    except apart.Failed as error:
        return {**known, "error": str(error)[-600:]}
    finally:
        shutil.rmtree(room, ignore_errors=True)
    return {**known, **found}


def _write(results: dict[str, Any], out: Path) -> None:
    partial = out.with_name(out.name + ".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(out)
