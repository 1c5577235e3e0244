"""Checkpoints and exports that the contracts share, each made once, and layers cut out of them."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from quantship.exporters.lowering import Lowering
    from quantship.quant.numerics import Codes, Grid
    from quantship.quant.scheme import ActivationFormat, Scheme

Array = NDArray[Any]


class Workshop:
    """Tiny models, their checkpoints and their exports; nothing it returns may be written to.

    Models: ``tied``, ``untied``, and whatever a test adds with ``adopt``.
    """

    def __init__(self, root: Path, tokenizer: PreTrainedTokenizerFast) -> None:
        self._root, self._tokenizer = root, tokenizer
        self._models: dict[str, PreTrainedModel] = {}
        self.checkpoint = cache(self._checkpoint)
        self.export = cache(self._export)
        self.float_dir = cache(self._float_dir)
        self.adopt("tied", lambda: self._build(tied=True))
        self.adopt("untied", lambda: self._build(tied=False))

    def adopt(self, name: str, build: Callable[[], PreTrainedModel]) -> None:
        """Know a model by a name from now on."""
        if name not in self._models:
            self._models[name] = build().eval()

    def model(self, name: str) -> PreTrainedModel:
        """A fresh copy of a float model."""
        return copy.deepcopy(self._models[name])

    def _build(self, tied: bool) -> PreTrainedModel:
        from quantship.recipe.language import TinyModel
        from quantship.tiny import build_model

        return build_model(TinyModel(tied=tied), self._tokenizer, seed=1)

    def _float_dir(self, name: str) -> Path:
        path = self._new("float", name)
        self._models[name].save_pretrained(path)
        self._tokenizer.save_pretrained(path)
        return path

    def _checkpoint(self, scheme: Scheme, name: str) -> Path:
        from quantship.quant.convert import convert
        from quantship.quant.modules import prepare_qat

        path = self._new(scheme.model_dump_json(), name)
        model = prepare_qat(self.model(name), scheme)
        calibrated(model)
        convert(model, path)
        self._tokenizer.save_pretrained(path)
        return path

    def _export(self, scheme: Scheme | None, lowering: Lowering, name: str) -> Path:
        from quantship.exporters import decoder

        source = self.checkpoint(scheme, name) if scheme else self.float_dir(name)
        path = self._new("onnx", lowering, str(source))
        decoder.export(source, lowering, scheme.name if scheme else None, path, "x86")
        return path

    def _new(self, *key: str) -> Path:
        path = self._root / hashlib.sha256("\0".join(key).encode()).hexdigest()[:16]
        path.mkdir()
        return path


def calibrated(model: PreTrainedModel) -> PreTrainedModel:
    """Fix the static input ranges of a fake-quantized model, on random tokens."""
    from quantship.quant.calibration import calibrate
    from quantship.recipe.rounding_options import Calibration

    generator = torch.Generator().manual_seed(4)
    batch = torch.randint(4, 260, (4, 32), generator=generator)
    calibrate(model, [batch], lambda ids: model(input_ids=ids), Calibration())
    return model


MEMBERS = {"attn/qkv_proj": ("q_proj", "k_proj", "v_proj")}
"""Matrices that the exported graph multiplies at once."""


@dataclass(frozen=True)
class Layer:
    """One matrix multiplication of an exported model, and the codes it ought to hold."""

    source: Path
    """Path of the ONNX file."""
    node: str
    """Output of the layer."""
    input: str
    """Float input of the layer."""
    quantized: str
    """What the names of its input's codes, scale and the like begin with."""
    codes_OI: Array
    """Less the zero points."""
    largest_zero: int
    """Size of the largest of these; runtimes subtract what they contribute from the sum."""
    scale_OG: Array
    activation: ActivationFormat | None
    """How the input was quantized in training."""
    input_grid: Grid | None
    """Of a static input range."""
    block_size: int | None
    """Input features that share a rounding of the input; None: all of a token."""

    @property
    def width(self) -> int:
        return int(self.codes_OI.shape[1])

    def run(self, values: Array, *outputs: str) -> list[Array]:
        """Feed the layer with tokens of shape (T, I) in a graph that holds nothing else."""
        model = ir.load(self.source)
        found = {value.name: value for node in model.graph for value in node.outputs if value.name}
        wanted = [found[output] for output in (outputs or (self.node,))]
        for value in wanted:
            is_codes = str(value.name).endswith("/codes")
            value.dtype = ir.DataType.UINT8 if is_codes else ir.DataType.FLOAT
        graph = ir.convenience.extract(model.graph, [found[self.input]], wanted)
        graph.opset_imports.update(model.opset_imports)
        small = ir.external_data.load_to_model(ir.Model(graph, ir_version=model.ir_version))
        session = ort.InferenceSession(
            ir.to_proto(small).SerializeToString(), providers=["CPUExecutionProvider"]
        )
        results = session.run(None, {self.input: values[None].astype(np.float32)})
        return [result[0] if result.ndim == 3 else result for result in results]

    def exact(self, values: Array) -> Array:
        """Product of float64 inputs with the dequantized weight, in float64."""
        scale_OI = np.repeat(self.scale_OG, self.width // self.scale_OG.shape[1], axis=1)
        product: Array = values.astype(np.float64) @ (self.codes_OI * scale_OI.astype(float)).T
        return product


def _cut(exported: Path, source: Path, name: str, index: int = 1) -> Layer:
    from quantship.exporters import codes
    from quantship.exporters.decoder import MODEL_FILE
    from quantship.quant import checkpoint

    stored = checkpoint.load_codes(source)
    places = codes.metadata(ir.load(exported / MODEL_FILE))["places"]
    if name == "lm_head":
        parts = [stored.get("lm_head", stored["model.embed_tokens"])]
    else:
        block, last = name.split("/")
        block = {"attn": "self_attn", "mlp": "mlp"}[block]
        members = MEMBERS.get(name, (last,))
        parts = [stored[f"model.layers.{index}.{block}.{member}"] for member in members]
    place = places[parts[0].name]
    graph = ir.load(exported / MODEL_FILE).graph
    (user,) = (
        node
        for node in graph
        if node.op_type in ("MatMulInteger", "MatMulNBits")
        and place["codes"] in [value.name for value in node.inputs if value]
    )
    first = str(user.inputs[0].name)  # type: ignore[union-attr]
    integer = user.op_type == "MatMulInteger"
    return Layer(
        source=exported / MODEL_FILE,
        node=str(user.outputs[0].name).removesuffix("/products"),
        input=re.split("/(?:tokens|tensor|static)/", first)[0],
        quantized=first.removesuffix("/codes"),
        codes_OI=np.concatenate([_centred(part.codes) for part in parts]),
        largest_zero=max(
            int(part.codes.zero_OG.short().abs().max()) if part.codes.zero_OG is not None else 0
            for part in parts
        ),
        scale_OG=np.concatenate([_by_row(part.codes) for part in parts]),
        activation=parts[0].activation,
        input_grid=parts[0].input_grid,
        block_size=None if integer else user.attributes["block_size"].as_int(),
    )


def _centred(codes: Codes) -> Array:
    """Codes less their zero points, of shape (O, I)."""
    codes_OI = codes.codes_OI.numpy().astype(np.int64)
    if codes.zero_OG is None:
        return codes_OI
    zero_OG: Array = codes.zero_OG.numpy().astype(np.int64)
    return codes_OI - np.repeat(zero_OG, codes_OI.shape[1] // zero_OG.shape[1], axis=1)


def _by_row(codes: Codes) -> Array:
    """Scales of shape (O, G)."""
    scale_OG = codes.scale_OG.float().numpy()
    return np.broadcast_to(scale_OG, (codes.codes_OI.shape[0], scale_OG.shape[1]))


@pytest.fixture(scope="session")
def workshop(
    tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Workshop:
    """Where models, checkpoints and exports are made, each once."""
    return Workshop(tmp_path_factory.mktemp("workshop"), tiny_tokenizer)


@pytest.fixture(scope="session")
def cut_layer() -> Callable[..., Layer]:
    """Cut a layer, as ``mlp/up_proj`` or ``lm_head``, out of an exported model.

    Args: directory of the export, directory of its checkpoint, name, number of the decoder layer.
    """
    return _cut


@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread: None) -> None:
    """Everything in this room is small."""
