"""Make one model of the benchmark, in a process of its own.

    python tests/bench/make.py SOURCE OUT HOW...

prints a line of JSON: seconds and peak memory. HOW is ``quantize SCHEME``, ``export LOWERING
SCHEME`` (``-`` for a float model), ``openvino SCHEME``, ``builder PRECISION``, ``dynamic``, or
``gguf KIND``.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from quantship.hardware import peak_rss_bytes

BESIDE = ("genai_config.json", "tokenizer*.json", "chat_template.jinja")
"""What an ONNX model needs beside itself."""


def quantize(source: Path, out: Path, scheme: str) -> None:
    """PTQ of a float model by quantship."""
    from quantship.artifact import Artifact
    from quantship.job import Job
    from quantship.quant.scheme import SCHEMES
    from quantship.recipe.language import QuantizeStep
    from quantship.stages import quantize as stage

    few = SCHEMES[scheme].weight.bits <= 4
    reach = "outermost" if few else "minmax"
    step = QuantizeStep(stage="quantize", name="ptq", scheme=scheme, range=reach)
    settings = stage.Settings(step=step, scheme=SCHEMES[scheme])
    stage.run(Job(settings, {"model": Artifact(source, "model", "", {})}, out, out))


def export(source: Path, out: Path, lowering: str, scheme: str) -> None:
    """ONNX by quantship, for this machine."""
    from quantship.exporters import decoder
    from quantship.exporters.targets import resolve

    name = None if scheme == "-" else scheme
    decoder.export(source, lowering, name, out, resolve("this-machine"))  # type: ignore[arg-type]


def openvino(source: Path, out: Path, scheme: str) -> None:
    """OpenVINO IR by quantship."""
    from quantship.exporters import openvino as exporter

    exporter.export(source, scheme, out)


def builder(source: Path, out: Path, precision: str) -> None:
    """ONNX by onnxruntime-genai's own builder, with the options it chooses for the CPU.

    In int4 these are blocks of 32, int8 arithmetic, and one quantized matrix for a tied pair.
    """
    from onnxruntime_genai.models import builder as genai

    where = ("", str(source), str(out), precision, "cpu", str(out))
    with contextlib.redirect_stdout(io.StringIO()):
        genai.create_model(*where, **genai.parse_extra_options(*where, []))


def dynamic(source: Path, out: Path) -> None:
    """onnxruntime's dynamic quantization of a float graph: signed weights, a scale a channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source / "model.onnx",
        out / "model.onnx",
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
    )
    for pattern in BESIDE:
        for file in source.glob(pattern):
            shutil.copy(file, out)


def gguf(source: Path, out: Path, kind: str) -> None:
    """A file for llama.cpp: float, written here, or quantized from that by llama.cpp."""
    if kind == "F32":
        import gguf_writer

        gguf_writer.write(source, out / "model.gguf")
        _require_equal(source, out / "model.gguf")
    else:
        import llama_runtime

        llama_runtime.quantize(source / "model.gguf", out / "model.gguf", kind)


def _require_equal(source: Path, file: Path) -> None:
    """Refuse a conversion that does not compute what the model computes: it would be no peer."""
    import numpy as np
    import torch
    from llama_runtime import LlamaRuntime

    from quantship import models

    model = models.load_float(source)
    tokens = np.random.default_rng(0).integers(model.config.vocab_size, size=(1, 32))
    with torch.inference_mode():
        expected = model(torch.from_numpy(tokens)).logits.numpy()
    found = LlamaRuntime(file, 1, all_logits=True).logits(tokens, np.ones_like(tokens))
    # llama.cpp keeps keys and values in float16; a wrong conversion is off by a whole deviation.
    if np.abs(found - expected).mean() > 0.01 * expected.std():
        raise RuntimeError("llama.cpp computes other logits from the converted file than torch")


MAKERS: dict[str, Callable[..., None]] = {
    "quantize": quantize,
    "export": export,
    "openvino": openvino,
    "builder": builder,
    "dynamic": dynamic,
    "gguf": gguf,
}


def main(source: Path, out: Path, how: str, *words: str) -> dict[str, float]:
    """Make it, and say what it took."""
    began = time.perf_counter()
    MAKERS[how](source, out, *words)
    return {"seconds": time.perf_counter() - began, "peak_rss_bytes": peak_rss_bytes()}


if __name__ == "__main__":
    made = main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
    sys.stdout.write("\n" + json.dumps(made) + "\n")
