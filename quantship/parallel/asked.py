"""Whether the model in training is sharded over the processes, which the command line decides."""

from __future__ import annotations

import os

from quantship import processes
from quantship.errors import UsageError

VARIABLE = "QUANTSHIP_FSDP"
"""Environment variable that says so."""
_OTHERS = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}
_THEIRS = (
    "ACCELERATE_USE_FSDP",
    "ACCELERATE_MIXED_PRECISION",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    "ACCELERATE_GRADIENT_CLIPPING",
)


def settle(*, fsdp: bool) -> None:
    """Take over what ``accelerate launch`` was asked for: the recipe alone decides the rest.

    accelerate and transformers act on those variables wherever they are: they would load empty
    weights in all processes but the first, and train in another precision than the recipe's.

    Args:
        fsdp: Whether the command line asks for FSDP2; ``accelerate launch --use_fsdp`` does, too.

    Raises:
        UsageError: accelerate was asked for what quantship does not do.
    """
    for variable, name in _OTHERS.items():
        if _is_set(variable):
            raise UsageError(
                f"accelerate launch was asked for {name}, which quantship does not train with; "
                "leave it out (data parallel), or give --use_fsdp (FSDP2)"
            )
    if fsdp or _is_set("ACCELERATE_USE_FSDP"):
        if _is_set("FSDP_OFFLOAD_PARAMS"):
            raise UsageError("quantship does not offload the parameters of FSDP; leave that out")
        os.environ[VARIABLE] = "1"
    for variable in list(os.environ):
        if variable in _THEIRS or variable.startswith(("FSDP_", "ACCELERATE_DYNAMO_")):
            del os.environ[variable]


def is_sharded() -> bool:
    """Whether each process keeps a share of the weights only, as FSDP2 does it."""
    return processes.number() > 1 and _is_set(VARIABLE)


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes")
