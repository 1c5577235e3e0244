from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantship.errors import QuantshipError
from quantship.job import Job
from quantship.recipe.language import Benchmark
from quantship.runtimes import bandwidth, built_for, weights
from quantship.stages import benchmark


def settings(**given: int) -> benchmark.Settings:
    usual = {"prompt_tokens": 8, "decode_tokens": 4, "rounds": 1}
    options = Benchmark.model_validate(usual | given)
    return benchmark.Settings(benchmark=options, threads=1, seed=0, machine={})


def measured(prefill_s: float, *decode_s: float, peak: int = 1) -> dict[str, Any]:
    return {
        "runtime": "torch",
        "prefill_s": [prefill_s, 2 * prefill_s, prefill_s / 2],
        "decode_s": list(decode_s),
        "device": "cpu",
        "peak_rss_bytes": peak,
        "peak_gpu_bytes": None,
    }


def test_speeds_are_medians_over_all_rounds() -> None:
    rounds = [
        measured(2.0, 0.010, 0.020, peak=5),
        measured(1.0, 0.030, 0.040, peak=7),
        measured(9.0, 0.050, 1.000, peak=6),
    ]
    facts = benchmark._summary(rounds, settings(batch_size=3, rounds=3))
    assert facts["prefill_tokens_per_s"] == pytest.approx(3 * 8 / 2.0)
    assert facts["latency_ms_p50"] == pytest.approx(35)
    assert facts["decode_tokens_per_s"] == pytest.approx(3 / 0.035)
    assert facts["latency_ms_p95"] == pytest.approx(1000)
    assert facts["peak_rss_bytes"] == 7


def test_the_latency_percentiles_lie_among_the_latencies() -> None:
    facts = benchmark._summary([measured(1.0, *(i / 1000 for i in range(1, 101)))], settings())
    assert facts["latency_ms_p50"] == pytest.approx(50.5)
    assert 94 <= facts["latency_ms_p95"] <= 97


def test_models_are_measured_in_turns(
    job: Callable[..., Job], tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = []

    def measure(path: Path, request: dict[str, Any]) -> dict[str, Any]:
        turns.append(path.name)
        assert request["vocabulary"] == 288
        return measured(1.0, 1.0)

    def read(threads: int) -> float:
        turns.append("memory")
        return 1e9

    monkeypatch.setattr(benchmark, "_measure", measure)
    monkeypatch.setattr(bandwidth, "measure_apart", read)
    inputs = {name: tiny_model_dir.with_name(name) for name in ("one", "two")}
    facts = benchmark.run(
        job(settings(rounds=2), **{benchmark.VOCABULARY: tiny_model_dir}, **inputs)
    )
    assert turns == ["memory", "one", "two", "memory", "one", "two"]
    assert facts.keys() == {"one", "two"}


def test_the_floor_is_the_time_that_reading_the_weights_takes() -> None:
    facts = benchmark._summary([measured(1.0, 0.004, 0.010, 0.007)], settings(batch_size=3))
    floor = benchmark._floor(facts, 35_000_000, [9e9, 10e9, 90e9])
    assert floor["weight_bytes_per_token"] == 35_000_000
    assert floor["read_bytes_per_s"] == 10e9
    assert floor["share_of_memory_floor"] == pytest.approx(0.0035 / 0.007)
    assert benchmark._floor(facts, None, [1e9]) == {}


def test_a_model_on_a_gpu_has_no_floor(
    job: Callable[..., Job], tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter((5, 7, 6))
    monkeypatch.setattr(bandwidth, "measure_apart", lambda threads: 1e9)
    monkeypatch.setattr(
        benchmark,
        "_measure",
        lambda *_: measured(1.0, 1.0) | {"device": "cuda", "peak_gpu_bytes": next(peaks)},
    )
    inputs = {benchmark.VOCABULARY: tiny_model_dir, "tiny": tiny_model_dir}
    facts = benchmark.run(job(settings(rounds=3), **inputs))["tiny"]
    assert "share_of_memory_floor" not in facts
    assert (facts["device"], facts["peak_gpu_bytes"], facts["warnings"]) == ("cuda", 7, [])


@pytest.mark.parametrize("kind", ["x86", "x86-vnni"])
def test_a_model_made_for_another_machine_is_told_apart(
    kind: str,
    job: Callable[..., Job],
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = {"onnx": built_for.BuiltFor("hybrid", "x86-vnni", True)}
    monkeypatch.setattr(built_for, "read", lambda path: made.get(path.name))
    monkeypatch.setattr(benchmark.hardware, "kind", lambda: kind)
    monkeypatch.setattr(benchmark, "_measure", lambda path, request: measured(1.0, 1.0))
    monkeypatch.setattr(bandwidth, "measure_apart", lambda threads: 1e9)
    monkeypatch.setattr(weights, "bytes_per_token", lambda path: None)
    inputs = {name: tiny_model_dir.with_name(name) for name in ("onnx", "torch")}
    facts = benchmark.run(job(settings(), **{benchmark.VOCABULARY: tiny_model_dir}, **inputs))
    assert "warnings" not in facts["torch"]
    found = facts["onnx"]["warnings"]
    assert [("without VNNI" in line) for line in found] == ([True] if kind == "x86" else [])


def test_a_model_is_measured_in_a_process_of_its_own(
    job: Callable[..., Job], tiny_model_dir: Path
) -> None:
    inputs = {benchmark.VOCABULARY: tiny_model_dir, "tiny": tiny_model_dir}
    facts = benchmark.run(job(settings(), **inputs))["tiny"]
    assert facts["runtime"] == "torch"
    assert facts["threads"] == 1
    assert facts["prefill_tokens_per_s"] > 0
    assert facts["latency_ms_p95"] >= facts["latency_ms_p50"] > 0
    assert facts["peak_rss_bytes"] > 50_000_000
    assert facts["weight_bytes_per_token"] == weights.bytes_per_token(tiny_model_dir)
    floor_ms = 1000 * facts["weight_bytes_per_token"] / facts["read_bytes_per_s"]
    share = facts["share_of_memory_floor"]
    assert share == pytest.approx(floor_ms / facts["latency_ms_p50"])
    assert 0 < share < 1


def test_a_model_that_cannot_be_measured_is_named(
    job: Callable[..., Job], tiny_model_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    inputs = {benchmark.VOCABULARY: tiny_model_dir, "empty": tmp_path / "empty"}
    with pytest.raises(QuantshipError, match=r"empty could not be measured: .*No such file"):
        benchmark.run(job(settings(), **inputs))


def test_what_reads_whole_texts_is_held_to_no_floor_of_memory(
    job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def measure(path: Path, request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return measured(2.0, 2.0)

    monkeypatch.setattr(benchmark, "_measure", measure)
    monkeypatch.setattr(bandwidth, "measure_apart", lambda threads: 1e9)
    config = {"architectures": ["BertForSequenceClassification"], "vocab_size": 50}
    (tmp_path / "config.json").write_text(json.dumps({**config, "type_vocab_size": 2}))
    given = {benchmark.VOCABULARY: tmp_path, "encoder": tmp_path}
    facts = benchmark.run(job(settings(batch_size=3), **given))["encoder"]
    assert {name: asked[0][name] for name in ("vocabulary", "segments")} == {
        "vocabulary": 50,
        "segments": True,
    }
    assert "share_of_memory_floor" not in facts
    # A pass reads three texts of 8 tokens.
    assert facts["prefill_tokens_per_s"] == pytest.approx(8 * facts["decode_tokens_per_s"])
