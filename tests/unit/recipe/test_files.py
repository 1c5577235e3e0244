from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantship.recipe import load

Write = Callable[..., Path]
Complaints = Callable[..., str]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory that looks like a saved model."""
    path = tmp_path / "a-model"
    path.mkdir()
    (path / "config.json").write_text('{"max_position_embeddings": 600, "hidden_size": 48}')
    (path / "model.safetensors").touch()
    return path


def test_a_saved_model_passes(write: Write, model: Path) -> None:
    assert load(write(), overrides=[f"model={model}"]).model.path == model
    assert load(write(), overrides=[f"model={{path: {model}}}"]).model.path == model


def test_a_plain_name_is_a_directory_where_there_is_one(
    write: Write, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    assert load(path, overrides=["model=a-model"]).model.hub == "a-model"
    monkeypatch.chdir(model.parent)
    assert load(path, overrides=["model=a-model"]).model.path == Path("a-model")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["model.safetensors"], "holds no config.json"),
        (["config.json"], "holds no *.safetensors"),
        (["config.json", "pytorch_model.bin"], "Convert them to safetensors"),
        (["config.json", "weights.pt"], "weights as pickle only (weights.pt)"),
    ],
)
def test_a_directory_that_is_no_model_is_refused(
    write: Write, complaints: Complaints, tmp_path: Path, names: list[str], said: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}")
    assert said in complaints(write(), overrides=[f"model={folder}"])


def test_a_model_that_is_not_there_is_refused(
    write: Write, complaints: Complaints, tmp_path: Path
) -> None:
    said = complaints(write(), overrides=[f"model={tmp_path}/gone"])
    assert f"model.path: no such directory: {tmp_path}/gone" in said
    said = complaints(write(), overrides=[f"model={write()}"])
    assert "is a file, not a model directory" in said


def test_a_config_that_is_not_json_is_refused(
    write: Write, complaints: Complaints, model: Path
) -> None:
    (model / "config.json").write_text("{")
    assert "config.json is not JSON" in complaints(write(), overrides=[f"model={model}"])


def test_data_files_must_be_there(write: Write, complaints: Complaints, tmp_path: Path) -> None:
    text = write().read_text().replace("builtin}", f"gsm8k, path: {tmp_path}}}")
    assert "data.train.0.path: is a directory" in complaints(write(text))
    text = text.replace(str(tmp_path), "gone.jsonl")
    assert "recipe.yaml:4: data.train.0.path: no such file: gone.jsonl" in complaints(write(text))
    (tmp_path / "there.jsonl").touch()
    load(write(text.replace("gone.jsonl", str(tmp_path / "there.jsonl"))))


@pytest.mark.parametrize(
    ("override", "key"),
    [("data.max_length=1025", "data.max_length"), ("benchmark.prompt_tokens=1000", "benchmark.p")],
)
def test_sequences_must_fit_the_models_positions(
    write: Write, complaints: Complaints, override: str, key: str
) -> None:
    said = complaints(write(), overrides=[override])
    assert key in said
    assert "more than the model's 1024 positions" in said


def test_sizes_are_read_from_a_saved_model(
    write: Write, complaints: Complaints, model: Path
) -> None:
    overrides = [f"model={model}", "data.max_length=601", "scheme=w4a16-g32"]
    said = complaints(write(), overrides=overrides)
    assert "more than the model's 600 positions" in said
    assert "groups of 32 do not divide the model's hidden_size of 48" in said


@pytest.mark.parametrize("name", ["x" * 5000, "./" + "x" * 5000, '"\\0"', '"./\\0"', '"\\ud800"'])
def test_names_that_no_file_can_have_are_refused(
    write: Write, complaints: Complaints, name: str
) -> None:
    text = write().read_text()
    assert "model" in complaints(write(text.replace("{tiny: {}}", name)))
    assert "extends" in complaints(write(f"extends: {name}\n{text}"))
    assert "data.train.0" in complaints(write(text.replace("builtin}", f"gsm8k, path: {name}}}")))
