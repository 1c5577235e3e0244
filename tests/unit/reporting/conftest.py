from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from quantship.artifact import Artifact
from quantship.job import Node, Plan
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import FinetuneStep, QatStep, QuantizeStep
from quantship.reporting import fronts, quantization, ranking, recovery
from quantship.reporting.recovery_schema import Recovery
from quantship.reporting.schema import (
    Benchmark,
    Environment,
    Metrics,
    ModelRow,
    Parity,
    Report,
    TrainingCurve,
    TrainingPoint,
)
from quantship.stages import export, finetune, qat, quantize

FLOAT_BYTES = 538_112_512
READ_BYTES_PER_S = 33e9


def metrics(perplexity: float, token_accuracy: float) -> Metrics:
    return Metrics(
        perplexity=perplexity,
        token_accuracy=token_accuracy,
        mean_loss=math.log(perplexity),
        num_tokens=131_072,
    )


def benchmark(
    runtime: Literal["torch", "torchao", "onnxruntime"],
    prefill: float,
    decode: float,
    peak_rss_bytes: int,
    weight_bytes: int | None = None,
) -> Benchmark:
    floor = {
        "weight_bytes_per_token": weight_bytes,
        "read_bytes_per_s": READ_BYTES_PER_S,
        "share_of_memory_floor": (weight_bytes or 0) / READ_BYTES_PER_S * decode,
    }
    return Benchmark(
        runtime=runtime,
        prefill_tokens_per_s=prefill,
        decode_tokens_per_s=decode,
        latency_ms_p50=1000 / decode,
        latency_ms_p95=1130 / decode,
        peak_rss_bytes=peak_rss_bytes,
        batch_size=1,
        prompt_tokens=256,
        decode_tokens=32,
        threads=2,
        rounds=3,
        **(floor if weight_bytes else {}),
    )


def parity(
    reference: str, codes_equal: bool | None, max_abs_logit_diff: float, top1: float, kl: float
) -> Parity:
    return Parity(
        reference=reference,
        codes_equal=codes_equal,
        tensors_compared=0 if codes_equal is None else 211,
        max_abs_logit_diff=max_abs_logit_diff,
        top1_agreement=top1,
        kl_nats=kl,
    )


def float_rows(step: str, group: str, perplexity: float, token_accuracy: float) -> list[ModelRow]:
    return [
        ModelRow(
            name=step,
            step=step,
            kind="float",
            path=f"steps/{group}-0f3c19aa70e2b4d1",
            size_bytes=FLOAT_BYTES,
            compression=1.0,
            metrics=metrics(perplexity, token_accuracy),
            benchmark=benchmark("torch", 441.2, 17.83, 1_420_000_000),
            group=group,
        ),
        ModelRow(
            name=f"{step}-onnx",
            step="export",
            kind="onnx",
            path=f"steps/export-7be0c7c7125f6a90/{step}",
            size_bytes=FLOAT_BYTES + 1_104_000,
            compression=1.0,
            metrics=metrics(perplexity * 1.0001, token_accuracy),
            benchmark=benchmark("onnxruntime", 585.4, 52.31, 1_180_000_000, FLOAT_BYTES),
            parity=parity(step, None, 4.2e-5, 1.0, 3.1e-9),
            group=group,
        ),
    ]


def quantized_rows(
    step: str, group: str, scheme: str, perplexity: float, token_accuracy: float
) -> list[ModelRow]:
    eight_bit = scheme.startswith("w8")
    return [
        ModelRow(
            name=step,
            step=step,
            kind="torchao",
            path=f"steps/{group}-52d8a41b7701fe3c",
            scheme=scheme,
            size_bytes=135_800_000,
            compression=FLOAT_BYTES / 135_800_000,
            metrics=metrics(perplexity, token_accuracy),
            benchmark=benchmark("torchao", 276.0, 3.52, 1_010_000_000),
            activation_arithmetic="8 bit a token, asymmetric" if eight_bit else None,
            group=group,
        ),
        ModelRow(
            name=f"{step}-onnx",
            step="export",
            kind="onnx",
            path=f"steps/export-7be0c7c7125f6a90/{step}",
            scheme=scheme,
            size_bytes=136_900_000 if eight_bit else 86_300_000,
            compression=FLOAT_BYTES / (136_900_000 if eight_bit else 86_300_000),
            metrics=metrics(perplexity * 1.0012, token_accuracy - 0.0003),
            benchmark=(
                benchmark("onnxruntime", 735.1, 104.6, 486_000_000, 135_800_000)
                if eight_bit
                else benchmark("onnxruntime", 528.8, 133.4, 402_000_000, 86_000_000)
            ),
            parity=parity(step, True, 0.0712, 0.9943, 0.00041),
            lowering="integer" if eight_bit else "nbits",
            activation_arithmetic="8 bit a token, asymmetric" if eight_bit else "8 bit a block",
            group=group,
        ),
    ]


