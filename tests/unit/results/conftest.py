from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from quantship.reporting.schema import (
    Benchmark,
    Environment,
    Metrics,
    ModelRow,
    Parity,
    Report,
)

FLOAT_BYTES = 538_112_512
SMALL_BYTES = 135_800_000
SHAPE = {"batch_size": 1, "prompt_tokens": 256, "decode_tokens": 32, "threads": 2, "rounds": 3}


def row(
    name: str, kind: Any, perplexity: float, accuracy: float, decode: float, **more: Any
) -> ModelRow:
    quantized = "w8a8" in name
    size = SMALL_BYTES if quantized else FLOAT_BYTES
    return ModelRow(
        name=name,
        step=name,
        kind=kind,
        path=f"steps/{name}",
        scheme="w8a8" if quantized else None,
        float_source="finetune",
        size_bytes=size,
        compression=FLOAT_BYTES / size,
        metrics=Metrics(
            perplexity=perplexity,
            token_accuracy=accuracy,
            mean_loss=math.log(perplexity),
            num_tokens=9000,
        ),
        benchmark=Benchmark(
            runtime="onnxruntime" if kind == "onnx" else "torch",
            prefill_tokens_per_s=10 * decode,
            decode_tokens_per_s=decode,
            latency_ms_p50=1000 / decode,
            latency_ms_p95=1100 / decode,
            peak_rss_bytes=1_010_000_000,
            **SHAPE,
        ),
        parity=Parity(
            reference=name.removesuffix("-onnx"),
            codes_equal=True if quantized else None,
            tensors_compared=211 if quantized else 0,
            max_abs_logit_diff=0.07,
            top1_agreement=0.99,
            kl_nats=0.0004,
        )
        if kind == "onnx"
        else None,
        group="qat",
        **more,
    )


@pytest.fixture
def report() -> Report:
    """A float model, PTQ and QAT of it, and the exports of the three."""
    return Report(
        quantship_version="0.1.0",
        name="run",
        created=datetime(2026, 3, 14, tzinfo=UTC),
        duration_s=1,
        environment=Environment(
            cpu_model="",
            instruction_sets=[],
            num_cpus=2,
            memory_bytes=1,
            gpu=None,
            os="",
            python="3.11",
            versions={},
        ),
        recipe={},
        data={},
        models=[
            row("finetune", "float", 6.112, 0.6125, 17.83),
            row("ptq-w8a8", "torchao", 6.231, 0.6081, 3.52),
            row("qat-w8a8", "torchao", 6.118, 0.6121, 3.52),
            row("finetune-onnx", "onnx", 6.112, 0.6125, 52.31),
            row("ptq-w8a8-onnx", "onnx", 6.238, 0.6078, 104.6),
            row("qat-w8a8-onnx", "onnx", 6.125, 0.6118, 104.6),
        ],
        training=[],
        notes=[],
    )
