from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional as F

from quantship.quant import numerics
from quantship.quant.adapted import AdaptedLinear
from quantship.quant.convert import convert
from quantship.quant.differences import differing
from quantship.quant.layers import matrix
from quantship.quant.lora import AdaptedModel, add_adapters, merge
from quantship.quant.modules import codes_of, fake_quantized, prepare_qat
from quantship.quant.nf4 import dense
from quantship.quant.numerics import Codes, choose_grid
from quantship.quant.rounding import keep_codes, weights_changed
from quantship.quant.scheme import SCHEMES
from quantship.recipe.rounding_options import Lora

pytestmark = pytest.mark.usefixtures("one_thread")

Build = Callable[[str], Any]
LORA = Lora(rank=4, alpha=8)
QLORA = LORA.model_copy(update={"base": "nf4"})


def adapted(model: nn.Module, scheme: str, lora: Lora = LORA, *, learned: bool = False) -> Any:
    """A model with adapters; adapters start from the same numbers each time."""
    prepare_qat(model, SCHEMES[scheme])
    if learned:
        for _, layer in fake_quantized(model):
            grid = choose_grid(matrix(layer).detach(), layer.format.weight)
            layer.rounding.set_grid(grid, learned=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return add_adapters(model, lora).train()


def step(model: nn.Module, tokens: Tensor, *, times: int = 3) -> nn.Module:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    for _ in range(times):
        loss_of(model, tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
        weights_changed(model)
    return model


def loss_of(model: nn.Module, tokens: Tensor) -> Tensor:
    loss: Tensor = model(input_ids=tokens, labels=tokens).loss
    return loss


def adapters_of(model: nn.Module) -> dict[str, AdaptedLinear]:
    return {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, AdaptedLinear)
    }


def codes_in_use(model: nn.Module, tokens: Tensor) -> dict[str, Codes]:
    """The very codes that a forward pass in training multiplies by."""
    keep_codes(model)
    loss_of(model, tokens)
    found = {}
    for name, layer in adapters_of(model).items():
        cached = layer.base_layer.rounding._cached
        assert cached is not None
        found[name] = cached[1]
    return found


@pytest.mark.parametrize("base", ["float32", "nf4"])
@pytest.mark.parametrize("scheme", ["w8a8", "w4a16-g32", "w4a8", "w8a8-symmetric"])
@pytest.mark.parametrize("architecture", ["tied", "untied", "gpt2"])
def test_merged_and_written_codes_are_those_that_were_trained(
    architecture: str, scheme: str, base: str, build: Build, tokens: Tensor, tmp_path: Path
) -> None:
    lora = LORA.model_copy(update={"base": base})
    model = step(adapted(build(architecture), scheme, lora), tokens)
    trained = codes_in_use(model, tokens)
    expected = model.eval()(input_ids=tokens).logits
    merged: Any = merge(model)  # type: ignore[arg-type]
    assert not [module for module in merged.modules() if isinstance(module, AdaptedLinear)]
    codes = codes_of(merged)
    assert not differing(trained, {name: codes[name] for name in trained})
    assert torch.equal(merged.eval()(input_ids=tokens).logits, expected)
    started = prepare_qat(build(architecture), SCHEMES[scheme])
    assert set(trained) <= set(differing(codes, codes_of(started)))
    assert convert(merged, tmp_path)["codes_equal"]


def test_merged_codes_are_those_trained_under_autocast(tied: Any, tokens: Tensor) -> None:
    model = adapted(tied, "w8a8")
    with torch.autocast("cpu", torch.bfloat16):
        step(model, tokens)
        trained = codes_in_use(model, tokens)
    codes = codes_of(merge(model))
    assert not differing(trained, {name: codes[name] for name in trained})


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("scheme", ["w8a8", "w4a16-g32", "w4a8"])
@pytest.mark.parametrize("architecture", ["tied", "gpt2"])
def test_plain_peft_merges_the_adapter_into_the_codes_that_were_trained(
    architecture: str, scheme: str, learned: bool, build: Build, tokens: Tensor, tmp_path: Path
) -> None:
    model = step(adapted(build(architecture), scheme, learned=learned), tokens)
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    merged = merge(model)  # type: ignore[arg-type]
    theirs = PeftModel.from_pretrained(build(architecture), tmp_path).merge_and_unload()
    for name, layer in fake_quantized(merged):
        weight_OI = matrix(theirs.get_submodule(name)).detach()
        assert torch.equal(weight_OI, matrix(layer))
        again = {
            name: layer.rounding.codes(weight_OI)
            if learned
            else numerics.round_to_nearest(weight_OI, layer.format.weight)
        }
        assert not differing(again, {name: layer.rounding.codes(matrix(layer))})


def test_an_adapter_is_peft_s_files_without_paths_of_this_machine(
    tied: Any, tokens: Tensor, tmp_path: Path
) -> None:
    tied.save_pretrained(tmp_path / "base")
    from_disk = type(tied).from_pretrained(tmp_path / "base")
    adapted(from_disk, "w8a8").save_pretrained(tmp_path / "adapter")
    files = {file.name for file in (tmp_path / "adapter").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}
    assert str(tmp_path) not in (tmp_path / "adapter" / "adapter_config.json").read_text()


@pytest.mark.parametrize("lora", [LORA, QLORA], ids=["float32", "nf4"])
@pytest.mark.parametrize("learned", [False, True])
def test_only_adapters_and_learned_grids_have_gradients(
    learned: bool, lora: Lora, tied: Any, tokens: Tensor
) -> None:
    model = adapted(tied, "w4a8", lora, learned=learned)
    loss_of(model, tokens).backward()
    moved = {name for name, part in model.named_parameters() if part.grad is not None}
    adapters = {name for name in moved if ".lora_A." in name or ".lora_B." in name}
    grids = {name for name in moved if name.endswith(".rounding.scale")}
    assert moved == adapters | grids
    assert len(adapters) == 2 * len(adapters_of(model))
    assert len(grids) == (len(adapters_of(model)) + 1 if learned else 0)  # the embedding's as well


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("scheme", ["w8a8", "w4a16-g32", "w4a16-g32-asymmetric", "w8a8-symmetric"])
@pytest.mark.parametrize("architecture", ["tied", "gpt2"])
def test_gradients_are_those_of_plain_autograd(
    architecture: str,
    scheme: str,
    learned: bool,
    build: Build,
    tokens: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = step(adapted(build(architecture), scheme, learned=learned), tokens)

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        loss_of(model, tokens).backward()
        return {
            name: part.grad.clone()
            for name, part in model.named_parameters()
            if part.grad is not None
        }

    ours = gradients()
    monkeypatch.setattr(AdaptedLinear, "forward", _forward_by_autograd)
    theirs = gradients()
    assert ours.keys() == theirs.keys()
    # Where integers are multiplied, autograd's floats are summed up in another order, and a few
    # inputs of later layers round to other codes.
    integers = any(layer.format.scales_products for _, layer in fake_quantized(model))
    allowed = 0.02 if integers else 1e-4
    for name, gradient in ours.items():
        assert (gradient - theirs[name]).norm() <= allowed * theirs[name].norm(), name


def _forward_by_autograd(layer: AdaptedLinear, input: Tensor) -> Tensor:
    base = layer.base_layer
    delta: Any = layer.get_delta_weight("default")
    weight = dense(base.weight) + delta
    if base.input_rounding is not None:
        input = base.input_rounding(input)[0]
    weight_OI = weight.t() if layer.fan_in_fan_out else weight
    return F.linear(input, base.rounding.fake_quantize(weight_OI), base.bias)


@pytest.mark.parametrize("learned", [False, True])
def test_the_backward_keeps_codes_of_merged_weights_and_no_floats(
    learned: bool, tied: Any, tokens: Tensor
) -> None:
    model = adapted(tied, "w4a8", learned=learned)
    shapes = {layer.weight_OI().shape for layer in adapters_of(model).values()}
    own = {part.data_ptr() for part in model.parameters()}
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, _same):
        loss_of(model, tokens)
    matrices = [part for part in kept if part.shape in shapes and part.data_ptr() not in own]
    assert matrices
    assert {part.dtype for part in matrices} == {torch.int8}


def test_micro_batches_of_one_step_share_one_merge(
    tied: Any, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted(tied, "w8a8")
    keep_codes(model)
    merges: list[AdaptedLinear] = []
    made = AdaptedLinear.weight_OI

    def counted(layer: AdaptedLinear) -> Tensor:
        merges.append(layer)
        return made(layer)

    monkeypatch.setattr(AdaptedLinear, "weight_OI", counted)
    for _ in range(3):
        loss_of(model, tokens).backward()
    assert len(merges) == len(adapters_of(model))
    step(model, tokens, times=1)
    loss_of(model, tokens)
    assert len(merges) == 2 * len(adapters_of(model))


@pytest.mark.parametrize("lora", [LORA, QLORA], ids=["float32", "nf4"])
def test_training_takes_at_most_three_quarters_of_the_memory_of_full_training(
    lora: Lora, build: Build, tokens: Tensor
) -> None:
    full = _bytes_of_training(prepare_qat(build("tied"), SCHEMES["w4a8"]).train(), tokens)
    ours = _bytes_of_training(adapted(build("tied"), "w4a8", lora), tokens)
    assert ours <= 0.75 * full


def _bytes_of_training(model: nn.Module, tokens: Tensor) -> int:
    """Bytes of parameters, gradients, AdamW's state and all that the backward keeps."""
    keep_codes(model)
    optimizer = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad])
    loss_of(model, tokens).backward()
    optimizer.step()
    storages: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        for part in _parts(tensor):
            storages[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, _same):
        loss = loss_of(model, tokens)  # noqa: F841 # what it keeps lives as long as it
    for parameter in model.parameters():
        count(parameter)
        if parameter.grad is not None:
            count(parameter.grad)
    for state in optimizer.state.values():
        for part in state.values():
            count(part)
    return sum(storages.values())


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    if not hasattr(tensor, "get_original_weight"):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    yield from (getattr(tensor, name) for name in names)