def curve(step: str, stage: str, scheme: str | None, start: float, end: float) -> TrainingCurve:
    num_points = 30
    points = []
    for place in range(1, num_points + 1):
        wobble = 0.03 * math.sin(place * 2.3)
        decay = math.exp(-place / 7)
        points.append(
            TrainingPoint(
                step=5 * place,
                loss=end + (start - end) * decay + wobble,
                learning_rate=2e-5 * (1 + math.cos(math.pi * place / num_points)) / 2,
                grad_norm=1.4 * decay + 0.6,
            )
        )
    return TrainingCurve(
        step=step, stage=stage, scheme=scheme, points=points, seconds=403.2, tokens_per_s=1270.4
    )


@pytest.fixture
def report() -> Report:
    """A run as recipes make them: one fine-tuned model, PTQ and QAT of it at two schemes."""
    return Report(
        quantship_version="0.1.0",
        name="smollm2-135m-w8a8-qat",
        created=datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC),
        duration_s=1503.7,
        environment=Environment(
            cpu_model="AMD EPYC 7B13",
            instruction_sets=["avx2", "f16c", "fma"],
            num_cpus=2,
            memory_bytes=25_253_134_336,
            gpu=None,
            os="Linux 6.1.0 (Debian 12)",
            python="3.11.9",
            versions={"torch": "2.13.0", "torchao": "0.18.0", "onnxruntime": "1.31.1"},
        ),
        recipe={
            "name": "smollm2-135m-w8a8-qat",
            "description": "Fine-tune on GSM8K, then PTQ and QAT from the same float model.",
            "seed": 0,
            "model": {"hub": "HuggingFaceTB/SmolLM2-135M-Instruct", "revision": "main"},
            "data": {
                "train": [{"adapter": "gsm8k", "split": "train", "limit": None}],
                "max_length": 512,
                "mask_prompt": True,
            },
            "steps": [
                {"stage": "finetune", "learning_rate": 2e-05},
                {"stage": "quantize", "name": "ptq-w8a8", "scheme": "w8a8"},
                {"stage": "qat", "name": "qat-w8a8", "scheme": "w8a8"},
            ],
        },
        data={
            "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "train": {"records": 7473, "over_length": 12, "tokens": 1_512_233},
            "eval": {"records": 1319, "over_length": 3, "tokens": 280_114, "masked_share": 0.312},
            "sources": [
                {"adapter": "gsm8k", "split": "train", "records": 7473},
                {"adapter": "gsm8k", "split": "test", "records": 1319, "limit": 1319},
            ],
        },
        models=[
            *float_rows("baseline", "baseline", 25.494, 0.4123),
            *float_rows("finetune", "finetune", 6.112, 0.6125),
            *quantized_rows("ptq-w8a8", "ptq", "w8a8", 6.231, 0.6081),
            *quantized_rows("ptq-w4a16-g32", "ptq", "w4a16-g32", 8.402, 0.5522),
            *quantized_rows("qat-w8a8", "qat", "w8a8", 6.118, 0.6121),
            *quantized_rows("qat-w4a16-g32", "qat", "w4a16-g32", 6.571, 0.5994),
        ],
        training=[
            curve("finetune", "finetune", None, 2.9, 1.71),
            curve("qat-w8a8", "qat", "w8a8", 1.78, 1.66),
            curve("qat-w4a16-g32", "qat", "w4a16-g32", 2.22, 1.73).model_copy(
                update={"resumed_from": 100}
            ),
        ],
        notes=["Speeds were measured with 2 threads, one model at a time."],
    )


