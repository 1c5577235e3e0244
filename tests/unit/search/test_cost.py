from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from quantship.models import weight_bytes
from quantship.quant.choices import Layer, layers_of
from quantship.quant.scheme import SCHEMES, Scheme, WeightFormat
from quantship.recipe.language import SearchStep
from quantship.search import latency
from quantship.search.cost import RuntimeName
from quantship.search.probe import Files, chosen_bytes, dealt, fixed_bytes

BASE = SCHEMES["w4a16-g32"]


def scheme(bits: int, group_size: int | None, **changes: Any) -> Scheme:
    dtype = "bfloat16" if group_size else "float32"
    weight = WeightFormat(bits=bits, group_size=group_size, scale_dtype=dtype, **changes)
    return BASE.model_copy(update={"name": f"{bits}-{group_size}", "weight": weight})


CANDIDATES = {
    "w8": scheme(8, None),
    "w8-g64": scheme(8, 64),
    "w5-g64": scheme(5, 64),
    "w4-g32": BASE,
    "w4-g16": scheme(4, 16),
    "w4-g64": scheme(4, 64),
    "w4-zeros": scheme(4, 32, symmetric=False),
    "w2-g32": scheme(2, 32),
}


@pytest.fixture
def files(tiny_model_dir: Path, layers: list[Layer], tmp_path: Path) -> Any:
    def files(runtime: RuntimeName) -> Files:
        step = SearchStep(
            stage="search", candidates=("w8a16", "w4a16-g32"), target_bits=5, runtime=runtime
        )
        return Files(tiny_model_dir, tmp_path, step, BASE, layers, tmp_path / runtime)

    return files


@pytest.fixture
def layers(tiny_model: Any) -> list[Layer]:
    return layers_of(tiny_model, BASE, CANDIDATES, embedding=False)


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchao"])
def test_bytes_are_those_of_real_files(files: Any, layers: list[Layer], runtime: Any) -> None:
    made, costs = files(runtime), chosen_bytes(layers, runtime)
    allocations = [dealt(layers), dealt(layers[2:] + layers[:2])]
    allocations += [dict.fromkeys(costs, name) for name in ("w8", "w4-g32", "w4-zeros")]
    rests = [fixed_bytes(made.make(chosen), layers, chosen) for chosen in allocations]
    # What is left is the rest of the model: the same but for names and nodes of the formats.
    weights = sum(layer.num_weights for layer in layers if layer.is_chosen)
    assert max(rests) - min(rests) < 0.04 * weights
    assert min(rests) > 0
    made.clear()
    assert not made.folder.exists()


def test_neighbours_are_dealt_different_formats(layers: list[Layer]) -> None:
    chosen = dealt(layers)
    assert chosen.keys() == {layer.name for layer in layers if layer.is_chosen}
    names = list(chosen.values())
    assert all(one != other for one, other in itertools.pairwise(names))
    assert set(names) == set(CANDIDATES)


def test_every_format_has_a_time(files: Any, layers: list[Layer]) -> None:
    made = files("onnxruntime").make(dict.fromkeys(dealt(layers), "w4-g32"))
    assert weight_bytes(made) > 0
    few = [layer for layer in layers if layer.is_chosen][:4]
    times = latency.measure(few, "nbits", made, vocabulary=100)
    assert times.layers.keys() == {layer.name for layer in few}
    assert all(0 < time < 1000 for one in times.layers.values() for time in one.values())
    alone = sum(min(one.values()) for one in times.layers.values())
    assert times.whole > 0
    assert alone < 100 * times.whole
