from __future__ import annotations

import json
import shutil
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
    sizes = {"n_positions": 600, "n_embd": 48, "n_layer": 1, "n_head": 2}
    (path / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}))
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


def taught(recipe: Path, model: str, teacher: Path, **options: float) -> str:
    """The recipe with another model, and with a teacher for its ninth line."""
    distill = (
        f"{{teacher: {{path: {teacher}}}, {', '.join(f'{k}: {v}' for k, v in options.items())}}}"
    )
    text = recipe.read_text().replace("{tiny: {}}", model)
    return text.replace("stage: qat\n", f"stage: qat\n    distill: {distill}\n")


def changed(model: Path, copy: Path, **config: object) -> Path:
    """A copy of a model with another configuration."""
    shutil.copytree(model, copy)
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(values | config))
    return copy


@pytest.mark.parametrize("student", ["{tiny: {hidden_size: 64}}", "THERE", "me/on-the-hub"])
def test_a_teacher_of_the_same_vocabulary_passes(
    write: Write, tiny_model_dir: Path, student: str
) -> None:
    student = student.replace("THERE", str(tiny_model_dir))
    load(write(taught(write(), student, tiny_model_dir)))


@pytest.mark.parametrize("student", ["{tiny: {}}", "THERE"])
def test_a_teacher_that_cannot_teach_is_refused_where_it_is_named(
    write: Write, complaints: Complaints, tiny_model_dir: Path, tmp_path: Path, student: str
) -> None:
    student = student.replace("THERE", str(tiny_model_dir))
    teacher = changed(tiny_model_dir, tmp_path / "1", vocab_size=300)
    said = complaints(write(taught(write(), student, teacher)))
    assert "recipe.yaml:9: steps.1.distill.teacher.path: the teacher has another vocabulary" in said
    assert "it has 300 logits and the model it teaches 288" in said
    teacher = changed(tiny_model_dir, tmp_path / "2")
    tokenizer = (teacher / "tokenizer.json").read_text()
    (teacher / "tokenizer.json").write_text(tokenizer.replace("<|end|>", "<|stop|>"))
    said = complaints(write(taught(write(), student, teacher)))
    assert "token 1 is '<|end|>' in the model's tokenizer, and not in the teacher's" in said
    teacher = changed(tiny_model_dir, tmp_path / "3", num_hidden_layers=5)
    load(write(taught(write(), student, teacher)))
    said = complaints(write(taught(write(), student, teacher, hidden_states=1)))
    assert "the teacher has 5 layers" in said
    teacher = changed(tiny_model_dir, tmp_path / "4", quantization_config={"quant_type": "int8"})
    assert "holds a quantized model" in complaints(write(taught(write(), student, teacher)))
    said = complaints(write(taught(write(), student, tmp_path / "gone")))
    assert "recipe.yaml:9: steps.1.distill.teacher.path: no such directory" in said


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
    assert "groups of 32, and the 48 input features of layer 'transformer.h.0.attn" in said


@pytest.mark.parametrize("name", ["x" * 5000, "./" + "x" * 5000, '"\\0"', '"./\\0"', '"\\ud800"'])
def test_names_that_no_file_can_have_are_refused(
    write: Write, complaints: Complaints, name: str
) -> None:
    text = write().read_text()
    assert "model" in complaints(write(text.replace("{tiny: {}}", name)))
    assert "extends" in complaints(write(f"extends: {name}\n{text}"))
    assert "data.train.0" in complaints(write(text.replace("builtin}", f"gsm8k, path: {name}}}")))
