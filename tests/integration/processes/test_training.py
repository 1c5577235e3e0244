"""Two processes train as one does, and go on with what the other has begun."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from several import LAUNCHER, TIMEOUT_S, Start, ended, environment, wait_until, workers

from quantship import checkpoints
from quantship.quant.numerics import round_to_nearest
from quantship.quant.scheme import SCHEMES

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("train.py")
CASES = {
    # Largest difference of a step's loss, in nats, and of a weight; smallest share of equal codes
    # in a layer. Measured, with room of five times: floats are added up in another order, and where
    # a code flips, everything after it differs, soon by much, so fast do these few steps learn.
    "finetune": (3e-6, 1e-6, 1),
    "accumulated": (3e-6, 1e-6, 1),
    "uneven": (3e-6, 1e-6, 1),
    "classes": (1e-6, 1e-6, 1),
    "encoder": (1e-6, 2e-6, 1),
    "lora": (5e-6, 1e-4, 0.99),
    "qlora": (5e-6, 1e-4, 0.99),
    "w8a8": (1e-3, 2e-3, 0.85),
    "w4a16-g32": (1e-3, 2e-3, 0.95),
    "learned": (1e-3, 5e-3, 0.95),
    "static": (5e-4, 1e-4, 0.85),
    "distilled": (2e-3, 5e-3, 0.9),
    "distilled w8a8": (5e-4, 3e-3, 0.8),
    "recomputed": (1e-3, 2e-3, 0.95),
    "recomputed lora": (5e-6, 1e-4, 0.99),
    "compiled": (1e-3, 2e-3, 0.95),
    "bfloat16": (1e-2, 1e-2, 0.8),
}
SHARDED = (
    *("finetune", "encoder", "w4a16-g32", "learned", "static", "lora", "qlora"),
    *("distilled", "recomputed", "recomputed lora", "compiled", "bfloat16"),
)
TEAMS = {"together": tuple(CASES), "sharded": SHARDED}
RESUMED = ("finetune", "learned", "lora")
CROSSINGS = [
    *((begun_by, "alone", case) for begun_by in TEAMS for case in RESUMED),
    *(("alone", team, case) for team in TEAMS for case in RESUMED),
    *(("together", "sharded", "learned"), ("sharded", "together", "lora")),
]
HALF = "checkpoint-4"
UPSET = {"learning_rate": 1e30, "warmup_ratio": 0, "max_steps": 20}


@dataclass(frozen=True)
class Trained:
    """What a training ended with."""

    facts: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    @property
    def losses(self) -> list[float]:
        return [point["loss"] for point in self.facts["points"]]

    def part(self, kind: str) -> dict[str, torch.Tensor]:
        return {name: one for name, one in self.tensors.items() if name.startswith(f"{kind} ")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All trainings: by one process, by two together, and each going on from the other's."""
    path = tmp_path_factory.mktemp("trainings")
    do([request(path, "alone", case) for case in CASES], path, 1)
    both = [request(path, team, case) for team, cases in TEAMS.items() for case in cases]
    for begun_by, team, case in CROSSINGS:
        if team != "alone":
            both.append(request(path, team, case, begun_by))
    uneven = {"batch_size": 3, "gradient_accumulation": 3}
    both.append(request(path, "together", "finetune", name="undealt", **uneven))
    both.append(request(path, "together", "finetune", name="upset", **UPSET))
    do(both, path, 2)
    resumed = [(begun_by, case) for begun_by, team, case in CROSSINGS if team == "alone"]
    do([request(path, "alone", case, begun_by) for begun_by, case in resumed], path, 1)
    return path


def request(
    folder: Path, team: str, case: str, begun_by: str = "", name: str = "", **step: Any
) -> dict[str, Any]:
    """A training, perhaps from the checkpoint that another team has left in the middle of it."""
    room = folder / (name or place(team, begun_by)) / case
    return {
        "case": case,
        "sharded": team == "sharded",
        "step": {"logging_steps": 1, **step},
        "begun": str(folder / begun_by / case / "resume" / HALF) if begun_by else None,
        "resume": str(room / "resume"),
        "out": str(room / "out"),
    }


def place(team: str, begun_by: str = "") -> str:
    return f"{team} from {begun_by}" if begun_by else team


def do(requests: list[dict[str, Any]], folder: Path, number: int) -> None:
    """Do trainings in one process or in two."""
    file = folder / "requests.json"
    file.write_text(json.dumps(requests))
    command = [sys.executable, *(LAUNCHER if number > 1 else ()), str(SCRIPT), str(file)]
    done = subprocess.run(
        command,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]


def trained(folder: Path, team: str, case: str) -> Trained:
    room = folder / team / case / "out"
    return Trained(
        json.loads((room / "facts.json").read_text()), load_file(room / "tensors.safetensors")
    )


