"""A Hugging Face decoder LLM to ONNX with a KV cache, through onnxruntime-genai's model builder.

The builder knows the architectures, fuses attention and writes ``genai_config.json``; it does not
read torchao checkpoints, and it would round weights again. So it is given a skeleton of the model
without weights, and ``hooks`` emit the checkpoint's codes where it is about to emit a layer. Float
weights of quantized layers never come into being.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantship.artifact import Facts
from quantship.errors import QuantshipError
from quantship.exporters import architectures, clients, corrections, hooks, origin
from quantship.exporters.graph import Graph
from quantship.exporters.lowering import Lowering
from quantship.exporters.targets import Target
from quantship.quant import checkpoint
from quantship.quant.tensors import StoredCodes
from quantship.scrubbing import scrub

if TYPE_CHECKING:
    from torch import nn

MODEL_FILE = "model.onnx"


def export(
    source: Path, lowering: Lowering, scheme: str | None, out: Path, target: Target
) -> Facts:
    """Write ``model.onnx`` with its external data, configuration and tokenizer into ``out``.

    Args:
        source: Hugging Face directory: float, or a torchao checkpoint written by quantship.
        lowering: Form of the quantized layers; ``float`` for a float model.
        scheme: Name of the checkpoint's scheme, for the model's metadata.
        out: Existing directory.
        target: Machine that the model is for.

    Raises:
        QuantshipError: The model builder does not know the architecture, or would draw another
            model than this one; before anything is done.
    """
    reason = architectures.reject(json.loads((source / "config.json").read_bytes()))
    if reason is not None:
        raise QuantshipError(f"{source.name} cannot be exported: {reason}")
    stored = checkpoint.load_codes(source) if lowering != "float" else {}
    metadata = origin.describe(source, lowering, scheme, target)
    graph = Graph(target, prefers_speed=lowering == "hybrid")
    log = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
            _builder() as builder,
        ):
            model = _skeleton(source, stored) if stored else _float_model(source)
            with hooks.installed(builder.Model, graph, lowering, model, metadata):
                _build(builder, model, source, out)
    finally:
        (out / "export.log").write_text(scrub(log.getvalue()))
    clients.complete(source, out)
    missing = stored.keys() - graph.places.keys()
    if missing:
        raise QuantshipError(f"the exported graph lacks the layers {sorted(missing)}")
    return {
        **metadata,
        "activation_arithmetic": graph.describe_arithmetic(),
        "signed_weights": graph.signed_weights,
        "architecture": type(model).__name__,
        "opset": _opset(out / MODEL_FILE),
        "num_quantized": len(graph.places),
    }


def _build(builder: Any, model: nn.Module, source: Path, out: Path) -> None:
    where = ("", str(source), str(out), "fp32", "cpu", str(out))
    # Caches that hold a window only must never be empty, and our runtime begins with empty ones.
    options = builder.parse_extra_options(*where, ["windowed_kv_cache=false"])
    config = options["hf_details"]["hf_config"]
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the builder would read it as its own formats
    corrections.align(config, model)
    try:
        builder.create_model(*where, **options)
    except NotImplementedError as error:
        raise QuantshipError(
            f"onnxruntime-genai's model builder cannot export {type(model).__name__}: {error}"
        ) from error


@contextlib.contextmanager
def _builder() -> Iterator[Any]:
    """onnxruntime-genai's builder; it puts its own folder on sys.path, which is undone."""
    before = list(sys.path)
    try:
        from onnxruntime_genai.models import builder

        yield builder
    finally:
        sys.path[:] = before


def _float_model(source: Path) -> nn.Module:
    """The float model in float32: the builder would do arithmetic on norms in a narrower type."""
    import torch
    from transformers import AutoModelForCausalLM

    model: nn.Module = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    return model


def _skeleton(source: Path, stored: dict[str, StoredCodes]) -> nn.Module:
    """The model with its float parameters, and codes in place of its quantized weights."""
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    del config.quantization_config
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with safe_open(source / checkpoint.WEIGHTS, framework="pt") as file:
        names = [name for name in file.keys() if "._weight_" not in name]  # noqa: SIM118
        plain = {name: file.get_tensor(name).float() for name in names}
    model.load_state_dict(plain, strict=False, assign=True)
    model.tie_weights()  # a float head that the file holds once, as the embedding
    for name, part in stored.items():
        setattr(model.get_submodule(name), hooks.CODES, part)
    known = {f"{name}.weight" for name in stored}
    absent = [name for name, one in model.named_parameters() if one.is_meta and name not in known]
    if absent:
        raise QuantshipError(f"{source / checkpoint.WEIGHTS} lacks {', '.join(absent[:3])}")
    if config.get_text_config().tie_word_embeddings:
        embedding = hooks.codes_of(model.get_input_embeddings())
        setattr(model.get_output_embeddings(), hooks.CODES, embedding)
    skeleton: nn.Module = model
    return skeleton


def _opset(path: Path) -> int:
    import onnx_ir as ir

    return ir.load(path).opset_imports[""]