Array = np.ndarray[Any, np.dtype[Any]]


class Lab:
    """Plans and losses, as runs leave them, without running anything."""

    def tune(self, name: str, source: str, seed: int = 1, **options: object) -> Node:
        step = FinetuneStep.model_validate({"stage": "finetune", **options})
        settings = finetune.Settings(step=step, seed=seed)
        inputs = {"model": source, "data": "data"}
        return Node(name, "finetune", settings, inputs, None, "finetune", name)

    def qat(self, name: str, source: str, scheme: str, seed: int = 1, **options: object) -> Node:
        step = QatStep.model_validate({"stage": "qat", "scheme": scheme, **options})
        settings = qat.Settings(step=step, scheme=SCHEMES[scheme], seed=seed)
        inputs = {"model": source, "data": "data"}
        return Node(name, "qat", settings, inputs, SCHEMES[scheme], "qat", name)

    def ptq(self, name: str, source: str, scheme: str, **options: object) -> Node:
        step = QuantizeStep.model_validate({"stage": "quantize", "scheme": scheme, **options})
        settings = quantize.Settings(step=step, scheme=SCHEMES[scheme])
        return Node(name, "quantize", settings, {"model": source}, SCHEMES[scheme], "ptq", name)

    def export(self, node: Node) -> Node:
        settings = export.Settings(lowering="nbits", target="x86", scheme=node.scheme)
        name = f"{node.name}-onnx"
        return Node(name, "export", settings, {"model": node.name}, node.scheme, node.group, name)

    def plan(self, *nodes: Node) -> Plan:
        model = Node("model", "model", None, {}, None, "baseline", "model")
        data = Node("data", "data", None, {"model": "model"}, None, "", "data")
        return Plan((model, data, *nodes), {})

    def trained(self, num_steps: int = 200, **num_tokens: int | None) -> dict[str, Artifact]:
        """What trainings left that took so many steps, and saw so many tokens if that is known."""
        return {
            name.replace("_", "-"): Artifact(
                Path(name),
                "",
                name,
                {"training": {"num_steps": num_steps} | ({"num_tokens": seen} if seen else {})},
            )
            for name, seen in num_tokens.items()
        }

    def measure(self, losses: dict[str, float], size: int = 400) -> tuple[dict[str, Array], Array]:
        """Sums by sequence of models with just these mean losses; what is hard is so for all."""
        generator = np.random.default_rng(3)
        num_tokens = generator.integers(40, 400, size)

        def centred(values: Array) -> Array:
            return values - (values * num_tokens).sum() / num_tokens.sum()

        hardness = centred(generator.gamma(9.0, 0.2, size))
        nll_nats = {
            name: (loss + hardness + centred(generator.normal(0, 0.06, size))) * num_tokens
            for name, loss in losses.items()
        }
        return nll_nats, num_tokens

    def recover(
        self,
        plan: Plan,
        made: dict[str, Artifact],
        losses: dict[str, float],
        size: int = 400,
        **methods: str,
    ) -> list[Recovery]:
        branches = recovery.branches(plan)
        return recovery.build(branches, made, *self.measure(losses, size), methods, seed=0)


@pytest.fixture
def lab() -> Lab:
    """Makes plans and losses."""
    return Lab()


@pytest.fixture
def recovered(report: Report, lab: Lab) -> Report:
    """The same run with a control, and what QAT recovered."""
    control = float_rows("tune", "finetune", 6.098, 0.6131)[0]
    rows = [*report.models, control]
    plan = lab.plan(
        lab.tune("finetune", "model"),
        lab.ptq("ptq-w8a8", "finetune", "w8a8"),
        lab.ptq("ptq-w4a16-g32", "finetune", "w4a16-g32"),
        lab.qat("qat-w8a8", "finetune", "w8a8"),
        lab.qat("qat-w4a16-g32", "finetune", "w4a16-g32"),
        lab.tune("tune", "finetune", learning_rate=1e-4),
    )
    losses = {
        row.name: row.metrics.mean_loss
        for row in rows
        if row.metrics is not None and row.kind != "onnx"
    }
    made = lab.trained(qat_w8a8=None, qat_w4a16_g32=None, tune=None)
    entries = lab.recover(plan, made, losses)
    return report.model_copy(update={"models": rows, "recovery": entries})


