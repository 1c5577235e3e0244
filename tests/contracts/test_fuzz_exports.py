"""Random models with ugly weights, under random schemes, export exactly or are refused.

Each seed makes one small decoder: odd widths and vocabularies, tied or not, with biases or without;
its matrices have outliers, rows of zeros or of one number, numbers too small for a normal float,
and factors of 1e30. It is rounded after training under a row of the table or a scheme that nobody
would write, and exported in every lowering. What comes out holds the checkpoint's integers and
computes what a torch model computes that rounds the same inputs in the way that the lowering
states, or there is an error that says why not.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quantship.errors import QuantshipError
from quantship.exporters import codes, decoder
from quantship.exporters.lowering import Lowering, reject
from quantship.quant import checkpoint, numerics
from quantship.quant.calibration import calibrate
from quantship.quant.convert import convert
from quantship.quant.layers import formats
from quantship.quant.modules import prepare_qat
from quantship.quant.scheme import SCHEMES, ActivationFormat, Override, Scheme, WeightFormat
from quantship.quant.tensors import StoredCodes
from quantship.recipe.rounding_options import Calibration
from quantship.runtimes.base import Logits, Tokens, open_runtime

NUM_SEEDS = 40
LOWERINGS = [one for one in get_args(Lowering) if one != "float"]
MANY, FEW = (48, 2), (8, 2)
"""Sequences and tokens: a prompt, and so few that ``hybrid`` takes its other branch."""
TYPICAL, ON_EDGE = 0.02, 0.2
"""Largest difference of the median sequence, in standard deviations. Most models stay a thousand
times below; some make a whole deviation of a value that is next to the edge of two codes, and where
inputs are rounded symmetrically, each token's lowest value is on one."""
NOTHING = 1e-37
"""Numbers below the smallest normal float are zero for some kernels."""

Hook = Callable[[nn.Module, tuple[Tensor]], Tensor]