def _same(tensor: Tensor) -> Tensor:
    return tensor


@pytest.mark.parametrize("architecture", ["tied", "gpt2"])
def test_a_4_bit_base_takes_at_most_0_30_of_its_bfloat16_bytes(
    architecture: str, build: Build
) -> None:
    weights = [
        layer.base_layer.weight
        for layer in adapters_of(adapted(build(architecture), "w4a16-g32", QLORA)).values()
    ]
    in_4_bits = sum(part.nbytes for weight in weights for part in _parts(weight))
    assert in_4_bits <= 0.30 * sum(2 * weight.numel() for weight in weights)


def test_a_4_bit_base_is_merged_as_the_numbers_it_stands_for(
    untied: Any, build: Build, tokens: Tensor
) -> None:
    model = step(adapted(untied, "w8a8", QLORA), tokens)
    name, layer = next(iter(adapters_of(model).items()))
    base, delta = dense(layer.base_layer.weight), layer.get_delta_weight("default").detach()
    merged = merge(model).get_submodule(name).weight  # type: ignore[arg-type]
    assert torch.equal(merged, base + delta)  # type: ignore[arg-type]
    original: Tensor = build("untied").get_submodule(name).weight.detach()
    assert 0 < float((base - original).norm() / original.norm()) < 0.15


