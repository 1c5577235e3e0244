"""Adapters under transformers' Trainer: interrupted, checkpointed, taught."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from quantship.distillation import Teaching
from quantship.quant.differences import differing
from quantship.quant.layers import matrix
from quantship.quant.lora import add_adapters, merge
from quantship.quant.modules import codes_of, fake_quantized, prepare_qat
from quantship.quant.numerics import Codes, choose_grid
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import Distillation, QatStep
from quantship.recipe.rounding_options import Lora
from quantship.training import train

pytestmark = pytest.mark.usefixtures("one_thread")

Build = Callable[[str], Any]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(4, 96, (16, 10), generator=generator).tolist()
    return Dataset.from_dict({"input_ids": rows, "labels": rows})


def adapted(model: Any, *, base: str = "float32", learned: bool = False) -> Any:
    prepare_qat(model, SCHEMES["w4a8"])
    if learned:
        for _, layer in fake_quantized(model):
            grid = choose_grid(matrix(layer).detach(), layer.format.weight)
            layer.rounding.set_grid(grid, learned=True)
    torch.manual_seed(1)
    return add_adapters(model, Lora.model_validate({"rank": 4, "base": base}))


def trained(
    model: Any, dataset: Dataset, resume: Path, teaching: Teaching | None = None, **given: Any
) -> dict[str, Codes]:
    """Codes after four steps, or as many as are left of them."""
    usual = {
        "stage": "qat",
        "max_steps": 4,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "save_steps": 2,
    }
    step = QatStep.model_validate(usual | given)
    train(model, dataset, step, pad_token_id=0, seed=0, resume=resume, teaching=teaching)
    return codes_of(merge(model))


@pytest.mark.parametrize("base", ["float32", "nf4"])
@pytest.mark.parametrize("learned", [False, True])
def test_a_resumed_training_ends_in_the_same_codes(
    learned: bool, base: str, build: Build, dataset: Dataset, tmp_path: Path
) -> None:
    def fresh() -> Any:
        return adapted(build("tied"), base=base, learned=learned)

    whole = trained(fresh(), dataset, tmp_path)
    assert differing(whole, codes_of(prepare_qat(build("tied"), SCHEMES["w4a8"])))
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed = trained(fresh(), dataset, tmp_path)
    assert (tmp_path / "checkpoint-4").exists()
    assert not differing(whole, resumed)


def test_learned_grids_move_and_are_in_the_checkpoint(
    build: Build, dataset: Dataset, tmp_path: Path
) -> None:
    model = adapted(build("tied"), learned=True)
    before = {name: part.clone() for name, part in model.state_dict().items() if "rounding" in name}
    trained(model, dataset, tmp_path)
    again = adapted(build("tied"), learned=True)
    again.load_adapter(tmp_path / "checkpoint-4", "default", is_trainable=True)
    after = again.state_dict()
    assert before
    assert not [name for name, part in before.items() if torch.equal(part, after[name])]
    assert all(
        part.requires_grad for name, part in again.named_parameters() if name.endswith(".scale")
    )


def test_gradient_checkpointing_changes_nothing(
    build: Build, dataset: Dataset, tmp_path: Path
) -> None:
    plain = trained(adapted(build("tied")), dataset, tmp_path / "plain")
    saving = trained(
        adapted(build("tied")), dataset, tmp_path / "saving", gradient_checkpointing=True
    )
    assert not differing(plain, saving)


def test_several_micro_batches_make_a_step(build: Build, dataset: Dataset, tmp_path: Path) -> None:
    codes = trained(adapted(build("gpt2")), dataset, tmp_path, gradient_accumulation=2)
    assert differing(codes, codes_of(prepare_qat(build("gpt2"), SCHEMES["w4a8"])))


@pytest.mark.parametrize("hidden_states", [0.0, 1.0])
def test_a_float_model_teaches_adapters(
    hidden_states: float, build: Build, dataset: Dataset, tmp_path: Path
) -> None:
    teacher = build("tied").requires_grad_(False)
    teaching = Teaching(teacher, Distillation(hidden_states=hidden_states))
    taught = trained(adapted(build("tied")), dataset, tmp_path / "taught", teaching)
    alone = trained(adapted(build("tied")), dataset, tmp_path / "alone")
    assert differing(taught, alone)