def require_equal(one: Trained, other: Trained, case: str) -> None:
    loss, weight, codes = CASES[case]
    assert one.losses == pytest.approx(other.losses, rel=0, abs=loss)
    ours, theirs = one.part("weight"), other.part("weight")
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) <= weight
    ours, theirs = one.part("codes"), other.part("codes")
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert float((ours[name] == theirs[name]).float().mean()) >= codes


@pytest.mark.parametrize(
    ("team", "case"), [(team, case) for team, cases in TEAMS.items() for case in cases]
)
def test_two_processes_train_what_one_does(team: str, case: str, folder: Path) -> None:
    alone, both = trained(folder, "alone", case), trained(folder, team, case)
    require_equal(both, alone, case)
    if case != "bfloat16":  # before any code has flipped
        first, theirs = alone.facts["points"][0], both.facts["points"][0]
        assert theirs["loss"] == pytest.approx(first["loss"], rel=0, abs=3e-6)
        assert theirs["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-5)
    assert both.facts["num_tokens"] == alone.facts["num_tokens"]
    assert both.facts["num_steps"] == alone.facts["num_steps"] == 8
    assert (both.facts["processes"], both.facts["sharded"]) == (2, team == "sharded")
    if "distillation" in alone.facts:
        terms = alone.facts["distillation"]
        assert both.facts["distillation"] == pytest.approx(terms, abs=CASES[case][0])


@pytest.mark.parametrize(("begun_by", "team", "case"), CROSSINGS)
def test_a_team_goes_on_with_what_another_has_begun(
    begun_by: str, team: str, case: str, folder: Path
) -> None:
    resumed = trained(folder, place(team, begun_by), case)
    assert resumed.facts["resumed_from"] == 4
    require_equal(resumed, trained(folder, "alone", case), case)


@pytest.mark.parametrize("team", TEAMS)
def test_codes_come_from_the_float32_weights_whatever_is_computed_with(
    team: str, folder: Path
) -> None:
    """Step 5 rounds the weights that the checkpoint after step 4 holds, to the bit."""
    case = trained(folder, team, "bfloat16")
    weights = load_file(folder / team / "bfloat16" / "resume" / HALF / "model.safetensors")
    weight = weights["model.layers.0.self_attn.q_proj.weight"]
    assert weight.dtype == torch.float32
    fmt = SCHEMES["w4a16-g32"].weight
    assert torch.equal(case.tensors["seen 4"], round_to_nearest(weight, fmt).codes_OI)
    rounded_before = round_to_nearest(weight.bfloat16().float(), fmt).codes_OI
    assert not torch.equal(case.tensors["seen 4"], rounded_before)  # it would show


def test_a_checkpoint_of_several_processes_is_an_ordinary_one(folder: Path) -> None:
    alone = load_file(folder / "alone" / "finetune" / "resume" / HALF / "model.safetensors")
    optimizer = torch.load(folder / "alone" / "finetune" / "resume" / HALF / "optimizer.pt")
    for team in TEAMS:
        path = folder / team / "finetune" / "resume" / HALF
        assert load_file(path / "model.safetensors").keys() == alone.keys()
        theirs = torch.load(path / "optimizer.pt", weights_only=True)
        for index, state in optimizer["state"].items():
            for name, value in state.items():
                torch.testing.assert_close(theirs["state"][index][name], value)


def test_what_cannot_be_dealt_out_is_refused(folder: Path) -> None:
    facts = trained(folder, "undealt", "finetune").facts
    assert "cannot be dealt out evenly to 2 processes" in facts["error"]


def test_all_processes_hear_of_a_loss_that_is_no_number(folder: Path) -> None:
    assert "a smaller learning_rate" in trained(folder, "upset", "finetune").facts["error"]


def test_a_stop_of_one_process_stops_all_after_the_same_step(
    torchrun: Start, tmp_path: Path
) -> None:
    asked = request(tmp_path, "together", "finetune", max_steps=100_000, save_steps=20)
    (tmp_path / "requests.json").write_text(json.dumps([asked]))
    process = torchrun(SCRIPT, tmp_path / "requests.json")
    resume = Path(asked["resume"])
    wait_until((resume / "checkpoint-20" / checkpoints.SEAL).exists, process)
    workers(process)[1].send_signal(signal.SIGTERM)
    done = ended(process)
    assert done.code == 0, done.err[-4000:]
    assert trained(tmp_path, "together", "finetune").facts["error"] == "interrupted"
    left = checkpoints.newest(resume)
    assert left is not None
    assert {f"rng_state_{index}.pth" for index in range(2)} <= {one.name for one in left.iterdir()}
