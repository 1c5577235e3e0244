"""A model's folder holds data alone, or is refused before a library looks at it."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import quantship
from quantship import models
from quantship.errors import QuantshipError, RecipeError
from quantship.model_folder import find_dangers, require_data_only
from quantship.recipe import check

ARCHITECTURE = """\
from pathlib import Path
Path(__file__).with_name("ran").touch()
"""


@pytest.fixture
def folder(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def put(folder: Path, name: str, **values: Any) -> None:
    file = folder / name
    before = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**before, **values}))


def test_a_sound_folder_passes(folder: Path) -> None:
    assert list(find_dangers(folder)) == []
    models.from_directory(folder)


CHANGES = [
    ("config.json", {"auto_map": {"AutoConfig": "evil.Config"}}, "code of the model's own"),
    ("config.json", {"text_config": {"auto_map": {"AutoModel": "evil.M"}}}, "code of the model"),
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "code of the"),
    ("processor_config.json", {"auto_map": {"AutoProcessor": "evil.P"}}, "code of the model"),
    ("config.json", {"attn_implementation": "evil/attention"}, "a kernel to fetch"),
    ("config.json", {"_attn_implementation": {"text": "evil/attention"}}, "a kernel to fetch"),
    ("config.json", {"experts_implementation": "evil/experts"}, "a kernel to fetch"),
    ("config.json", {"transformers_weights": "../model.safetensors"}, "no name of a file beside"),
    ("tokenizer_config.json", {"vocab_file": "/etc/passwd"}, "no name of a file beside"),
    ("tokenizer_config.json", {"fast_tokenizer_files": ["../t.json"]}, "no name of a file beside"),
    ("adapter_config.json", {"base_model_name_or_path": "/x"}, "an adapter of another model"),
    ("model.safetensors.index.json", {"weight_map": {"a": "../m.safetensors"}}, "of elsewhere"),
    ("model.safetensors.index.json", {"weight_map": {"a": "/m.safetensors"}}, "of elsewhere"),
]


@pytest.mark.parametrize(("name", "values", "message"), CHANGES)
def test_dangers_are_refused_wherever_a_folder_is_read(
    folder: Path, tmp_path: Path, name: str, values: dict[str, Any], message: str
) -> None:
    put(folder, name, **values)
    (folder / "evil.py").write_text(ARCHITECTURE)
    for read in (
        models.from_directory,
        models.load_tokenizer,
        models.load_float,
        quantship.load,
        require_data_only,
    ):
        with pytest.raises(QuantshipError, match=message):
            read(folder)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {folder}\nscheme: w8a8\ndata: {{eval: [{{adapter: builtin, split: eval}}]}}\n"
        "steps: [{stage: quantize}]\n"
    )
    with pytest.raises(RecipeError, match=message) as caught:
        check(recipe)
    assert all(problem.remedy for problem in caught.value.problems)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "named", [["pipeline"], ["AutoModel"], ["os"], [], None, [None], "x", [{}]]
)
def test_a_class_that_is_no_model_of_transformers(folder: Path, named: object) -> None:
    put(folder, "config.json", architectures=named)
    with pytest.raises(QuantshipError, match="names no model that transformers has"):
        quantship.load(folder)


def test_code_of_a_folder_runs_nowhere_even_where_the_guard_is_passed_by(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The libraries are told so as well."""
    put(
        folder,
        "config.json",
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.M"},
        model_type="of-its-own",
        architectures=["LlamaForCausalLM"],
    )
    put(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]})
    (folder / "evil.py").write_text(ARCHITECTURE)
    monkeypatch.setattr("quantship.model_folder.find_dangers", lambda folder: iter(()))
    monkeypatch.setattr("builtins.input", lambda *question: pytest.fail(f"asked {question}"))
    for read in (models.load_tokenizer, models.load_float, quantship.load):
        try:
            read(folder)
        except QuantshipError:
            continue
    assert not list(folder.rglob("ran"))


def test_every_call_that_could_run_code_says_that_it_must_not() -> None:
    """AutoClasses read auto_map; nothing else in the package is given a way to code."""
    package = Path(quantship.__file__).parent
    calls = []
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = ast.unparse(node.func.value)
            if node.func.attr == "from_pretrained" and owner.startswith("Auto"):
                given = {one.arg: ast.unparse(one.value) for one in node.keywords}
                calls.append((f"{file.name}:{node.lineno}", given.get("trust_remote_code")))
    assert len(calls) >= 8
    assert [place for place, said in calls if said != "False"] == []


def test_no_file_is_unpickled() -> None:
    """By torch, numpy, pandas or Python itself.

    The processes of one run send each other pickles, as torch.distributed does: memory to memory.
    """
    package = Path(quantship.__file__).parent
    banned = {"torch.load", "pickle.load", "pickle.loads", "joblib.load", "pandas.read_pickle"}
    found = []
    files = set(package.rglob("*.py")) - set((package / "processes").rglob("*.py"))
    assert len(files) > 300
    for file in sorted(files):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [one.name for one in node.names] + [getattr(node, "module", None)]
                found += [f"{file}: {one}" for one in names if one in ("pickle", "joblib", "dill")]
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                allows = any(
                    one.arg == "allow_pickle" and ast.unparse(one.value) != "False"
                    for one in node.keywords
                )
                if name in banned or allows:
                    found.append(f"{file}:{node.lineno}: {name}")
    assert found == []
