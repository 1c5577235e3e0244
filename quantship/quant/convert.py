"""From a fake-quantized model to a checkpoint that is proven to compute what was trained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quantship.artifact import Facts
from quantship.errors import ParityError
from quantship.mlp import MODEL_TYPE
from quantship.quant import checkpoint
from quantship.quant.loading import load
from quantship.quant.modules import codes_of, fake_quantized, input_grids
from quantship.quant.numerics import differing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_SHAPE = (2, 32)
"""Sequences and tokens of the random input on which logits are compared."""
LARGEST_RELATIVE_ERROR = 0.02
"""Of logits, root mean square, where torchao adds up integers and training added up floats."""


def convert(model: PreTrainedModel, out: Path, *, packed: bool = True) -> Facts:
    """Write the checkpoint of a fake-quantized model, load that again and compare.

    Args:
        model: Fake-quantized model.
        out: Existing directory for the checkpoint.
        packed: See ``checkpoint.save``.

    Returns:
        Parity of the reloaded checkpoint with the fake-quantized model: codes to the bit, and
        logits on random tokens.

    Raises:
        ParityError: The checkpoint does not hold or does not compute what the model does.
    """
    assert not hasattr(model, "peft_config"), "adapters are merged before a model is converted"
    formats = {name: module.format for name, module in fake_quantized(model)}
    codes = codes_of(model)
    checkpoint.save(model, formats, codes, input_grids(model), out, packed=packed)
    stored = {name: part.codes for name, part in checkpoint.load_codes(out).items()}
    different = differing(codes, stored)
    logits = _compare_logits(model, out)
    largest, relative = logits.pop("max_abs_logit_diff"), logits.pop("relative")
    exact = not any(format.scales_products for format in formats.values())
    allowed = 0.0 if exact else LARGEST_RELATIVE_ERROR
    if different or not relative <= allowed:  # NaN is not
        raise ParityError(
            "the checkpoint differs from the model it was made from: codes of "
            f"{', '.join(different) or 'no layer'}, logits by up to {largest:.3g} "
            f"({relative:.2%} of their root mean square)"
        )
    return {
        "codes_equal": True,
        "tensors_compared": len(codes),
        "max_abs_logit_diff": largest,
        **logits,
        "num_probe_tokens": math.prod(PROBE_SHAPE),
    }


def _probe(model: Any) -> dict[str, torch.Tensor]:
    """Random tokens, or for a model that classifies as many random samples."""
    generator = torch.Generator().manual_seed(0)
    if model.config.model_type == MODEL_TYPE:
        shape = (math.prod(PROBE_SHAPE), model.config.sizes[0])
        probe = torch.rand(shape, generator=generator)
    else:
        vocabulary = model.get_input_embeddings().num_embeddings
        probe = torch.randint(vocabulary, PROBE_SHAPE, generator=generator)
    return {model.main_input_name: probe.to(model.device)}


@torch.inference_mode()
def _compare_logits(model: Any, saved: Path) -> dict[str, float]:
    """How the reloaded checkpoint's logits differ from the model's on random tokens."""
    reloaded: Any = load(saved, device=str(model.device), dtype=torch.float32)
    probe = _probe(model)
    ours, theirs = model.eval()(**probe).logits, reloaded(**probe).logits
    if not bool(torch.isfinite(ours).all()):
        raise ParityError(
            "the model computes nan or infinite logits of random inputs: its weights are broken or "
            "too large for float32"
        )
    difference = ours - theirs
    log_p, log_q = ours.log_softmax(-1), theirs.log_softmax(-1)
    return {
        "max_abs_logit_diff": float(difference.abs().max()),
        "relative": _relative(difference, ours),
        "top1_agreement": float((ours.argmax(-1) == theirs.argmax(-1)).float().mean()),
        "kl_nats": float((log_p.exp() * (log_p - log_q)).sum(-1).mean()),
    }


def _relative(difference: torch.Tensor, ours: torch.Tensor) -> float:
    """Norm of a difference over that of the numbers: 0 for none, be they all zero."""
    apart, whole = difference.double().norm(), ours.double().norm()
    return float(apart / whole) if apart else 0.0