SIZES = {
    "w4a16-g32": 91_900_000,
    "w4a16-g128": 82_300_000,
    "w4a8": 151_600_000,
    "w8a8": 136_900_000,
    "w8a8-static": 137_100_000,
}
COSTS = {"w4a16-g32": 0.09, "w4a16-g128": 0.17, "w4a8": 0.19, "w8a8": 0.004, "w8a8-static": 0.12}
"""What rounding to nearest loses in nats a token."""
ALGORITHMS = {"rtn": 1.0, "gptq": 0.55, "awq": 0.6, "hqq": 0.8, "smoothquant": 0.45}
"""The share of it that is left."""


def swept(lab: Lab, report: Report, sizes: dict[str, int]) -> Report:
    """A run of every algorithm at these schemes, GPTQ with three seeds of calibration data."""
    nodes = [lab.tune("finetune", "model")]
    losses = {"finetune": 1.8}
    for place, (scheme, algorithm) in enumerate(product(sizes, ALGORITHMS)):
        for seed in (0, 1, 2) if algorithm == "gptq" else (None,):
            name = f"ptq-{scheme}-{algorithm}" + ("" if seed is None else f"-seed{seed}")
            options = {"algorithm": algorithm, "calibration": {"seed": seed}}
            nodes.append(lab.ptq(name, "finetune", scheme, **options))
            wobble = 0.002 * math.sin(7 * place + (seed or 0))
            losses[name] = 1.8 + COSTS[scheme] * (ALGORITHMS[algorithm] + wobble)
    plan = lab.plan(*nodes)
    remark = "layers.3.mlp.up_proj: its Hessian is not positive definite: rounded to nearest"
    made = {
        node.name: Artifact(
            Path(node.name),
            node.stage,
            node.name,
            {
                "calibration_sequences": 0 if node.name.endswith("rtn") else 128,
                "calibration_tokens": 26_112,
                "seconds": 61.5,
                "peak_rss_bytes": 912_000_000,
                "notes": [remark] if node.name.endswith("g128-gptq-seed1") else [],
            },
        )
        for node in nodes
    }
    rows = [
        ModelRow(
            name=node.name,
            step=node.name,
            kind="float" if node.scheme is None else "torchao",
            path=f"steps/{node.name}",
            scheme=node.scheme.name if node.scheme is not None else None,
            quantization=quantization.of_model(node, plan, made),
            float_source="finetune",
            size_bytes=FLOAT_BYTES if node.scheme is None else sizes[node.scheme.name],
            metrics=metrics(math.exp(losses[node.name]), 0.6),
            group=node.group,
        )
        for node in nodes
    ]
    found = ranking.resample(*lab.measure(losses), seed=0)
    return report.model_copy(
        update={
            "name": "sweep",
            "models": rows,
            "training": [],
            "ranking": ranking.rank(ranking.contenders(rows), found, by="lost"),
            "fronts": fronts.fronts(rows),
        }
    )


@pytest.fixture
def sweep(lab: Lab, report: Report) -> Report:
    """A small sweep: two schemes, every algorithm."""
    return swept(lab, report, {name: SIZES[name] for name in ("w4a16-g32", "w4a16-g128")})


@pytest.fixture
def large_sweep(lab: Lab, report: Report) -> Report:
    """A sweep of five schemes and every algorithm: 36 models."""
    return swept(lab, report, SIZES)


@pytest.fixture
def bare(report: Report) -> Report:
    """The same run with nothing measured, nothing trained and nothing to say."""
    unmeasured = {"metrics": None, "benchmark": None, "parity": None, "compression": None}
    models = [row.model_copy(update=unmeasured) for row in report.models]
    return report.model_copy(update={"models": models, "training": [], "data": {}, "notes": []})


@pytest.fixture
def broken(report: Report) -> Report:
    """The same run, where the last model's codes are not those of its checkpoint."""
    *others, last = report.models
    assert last.parity is not None
    wrong = last.parity.model_copy(update={"codes_equal": False})
    return report.model_copy(
        update={"models": [*others, last.model_copy(update={"parity": wrong})]}
    )
