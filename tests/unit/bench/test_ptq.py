from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantship.quant.scheme import SCHEMES


def turn(scheme: str, way: str, seed: int | None, loss: float) -> dict[str, Any]:
    import math

    losses = {"task": {"mean_loss": loss, "perplexity": math.exp(loss)}}
    cost = {"seconds": 2.0, "cpu_seconds": 3.0, "peak_rss_bytes": 10**9, "size_bytes": 10**8}
    return {"scheme": scheme, "way": way, "seed": seed, "losses": losses, **cost}


def results(*turns: dict[str, Any]) -> dict[str, Any]:
    keys = [f"{one['scheme']} | {one['way']} | {one['seed']}" for one in turns]
    return {
        "setting": {"texts": {"task": 100}, "sequences": 4},
        "float": {"task": {"mean_loss": 1.0, "perplexity": 2.718}},
        "cases": dict(zip(keys, turns, strict=True)),
    }


def test_the_share_recovered_is_of_what_rounding_to_nearest_lost() -> None:
    import ptq_report

    found = results(
        turn("w4a16-g128", "rtn", None, 1.5),
        turn("w4a16-g128", "gptq", 0, 1.3),
        turn("w4a16-g128", "gptq", 1, 1.2),
    )
    rows = {row.way: row for row in ptq_report.rows(found)}
    assert rows["gptq"].recovered["task"] == pytest.approx((0.4 + 0.6) / 2)
    assert rows["rtn"].recovered["task"] is None
    assert rows["gptq"].num_seeds == 2


def test_a_baseline_with_seeds_is_taken_seed_by_seed() -> None:
    import ptq_report

    found = results(
        turn("w8a8-static", "rtn", 0, 2.0),
        turn("w8a8-static", "rtn", 1, 1.5),
        turn("w8a8-static", "smoothquant", 0, 1.5),
        turn("w8a8-static", "smoothquant", 1, 1.25),
    )
    row = next(row for row in ptq_report.rows(found) if row.way == "smoothquant")
    assert row.recovered["task"] == pytest.approx(0.5)
    assert any("held" in line for line in ptq_report.judge([row]))


@pytest.mark.parametrize(("loss", "verdict"), [(1.34, "held"), (1.36, "missed")])
def test_a_bar_is_held_at_every_coarse_group(loss: float, verdict: str) -> None:
    import ptq_report

    found = results(
        turn("w4a16-g192", "rtn", None, 1.5),
        turn("w4a16-g192", "gptq", 0, loss),
        turn("w4a16-g32", "rtn", None, 1.5),
        turn("w4a16-g32", "gptq", 0, 1.5),  # no bar hangs on finer groups
    )
    lines = [line for line in ptq_report.judge(ptq_report.rows(found)) if "gptq" in line]
    assert len(lines) == 1
    assert verdict in lines[0]


def test_what_failed_is_named_below_the_tables() -> None:
    import ptq_report

    found = results(turn("w4a8", "rtn", None, 1.5))
    found["cases"]["w4a8 | awq | 0"] = {"scheme": "w4a8", "way": "awq", "seed": 0, "error": "a\nno"}
    printed = ptq_report.render(found)
    assert "- w4a8 | awq | 0: no" in printed
    assert "### w4a8" in printed


def test_groups_of_128_are_bracketed_where_they_do_not_divide() -> None:
    import ptq_cases

    assert "w4a16-g128" in [scheme.name for scheme in ptq_cases.schemes((2048, 8192))]
    sizes = [scheme.weight.group_size for scheme in ptq_cases.schemes((576, 1536))]
    assert sizes[:2] == [64, 192]
    assert not any(width % size for width in (576, 1536) for size in sizes if size)


def test_every_case_is_told_apart_and_only_data_makes_seeds() -> None:
    import ptq_cases

    compared = ptq_cases.schemes((2048, 8192))
    cases = list(ptq_cases.cases(compared, [0, 1], has_biases=False))
    assert len({case.key for case in cases}) == len(cases)
    assert {case.seed for case in cases if case.way.name == "rtn, mse"} == {None, 0, 1}
    static = {case.scheme.name for case in cases if case.way.name == "rtn, mse" and case.seed == 0}
    assert static == {"w8a8-static"}
    assert not any(case.way.step.get("bias_correction") for case in cases)
    key = [case.way.key for case in cases]
    assert key == sorted(key, reverse=True)


