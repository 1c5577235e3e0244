from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantship.errors import QuantshipError
from quantship.job import Job
from quantship.quant.scheme import SCHEMES, WeightFormat
from quantship.recipe.language import SearchStep
from quantship.stages import search

ROWS = SCHEMES | {
    "four": SCHEMES["w4a16-g32"].model_copy(
        update={"name": "four", "embedding": WeightFormat(bits=4, group_size=32)}
    )
}
CANDIDATES = ("w8a16", "w4a16-g32", "w2a16-g32")


@pytest.fixture
def found(
    job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path, one_thread: None
) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """What a search leaves, and its facts."""

    def found(**options: Any) -> tuple[Path, dict[str, Any]]:
        given = {"candidates": CANDIDATES, "scheme": "w4a16-g32", **options}
        step = SearchStep(stage="search", name="mixed", calibration={"sequences": 3}, **given)
        made = job(search.settings_of(step, ROWS), model=tiny_model_dir, data=data_dir)
        return made.out, search.run(made)

    return found


@pytest.mark.parametrize("measure", ["fisher", "kl", "loss"])
def test_every_measure_finds_a_scheme_within_the_bits(found: Any, measure: str) -> None:
    out, facts = found(target_bits=4.5, measure=measure)
    assert facts["result"]["bits"] <= 4.5
    scheme = search.read_scheme(out, "anything")
    assert scheme.name == "anything"
    assert scheme.embedding == SCHEMES["w4a16-g32"].embedding
    harm = json.loads((out / search.SENSITIVITY).read_text())
    chosen = [one for one in facts["layers"] if one["candidate"] is not None]
    assert len(chosen) == 2 * 7
    for one in chosen:
        assert one["predicted_nats"] == harm[one["name"]][one["candidate"]]
    assert facts["result"]["predicted_nats"] == pytest.approx(
        sum(one["predicted_nats"] for one in facts["layers"])
    )
    assert {path.name for path in out.iterdir()} == {search.SCHEME, search.SENSITIVITY}


def test_the_embedding_is_chosen_for_where_that_is_asked(found: Any) -> None:
    _, facts = found(target_bits=4.2, candidates=("w8a16", "four", "w2a16-g32"), embedding=True)
    (embedding,) = (one for one in facts["layers"] if "embed" in one["name"])
    assert embedding["candidate"] in ("w8a16", "four")


def test_a_perplexity_is_kept_when_it_is_measured(found: Any) -> None:
    _, facts = found(max_perplexity_increase="1%")
    assert facts["limit"] == 0.01
    assert facts["result"]["loss_nats"] <= 0.01
    assert facts["attempts"]
    least = min(one["cost"] for one in facts["front"])
    assert facts["result"]["cost"] >= least


def test_a_time_is_that_of_this_machine(found: Any) -> None:
    _, facts = found(max_latency_ms=1e6)
    assert 0 < facts["result"]["cost"] < 1e6
    assert facts["unit"] == "ms a token"
    # Nothing is bound: every layer has the candidate that does least harm.
    assert {one["candidate"] for one in facts["layers"]} == {None, "w8a16"}


def test_a_time_that_no_model_has_is_refused_with_what_is_possible(found: Any) -> None:
    with pytest.raises(QuantshipError, match=r"max_latency_ms of 1e-06 cannot be kept"):
        found(max_latency_ms=1e-6)


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchao"])
def test_files_stay_within_their_bytes(found: Any, runtime: str) -> None:
    out, facts = found(
        max_bytes="w4a16-g32",
        candidates=("w8a16", "w4a16-g32", "w4a16-g128"),
        runtime=runtime,
    )
    assert facts["size_bytes"] <= facts["limit"]
    assert facts["result"]["predicted_nats"] <= max(
        one["predicted_nats"] for one in facts["uniform"]
    )
    assert not (out / "probe").exists()


def test_times_depend_on_the_machine_and_nothing_else_does() -> None:
    bits, time = (
        search.settings_of(
            SearchStep(stage="search", scheme="w4a16-g32", candidates=CANDIDATES, **given), ROWS
        )
        for given in ({"target_bits": 5}, {"max_latency_ms": 5})
    )
    assert bits.machine == {}
    assert "onnxruntime" in time.machine
