"""Pickles lie wherever a folder of others is read; none of them is ever opened."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

import quantship
from quantship import checkpoints, models
from quantship.data import Source, rows
from quantship.errors import QuantshipError, RecipeError
from quantship.recipe import check
from quantship.recipe.language import FinetuneStep, TinyModel
from quantship.tiny import build_model, build_tokenizer
from quantship.training import train

NAMES = (
    *("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt", "model.pkl"),
    *("model.pt", "consolidated.00.pth", "tokenizer.pkl", "vocab.pkl", "scaler.pt"),
)
Plant = Callable[[Path], None]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


class Evil:
    """Leaves a mark on whoever unpickles it."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What is there once some pickle was opened."""
    return tmp_path / "opened"


@pytest.fixture
def plant(mark: Path) -> Plant:
    """Put a pickle in place of a file: torch's own form where its name says so."""

    def plant(file: Path) -> None:
        file.unlink(missing_ok=True)
        if file.suffix in (".bin", ".pt", ".pth"):
            torch.save({"weight": Evil(mark)}, file)
        else:
            file.write_bytes(pickle.dumps(Evil(mark)))

    return plant


@pytest.mark.parametrize("name", ["a.pkl", "a.pt"])
def test_these_pickles_are_dangerous(tmp_path: Path, mark: Path, plant: Plant, name: str) -> None:
    plant(tmp_path / name)
    if name.endswith(".pt"):
        torch.load(tmp_path / name, weights_only=False)
    else:
        pickle.loads((tmp_path / name).read_bytes())
    assert mark.exists()


def test_a_model_and_a_teacher_with_pickles_beside_their_weights(
    tiny_model_dir: Path, tmp_path: Path, mark: Path, plant: Plant
) -> None:
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    for name in NAMES:
        plant(folder / name)
    models.from_directory(folder)
    models.load_float(folder)
    models.load_tokenizer(folder)
    quantship.load(folder)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {folder}\nscheme: w8a8\ndata:\n  train: [{{adapter: builtin}}]\n"
        "  eval: [{adapter: builtin, split: eval}]\n"
        f"steps: [{{stage: qat, distill: {{teacher: {folder}}}}}]\n"
    )
    check(recipe)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_a_model_of_pickles_alone(
    tiny_model_dir: Path, tmp_path: Path, mark: Path, plant: Plant, name: str
) -> None:
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    plant(folder / name)
    recipe = tmp_path / "recipe.yaml"
    for where in (
        f"model: {folder}\n",
        f"model: {{tiny: {{}}}}\nsteps: [{{stage: qat, distill: {{teacher: {folder}}}}}]\n",
    ):
        steps = "" if "steps" in where else "steps: [{stage: qat}]\n"
        recipe.write_text(
            f"{where}{steps}scheme: w8a8\ndata:\n  train: [{{adapter: builtin}}]\n"
            "  eval: [{adapter: builtin, split: eval}]\n"
        )
        with pytest.raises(RecipeError, match=r"pickle only \(.*which can run any code") as caught:
            check(recipe)
        assert "safe_serialization=True" in str(caught.value)
    for read in (models.load_float, quantship.load):
        with pytest.raises(QuantshipError):
            read(folder)
    assert not mark.exists()


@pytest.mark.parametrize("ending", [".pkl", ".pt", ".npy", ".npz", ".joblib", ".tar"])
def test_a_folder_of_data(
    tmp_path: Path, mark: Path, plant: Plant, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydantic import TypeAdapter

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    plant(folder / f"train{ending}")
    for description in ("", "---\nconfigs:\n- config_name: default\n  data_files: train*\n---\n"):
        (folder / "README.md").write_text(description)
        source = {"adapter": "hub", "dataset": str(folder)}
        with pytest.raises(QuantshipError):
            list(rows(TypeAdapter(Source).validate_python(source)))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["pandas", "./pandas"])
def test_a_reader_of_pickles_by_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydantic import TypeAdapter

    monkeypatch.chdir(tmp_path)  # else it looks at every file below
    with pytest.raises(QuantshipError):
        list(rows(TypeAdapter(Source).validate_python({"adapter": "hub", "dataset": name})))


def test_a_data_set_with_a_script(tmp_path: Path, mark: Path) -> None:
    from pydantic import TypeAdapter

    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    (folder / "train.jsonl").write_text('{"text": "a"}\n')
    source = TypeAdapter(Source).validate_python({"adapter": "hub", "dataset": str(folder)})
    with pytest.raises(QuantshipError, match="script"):
        list(rows(source))
    assert not mark.exists()


def test_an_unfinished_training(tmp_path: Path, mark: Path, plant: Plant) -> None:
    sizes = TinyModel(hidden_size=32, intermediate_size=48, num_layers=1, num_heads=2)
    tokens = [[5, 6, 7, 8], [9, 10, 11, 12]]
    dataset = Dataset.from_dict({"input_ids": tokens, "labels": tokens})

    def go(steps: int) -> Any:
        model = build_model(sizes, build_tokenizer(64), seed=0)
        step = FinetuneStep(stage="finetune", max_steps=steps, save_steps=1, batch_size=1)
        return train(model, dataset, step, pad_token_id=0, seed=0, resume=tmp_path / "resume")

    go(1)
    (last,) = (tmp_path / "resume").glob("checkpoint-*")
    pickled = sorted(one.name for one in last.iterdir() if one.suffix in (".bin", ".pt", ".pth"))
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth"} <= set(pickled)
    kept = tmp_path / "kept"
    last.rename(kept)
    for name in pickled:
        shutil.rmtree(tmp_path / "resume", ignore_errors=True)
        shutil.copytree(kept, last)
        plant(last / name)
        checkpoints.seal(last)  # by somebody who knows how
        with suppress(Exception):  # the pipeline makes a StageError of it
            go(2)
        assert not mark.exists(), name


def test_archives_with_members_that_leave(tmp_path: Path) -> None:
    from pydantic import TypeAdapter

    folder = tmp_path / "data"
    folder.mkdir()
    with zipfile.ZipFile(folder / "train.zip", "w") as file:
        file.writestr("a.jsonl", json.dumps({"text": "a"}) + "\n")
        file.writestr("../b.jsonl", json.dumps({"text": "b"}) + "\n")
    source = TypeAdapter(Source).validate_python({"adapter": "hub", "dataset": str(folder)})
    with pytest.raises(QuantshipError):
        list(rows(source))
    assert not list(tmp_path.rglob("b.jsonl"))
