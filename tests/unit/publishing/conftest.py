from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantship import sealed
from quantship.artifact import MANIFEST, Manifest, digests
from quantship.publishing.finished import Finished
from quantship.quant.scheme import SCHEMES
from quantship.reporting.evidence_schema import Contrast, Evidence, MetricFacts, TaskFacts
from quantship.reporting.recovery_schema import Estimate
from quantship.reporting.schema import Environment, Metrics, ModelRow, Report

BASE_CARD = """\
---
license: apache-2.0
language:
- en
library_name: transformers
pipeline_tag: text-generation
tags:
- safetensors
- chat
---
# A model
"""


def estimate(value: float, width: float = 0.01) -> Estimate:
    return Estimate(value=value, low=value - width, high=value + width)


@dataclass
class Maker:
    """Makes the directories of a run, of nothing but what publishing reads.

    Args:
        root: Where they lie.
    """

    root: Path

    def base(self, card: str = BASE_CARD, files: dict[str, str] | None = None) -> Path:
        """A directory to start from."""
        path = self.root / "base"
        path.mkdir(exist_ok=True)
        for name, text in {"README.md": card, **(files or {})}.items():
            (path / name).write_text(text)
        return path

    def model(self, name: str, kind: str, scheme: str | None) -> Path:
        """A model's directory."""
        path = self.root / "runs" / "it" / "models" / name
        path.mkdir(parents=True)
        settings = {"scheme": SCHEMES[scheme].model_dump(mode="json") if scheme else None}
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        if scheme is not None and kind == "torchao":
            config |= {"quantization_config": {"quant_method": "torchao"}}
        if kind == "onnx":
            config |= {"transformers.js_config": {"dtype": "fp32"}}
        for file in ("tokenizer.json", "generation_config.json"):
            (path / file).write_text("{}")
        (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x", "of": kind}))
        (path / "config.json").write_text(json.dumps(config))
        (path / "noise.log").write_text("of a library")
        (path / "lock.json").write_text("{}")
        if kind == "onnx":
            write_graph(path)
            genai = {"model": {"decoder": {"filename": "model.onnx"}, "type": "llama"}}
            (path / "genai_config.json").write_text(json.dumps(genai))
        else:
            (path / "model.safetensors").write_bytes(name.encode() * 20)
        manifest = Manifest(
            stage="qat",
            fingerprint="",
            settings=settings,
            inputs={},
            facts={},
            duration_s=0,
            finished="",
            files=digests(path),
        )
        (path / MANIFEST).write_text(sealed.dumps(manifest.model_dump()))
        return path

    def run(
        self,
        models: dict[str, tuple[str, str | None]],
        start: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Finished:
        """A finished run.

        Args:
            models: Kind and scheme of each model, by its name.
            start: The model that the recipe starts from; default: a directory with a card.
            changes: To the report.
        """
        for name, (kind, scheme) in models.items():
            self.model(name, kind, scheme)
        base = None if start else self.base()
        report = Report(
            quantship_version="0.1.0",
            name="it",
            created=datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC),
            duration_s=1.0,
            environment=Environment(
                cpu_model="AMD EPYC 7B13",
                instruction_sets=["avx2"],
                num_cpus=2,
                memory_bytes=25_253_134_336,
                gpu=None,
                os="Linux",
                python="3.11.9",
                versions={"torch": "2.13.0"},
            ),
            recipe={
                "name": "it",
                "description": "A *test* of | cards.",
                "model": start or {"path": str(base)},
                "data": {
                    "train": [{"adapter": "gsm8k", "path": "train.jsonl"}],
                    "eval": [{"adapter": "gsm8k", "path": "test.jsonl", "split": "test"}],
                },
                "evaluation": {"tasks": [{"task": "gsm8k", "source": None}]},
                "push": None,
            },
            data={},
            models=[
                row("model", "float", None, "baseline"),
                row("finetune", "float", None, "finetune"),
                *(row(name, kind, scheme, "qat") for name, (kind, scheme) in models.items()),
            ],
            training=[],
            evidence=evidence(list(models)),
            notes=[],
        )
        directory = self.root / "runs" / "it"
        directory.mkdir(parents=True, exist_ok=True)
        finished = Finished(directory, report.model_copy(update=changes))
        for name in ("report.md", "report.html"):
            (directory / name).write_text("a report")
        (directory / "report.json").write_text(finished.report.model_dump_json())
        return finished


def row(name: str, kind: Any, scheme: str | None, group: str) -> ModelRow:
    result = {"exact_match": estimate(0.4125, 0.03)}
    task = {"metrics": result, "extra": {}, "runtime": "torch", "seconds": None}
    return ModelRow(
        name=name,
        step=name,
        kind=kind,
        path=name,
        scheme=scheme,
        size_bytes=135_800_000,
        metrics=Metrics(
            perplexity=math.exp(1.8), token_accuracy=0.6, mean_loss=1.8, num_tokens=1000
        ),
        tasks={"gsm8k": task},  # type: ignore[dict-item]
        float_source="finetune" if scheme else None,
        group=group,
    )


def evidence(models: list[str]) -> Evidence:
    return Evidence(
        tasks=[
            TaskFacts(
                name="gsm8k",
                task="gsm8k",
                metrics=[
                    MetricFacts(name="exact_match", better="higher", kind="share", judges=True)
                ],
                num_examples=100,
                digest="0",
                notes=[],
            )
        ],
        contrasts=[
            Contrast(
                task="gsm8k",
                metric="exact_match",
                model=name,
                over="finetune",
                why="float",
                difference=estimate(-0.02, 0.015),
            )
            for name in models
        ],
        regressions=[],
        generations=[],
        confidence=0.95,
        num_resamples=1000,
    )


def write_graph(path: Path, data: str = "model.onnx_data") -> None:
    """A graph with external data at its top, in a branch, in an attribute and in a function."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def tensor(name: str, offset: int) -> TensorProto:
        made = numpy_helper.from_array(np.arange(4, dtype=np.float32) + offset, name)
        made.data_location = TensorProto.EXTERNAL
        made.ClearField("raw_data")
        for key, value in (("location", data), ("offset", str(16 * offset)), ("length", "16")):
            made.external_data.add(key=key, value=value)
        return made

    def branch(name: str, offset: int) -> Any:
        node = helper.make_node("Identity", [f"{name}_w"], [f"{name}_y"])
        output = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [4])
        return helper.make_graph([node], name, [], [output], [tensor(f"{name}_w", offset)])

    nodes = [
        helper.make_node("Constant", [], ["constant"], value=tensor("constant", 1)),
        helper.make_node(
            "If", ["cond"], ["chosen"], then_branch=branch("a", 2), else_branch=branch("b", 3)
        ),
        helper.make_node("Twice", [], ["more"], domain="own"),
        helper.make_node("Sum", ["top", "constant", "chosen", "more"], ["out"]),
    ]
    inside = helper.make_node("Constant", [], ["t"], value=tensor("t", 4))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Twice", [], ["t"], [inside], opsets[:1])
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("cond", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [4])],
        [tensor("top", 0)],
    )
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10)
    (path / "model.onnx").write_bytes(model.SerializeToString())
    content = np.concatenate([np.arange(4, dtype=np.float32) + offset for offset in range(5)])
    (path / data).write_bytes(content.tobytes())
    onnx.checker.check_model(str(path / "model.onnx"))


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


@pytest.fixture
def usual(maker: Maker) -> Callable[..., Finished]:
    """A run with a checkpoint and two exports, of a model with a card."""

    def make(**changes: Any) -> Finished:
        models = {"qat": ("torchao", "w8a8"), "qat-onnx": ("onnx", "w8a8")}
        return maker.run({**models, "ptq-onnx": ("onnx", "w4a16-g32")}, **changes)

    return make
