from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from quantship.algorithms import rtn
from quantship.blocks import encoding, engine, verification
from quantship.blocks.engine import Task, quantize
from quantship.blocks.parts import Parts
from quantship.errors import ParityError, QuantshipError
from quantship.models import float_class
from quantship.quant.checkpoint import WEIGHTS, load_codes
from quantship.quant.convert import convert
from quantship.quant.loading import load
from quantship.quant.modules import prepare_qat
from quantship.quant.numerics import dequantize
from quantship.quant.scheme import SCHEMES, ActivationFormat, Override, Scheme, WeightFormat
from quantship.recipe.language import QuantizeStep

Make = Callable[..., Path]
Batches = list[dict[str, Tensor]]
UP = "model.layers.1.mlp.up_proj"


def task(
    scheme: Scheme | str, folder: Path, batches: Batches | None = None, **options: Any
) -> Task:
    step = QuantizeStep.model_validate({"stage": "quantize", **options})
    scheme = SCHEMES[scheme] if isinstance(scheme, str) else scheme
    return Task(step, scheme, batches or [], Parts(folder / "parts", "job"))


def made(source: Path, given: Task, folder: Path) -> dict[str, bytes]:
    """Files of a checkpoint that is made now."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    quantize(source, given, out)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def converted(source: Path, scheme: Scheme, out: Path) -> dict[str, bytes]:
    """Files of the checkpoint that a model rounded as a whole becomes."""
    model = float_class(source).from_pretrained(source, dtype=torch.float32)
    out.mkdir()
    convert(prepare_qat(model, scheme), out)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_rounding_errors_are_those_of_the_checkpoint_and_survive_a_kill(
    float_dir: Make, tmp_path: Path
) -> None:
    source = float_dir("llama-untied")
    given = task("w4a16-g32", tmp_path)
    (tmp_path / "out").mkdir()
    first = quantize(source, given, tmp_path / "out")["rounding_errors"]
    model = float_class(source).from_pretrained(source, dtype=torch.float32)
    stored = load_codes(tmp_path / "out")
    assert first.keys() == stored.keys()
    for name, error in first.items():
        weight_OI = model.get_submodule(name).weight.detach()
        moved_OI = dequantize(stored[name].codes, torch.float32) - weight_OI
        assert error == pytest.approx(float(moved_OI.norm() / weight_OI.norm()), rel=1e-4)
    (tmp_path / "again").mkdir()
    resumed = quantize(source, given, tmp_path / "again")  # every part is there
    assert resumed["blocks_resumed"] > 0
    assert resumed["rounding_errors"] == first


CASES = [
    ("llama", "w8a8"),
    ("llama-untied", "w4a16-g32"),
    ("llama-untied", "w8a8-per-tensor"),
    ("gemma3", "w8a8-linear"),
    ("gpt2", "w4a8"),
    ("gpt2", "w8a8-symmetric"),
    ("bert", "w4a16-g32-asymmetric"),
    ("albert", "w8a16-linear"),
    ("mlp", "w8a8"),
]


@pytest.mark.parametrize(("kind", "scheme"), CASES)
def test_block_by_block_is_byte_for_byte_what_the_whole_becomes(
    float_dir: Make, tmp_path: Path, kind: str, scheme: str
) -> None:
    source = float_dir(kind)
    ours = made(source, task(scheme, tmp_path), tmp_path)
    assert ours == converted(source, SCHEMES[scheme], tmp_path / "whole")


def test_large_ends_are_rounded_in_parts(
    float_dir: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = SCHEMES["w8a8"].model_copy(
        update={
            "embedding": WeightFormat(bits=4, group_size=32, scale_dtype="bfloat16"),
            "head": WeightFormat(bits=5, group_size=16, symmetric=False),
        }
    )
    source = float_dir("llama-untied")
    expected = converted(source, scheme, tmp_path / "whole")
    monkeypatch.setattr("quantship.blocks.ends.CHUNK_NUMBERS", 640)
    assert made(source, task(scheme, tmp_path), tmp_path) == expected


def test_a_head_whose_inputs_are_rounded_is_a_layer_like_any_other(
    float_dir: Make, tmp_path: Path, batches: Batches
) -> None:
    static = ActivationFormat(granularity="per_tensor", ranges="static")
    for name, activation in (("dynamic", ActivationFormat()), ("static", static)):
        head = Override(layers="lm_head", weight=WeightFormat(bits=8), activation=activation)
        scheme = SCHEMES["w8a16"].model_copy(update={"overrides": (head,)})
        folder = tmp_path / name
        made(float_dir("llama-untied"), task(scheme, folder, batches), folder)
        stored = load_codes(folder / "out")["lm_head"]
        assert stored.activation == activation
        assert (stored.input_grid is not None) == (name == "static")


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_static_ranges_hold_what_reaches_a_layer(
    float_dir: Make, tmp_path: Path, batches: Batches, kind: str
) -> None:
    folder = tmp_path
    given = task("w8a8-static", folder, batches, calibration={"range": "minmax"})
    made(float_dir(kind), given, folder)
    grids = [stored.input_grid for stored in load_codes(folder / "out").values()]
    inner = [grid for grid in grids if grid is not None]
    assert len(inner) >= len(grids) - 2
    assert len({float(grid.scale) for grid in inner}) > len(inner) // 3


# One run of these is killed by its own hand: no test can wait for a moment between two blocks.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from blocks.test_engine import made, task
from blocks.conftest import batch_of
from quantship.blocks import parts
left, moment = int(sys.argv[4]), sys.argv[5]
rename = Path.rename
def count(path, target):
    global left
    if str(target).endswith(".json"):
        left -= 1
    at_end = moment == "between" and str(target).endswith(".json")
    if at_end:
        rename(path, target)
    if left == 0 and (at_end or moment == "within"):
        os.kill(os.getpid(), signal.SIGKILL)
    return target if at_end else rename(path, target)
Path.rename = count
folder = Path(sys.argv[3])
batches = [batch_of(length, seed) for seed, length in enumerate((24, 9, 1))]
made(Path(sys.argv[2]), task(sys.argv[6], folder, batches), folder)
"""


