from __future__ import annotations

import os

import pytest

from quantship.errors import UsageError
from quantship.parallel import asked

LAUNCHED = {
    "ACCELERATE_USE_FSDP": "true",
    "ACCELERATE_MIXED_PRECISION": "fp16",
    "ACCELERATE_DYNAMO_BACKEND": "inductor",
    "FSDP_VERSION": "2",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(asked.VARIABLE, "0")  # is put back afterwards


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("fsdp", [False, True])
def test_a_model_is_sharded_where_it_is_asked_for_and_there_are_several(
    processes: str, fsdp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", processes)
    asked.settle(fsdp=fsdp)
    assert asked.is_sharded() == (fsdp and processes == "2")


def test_accelerate_asks_too_and_then_leaves_it_to_quantship(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers.distributed.fsdp import is_fsdp_enabled

    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    asked.settle(fsdp=False)
    assert asked.is_sharded()
    assert not LAUNCHED.keys() & os.environ.keys()
    assert not is_fsdp_enabled()


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron"),
        ("FSDP_OFFLOAD_PARAMS", "offload"),
    ],
)
def test_what_is_not_done_is_refused(
    variable: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "true")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match=said):
        asked.settle(fsdp=False)
