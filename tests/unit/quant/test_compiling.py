from __future__ import annotations

import copy
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from quantship.quant import checkpoint, compiling, lora
from quantship.quant.convert import convert
from quantship.quant.differences import differing
from quantship.quant.modules import codes_of, fake_quantized, prepare_qat
from quantship.quant.numerics import Codes
from quantship.quant.rounding import keep_codes, weights_changed
from quantship.quant.scheme import SCHEMES
from quantship.recipe.rounding_options import Lora

pytestmark = pytest.mark.usefixtures("one_thread")
NEEDS_A_COMPILER = pytest.mark.skipif(
    which("g++") is None and which("c++") is None, reason="Inductor needs a C++ compiler"
)
IDS = torch.arange(4, 36).reshape(2, 16)


def trained(model: Any, *, backend: str | None, steps: int = 3) -> list[float]:
    """Losses of a few steps, by a loop like the Trainer's."""
    keep_codes(model.train())
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    losses = []
    with compiling.compiled(model, backend is not None, backend or ""):
        for _ in range(steps):
            loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            weights_changed(model)
            losses.append(float(loss.detach()))
    return losses


@pytest.fixture(autouse=True)
def _forget_what_was_compiled() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["w8a8", "w8a8-symmetric", "w4a16-g32"])
def test_training_by_the_same_operations_ends_at_the_same_codes(
    name: str, tiny_model: PreTrainedModel
) -> None:
    """The backend ``eager`` does the very operations of eager PyTorch, so nothing may differ."""
    models = [prepare_qat(copy.deepcopy(tiny_model), SCHEMES[name]) for _ in range(2)]
    plain = trained(models[0], backend=None)
    assert trained(models[1], backend="eager") == plain
    assert plain[-1] < plain[0]
    assert not differing(codes_of(models[0]), codes_of(models[1]))


@pytest.mark.parametrize(
    "backend",
    ["aot_eager", pytest.param("inductor", marks=[pytest.mark.slow, NEEDS_A_COMPILER])],
)
def test_the_codes_that_compiled_training_used_are_those_that_ship(
    backend: str, tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    model: Any = prepare_qat(copy.deepcopy(tiny_model), SCHEMES["w4a16-g32"])
    plain = trained(prepare_qat(tiny_model, SCHEMES["w4a16-g32"]), backend=None)
    assert trained(model, backend=backend) == pytest.approx(plain, rel=0.02)
    used: dict[str, Codes] = {}
    with compiling.compiled(model.train(), backend=backend):
        model(input_ids=IDS, labels=IDS, use_cache=False)
    for layer, module in fake_quantized(model):
        if module.rounding._cached is not None:
            used[layer] = module.rounding._cached[1]
    assert len(used) == 15  # two blocks of seven, and the head on the rounding of the embedding
    assert convert(model, tmp_path)["codes_equal"]
    shipped = {layer: part.codes for layer, part in checkpoint.load_codes(tmp_path).items()}
    assert not differing(used, {layer: shipped[layer] for layer in used})


def test_adapters_compile_and_merge_to_the_codes_that_were_trained(
    tiny_model: PreTrainedModel,
) -> None:
    merged = []
    for backend in (None, "eager"):
        model = prepare_qat(copy.deepcopy(tiny_model), SCHEMES["w4a16-g32"])
        torch.manual_seed(0)
        adapted = lora.add_adapters(model, Lora(rank=4))
        trained(adapted, backend=backend)
        merged.append(codes_of(lora.merge(adapted)))  # merge itself compares with what was trained
    assert not differing(*merged)


def test_blocks_are_compiled_and_layers_that_round_are_not(tiny_model: PreTrainedModel) -> None:
    seen: list[torch.fx.GraphModule] = []

    def note(graph: torch.fx.GraphModule, _: object) -> Any:
        seen.append(graph)
        return graph.forward

    model = prepare_qat(tiny_model, SCHEMES["w8a8"])
    with compiling.compiled(model, backend=note):  # type: ignore[arg-type]
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    called = {str(node.target) for graph in seen for node in graph.graph.nodes}
    assert any("scaled_dot_product_attention" in one for one in called)
    assert any("silu" in one for one in called)
    assert not any("round" in one or "linear" in one for one in called)


def test_afterwards_the_model_is_as_before(tiny_model: PreTrainedModel) -> None:
    model = prepare_qat(tiny_model, SCHEMES["w8a8"])
    names = list(model.state_dict())
    with compiling.compiled(model, backend="eager"):
        assert list(model.state_dict()) == names
        assert all(one._compiled_call_impl is not None for one in compiling.blocks(model))
    assert all(one._compiled_call_impl is None for one in model.modules())
    assert not any("forward" in one.__dict__ for one in model.modules())
    copy.deepcopy(model)


def test_where_transformers_names_no_blocks_the_whole_model_is_one() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    assert compiling.blocks(model) == [model]


def test_nothing_is_compiled_where_it_is_not_wanted(tiny_model: PreTrainedModel) -> None:
    with compiling.compiled(tiny_model, False):
        assert all(one._compiled_call_impl is None for one in tiny_model.modules())
