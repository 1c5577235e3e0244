"""A Hugging Face decoder LLM to OpenVINO IR with its KV cache inside.

PyTorch traces the model with boxes in place of its quantized layers, transformers' exporter turns
the trace into a graph of OpenVINO, and the boxes become the checkpoint's codes behind operators
that OpenVINO's CPU plugin fuses into its matrix products. Float weights of quantized layers never
come into being. The inputs are those that ``optimum-intel`` and ``openvino-genai`` expect.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantship import hardware
from quantship.artifact import Facts
from quantship.errors import QuantshipError
from quantship.exporters import opaque, openvino_layers, origin, past, traced
from quantship.exporters.examples import Example
from quantship.exporters.hooks import METADATA
from quantship.exporters.opaque import Boxed
from quantship.quant.loading import load
from quantship.scrubbing import scrub

MODEL_FILE = "openvino_model.xml"
INPUT_GROUP = 32
"""Input features that share a scale where the CPU plugin quantizes the inputs of layers."""
COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def export(source: Path, scheme: str | None, out: Path) -> Facts:
    """Write ``openvino_model.xml``, its ``.bin``, configuration and tokenizer into ``out``.

    Args:
        source: Hugging Face directory: float, or a torchao checkpoint written by quantship.
        scheme: Name of the checkpoint's scheme, for the model's metadata.
        out: Existing directory.

    Raises:
        QuantshipError: The model is no decoder of text, or it cannot be traced or converted.
    """
    import openvino

    model: Any = load(source)
    if model.config.is_encoder_decoder or not past.has_cache(model):
        raise QuantshipError(
            f"quantship writes decoders of text with a KV cache as OpenVINO IR, and a "
            f"{type(model).__name__} is none; export it to ONNX, which OpenVINO reads with "
            "target: portable"
        )
    example = past.for_decoder(model)
    boxed = opaque.box(model)
    del model
    program = _converted(boxed, example, out)
    # A range that is fixed is in the graph; what the plugin would do beside it was not trained.
    quantizes = any(
        part.activation is not None and part.input_grid is None for part in boxed.codes.values()
    )
    facts: Facts = {
        "quantship_version": hardware.versions().get("quantship"),
        "format": "openvino",
        "scheme": scheme,
        "algorithm": None if scheme is None else origin.algorithm(source),
        "source_sha256": origin.digest_weights(source),
        "activation_arithmetic": _arithmetic(boxed, quantizes=quantizes),
        "openvino_version": openvino.__version__,
    }
    program.set_rt_info(json.dumps(facts), [METADATA])
    group = str(INPUT_GROUP if quantizes else 0)
    program.set_rt_info(group, ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    openvino.save_model(program, out / MODEL_FILE, compress_to_fp16=False)
    _write_beside(source, out)
    name = type(boxed.module).__name__
    return {**facts, "architecture": name, "num_quantized": len(boxed.codes)}


def _converted(boxed: Boxed, example: Example, out: Path) -> Any:
    """The ``openvino.Model`` of a decoder, its KV cache folded into variables."""
    from transformers.exporters.configs import OpenVINOConfig
    from transformers.exporters.exporter_openvino import OpenVINOExporter

    layers = openvino_layers.Layers(boxed.codes)
    log = io.StringIO()
    try:
        with traced.quiet(log), _telemetry_off(), openvino_layers.drawn(layers):
            made = OpenVINOExporter().export(
                boxed.module,  # type: ignore[arg-type]
                dict(example.inputs),
                OpenVINOConfig(dynamic_shapes=traced.dynamic_shapes(example), stateful=True),
            )
    except Exception as error:  # torch.export and OpenVINO raise errors of dozens of classes
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise QuantshipError(
            f"a {type(boxed.module).__name__} cannot be converted to OpenVINO: {reason}; "
            f"{out / 'export.log'} has more"
        ) from error
    finally:
        (out / "export.log").write_text(scrub(log.getvalue()))
    missing = boxed.codes.keys() - layers.drawn.keys()
    if missing:
        raise QuantshipError(f"the exported graph lacks the layers {sorted(missing)}")
    return made.program


def _arithmetic(boxed: Boxed, *, quantizes: bool) -> str:
    """What OpenVINO's CPU plugin does to the inputs of quantized layers."""
    dynamic = (
        f"int8, symmetric, dynamic, one scale a token and {INPUT_GROUP} input features where the "
        "CPU has VNNI or AMX, else float32"
    )
    static = "int8, static, one scale a tensor, as in training"
    counted = Counter(
        static if part.input_grid is not None else dynamic if quantizes else "float32"
        for part in boxed.codes.values()
    )
    if len(counted) < 2:
        return next(iter(counted), "float32")
    total = counted.total()
    return "; ".join(f"{how} ({count} of {total} layers)" for how, count in counted.most_common())


def _write_beside(source: Path, out: Path) -> None:
    """Configuration and tokenizer, for whoever loads the directory."""
    config = json.loads((source / "config.json").read_bytes())
    config.pop("quantization_config", None)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in COPIED:
        if (source / name).is_file():
            (out / name).write_bytes((source / name).read_bytes())


@contextlib.contextmanager
def _telemetry_off() -> Iterator[None]:
    """Let OpenVINO's converter send nothing; it reports to its makers unless told not to."""
    from openvino.tools.ovc import convert_impl, telemetry_stub, telemetry_utils, utils

    modules: list[Any] = [
        module for module in (convert_impl, telemetry_utils, utils) if hasattr(module, "tm")
    ]
    before = [module.tm for module in modules]
    for module in modules:
        module.tm = telemetry_stub
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.tm = own