def test_switched_off_adapters_leave_the_base(tied: Any, build: Build, tokens: Tensor) -> None:
    model = step(adapted(tied, "w8a8"), tokens).eval()
    base = prepare_qat(build("tied"), SCHEMES["w8a8"])
    expected = base(input_ids=tokens).logits
    assert not torch.equal(model(input_ids=tokens).logits, expected)
    with model.disable_adapter():  # type: ignore[operator]
        assert torch.equal(model(input_ids=tokens).logits, expected)


@pytest.mark.parametrize(
    ("architecture", "targets", "ends"),
    [
        ("tied", ("q_proj", "v_proj"), {"q_proj", "v_proj"}),
        ("tied", ("mlp.up_proj",), {"up_proj"}),
        ("gpt2", ("c_attn",), {"c_attn"}),
        ("gpt2", ("all-linear",), {"c_attn", "c_proj", "c_fc"}),
        ("untied", ("o_proj", "lm_head"), {"o_proj", "lm_head"}),
    ],
)
def test_targets_are_ends_of_names(
    architecture: str, targets: tuple[str, ...], ends: set[str], build: Build
) -> None:
    model = adapted(build(architecture), "w8a8", LORA.model_copy(update={"targets": targets}))
    assert {name.rpartition(".")[2] for name in adapters_of(model)} == ends


@pytest.mark.parametrize("architecture", ["tied", "untied"])
def test_all_linear_leaves_the_head_out(architecture: str, build: Build) -> None:
    assert "lm_head" not in adapters_of(adapted(build(architecture), "w8a8"))


@pytest.mark.parametrize("target", ["c_attn", "proj", "embed_tokens", "lm_head", ""])
def test_a_target_that_matches_nothing_is_an_error_that_says_what_could(
    target: str, tied: Any
) -> None:
    lora = LORA.model_copy(update={"targets": ("q_proj", target)})
    with pytest.raises(ValueError, match=f"'{target}' matches no .* all-linear, down_proj, gate_"):
        adapted(tied, "w8a8", lora)


def test_a_4_bit_base_that_cannot_be_cut_into_blocks_is_an_error() -> None:
    model = nn.Sequential(nn.Linear(10, 6))
    with pytest.raises(ValueError, match=r"60 weights of layer '0' cannot be cut"):
        adapted(model, "w8a8", QLORA)


def test_plain_modules_take_adapters_too() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(8, 64)
    model = adapted(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), "w8a8")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(3):
        model(inputs).square().mean().backward()
        optimizer.step()
    expected = model.eval()(inputs)
    assert isinstance(model, AdaptedModel)
    assert torch.equal(merge(model)(inputs), expected)
