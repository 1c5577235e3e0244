from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from quantship.reporting import ranking, ranking_text
from quantship.reporting.ranking import Contender
from quantship.reporting.ranking_schema import CalibrationUsed, Quantization, Ranking
from quantship.reporting.schema import Report


def made(kind: str = "rtn", seed: int | None = None, **calibration: Any) -> Quantization:
    settings = {"algorithm": {"kind": kind}, "calibration": {"seed": seed, **calibration}}
    used = None if kind == "rtn" and not calibration else CalibrationUsed(sequences=8, seed=seed)
    return Quantization(
        algorithm=kind, words=kind, settings=settings, plain=kind == "rtn", calibration=used
    )


def contender(
    name: str,
    how: Quantization | None,
    scheme: str = "w4a16",
    source: str | None = "float",
    run: str = "",
) -> Contender:
    return Contender(name, run, scheme, source, 100, how, how.words if how else "QAT")


def rank(lab: Any, losses: dict[str, float], *those: Contender, size: int = 400) -> Ranking:
    found = ranking.resample(*lab.measure(losses, size), seed=0)
    result = ranking.rank(those, found, by="lost")
    assert result is not None
    return result


LOSSES = {"float": 1.8, "rtn": 2.0, "gptq": 1.9, "qat": 1.85}
MODELS = (
    contender("rtn", made()),
    contender("gptq", made("gptq")),
    contender("qat", None),
)


def test_the_best_comes_first_and_shares_are_of_rounding_s_loss(lab: Any) -> None:
    found = rank(lab, LOSSES, *MODELS)
    assert [entry.name for entry in found.entries] == ["qat", "gptq", "rtn"]
    assert [entry.place_in_scheme for entry in found.entries] == [1, 2, 3]
    best, middle, last = found.entries
    assert best.behind_best is None
    assert last.ahead_of_next is None
    assert best.lost is not None
    assert best.lost.value == pytest.approx(0.05)
    assert middle.behind_best is not None
    assert middle.ahead_of_next is not None
    assert middle.behind_best.value == pytest.approx(0.05)
    assert middle.ahead_of_next.value == pytest.approx(0.1)
    assert best.ahead_of_next == middle.behind_best
    shares = [entry.of_nearest for entry in found.entries]
    assert shares[2] is None
    for share, value in zip(shares[:2], (0.75, 0.5), strict=True):
        assert share is not None
        assert share.nearest == "rtn"
        assert share.share is not None
        assert share.share.low < share.share.value < share.share.high
        assert share.share.value == pytest.approx(value)
    assert middle.perplexity == pytest.approx(math.exp(1.9))
    assert (found.by, found.num_sequences, found.num_resamples) == ("lost", 400, 10_000)


def test_an_interval_of_a_difference_is_far_narrower_than_the_noise(lab: Any) -> None:
    found = rank(lab, LOSSES, *MODELS)
    for entry in found.entries[1:]:
        behind = entry.behind_best
        assert behind is not None
        assert behind.low is not None
        assert behind.high is not None
        assert 0 < behind.low < behind.value < behind.high
        assert behind.high - behind.low < 0.05  # a loss itself has an interval of about 0.12


def test_models_of_two_sources_are_set_against_their_own(lab: Any) -> None:
    losses = {"float": 1.8, "rtn": 2.0, "poor": 2.5, "of-poor": 2.6}
    those = (contender("rtn", made()), contender("of-poor", made("gptq"), source="poor"))
    found = rank(lab, losses, *those)
    assert [entry.name for entry in found.entries] == ["of-poor", "rtn"]
    assert found.entries[1].behind_best is not None
    assert found.entries[1].behind_best.value == pytest.approx(0.1)
    assert found.entries[0].of_nearest is None  # the twin is of another source


def test_where_a_source_was_not_evaluated_losses_are_compared(lab: Any) -> None:
    losses = {name: loss for name, loss in LOSSES.items() if name != "float"}
    found = rank(lab, losses, *MODELS)
    assert found.by == "loss"
    assert [entry.name for entry in found.entries] == ["qat", "gptq", "rtn"]
    assert all(entry.lost is None for entry in found.entries)
    share = found.entries[0].of_nearest
    assert share is not None
    assert (share.share, share.undefined) == (None, "float was not evaluated")


def test_few_sequences_give_an_order_without_intervals(lab: Any) -> None:
    found = rank(lab, LOSSES, *MODELS, size=9)
    assert found.no_intervals == "9 evaluated sequences are too few to tell"
    assert found.num_resamples == 0
    behind = found.entries[2].behind_best
    assert behind is not None
    assert behind.value == pytest.approx(0.15)
    assert (behind.low, behind.high) == (None, None)
    assert "There are no intervals: 9 evaluated" in ranking_text.explanation(found)
    assert ranking_text.remarks(found) == []
    Ranking.model_validate_json(found.model_dump_json())


