"""Hold a checkpoint against the blocks that it was made of, with one block in memory at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantship.algorithms.block import Block
from quantship.artifact import Facts
from quantship.blocks import ends, frame
from quantship.blocks.encoding import restore
from quantship.blocks.layout import Layout
from quantship.blocks.mapped import give_back_heap, release
from quantship.blocks.opening import Opened, copied
from quantship.blocks.parts import TAIL, CodesDigest, Part, digest_of
from quantship.quant import layers, tensors
from quantship.quant.convert import probe, require_parity
from quantship.quant.loading import fill_gaps, mapped, runnable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def verify(
    opened: Opened,
    layout: Layout,
    parts: Mapping[str, Part],
    replaced: Mapping[str, nn.Module],
    out: Path,
) -> Facts:
    """Load a checkpoint as transformers does and compare it with what was made.

    Codes and scales are compared with those that were in memory when a block was settled, logits
    of random inputs with those of the blocks.

    Args:
        opened: The float model.
        layout: What became of its parts.
        parts: Finished parts by key.
        replaced: Embedding and head as quantized, by name.
        out: The checkpoint.

    Raises:
        ParityError: The checkpoint does not hold or does not compute what was made.
    """
    made = {name: digest for part in parts.values() for name, digest in part.about.codes.items()}
    inputs = probe(opened.model)
    with torch.no_grad():
        ours = _logits(_rebuilt(opened, layout, parts, replaced), inputs)
        give_back_heap()
        reloaded: Any = mapped(out, dtype=torch.float32).eval()
        found = dict(_digests(reloaded))
        theirs = _logits(_block_by_block(reloaded, opened.blocks), inputs)
    different = sorted(
        name for name in made.keys() | found.keys() if made.get(name) != found.get(name)
    )
    exact = not any(format.scales_products for format in layout.formats.values())
    return require_parity(different, len(made), ours, theirs, exact=exact)


def _logits(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    logits: Tensor = model(**inputs).logits
    return logits


def _rebuilt(
    opened: Opened, layout: Layout, parts: Mapping[str, Part], replaced: Mapping[str, nn.Module]
) -> nn.Module:
    """The quantized model, whose blocks are made of their parts whenever they run."""

    def act(index: int) -> Callable[..., Any]:
        key = opened.blocks[index]

        def run(*args: Any, **kwargs: Any) -> Any:
            module = copied(opened.model.get_submodule(key), filled=False)
            inside = {k: v for k, v in layout.inner.items() if k.startswith(f"{key}.")}
            block = Block(key, module, inside)
            restore(block, parts[key], layout.tensors(key, opened.blocks))
            result = block.module(*args, **kwargs)
            del module, block
            give_back_heap()
            return result

        return run

    made = frame.build(opened, act, replaced, whole=layout.inner)
    outside = {
        key: value
        for key, value in layout.inner.items()
        if not key.startswith(tuple(f"{name}." for name in opened.blocks))
    }
    restore(Block("", made, outside), parts[TAIL], layout.tensors(TAIL, opened.blocks))
    return made


def _digests(reloaded: nn.Module) -> Iterator[tuple[str, str]]:
    """Digest of the codes of every layer of a loaded checkpoint."""
    from torchao.quantization import Int4Tensor

    for name, module in tensors.quantized_modules(reloaded):
        weight: Any = module.weight.data
        if isinstance(weight, Int4Tensor):  # which is unpacked to be read
            sums = CodesDigest()
            for rows in ends.chunks(*weight.shape):
                some = copy.copy(module)
                some._parameters = {"weight": nn.Parameter(weight[rows], requires_grad=False)}
                sums.add(tensors.stored(name, some).codes)
            yield name, sums.hexdigest()
        else:
            yield name, digest_of(tensors.stored(name, module).codes)
        release(_parts_of(weight))


def _block_by_block(reloaded: PreTrainedModel, blocks: tuple[str, ...]) -> nn.Module:
    """A loaded checkpoint, in place, whose blocks are made fit to run whenever they do."""
    model: Any = reloaded

    def act(block: nn.Module) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            holder = nn.ModuleList([_shared(block)])
            fill_gaps(holder)
            for _, layer in tensors.quantized_modules(holder):
                layer.register_forward_hook(_give_back)
            result = holder[0](*args, **kwargs)
            del holder
            release(tensor for one in block.parameters() for tensor in _parts_of(one.data))
            give_back_heap()
            return result

        return run

    for name in blocks:
        block = model.get_submodule(name)
        model.set_submodule(name, frame.StandIn(block, act(block)))
    embedding, head = layers.ends(model)
    for name, module in list(model.named_modules()):
        if module is embedding and isinstance(module, nn.Embedding):
            model.set_submodule(name, ends.Embedding(module, _rows(module.weight)))
        elif module is head and type(module) is nn.Linear:
            model.set_submodule(name, ends.Head(module, _product(module.weight)))
    fill_gaps(model)
    for parameter in model.parameters():
        if not _is_quantized(parameter):
            parameter.data = parameter.data.clone()  # see ``_shared``
    return model  # type: ignore[no-any-return]


def _shared(block: nn.Module) -> nn.Module:
    """A copy of a block with the very codes of it, to be changed.

    What is in float is copied: where numbers lie unaligned, as in files, sums have other last bits.
    """
    memo: dict[int, object] = {
        id(one): one if _is_quantized(one) else nn.Parameter(one.detach().clone(), False)
        for one in block.parameters()
    }
    for part in block.modules():
        config = getattr(part, "config", None)
        memo[id(config)] = config
    return copy.deepcopy(block, memo)


def _rows(weight: Any) -> ends.Rows:
    """Rows that torchao looks up, out of a part of the matrix at a time."""
    if not _is_quantized(weight):
        return ends.float_rows(weight)

    def rows(ids: Tensor) -> Tensor:  # in order, as ``ends.Embedding`` asks for them
        found = []
        for part in ends.chunks(*weight.shape):
            inside = ids[(ids >= part.start) & (ids < part.stop)] - part.start
            if len(inside):
                found.append(F.embedding(inside, runnable(weight.data[part])))
        return torch.cat(found)

    return rows


def _product(weight: Any) -> ends.Product:
    if not _is_quantized(weight):
        return ends.float_product(weight)

    def product(input: Tensor, rows: slice, bias: Tensor | None) -> Tensor:
        result = F.linear(input, runnable(weight.data[rows]), bias)
        give_back_heap()
        return result

    return product


def _give_back(*given: object) -> None:
    """Return what torchao has used to make floats of a layer's codes: several times the layer."""
    give_back_heap()


def _is_quantized(tensor: Tensor) -> bool:
    from torchao.utils import TorchAOBaseTensor

    return isinstance(tensor, TorchAOBaseTensor)


def _parts_of(tensor: Any) -> list[Tensor]:
    """The plain tensors that a tensor consists of."""
    if not _is_quantized(tensor):
        return [tensor]
    names = tensor.__tensor_flatten__()[0]
    return [getattr(tensor, name) for name in names]
