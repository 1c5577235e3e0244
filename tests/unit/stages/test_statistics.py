from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from quantship.algorithms.block import Block, Call
from quantship.data.calibration import sequences
from quantship.errors import QuantshipError
from quantship.job import Job
from quantship.models import load_float
from quantship.quant import statistics_file
from quantship.quant.layers import is_linear
from quantship.quant.scheme import STATIC
from quantship.quant.statistics import InputStatistics, Watch
from quantship.recipe.rounding_options import Calibration
from quantship.stages import statistics

pytestmark = pytest.mark.usefixtures("one_thread")

Made = tuple[dict[str, Any], dict[str, InputStatistics]]
NUM_SEQUENCES = 5


@pytest.fixture
def made(job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path) -> Made:
    """Facts and statistics of the tiny model on some sequences."""
    settings = statistics.Settings(sequences=NUM_SEQUENCES, seed=3)
    done = job(settings, model=tiny_model_dir, data=data_dir)
    facts = statistics.run(done)
    return facts, statistics_file.load(done.out / statistics_file.FILE)


@torch.no_grad()
def whole(model: nn.Module, data: Path) -> dict[str, InputStatistics]:
    """What the model shows when it runs as a whole."""
    layers = {name: one for name, one in model.named_modules() if is_linear(one)}
    seen = {name: InputStatistics(of_features=True) for name in layers}
    watch = Watch(seen)
    for look in (watch.see, watch.count):
        with statistics._hooked(layers, look):
            for batch in sequences(data, NUM_SEQUENCES, seed=3):
                model(**batch)
    return seen


def test_blocks_see_what_the_whole_model_sees(
    made: Made, tiny_model_dir: Path, data_dir: Path
) -> None:
    _, found = made
    expected = whole(load_float(tiny_model_dir).eval(), data_dir)
    expected.pop("lm_head")
    assert found.keys() == expected.keys()
    for name, seen in found.items():
        assert seen.num_tokens == expected[name].num_tokens
        assert seen.histogram is not None
        assert seen.features is not None
        assert seen.histogram.counts.sum() == seen.num_tokens * len(seen.features.total_I)
        torch.testing.assert_close(seen.mean_I, expected[name].mean_I, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen.reach_I, expected[name].reach_I, rtol=1e-4, atol=1e-5)
        for kind in ("minmax", "moving_average", "percentile", "mse", "entropy"):
            options = Calibration(range=kind)
            one, other = (item.grid(options, STATIC).scale for item in (seen, expected[name]))
            torch.testing.assert_close(one, other, rtol=1e-2, atol=0)


def test_facts_say_what_was_looked_at(made: Made, data_dir: Path) -> None:
    facts, found = made
    batches = sequences(data_dir, NUM_SEQUENCES, seed=3)
    assert facts["sequences"] == NUM_SEQUENCES
    assert facts["tokens"] == sum(batch["input_ids"].numel() for batch in batches)
    assert facts["layers"] == len(found) == 2 * 7
    assert facts["unreached"] == []
    assert facts["remarks"] == []
    assert facts["outlier_ratios"].keys() == found.keys()
    assert all(ratio >= 1 for ratio in facts["outlier_ratios"].values())


def test_the_file_is_safetensors(
    job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    done = job(statistics.Settings(sequences=1, seed=None), model=tiny_model_dir, data=data_dir)
    statistics.run(done)
    assert [path.name for path in done.out.iterdir()] == [statistics_file.FILE]
    with safe_open(done.out / statistics_file.FILE, "pt") as file:
        assert any(key.startswith("model.layers.1.mlp.down_proj") for key in file.keys())  # noqa: SIM118 - it is no dict


def test_weights_that_are_no_numbers_are_an_error_that_names_the_layer(
    job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path, tmp_path: Path
) -> None:
    model = load_float(tiny_model_dir)
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.up_proj.weight")[3] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    done = job(
        statistics.Settings(sequences=2, seed=None), model=tmp_path / "broken", data=data_dir
    )
    with pytest.raises(QuantshipError, match=r"input of 'model\.layers\.1\.mlp\.down_proj'"):
        statistics.run(done)


def test_dead_channels_are_counted(
    job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path, tmp_path: Path
) -> None:
    model = load_float(tiny_model_dir)
    with torch.no_grad():
        model.get_parameter("model.layers.0.mlp.up_proj.weight")[:7] = 0
    model.save_pretrained(tmp_path / "dead")
    done = job(statistics.Settings(sequences=2, seed=None), model=tmp_path / "dead", data=data_dir)
    assert statistics.run(done)["dead_channels"] == {"model.layers.0.mlp.down_proj": 7}


def test_a_layer_that_no_token_reaches_is_told_from_the_others() -> None:
    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.taken, self.idle = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.taken(hidden)
            self.idle(hidden[:0])
            return output

    calls = [Call(torch.randn(4, 8)) for _ in range(2)]
    seen = statistics.observe([Block("", Routed(), {}, calls)])
    assert {name: one.num_tokens for name, one in seen.items()} == {"taken": 8, "idle": 0}


def test_no_training_data_is_an_error(
    job: Callable[..., Job], tiny_model_dir: Path, tmp_path: Path
) -> None:
    done = job(statistics.Settings(sequences=2, seed=None), model=tiny_model_dir, data=tmp_path)
    with pytest.raises(QuantshipError, match="needs training data"):
        statistics.run(done)