def test_what_rounding_did_not_lose_cannot_be_shared(lab: Any) -> None:
    found = rank(lab, {**LOSSES, "rtn": 1.8005}, *MODELS)
    share = next(entry for entry in found.entries if entry.name == "gptq").of_nearest
    assert share is not None
    assert (share.share, share.undefined) == (None, "rtn lost nothing measurable against float")
    assert any(line.startswith("qat, gptq: no share") for line in ranking_text.remarks(found))


def test_the_twin_is_the_one_that_was_calibrated_alike() -> None:
    one = contender("gptq", made("gptq", seed=2))
    twins = [contender(f"rtn{seed}", made(seed=seed, range="mse")) for seed in (1, 2, 3)]
    found = ranking.nearest_twin(one, [one, *twins])
    assert found is not None
    assert found.name == "rtn2"
    others = [
        contender("w8", made(), scheme="w8a8"),
        contender("elsewhere", made(), run="other"),
        contender("of-another", made(), source="poor"),
        contender("clipped", Quantization(**{**dict(made()), "plain": False})),
    ]
    assert ranking.nearest_twin(one, [one, *others]) is None


def test_seeds_have_a_mean_and_a_spread(lab: Any) -> None:
    losses = {"float": 1.8, "rtn": 2.0, "g0": 1.90, "g1": 1.92, "g2": 1.88}
    seeds = [contender(f"g{seed}", made("gptq", seed)) for seed in range(3)]
    found = rank(lab, losses, contender("rtn", made()), *seeds)
    (entry,) = found.seeds
    assert entry.models == ["g0", "g1", "g2"]
    assert entry.mean_loss == pytest.approx(1.9)
    assert entry.spread == pytest.approx(0.02)
    assert (entry.lowest, entry.highest) == (pytest.approx(1.88), pytest.approx(1.92))
    assert entry.share == pytest.approx(0.5)
    assert entry.share_spread == pytest.approx(0.1)
    line = ranking_text.of_seeds(entry)
    assert line == (
        "gptq at w4a16, 3 seeds of calibration data: 1.9000 nats, spread 0.0200; 50 % of what "
        "rounding to nearest lost, spread 10 %"
    )


def test_other_options_are_no_seeds(lab: Any) -> None:
    losses = {"float": 1.8, "a": 1.90, "b": 1.92}
    one = contender("a", made("gptq", 0, sequences=8))
    other = contender("b", made("gptq", 1, sequences=16))
    assert rank(lab, losses, one, other).seeds == []


def test_one_model_is_no_ranking(lab: Any) -> None:
    losses = ranking.resample(*lab.measure(LOSSES), seed=0)
    assert ranking.rank(MODELS[:1], losses, by="lost") is None
    assert ranking.rank([contender("gone", made())], losses, by="lost") is None


def test_yardsticks_are_not_ranked(lab: Any) -> None:
    losses = ranking.resample(*lab.measure(LOSSES), seed=0)
    found = ranking.rank(MODELS[1:], losses, by="lost", yardsticks=MODELS[:1])
    assert found is not None
    assert [entry.name for entry in found.entries] == ["qat", "gptq"]
    assert found.entries[0].of_nearest is not None
    assert found.entries[0].of_nearest.nearest == "rtn"


def test_means_alone_rank_too() -> None:
    found = ranking.rank(MODELS, ranking.means(LOSSES, "nothing else is here"), by="loss")
    assert found is not None
    assert [entry.name for entry in found.entries] == ["qat", "gptq", "rtn"]
    assert found.num_sequences is None
    assert np.isfinite(found.entries[0].mean_loss)


def test_exports_and_broken_models_are_not_ranked(report: Report, broken: Report) -> None:
    names = [one.name for one in ranking.contenders(report.models)]
    assert names == ["ptq-w8a8", "ptq-w4a16-g32", "qat-w8a8", "qat-w4a16-g32"]
    wrong = [row.model_copy(update={"kind": "torchao"}) for row in broken.models[-1:]]
    assert ranking.contenders(wrong) == []
    (row,) = (row for row in report.models if row.name == "qat-w8a8")
    row = row.model_copy(update={"method": "distill", "float_source": "finetune"})
    one = ranking.contender(row, "mine")
    assert (one.name, one.source, one.algorithm) == (
        "mine/qat-w8a8",
        "mine/finetune",
        "QAT, distill",
    )


def test_a_table_has_a_row_a_model_and_says_what_is_not_sure(sweep: Report) -> None:
    assert sweep.ranking is not None
    table = ranking_text.table(sweep.ranking)
    assert [row[0] for row in table.rows] == [str(place) for place in range(1, 15)]
    assert table.rows[0][1:4] == (
        "ptq-w4a16-g32-smoothquant",
        "smoothquant",
        "w4a16-g32, 1 of 7",
    )
    assert table.rows[0][-1].endswith("%)")
    assert len({len(row) for row in (table.header, *table.rows)}) == 1
    assert len(sweep.ranking.seeds) == 2
    remarks = ranking_text.remarks(sweep.ranking)
    assert all("not for sure" in line for line in remarks)
    stacked = ranking_text.stacked(sweep.ranking)[1]
    assert stacked.origin.startswith("gptq · w4a16-g32, ")
    assert stacked.cells[2][1].startswith("(")
