"""From a model and its codes to a checkpoint that is proven to compute what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quantship.artifact import Facts
from quantship.errors import ParityError
from quantship.quant import checkpoint
from quantship.quant.modules import FakeQuantLinear, formats, prepare_qat
from quantship.quant.numerics import Codes

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

    from quantship.quant.scheme import Scheme, WeightFormat

PROBE_SHAPE = (2, 32)
"""Sequences and tokens of the random input on which logits are compared."""


def convert(
    model: PreTrainedModel,
    scheme: Scheme,
    quantize: Callable[[torch.Tensor, WeightFormat], Codes],
    out: Path,
) -> Facts:
    """Quantize a model, write its checkpoint, load that again and compare.

    Args:
        model: Float or fake-quantized model; fake-quantized afterwards.
        scheme: What to quantize, and how.
        quantize: Float matrix (O, I) and format to codes.
        out: Existing directory for the checkpoint.

    Returns:
        Parity of the reloaded checkpoint with the fake-quantized model: codes to the bit, and
        logits on random tokens.

    Raises:
        ParityError: The checkpoint does not hold or does not compute what the model does.
    """
    codes = {
        name: quantize(model.get_parameter(f"{name}.weight").detach(), weight)
        for name, (weight, _) in formats(model, scheme).items()
    }
    checkpoint.save(model, scheme, codes, out)
    if not any(isinstance(module, FakeQuantLinear) for module in model.modules()):
        prepare_qat(model, scheme)
    stored = checkpoint.load_codes(out)
    different = [
        name
        for name, (codes_OI, scale_OG) in codes.items()
        if not torch.equal(stored[name].codes.codes_OI, codes_OI)
        or not torch.equal(stored[name].codes.scale_OG, scale_OG)
    ]
    difference = _largest_logit_difference(model, out)
    if different or difference != 0:  # NaN differs as well
        raise ParityError(
            "the checkpoint differs from the model it was made from: codes of "
            f"{', '.join(different) or 'no layer'}, logits by up to {difference:.3g}"
        )
    return {
        "codes_equal": True,
        "tensors_compared": len(codes),
        "max_abs_logit_diff": difference,
        "num_probe_tokens": PROBE_SHAPE[0] * PROBE_SHAPE[1],
    }


@torch.inference_mode()
def _largest_logit_difference(model: Any, saved: Path) -> float:
    from transformers import AutoModelForCausalLM

    reloaded = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32).to(model.device)
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().num_embeddings
    tokens = torch.randint(vocabulary, PROBE_SHAPE, generator=generator).to(model.device)
    ours = model.eval()(input_ids=tokens, use_cache=False).logits
    theirs = reloaded.eval()(input_ids=tokens, use_cache=False).logits
    return float((ours - theirs).abs().max())
