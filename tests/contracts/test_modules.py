"""Encoders, decoders that the model builder does not know, and plain modules: codes and answers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import quantship
from quantship.exporters import codes, examples, lowering, opaque, past, traced
from quantship.exporters.layers import form_for
from quantship.exporters.lowering import Lowering
from quantship.quant.scheme import SCHEMES, Scheme
from quantship.runtimes.ort_module import OrtModule

Array = NDArray[Any]
Answers = dict[str, Array]
SAME, BY_BLOCKS = 0.01, 0.08
"""Largest relative error of logits: where layers do to their inputs what training did, so that only
numbers on the edge of two codes may fall to the other side; and where they do something finer."""
KINDS = ("encoder", "decoder", "plain")
FORMS: tuple[Lowering, ...] = ("nbits", "integer", "qdq")


def encoder() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=96,
            vocab_size=200,
            max_position_embeddings=32,
            num_labels=6,
        )
    )


def decoder() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    dimensions = {"n_embd": 64, "n_layer": 1, "n_head": 2, "vocab_size": 200, "n_positions": 32}
    return GPT2LMHeadModel(GPT2Config(**dimensions, bos_token_id=1, eos_token_id=2))


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 10))


@dataclass
class Studio:
    """Float modules, the graphs that traces of them gave, and what to feed them."""

    root: Path
    traces: dict[object, ir.Model]

    def module(self, kind: str) -> nn.Module:
        torch.manual_seed(7)
        made = {"encoder": encoder, "decoder": decoder, "plain": plain}[kind]().eval()
        for parameter in made.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.15)
        return made

    def inputs(self, kind: str) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        if kind == "plain":
            return {"input": torch.randn(7, 96, generator=generator)}
        ids = torch.randint(200, (3, 11), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, 6:] = 0
        return {"input_ids": ids, "attention_mask": mask}

    def quantized(self, kind: str, scheme: Scheme) -> nn.Module:
        return quantship.quantize(self.module(kind), scheme, [self.inputs(kind)])

    def export(self, kind: str, boxed: opaque.Boxed, form: Lowering) -> Path:
        """As ``quantship.export`` does, but for traces, which are made once for all schemes."""
        out = self.root / f"{len(list(self.root.iterdir()))}"
        out.mkdir()
        key = (kind, *boxed.codes)
        if key not in self.traces:
            module: Any = boxed.module
            example = {
                "plain": lambda: examples.for_module(module, self.inputs(kind), None),
                "encoder": lambda: examples.for_transformer(module),
                "decoder": lambda: past.for_decoder(module),
            }[kind]()
            self.traces[key] = traced.trace(module, example, out)
        graph = ir.from_proto(ir.to_proto(self.traces[key]))
        traced.finish(graph, boxed, form, "x86", {}, out)
        return out


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Where modules are traced, each once for every set of layers that are quantized."""
    return Studio(tmp_path_factory.mktemp("studio"), {})


def feeds(runtime: OrtModule, inputs: dict[str, torch.Tensor]) -> Answers:
    """Inputs of a graph, with an empty cache where it takes one."""
    given = {name: tensor.numpy() for name, tensor in inputs.items()}
    if "token_type_ids" in runtime.inputs:
        given["token_type_ids"] = np.zeros_like(given["input_ids"])
    if "position_ids" in runtime.inputs:
        given["position_ids"] = given["attention_mask"].cumsum(axis=1) - 1
    caches = [name for name in runtime.inputs if name.startswith("past_key_values.")]
    batch = len(next(iter(given.values())))
    return given | {name: np.zeros((batch, 2, 0, 32), np.float32) for name in caches}


@torch.inference_mode()
def reference(module: Any, inputs: dict[str, torch.Tensor]) -> Array:
    output = module(**inputs)
    found: torch.Tensor = output if isinstance(output, torch.Tensor) else output.logits
    return found.numpy()


def relative_error(ours: Array, theirs: Array, inputs: dict[str, torch.Tensor]) -> float:
    if ours.ndim == 3:  # of text; padding has no answer
        kept = inputs["attention_mask"].numpy() == 1
        ours, theirs = ours[kept], theirs[kept]
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("kind", KINDS)
def test_every_scheme_keeps_its_codes_and_its_answers(
    studio: Studio, kind: str, scheme: Scheme, form: Lowering
) -> None:
    if not fits(kind, scheme):
        with pytest.raises(ValueError, match=r"cannot be cut"):
            studio.quantized(kind, scheme)
        return
    if lowering.reject(scheme, form) is not None:
        assert any(lowering.reject(scheme, other) is None for other in FORMS)
        return
    module = studio.quantized(kind, scheme)
    boxed = opaque.box(module)
    out = studio.export(kind, boxed, form)
    compared = codes.compare_with(out, boxed.codes)
    assert compared.different == ()
    assert compared.tensors_compared == len(boxed.codes) > 0

    runtime, inputs = OrtModule(out, threads=1), studio.inputs(kind)
    ours = runtime(**feeds(runtime, inputs))[runtime.outputs[0]]
    as_trained = all(form_for(form, part) == "integer" for part in multiplied(boxed))
    error = relative_error(ours, reference(module, inputs), inputs)
    assert error < (SAME if as_trained else BY_BLOCKS)


def fits(kind: str, scheme: Scheme) -> bool:
    """Whether the module's layers, 64 and 96 features wide, can be cut into the scheme's groups."""
    groups = {scheme.weight.group_size or 1}
    widths = {"encoder": (64, 96), "decoder": (64, 256), "plain": (96, 64)}[kind]
    return all(width % group == 0 for group in groups for width in widths)


def multiplied(boxed: opaque.Boxed) -> list[Any]:
    """Codes that some layer multiplies its input by."""
    names = {one.layer for one in boxed.module.modules() if type(one).__name__ == "_Matrix"}
    return [part for name, part in boxed.codes.items() if name in names]


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_code_is_found(studio: Studio, kind: str) -> None:
    boxed = opaque.box(studio.quantized(kind, SCHEMES["w8a8"]))
    out = studio.export(kind, boxed, "integer")
    changed = copy.deepcopy(boxed.codes)
    name = list(changed)[-1]
    changed[name].codes.codes_OI[0, 0] ^= 1
    assert codes.compare_with(out, changed).different == (name,)


def test_text_that_is_cut_in_two_is_answered_as_a_whole_one(studio: Studio) -> None:
    module = studio.quantized("decoder", SCHEMES["w8a8"])
    runtime = OrtModule(studio.export("decoder", opaque.box(module), "integer"), threads=1)
    ids = studio.inputs("decoder")["input_ids"]
    ones = torch.ones_like(ids)
    whole = runtime(**feeds(runtime, {"input_ids": ids, "attention_mask": ones}))
    first = runtime(**feeds(runtime, {"input_ids": ids[:, :7], "attention_mask": ones[:, :7]}))
    rest = feeds(runtime, {"input_ids": ids[:, 7:], "attention_mask": ones})
    rest |= {"position_ids": np.tile(np.arange(7, 11), (3, 1))}
    rest |= {
        name.replace("present", "past_key_values"): one
        for name, one in first.items()
        if name != "logits"
    }
    second = runtime(**rest)
    np.testing.assert_allclose(second["logits"], whole["logits"][:, 7:], rtol=0.01, atol=0.01)
    for name in ("present.0.key", "present.0.value"):
        assert second[name].shape == (3, 2, 11, 32)
        np.testing.assert_allclose(second[name], whole[name], rtol=0.01, atol=0.01)