def test_steps_of_all_cases_are_valid() -> None:
    import ptq_cases

    from quantship.recipe.language import QuantizeStep

    for case in ptq_cases.cases([SCHEMES["w4a8"], SCHEMES["w8a8-static"]], [3], has_biases=True):
        step = QuantizeStep(stage="quantize", scheme=case.scheme.name, **case.step(5))
        assert step.algorithm.kind == case.way.algorithm
        assert step.calibration.sequences == 5
        assert step.calibration.seed == case.seed


def test_texts_hold_the_tokens_that_were_asked_for(tiny_model_dir: Path, tmp_path: Path) -> None:
    import texts

    file = tmp_path / "text.txt"
    file.write_text("All that is gold does not glitter. " * 60)
    found = texts.plain(tiny_model_dir, file, 1200)
    assert [len(window) for window in found["input_ids"]] == [512, 512, 176]
    assert found["labels"] == found["input_ids"]


def test_quantship_and_a_peer_are_set_side_by_side() -> None:
    import peers_part

    def made(who: str, seconds: float, perplexity: float) -> dict[str, Any]:
        losses = {"task": {"perplexity": perplexity}}
        cost = {"seconds": seconds, "cpu_seconds": seconds, "peak_rss_bytes": 1}
        return {"contest": "GPTQ, 4 bits", "who": who, "seed": 0, "losses": losses, **cost}

    found = {
        "group_size": 64,
        "turns": {
            "a": made("quantship", 13.0, 2.4),
            "b": made("llm_compressor", 10.0, 2.5),
            "c": {**made("gpt_q_model", 1.0, 1.0), "error": "broken"},
        },
    }
    printed = peers_part.render(found)
    assert "perplexity task -4.00 % (held); time × 1.30, at most 1.2 (missed)" in printed
    assert "- c: broken" in printed


def test_peers_are_asked_for_the_options_that_quantship_gets() -> None:
    import peers_part

    from quantship.recipe.language import QuantizeStep

    for contest in peers_part.CONTESTS:
        step = QuantizeStep(stage="quantize", scheme="w8a8", **contest.ours)
        assert step.algorithm.kind == contest.algorithm
        options = step.algorithm.model_dump()
        wanted = {"damping": peers_part.DAMPING, "strength": peers_part.STRENGTH}
        wanted |= {"grid_points": peers_part.GRID_POINTS, "act_order": True}
        assert {key: options[key] for key in wanted.keys() & options.keys()} == {
            key: wanted[key] for key in wanted.keys() & options.keys()
        }
        for peer in contest.peers:
            assert (Path(peers_part.__file__).parent / "peers" / f"{peer}.py").is_file()


@pytest.mark.slow
def test_a_bench_that_was_stopped_goes_on(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two real cases, each in a process of its own, in two sittings."""
    import json

    import ptq
    from datasets import Dataset

    ids = [[5 + (3 * row + at) % 250 for at in range(40)] for row in range(6)]
    rows = Dataset.from_dict({"input_ids": ids, "labels": ids})
    for split in ("train", "eval"):
        rows.save_to_disk(str(tmp_path / "data" / split))
    words = ["--model", str(tiny_model_dir), "--data", str(tmp_path / "data"), "--threads", "1"]
    words += ["--out", str(tmp_path / "ptq.json"), "--seeds", "0", "--sequences", "2"]
    words += ["--schemes", "w4a16-g32", "--ways", "rtn", "gptq", "--limit", "1"]
    ptq.main(words)
    first = json.loads((tmp_path / "ptq.json").read_text())["cases"]
    ptq.main(words)
    both = json.loads((tmp_path / "ptq.json").read_text())["cases"]
    assert len(first) == 1
    assert len(both) == 2
    assert first.items() <= both.items()
    assert not any("error" in one for one in both.values())
    assert "| gptq | 1 |" in capsys.readouterr().out