def build(dice: random.Random) -> Any:
    """A decoder of one or two layers."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    heads = dice.choice([1, 2, 3])
    sizes = {
        "vocab_size": dice.choice([261, 263, 288, 301, 320, 333]),
        "hidden_size": heads * dice.choice([16, 32, 32, 33, 40, 64]),
        "intermediate_size": dice.choice([3, 8, 31, 32, 64, 96, 99, 128, 130]),
        "num_hidden_layers": dice.choice([1, 1, 2]),
        "num_attention_heads": heads,
        "num_key_value_heads": dice.choice([1, heads]),
        "tie_word_embeddings": dice.random() < 0.5,
    }
    fixed = {
        "head_dim": 16,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 3,
    }
    torch.manual_seed(dice.randrange(1 << 30))
    if dice.random() < 0.3:
        model: Any = Qwen2ForCausalLM(Qwen2Config(**sizes, **fixed))
    else:
        biases = {"attention_bias": dice.random() < 0.4, "mlp_bias": dice.random() < 0.4}
        model = LlamaForCausalLM(LlamaConfig(**sizes, **biases, **fixed))
    return model.float().eval()


@torch.no_grad()
def disfigure(model: Any, scheme: Scheme, dice: random.Random) -> None:
    """Give a model ugly weights, which a scheme can still tell from zero."""
    huge = dice.randrange(12)
    # One matrix is huge: the product of two is no float. And where all of a matrix has one scale,
    # nothing would be left of its other rows.
    formats = (scheme.weight, *(override.weight for override in scheme.overrides))
    if any(one is not None and one.granularity == "per_tensor" for one in formats):
        huge = -1
    for index, parameter in enumerate(model.parameters()):
        if parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter) * 0.1)
            continue
        parameter.normal_(std=dice.choice([0.05, 0.05, 0.2]))
        if index == huge:
            parameter[dice.randrange(len(parameter))].mul_(1e30)
        elif dice.random() < 0.45:
            spoil(parameter, dice)


def spoil(matrix: Tensor, dice: random.Random) -> None:
    """Make a matrix ugly in one of many ways."""
    row, column = dice.randrange(matrix.shape[0]), dice.randrange(matrix.shape[1])
    following = (row + 1) % matrix.shape[0]
    ways: list[Callable[[], object]] = [
        lambda: matrix[row, column].fill_(100.0),
        lambda: matrix[row].zero_(),
        lambda: matrix[row].fill_(0.37),
        lambda: matrix[:, column].zero_(),
        lambda: matrix[row].mul_(1e-40),
        lambda: matrix.zero_(),
        lambda: (matrix[row].mul_(1e-37), matrix[following].mul_(1e4)),
        lambda: matrix[row].abs_().neg_(),
    ]
    dice.choice(ways)()


def invent(dice: random.Random, model: Any) -> Scheme:
    """A row of the table, or a scheme of random formats."""
    if dice.random() < 0.3:
        return dice.choice([scheme for scheme in SCHEMES.values() if fits(model, scheme)])
    while True:
        try:
            scheme = Scheme(
                name="invented",
                **_layer(dice, model.config.intermediate_size),
                embedding=dice.choice([None, _weight(dice, model.config.hidden_size)]),
                head=dice.choice(["embedding", None, _weight(dice, model.config.hidden_size)]),
                overrides=_overrides(dice, model.config.hidden_size),
            )
        except ValueError:
            continue  # no torchao tensor serves such a pair
        if fits(model, scheme):
            return scheme


def fits(model: Any, scheme: Scheme) -> bool:
    """Whether the groups of a scheme divide the widths of a model."""
    try:
        formats(model, scheme)
    except ValueError:
        return False
    return True


def _layer(dice: random.Random, width: int) -> dict[str, Any]:
    activation = dice.choice(
        [
            None,
            ActivationFormat(),
            ActivationFormat(symmetric=True),
            ActivationFormat(granularity="per_tensor"),
            ActivationFormat(granularity="per_tensor", symmetric=True),
            ActivationFormat(granularity="per_tensor", ranges="static"),
        ]
    )
    return {"weight": _weight(dice, width), "activation": activation}


def _weight(dice: random.Random, width: int) -> WeightFormat:
    groups = [size for size in (1, 8, 16, 32, 64, 128, width) if width % size == 0]
    group_size = dice.choice([None, None, *groups])
    if dice.random() < 0.2:
        return WeightFormat(bits=8, granularity="per_tensor")
    return WeightFormat(
        bits=dice.choice([2, 3, 4, 4, 5, 6, 7, 8, 8, 8, 8]),
        group_size=group_size,
        symmetric=dice.random() < 0.6,
        scale_dtype=dice.choice(["float32", "bfloat16"]),
    )


def _overrides(dice: random.Random, width: int) -> tuple[Override, ...]:
    if dice.random() < 0.6:
        return ()
    layers = dice.choice(["*.q_proj", "*.mlp.*", "*.o_proj", "*.down_proj", "*.up_proj"])
    if dice.random() < 0.3:
        return (Override(layers=layers, weight=None),)
    return (Override(layers=layers, **_layer(dice, width)),)


def rounding(part: StoredCodes, lowering: Lowering, *, prompt: bool) -> Hook | None:
    """What a lowering states that it does to the input of a layer."""
    width, num_groups = part.codes.codes_OI.shape[1], part.codes.scale_OG.shape[1]
    rows = part.activation is not None and num_groups == 1
    if lowering == "qdq":
        if rows:
            return partial(divided if part.input_grid is not None else as_trained, part=part)
        if num_groups > 1 and width // num_groups not in (16, 32, 64, 128, 256):
            return None  # onnxruntime has no such MatMulNBits
        return partial(by_block, size=width // num_groups if num_groups > 1 else 32)
    wide = part.bits > 4 and part.codes.zero_OG is None
    if rows and (lowering == "integer" or (lowering == "hybrid" and prompt and wide)):
        return partial(as_trained, part=part)
    sizes = (128, 64, 32) if lowering == "hybrid" else (32,)
    fitting = [size for size in sizes if width % size == 0]
    return partial(
        by_block, size=width // num_groups if num_groups > 1 else max(fitting, default=16)
    )


def as_trained(_: nn.Module, args: tuple[Tensor], part: StoredCodes) -> Tensor:
    """Round as training did."""
    assert part.activation is not None
    return numerics.fake_quantize_input(args[0], part.activation, part.input_grid)


def divided(_: nn.Module, args: tuple[Tensor], part: StoredCodes) -> Tensor:
    """Round to a static grid by a division, as QuantizeLinear is defined."""
    assert part.input_grid is not None
    scale, zero = part.input_grid
    zero = torch.zeros(()) if zero is None else zero
    return ((args[0] / scale).round().add(zero).clamp(-128, 127) - zero) * scale


def by_block(_: nn.Module, args: tuple[Tensor], size: int) -> Tensor:
    """Round symmetrically, with a scale for each token and block of features."""
    values = args[0]
    width = values.shape[-1]
    blocks = nn.functional.pad(values, (0, -width % size)).unflatten(-1, (-1, size))
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    steps = torch.where(scale > 0, blocks / scale, 0).round()
    return (steps * scale).flatten(-2)[..., :width]


@torch.inference_mode()
def stated(model: Any, source: Path, lowering: Lowering, tokens: Tokens) -> Logits:
    """Logits of the float model with dequantized weights and inputs rounded as is stated."""
    model = copy.deepcopy(model)
    stored = checkpoint.load_codes(source)
    for name, part in stored.items():
        module = model.get_submodule(name)
        module.weight.copy_(numerics.dequantize(part.codes, torch.float32))
        if module is model.get_input_embeddings():
            tied = model.config.tie_word_embeddings
            module = model.get_output_embeddings() if tied else None
        hook = rounding(part, lowering, prompt=tokens.size > 16)
        if module is not None and hook is not None:
            module.register_forward_pre_hook(hook)
    logits: Logits = model(input_ids=torch.from_numpy(tokens)).logits.numpy()
    return logits


def quantize(model: Any, scheme: Scheme, out: Path, tokenizer: Any) -> Path:
    """A checkpoint of a model, rounded after training."""
    out.mkdir()
    fake: Any = prepare_qat(copy.deepcopy(model), scheme)
    if scheme.is_static:
        batch = torch.randint(4, 260, (4, 8), generator=torch.Generator().manual_seed(0))
        calibrate(fake, [batch], lambda ids: fake(input_ids=ids), Calibration())
    convert(fake, out)
    tokenizer.save_pretrained(out)
    return out


def rounds_symmetrically(source: Path) -> bool:
    """Whether the input of some layer is rounded symmetrically."""
    activations = [part.activation for part in checkpoint.load_codes(source).values()]
    return any(one is not None and one.symmetric for one in activations)


def check_logits(model: Any, source: Path, exported: Path, lowering: Lowering, seed: int) -> None:
    runtime = open_runtime(exported, 1)
    for shape in (MANY, FEW):
        tokens = np.random.default_rng(seed).integers(4, 260, shape)
        theirs = stated(model, source, lowering, tokens)
        ours = runtime.logits(tokens, np.ones_like(tokens))
        assert not (~np.isfinite(ours) & np.isfinite(theirs)).any(), "NaN where torch has none"
        whole = np.isfinite(theirs).all(axis=(1, 2))
        assert whole.any()  # convert has seen numbers too
        apart = np.abs(ours[whole].astype(np.float64) - theirs[whole]).max(axis=(1, 2))
        limit = ON_EDGE if rounds_symmetrically(source) else TYPICAL
        assert np.median(apart) <= limit * theirs[whole].std(dtype=np.float64) + NOTHING


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_a_random_model_exports_exactly_or_is_refused(
    seed: int, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    dice = random.Random(seed)
    model = build(dice)
    scheme = invent(dice, model)
    disfigure(model, scheme, dice)
    try:
        source = quantize(model, scheme, tmp_path / "source", tiny_tokenizer)
    except QuantshipError:
        return  # what the model computes is no number
    for lowering in LOWERINGS:
        if reject(scheme, lowering) is not None:
            continue
        exported = tmp_path / lowering
        exported.mkdir()
        try:
            decoder.export(source, lowering, scheme.name, exported, "x86")
        except QuantshipError:
            continue
        compared = codes.compare(exported, source)
        assert compared.equal, (lowering, compared.different)
        check_logits(model, source, exported, lowering, seed)
