"""Ways to break a recipe, each through the real command line.

Whatever is wrong, the user gets exit code 2, the file, the line where there is one, what is wrong
and what to do; no traceback; and nothing is made on disk.
"""

from __future__ import annotations

import json
import os
import shutil
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
    "unknown scheme beside an own one": Broken(
        edited("scheme: w8a16", "scheme: mixd\nschemes: {mixed: {base: w8a16}}"),
        2,
        "scheme: unknown scheme 'mixd'",
        "Did you mean mixed? Schemes: w2a16-g32",
    ),
    "own scheme of a wrong value": Broken(
        edited("scheme: w8a16", "schemes:\n  w9:\n    weight: {bits: 9}\nscheme: w9"),
        4,
        "schemes.w9.weight.bits: expected whole number, at least 2, at most 8, got the number 9",
        "Bits of one code",
    ),
    "own scheme that no runtime serves": Broken(
        edited(
            "scheme: w8a16",
            "schemes:\n  w4:\n    weight: {bits: 4}\n    activation: {symmetric: true}\nscheme: w4",
        ),
        5,
        "schemes.w4.activation: torchao serves symmetric per-token activations on 8-bit symmetric",
        "Use such weights, or asymmetric per-token activations.",
    ),
    "groups that do not divide": Broken(
        edited("scheme: w8a16", "schemes: {g96: {weight: {bits: 4, group_size: 96}}}\nscheme: g96"),
        2,
        "schemes.g96: scheme 'g96' cuts weights into groups of 96, and the 128 input features of",
        "Choose a scheme whose group size divides them",
    ),
    "override that matches no layer": Broken(
        edited(
            "scheme: w8a16",
            "scheme: mine\nschemes:\n  mine:\n    base: w8a16\n    overrides:\n"
            '      - {layers: "*.down_prj", weight: float}',
        ),
        7,
        "schemes.mine.overrides.0: the override '*.down_prj' of scheme 'mine' matches no layer",
        "A pattern is compared with whole names",
    ),
    "adapter for no layer": Broken(
        edited("    input: finetune", "    input: finetune\n    lora: {targets: [query]}"),
        11,
        "steps.1.lora.targets.0: the LoRA target 'query' matches no linear layer",
        "What could match: all-linear, down_proj",
    ),
    "calibration of a scheme without static ranges": Broken(
        edited("    input: finetune", "    input: finetune\n    calibration: {sequences: 4}"),
        11,
        "steps.1.calibration: calibration finds static input ranges, and scheme 'w8a16' has none",
        "Leave calibration out",
    ),
    "quantized model to quantize": Broken(
        edited("    input: qat", "    input: qat\n  - {stage: quantize, input: qat}"),
        13,
        "steps.3.input: 'qat' leaves a quantized model, and quantize needs a float model",
        "Possible here: model, finetune",
    ),
    "unknown algorithm": Broken(
        edited("  - stage: qat", "  - {stage: quantize, algorithm: gtpq}\n  - stage: qat"),
        9,
        "steps.1.algorithm: unknown algorithm 'gtpq'",
        "Did you mean gptq? Allowed: awq, gptq, hqq, rtn, smoothquant.",
    ),
    "unknown option of an algorithm": Broken(
        edited(
            "  - stage: qat",
            "  - stage: quantize\n    algorithm:\n      kind: awq\n      clp: false\n"
            "  - stage: qat",
        ),
        12,
        "steps.1.algorithm.clp: unknown key",
        "Did you mean clip?",
    ),
    "wrong value in a sweep": Broken(
        edited("max_steps: 3", "max_steps:\n      - 3\n      - many"),
        10,
        "steps.0.max_steps.1: expected whole number, at least 1, or null, got the text 'many'",
        "Stop after this many optimizer steps",
    ),
    "sweep over one value": Broken(
        edited("max_steps: 3", "max_steps: [3]"),
        8,
        "steps.0.max_steps: a list of one sweeps over nothing",
        "Write one value, or two or more to make a step of each.",
    ),
    "sweep over lists": Broken(
        edited("max_steps: 3", "max_steps: [3, [4, 5]]"),
        8,
        "steps.0.max_steps.1: a list in a list of values to sweep over",
        "Write out each value",
    ),
    "sweep without end": Broken(
        edited("max_steps: 3", f"max_steps: {[*range(1, 300)]}"),
        7,
        "steps.0: its lists come to 299 steps, and 256 are the most",
        "Shorten a list",
    ),
    "swept teacher": Broken(
        edited(
            "    max_steps: 3\n  - stage: qat\n    input: finetune",
            "    max_steps: [3, 4]\n  - stage: qat\n    input: model\n"
            "    distill: {teacher: finetune}",
        ),
        11,
        "steps.1.distill.teacher: 'finetune' is swept and means 2 steps, and a teacher is one",
        "Name one of: finetune-max_steps-3, finetune-max_steps-4.",
    ),
    "scheme an export cannot lower": Broken(
        edited("    input: qat", "    input: qat\n    lowering: integer"),
        13,
        "steps.2.lowering: cannot export 'qat'",
        "Choose another lowering",
    ),
    "teacher that comes later": Broken(
        edited("    input: finetune", "    input: finetune\n    distill: {teacher: export}"),
        11,
        "steps.1.distill.teacher: step 'export' comes later",
        "Steps that can teach here: model, finetune",
    ),
    "teacher that no step is called like": Broken(
        edited("    input: finetune", "    input: finetune\n    distill: {teacher: fintune}"),
        11,
        "steps.1.distill.teacher: no step is called 'fintune'",
        "Did you mean finetune",
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
    made = {path.name for path in folder.rglob("*") if not path.name.startswith("torchinductor_")}
    assert made == {"broken.yaml", "home"}  # and a temporary folder of torch's own


@pytest.mark.parametrize("command", COMMANDS)
def test_a_teacher_of_another_vocabulary_is_refused(
    folder: Path, command: str, tiny_model_dir: Path
) -> None:
    teacher = folder / "home" / "teacher"
    shutil.copytree(tiny_model_dir, teacher)
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    distill = "    input: finetune\n    distill: {teacher: ./home/teacher}"
    (folder / "broken.yaml").write_bytes(edited("    input: finetune", distill))
    before = sorted(folder.rglob("*"))
    done = quantship_command(*COMMANDS[command], "broken.yaml", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "broken.yaml:11: steps.1.distill.teacher.path: the teacher has another vocabulary: "
        "it has 300 logits and the model it teaches 288\n    A teacher must have the tokenizer"
    )
    assert done.stdout == ""
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_recipe_that_is_not_there_is_refused(folder: Path, command: str) -> None:
    done = quantship_command(*COMMANDS[command], "gone.yaml", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("gone.yaml: no such file\n")
    assert "Traceback" not in done.stderr
    assert list(folder.rglob("*")) == [folder / "home"]


def test_data_that_is_all_masked_ends_the_run_before_any_training(folder: Path) -> None:
    silent = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    text = SOUND.replace("data:\n", f'data:\n  chat_template: "{silent}"\n')
    (folder / "silent.yaml").write_text(text)
    done = quantship_command("run", "silent.yaml", cwd=folder)
    assert done.returncode == 3
    assert done.stderr.startswith("step 'data' failed: builtin train: nothing to use in ")
    assert "have no token to predict\n    data.mask_prompt leaves assistant turns" in done.stderr
    assert "Traceback" not in done.stderr
    assert not any((folder / "artifacts" / stage).exists() for stage in ("finetune", "qat"))


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
        ["broken.yaml:4", "data.train.0.path"],
        ["broken.yaml:8", "steps.0.max_stps"],
        ["broken.yaml:9", "steps.0.epochs"],
        ["broken.yaml:14", "push.repo"],
        ["broken.yaml:15", "steps.1.lr"],
    ]
