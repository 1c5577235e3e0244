"""Ten ways to break a recipe, each through the real command line.

Whatever is wrong, the user gets exit code 2, the file, the line where there is one, what is wrong
and what to do; no traceback; and nothing is made on disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import quantship

SOUND = """\
model: {tiny: {num_layers: 1}}
scheme: w8a16
data:
  train: [{adapter: builtin}]
  eval: [{adapter: builtin, split: eval}]
steps:
  - stage: finetune
    max_steps: 3
  - stage: qat
    input: finetune
  - stage: export
    input: qat
"""


@dataclass(frozen=True)
class Broken:
    """A broken recipe.

    Args:
        content: The file's bytes; None for no file.
        line: Line that must be named; None where there is none.
        wrong: What the output must say is wrong.
        remedy: What the output must say to do.
    """

    content: bytes | None
    line: int | None
    wrong: str
    remedy: str


def edited(old: str, new: str) -> bytes:
    assert SOUND.count(old) == 1
    return SOUND.replace(old, new).encode()


BROKEN = {
    "unknown key": Broken(
        edited("    max_steps: 3", "    max_stps: 3"),
        8,
        "steps.0.max_stps: unknown key",
        "Did you mean max_steps",
    ),
    "wrong type": Broken(
        edited("max_steps: 3", "max_steps: many"),
        8,
        "steps.0.max_steps: expected whole number, at least 1, or null, got the text 'many'",
        "Stop after this many optimizer steps",
    ),
    "missing file": Broken(
        edited("[{adapter: builtin}]", "[{adapter: gsm8k, path: data/train.jsonl}]"),
        4,
        "data.train.0.path: no such file: data/train.jsonl",
        "paths start from the current directory",
    ),
    "duplicate key": Broken(
        edited("    max_steps: 3", "    max_steps: 3\n    max_steps: 5"),
        9,
        "steps.0.max_steps: duplicate key, first written on line 8",
        "Keep one of the two",
    ),
    "cyclic input": Broken(
        edited("  - stage: finetune", "  - stage: finetune\n    input: qat"),
        8,
        "steps.0.input: inputs go in a circle: finetune → qat → finetune",
        "Possible here: model",
    ),
    "unknown scheme": Broken(
        edited("scheme: w8a16", "scheme: w8a9"),
        2,
        "scheme: unknown scheme 'w8a9'",
        "Did you mean w8a8",
    ),
    "scheme an export cannot lower": Broken(
        edited("    input: qat", "    input: qat\n    lowering: integer"),
        13,
        "steps.2.lowering: cannot export 'qat'",
        "Choose another lowering",
    ),
    "tab indentation": Broken(
        edited("    max_steps: 3", "\tmax_steps: 3"), 8, "a tab", "Indent with spaces"
    ),
    "empty file": Broken(b"", None, "is empty", "A recipe needs model, data and steps"),
    "binary file": Broken(
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 50, 1, "not UTF-8 text", "Name a recipe"
    ),
}
COMMANDS = {"check": ["check"], "run": ["run"], "shorthand": []}


def quantship_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quantship", *arguments]
    home = str(cwd / "home")
    places = {"HOME": home, "HF_HOME": home, "XDG_CACHE_HOME": home, "TMPDIR": home}
    environment = os.environ | places | {"PYTHONPATH": str(Path(quantship.__file__).parents[1])}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder that is its own home, so that anything made can be seen."""
    (tmp_path / "home").mkdir()
    return tmp_path


def test_the_recipe_that_is_broken_below_is_sound(folder: Path) -> None:
    (folder / "sound.yaml").write_text(SOUND)
    assert quantship_command("check", "sound.yaml", cwd=folder).returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_recipe_is_refused_in_plain_words(folder: Path, name: str, command: str) -> None:
    broken = BROKEN[name]
    assert broken.content is not None
    (folder / "broken.yaml").write_bytes(broken.content)
    done = quantship_command(*COMMANDS[command], "broken.yaml", cwd=folder)
    assert done.returncode == 2
    place = f"broken.yaml:{broken.line}: " if broken.line else "broken.yaml: "
    first, *rest = done.stderr.splitlines()
    assert first.startswith(place)
    assert broken.wrong in first
    assert broken.remedy in " ".join(rest)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(folder.rglob("*")) == [folder / "broken.yaml", folder / "home"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_recipe_that_is_not_there_is_refused(folder: Path, command: str) -> None:
    done = quantship_command(*COMMANDS[command], "gone.yaml", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("gone.yaml: no such file\n")
    assert "Traceback" not in done.stderr
    assert list(folder.rglob("*")) == [folder / "home"]


def test_all_that_is_wrong_is_told_at_once(folder: Path) -> None:
    text = SOUND.replace("max_steps: 3", "max_stps: 3\n    epochs: -1").replace("w8a16", "w8")
    text = text.replace("{adapter: builtin}", "{adapter: gsm8k, path: gone.jsonl}")
    text += "push: {repo: nowhere, models: [qat]}\nprofiles: {smoke: {steps.qat.lr: 1}}\n"
    (folder / "broken.yaml").write_text(text)
    done = quantship_command("check", "broken.yaml", "--set", "sed=1", cwd=folder)
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if not line.startswith(" ")]
    places = [line.split(": ")[:2] for line in told]
    assert places == [
        ["sed", "unknown key (from --set)"],
        ["broken.yaml:2", "scheme"],
        ["broken.yaml:8", "steps.0.max_stps"],
        ["broken.yaml:9", "steps.0.epochs"],
        ["broken.yaml:14", "push.repo"],
        ["broken.yaml:15", "steps.1.lr"],
    ]
