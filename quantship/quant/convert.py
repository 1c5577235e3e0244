"""From a fake-quantized model to a checkpoint that is proven to compute what was trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from quantship.artifact import Facts
from quantship.errors import ParityError
from quantship.mlp import MODEL_TYPE
from quantship.quant import checkpoint
from quantship.quant.differences import differing
from quantship.quant.loading import load
from quantship.quant.modules import codes_of, fake_quantized, input_grids

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
    reloaded: Any = load(out, device=str(model.device), dtype=torch.float32)
    inputs = probe(model)
    with torch.inference_mode():
        ours, theirs = model.eval()(**inputs).logits, reloaded(**inputs).logits
    exact = not any(format.scales_products for format in formats.values())
    return require_parity(different, len(codes), ours, theirs, exact=exact)


def require_parity(
    different: Sequence[str], num_tensors: int, ours: Tensor, theirs: Tensor, *, exact: bool
) -> Facts:
    """How a reloaded checkpoint compares with the model it was made from.

    Args:
        different: Names of the layers whose codes or grids differ.
        num_tensors: Layers compared.
        ours: The model's logits of the probe.
        theirs: The checkpoint's.
        exact: Whether torchao does the very operations that the model does, so that logits are
            equal to the bit.

    Raises:
        ParityError: Something differs that may not.
    """
    if not bool(torch.isfinite(ours).all()):
        raise ParityError(
            "the model computes nan or infinite logits of random inputs: its weights are broken or "
            "too large for float32"
        )
    largest, relative, agreeing, kl_nats = _compare(ours.flatten(0, -2), theirs.flatten(0, -2))
    if different or not relative <= (0.0 if exact else LARGEST_RELATIVE_ERROR):  # NaN is not
        raise ParityError(
            "the checkpoint differs from the model it was made from: codes of "
            f"{', '.join(different) or 'no layer'}, logits by up to {largest:.3g} "
            f"({relative:.2%} of their root mean square)"
        )
    return {
        "codes_equal": True,
        "tensors_compared": num_tensors,
        "max_abs_logit_diff": largest,
        "top1_agreement": agreeing,
        "kl_nats": kl_nats,
        "num_probe_tokens": math.prod(PROBE_SHAPE),
    }


def _compare(ours_TV: Tensor, theirs_TV: Tensor) -> tuple[float, float, float, float]:
    """Largest difference, relative difference, share of equal best tokens and mean KL of logits.

    Token by token: a large vocabulary makes logits larger than a block of the model.
    """
    num_tokens = ours_TV.shape[0]
    differences, agreeing, kl_nats = [], 0, 0.0
    apart = whole = 0.0
    for ours_V, theirs_V in zip(ours_TV, theirs_TV, strict=True):
        difference_V = ours_V - theirs_V
        differences.append(float(difference_V.abs().max()))
        apart += float(difference_V.double().square().sum())
        whole += float(ours_V.double().square().sum())
        agreeing += int(ours_V.argmax() == theirs_V.argmax())
        log_p_V, log_q_V = ours_V.log_softmax(-1), theirs_V.log_softmax(-1)
        kl_nats += float((log_p_V.exp() * (log_p_V - log_q_V)).sum())
    relative = math.sqrt(apart / whole) if apart else 0.0  # none is none, be all numbers zero
    largest = math.nan if any(map(math.isnan, differences)) else max(differences)
    return largest, relative, agreeing / num_tokens, kl_nats / num_tokens


def probe(model: Any) -> dict[str, Tensor]:
    """Random tokens, or for a model that classifies as many random samples."""
    generator = torch.Generator().manual_seed(0)
    random: Tensor
    if model.config.model_type == MODEL_TYPE:
        shape = (math.prod(PROBE_SHAPE), model.config.sizes[0])
        random = torch.rand(shape, generator=generator)
    else:
        vocabulary = model.get_input_embeddings().num_embeddings
        random = torch.randint(vocabulary, PROBE_SHAPE, generator=generator)
    return {model.main_input_name: random.to(model.device)}