@pytest.mark.parametrize(
    ("scheme", "moment", "num_parts"),
    [
        ("w8a8-static", "between", 2),
        ("w8a8-static", "within", 3),
        ("w4a16-g32", "between", 3),
        ("w4a16-g32", "between", 5),
    ],
)
def test_a_killed_run_goes_on_where_it_was_and_ends_the_same(
    float_dir: Make, tmp_path: Path, batches: Batches, scheme: str, moment: str, num_parts: int
) -> None:
    """Parts: the embedding, three blocks, the tail. One killed within is not there."""
    source, folder = float_dir("llama"), tmp_path / "killed"
    unbroken = made(source, task(scheme, tmp_path, batches), tmp_path)
    here = str(Path(__file__).parents[1])
    given = [here, str(source), str(folder), str(num_parts), moment, scheme]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", KILLED, *given], env=environment, capture_output=True, text=True
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    done = num_parts - (moment == "within")
    finished = {path: path.stat() for path in (folder / "parts").glob("*.json")}
    assert len(finished) == done
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()
    facts = quantize(source, task(scheme, folder, batches), folder / "out")
    assert facts["blocks_resumed"] == min(done - 1, 3)
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == unbroken
    for path, before in finished.items():
        after = path.stat()
        assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_broken_part_is_made_anew(float_dir: Make, tmp_path: Path, batches: Batches) -> None:
    source = float_dir("gpt2")
    unbroken = made(source, task("w8a8-static", tmp_path, batches), tmp_path)
    part = tmp_path / "parts" / "transformer.h.1.safetensors"
    part.write_bytes(part.read_bytes()[:-40])
    (tmp_path / "again").mkdir()
    given = task("w8a8-static", tmp_path, batches)
    assert quantize(source, given, tmp_path / "again")["blocks_resumed"] == 2
    again = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert again == unbroken


