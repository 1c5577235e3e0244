"""Reports with everything in them that a report can have, made up, to be looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime

from quantship.reporting import fronts
from quantship.reporting.evidence_schema import (
    Contrast,
    Evidence,
    Gate,
    LostExample,
    MetricFacts,
    Regressions,
    SideBySide,
    TaskFacts,
    TaskResult,
)
from quantship.reporting.layers_schema import (
    HeldRange,
    HeldRanges,
    Layers,
    RoundingErrors,
    SeenInput,
    SeenInputs,
)
from quantship.reporting.recovery_schema import Estimate
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

FLOAT_BYTES = 538_112_512
CHECKPOINTS = {
    # name: group, scheme, bytes, and what it loses of everything, from 0 to 1
    "model": ("baseline", None, FLOAT_BYTES, 0.75),
    "finetune": ("finetune", None, FLOAT_BYTES, 0.0),
    "ptq-w8a8-static": ("ptq", "w8a8-static", 136_000_000, 0.03),
    "ptq-w4a16-g32": ("ptq", "w4a16-g32", 91_900_000, 0.5),
    "ptq-w4a16-g32-gptq": ("ptq", "w4a16-g32", 91_900_000, 0.3),
    "qat-w4a16-g32": ("qat", "w4a16-g32", 91_900_000, 0.09),
}
METRICS = {
    "data": [("perplexity", "lower", "perplexity"), ("token_accuracy", "higher", "share")],
    "gsm8k": [("exact_match", "higher", "share"), ("answered", "higher", "share")],
    "wikitext": [("perplexity", "lower", "perplexity")],
    "sst2": [("accuracy", "higher", "share"), ("f1", "higher", "share")],
    "divergence": [("kl_nats", "lower", "nats"), ("top1_agreement", "higher", "share")],
}
KINDS = {
    "self_attn.q_proj": 0.9,
    "self_attn.k_proj": 1.0,
    "self_attn.v_proj": 1.15,
    "self_attn.o_proj": 1.1,
    "mlp.gate_proj": 0.95,
    "mlp.up_proj": 0.92,
    "mlp.down_proj": 1.2,
}
NUM_BLOCKS = 30
QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in "
    "May. How many clips did Natalia sell altogether in April and May?"
)
RIGHT = "Natalia sold 48 / 2 = 24 clips in May.\nShe sold 48 + 24 = 72 clips in all.\n#### 72"
WRONG = "Natalia sold 48 * 2 = 96 clips in May.\nShe sold 48 + 96 = 144 clips in all.\n#### 144"


def whole() -> Report:
    """A run on which everything was measured, with a gate that failed."""
    rows = list(_rows())
    return Report(
        quantship_version="0.1.0",
        name="smollm2-135m-everything",
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
            "name": "smollm2-135m-everything",
            "description": "Fine-tune on GSM8K, then PTQ and QAT from the same float model.",
            "seed": 0,
            "steps": [{"stage": "finetune", "learning_rate": 2e-05}],
        },
        data={
            "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "train": {"records": 7473, "over_length": 12, "tokens": 1_512_233},
            "eval": {"records": 1319, "over_length": 3, "tokens": 280_114},
        },
        models=rows,
        training=[_curve("finetune", "finetune", 2.9), _curve("qat-w4a16-g32", "qat", 2.1)],
        fronts=fronts.fronts(rows),
        evidence=_evidence(rows),
        gates=list(_gates()),
        layers=_layers(),
        notes=["Speeds were measured with 2 threads, one model at a time."],
    )


def passing() -> Report:
    """The same run, where every gate holds."""
    report = whole()
    return report.model_copy(update={"gates": [gate for gate in report.gates if gate.passed]})


def _rows() -> Iterator[ModelRow]:
    for name, (group, scheme, size, loss) in CHECKPOINTS.items():
        perplexity = 6.112 * math.exp(loss * 0.6)
        common = {
            "step": name,
            "scheme": scheme,
            "compression": FLOAT_BYTES / size,
            "group": group,
            "float_source": name if scheme is None else "finetune",
        }
        yield ModelRow(
            name=name,
            kind="float" if scheme is None else "torchao",
            path=f"steps/{name}",
            size_bytes=size,
            metrics=_metrics(perplexity, loss),
            tasks=_results(name, loss),
            benchmark=_benchmark("torch" if scheme is None else "torchao", 441.0, 17.8, 1.42e9),
            **common,
        )
        if name == "model":
            continue
        yield ModelRow(
            name=f"{name}-onnx",
            kind="onnx",
            path=f"steps/{name}-onnx",
            size_bytes=size + 1_100_000,
            metrics=_metrics(perplexity * 1.001, loss),
            tasks=_results(f"{name}-onnx", loss + 0.004),
            benchmark=_benchmark("onnxruntime", 585.0, 52.3e8 / size, 0.5e9 + 2 * size),
            parity=Parity(
                reference=name,
                codes_equal=None if scheme is None else True,
                tensors_compared=0 if scheme is None else 211,
                max_abs_logit_diff=0.07,
                top1_agreement=0.994,
                kl_nats=4.1e-4,
            ),
            lowering=None if scheme is None else "nbits",
            **common,
        )


def _metrics(perplexity: float, loss: float) -> Metrics:
    return Metrics(
        perplexity=perplexity,
        token_accuracy=0.6125 - 0.1 * loss,
        mean_loss=math.log(perplexity),
        num_tokens=131_072,
    )


def _benchmark(runtime: str, prefill: float, decode: float, memory: float) -> Benchmark:
    return Benchmark(
        runtime=runtime,  # type: ignore[arg-type]
        prefill_tokens_per_s=prefill,
        decode_tokens_per_s=decode,
        latency_ms_p50=1000 / decode,
        latency_ms_p95=1130 / decode,
        peak_rss_bytes=round(memory),
        batch_size=1,
        prompt_tokens=256,
        decode_tokens=32,
        threads=2,
        rounds=3,
    )


def _results(name: str, loss: float) -> dict[str, TaskResult]:
    exported = name.endswith("-onnx")
    results = {}
    for task, metrics in METRICS.items():
        if task == "divergence" and name.startswith(("model", "finetune")):
            continue
        results[task] = TaskResult(
            metrics={metric: _estimate(task, metric, loss) for metric, _, _ in metrics},
            extra={},
            runtime="onnxruntime" if exported else "torch",
            seconds=31.5,
        )
    return results


def _estimate(task: str, metric: str, loss: float) -> Estimate:
    match metric:
        case "perplexity":
            value = (6.112 if task == "data" else 17.4) * math.exp(loss * 0.6)
            width = 0.02 * value
        case "kl_nats":
            value, width = 0.0008 + 0.11 * loss, 0.004 * loss + 0.0001
        case "exact_match":
            value, width = 0.313 * (1 - loss), 0.031
        case _:
            value, width = 0.912 - 0.3 * loss, 0.018
    return Estimate(value=value, low=value - width, high=value + width)


def _evidence(rows: list[ModelRow]) -> Evidence:
    return Evidence(
        tasks=[
            TaskFacts(
                name=name,
                task="perplexity" if name in ("data", "wikitext") else name,
                metrics=[
                    MetricFacts(
                        name=metric,
                        better=better,  # type: ignore[arg-type]
                        kind=kind,  # type: ignore[arg-type]
                        judges=metric in ("exact_match", "accuracy"),
                    )
                    for metric, better, kind in metrics
                ],
                num_examples=200,
                digest="7f33ed1afe9f54c99beda3a697650bd3" * 2,
                notes=["3 examples were left out: they are longer than 512 tokens."]
                if name == "gsm8k"
                else [],
            )
            for name, metrics in METRICS.items()
        ],
        contrasts=list(_contrasts(rows)),
        regressions=_regressions(),
        generations=list(_generations()),
        confidence=0.95,
        num_resamples=10_000,
    )


def _contrasts(rows: list[ModelRow]) -> Iterator[Contrast]:
    by_name = {row.name: row for row in rows}
    for row in rows:
        if row.scheme is None:
            continue
        pairs = [("finetune", "float")]
        if row.name == "qat-w4a16-g32":
            pairs.append(("ptq-w4a16-g32-gptq", "ptq"))
        if row.kind == "onnx":
            pairs.append((row.name.removesuffix("-onnx"), "source"))
        for over, why in pairs:
            for task, metrics in METRICS.items():
                for metric, _, kind in metrics:
                    other = by_name[over].tasks.get(task)
                    if other is None:
                        continue
                    one, two = row.tasks[task].metrics[metric], other.metrics[metric]
                    value = (
                        one.value / two.value - 1 if kind == "perplexity" else one.value - two.value
                    )
                    width = 0.006 + 0.2 * abs(value)
                    share = Estimate(value=0.7, low=0.61, high=0.78) if why == "ptq" else None
                    exported = why == "source" and kind == "perplexity"
                    yield Contrast(
                        task=task,
                        metric=metric,
                        model=row.name,
                        over=over,
                        why=why,  # type: ignore[arg-type]
                        difference=Estimate(value=value, low=value - width, high=value + width),
                        recovered=share,
                        tolerance=0.02 if exported else None,
                        within=True if exported else None,
                    )


def _regressions() -> list[Regressions]:
    def entry(model: str, lost: int, won: int) -> Regressions:
        return Regressions(
            task="gsm8k",
            metric="exact_match",
            model=model,
            over="finetune",
            num_lost=lost,
            num_won=won,
            examples=[
                LostExample(
                    id=f"test[{number}]",
                    prompt=QUESTION,
                    expected="72",
                    before=RIGHT,
                    after=WRONG,
                )
                for number in range(min(lost, 3))
            ],
        )

    return [
        entry("ptq-w4a16-g32", 34, 5),
        entry("qat-w4a16-g32", 12, 7),
        entry("ptq-w8a8-static", 2, 3),
    ]


def _generations() -> Iterator[SideBySide]:
    yield SideBySide(
        task="gsm8k",
        id="test[0]",
        prompt=QUESTION,
        expected="72",
        answers={
            "model": "To solve this, let us think about the clips that " + "Natalia sold " * 30,
            "finetune": RIGHT,
            "finetune-onnx": RIGHT,
            "ptq-w8a8-static": RIGHT,
            "ptq-w4a16-g32": WRONG,
            "ptq-w4a16-g32-gptq": RIGHT.replace("72", "71"),
            "qat-w4a16-g32": RIGHT.replace("She sold", "Altogether she sold"),
        },
    )
    yield SideBySide(
        task="gsm8k",
        id="test[1]",
        prompt="<|im_start|>user\nWhat is a clip?<|im_end|>\n<|im_start|>assistant\n",
        expected=None,
        answers={"finetune": "A small thing.", "ptq-w4a16-g32": "A small thing. " * 3, "model": ""},
    )


def _gates() -> Iterator[Gate]:
    def gate(model: str, metric: str, rule: str, measured: str, *, passed: bool) -> Gate:
        return Gate(
            model=model,
            metric=metric,
            over="finetune",
            rule=rule,
            limit=0.02,
            value=0.0191,
            measured=measured,
            bound=None,
            confidence=None,
            passed=passed,
            reason=f"{metric} of {model} is {measured} finetune; the limit is {rule}",
        )

    rule = "at most 2 % above finetune"
    yield gate(
        "qat-w4a16-g32", "perplexity", "at most 6 % above finetune", "5.55 % above", passed=True
    )
    yield gate("ptq-w8a8-static", "perplexity", rule, "1.82 % above", passed=True)
    yield gate("ptq-w4a16-g32", "perplexity", rule, "34.99 % above", passed=False)
    yield gate(
        "qat-w4a16-g32",
        "gsm8k.exact_match",
        "at most 5 points below finetune, with 95 % confidence",
        "2.82 points below; at most 4.90 points below with 95 % confidence",
        passed=True,
    )


def _layers() -> Layers:
    blocks = [(block, kind) for block in range(NUM_BLOCKS) for kind in KINDS]
    names = {pair: f"model.layers.{pair[0]}.{pair[1]}" for pair in blocks}

    def errors(model: str, size: float) -> RoundingErrors:
        found = {"model.embed_tokens": 0.011}
        for block, kind in blocks:
            bump = 1.3 if block in (0, 23) else 1 + 0.05 * math.sin(2 * block)
            found[names[block, kind]] = size * KINDS[kind] * bump
        return RoundingErrors(model=model, layers=found)

    def reach(block: int, kind: str) -> float:
        outlier = 400.0 if kind == "mlp.down_proj" and block in (11, 28) else 1.0
        return (4 + block / 6) * (0.3 if kind == "self_attn.o_proj" else 1.0) * outlier

    return Layers(
        errors=[
            errors("ptq-w8a8-static", 0.008),
            errors("ptq-w4a16-g32", 0.098),
            errors("ptq-w4a16-g32-gptq", 0.12),
        ],
        seen=[
            SeenInputs(
                model="finetune",
                num_sequences=32,
                num_tokens=8000,
                inner_share=0.999,
                layers={
                    names[block, kind]: SeenInput(
                        lowest=-0.8 * reach(block, kind),
                        highest=reach(block, kind),
                        inner_low=-0.2 * (4 + block / 6),
                        inner_high=0.25 * (4 + block / 6),
                    )
                    for block, kind in blocks
                },
            )
        ],
        ranges=[
            HeldRanges(
                model="ptq-w8a8-static",
                seen=0,
                layers={
                    names[block, kind]: HeldRange(
                        low=-0.6 * reach(block, kind), high=0.75 * reach(block, kind)
                    )
                    for block, kind in blocks
                },
            )
        ],
    )


def _curve(step: str, stage: str, start: float) -> TrainingCurve:
    return TrainingCurve(
        step=step,
        stage=stage,
        points=[
            TrainingPoint(step=5 * place, loss=1.7 + (start - 1.7) * math.exp(-place / 7))
            for place in range(1, 31)
        ],
        seconds=403.2,
        tokens_per_s=1270.4,
    )