def test_finished_blocks_are_not_rounded_again(
    float_dir: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = float_dir("llama")
    made(source, task("w8a8", tmp_path), tmp_path)

    def refuse(*given: object) -> list[str]:
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr(rtn, "quantize", refuse)
    (tmp_path / "again").mkdir()
    facts = quantize(source, task("w8a8", tmp_path), tmp_path / "again")
    assert facts["blocks_resumed"] == 3


def test_remarks_and_corrected_biases_survive(
    float_dir: Make, tmp_path: Path, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = rtn.quantize

    def remark(block: Any, *given: Any) -> list[str]:
        return [*ours(block, *given), f"a remark on {block.name or 'the tail'}", "a remark"]

    monkeypatch.setattr(rtn, "quantize", remark)
    source, facts = float_dir("bert"), []
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        given = task("w8a16", tmp_path, batches, bias_correction=True)
        facts.append(quantize(source, given, tmp_path / name))
    first, again = facts
    assert first["notes"].count("a remark") == 1
    assert "a remark on bert.encoder.layer.2" in first["notes"]
    assert first["bias_corrected"] == 3 * 6 + 2
    assert (first["blocks_resumed"], again["blocks_resumed"]) == (0, 3)
    assert {**again, "blocks_resumed": 0} == first


@torch.no_grad()
def test_corrected_biases_bring_the_mean_output_nearer(
    float_dir: Make, tmp_path: Path, batches: Batches
) -> None:
    source = float_dir("gpt2")
    whole = float_class(source).from_pretrained(source, dtype=torch.float32).eval()
    errors = []
    for corrects in (False, True):
        folder = tmp_path / str(corrects)
        given = task("w2a16-g32", folder, batches, bias_correction=corrects)
        made(source, given, folder)
        quantized = load(folder / "out")
        gaps = [
            (quantized(input_ids=ids).logits - whole(input_ids=ids).logits).mean(dim=1)
            for ids in (batch["input_ids"] for batch in batches)
        ]
        errors.append(float(torch.cat(gaps).norm()))
    assert errors[1] < errors[0]


@pytest.mark.parametrize("part", ["qdata", "scale"])
def test_a_file_that_holds_something_else_is_found(
    float_dir: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    ours = engine.assemble

    def spoil(*given: Any, **options: Any) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        ours(*given, **options)
        path = given[4] / WEIGHTS
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        tensors[f"{UP}._weight_{part}"][3, 0] += 1
        save_file(tensors, path, metadata=metadata)

    monkeypatch.setattr(engine, "assemble", spoil)
    with pytest.raises(ParityError, match=f"codes of {UP}, logits by up to [^n]"):
        made(float_dir("llama"), task("w8a8", tmp_path), tmp_path)


def test_codes_that_were_written_wrong_are_found(
    float_dir: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part and checkpoint agree then, but not with what was in memory."""
    ours = encoding.encode

    def other(codes: Any, *given: Any, **options: Any) -> Any:
        if codes.codes_OI.device.type == "cpu":
            codes = codes._replace(codes_OI=codes.codes_OI.roll(1, 0))
        return ours(codes, *given, **options)

    monkeypatch.setattr(encoding, "encode", other)
    with pytest.raises(ParityError, match=r"codes of model\.embed_tokens, "):
        made(float_dir("llama"), task("w4a16-g32", tmp_path), tmp_path)


def test_a_model_that_computes_something_else_is_found_by_its_logits(
    float_dir: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = verification.mapped

    def other(*given: Any, **options: Any) -> Any:
        model: Any = ours(*given, **options)
        model.model.norm.weight.data = model.model.norm.weight.data * 1.1
        return model

    monkeypatch.setattr(verification, "mapped", other)
    with pytest.raises(ParityError, match="codes of no layer, logits by up to 0"):
        made(float_dir("llama"), task("w8a8", tmp_path), tmp_path)


def spoiled(source: Path, name: str, out: Path) -> Path:
    """A copy of a model with one number that is none."""
    model = float_class(source).from_pretrained(source, dtype=torch.float32)
    with torch.no_grad():
        model.get_parameter(name).flatten()[7] = float("nan")
    model.save_pretrained(out)
    return out


def test_broken_weights_are_refused_with_data_and_without(
    float_dir: Make, tmp_path: Path, batches: Batches
) -> None:
    broken = spoiled(float_dir("llama"), f"{UP}.weight", tmp_path / "broken")
    with pytest.raises(QuantshipError, match=r"that leave block model\.layers\.1 are nan"):
        made(broken, task("w8a16", tmp_path / "a", batches), tmp_path / "a")
    with pytest.raises(ParityError, match="nan or infinite logits"):
        made(broken, task("w8a16", tmp_path / "b"), tmp_path / "b")


def test_a_bar_counts_blocks_and_names_layers(
    float_dir: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantship.progress import Bar

    moves: list[tuple[int, int | None, str | None]] = []

    def record(
        self: Bar, completed: int, total: int | None = None, note: str | None = None
    ) -> None:
        moves.append((completed, total, note))

    monkeypatch.setattr(Bar, "move_to", record)
    made(float_dir("llama"), task("w8a8", tmp_path), tmp_path)
    assert [completed for completed, _, _ in moves] == sorted(one for one, _, _ in moves)
    assert {total for _, total, _ in moves} == {4}
    assert moves[-1][0] == 4
    assert (1, 4, f"quantizing {UP}") in moves
