"""Trains tiny models, alone or as one of several processes; the tests beside it compare.

    python train.py REQUEST                                        one process
    python -m torch.distributed.run --nproc-per-node 2 train.py REQUEST

REQUEST is a JSON file: a list of trainings, each with the ``case``, where to keep checkpoints
(``resume``), a checkpoint to go on from (``begun``), where to write what the first process ends
with (``out``), and whether the model is ``sharded``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save_file

from quantship import distillation, processes
from quantship.errors import QuantshipError
from quantship.grids import find_grids
from quantship.parallel import asked
from quantship.quant import compiling, lora
from quantship.quant.modules import codes_of, prepare_qat
from quantship.quant.numerics import Codes
from quantship.quant.rounding import WeightRounding
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import FinetuneStep, QatStep, TinyModel
from quantship.tiny import build_model, build_tokenizer
from quantship.training import train

SMALL = TinyModel(hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2, num_kv_heads=1)
NUM_ROWS = 21
CLASSES = 3
COMMON: dict[str, Any] = {"batch_size": 4, "max_steps": 8, "learning_rate": 3e-3, "save_steps": 4}
QAT = {"stage": "qat"}
CASES: dict[str, dict[str, Any]] = {
    "finetune": {"stage": "finetune"},  # 21 rows in batches of 4: a ragged end in each epoch
    "accumulated": {"stage": "finetune", "batch_size": 2, "gradient_accumulation": 4},
    "uneven": {"stage": "finetune", "batch_size": 2, "gradient_accumulation": 3},
    "bfloat16": {**QAT, "scheme": "w4a16-g32", "precision": "bfloat16"},
    "w8a8": {**QAT, "scheme": "w8a8", "gradient_accumulation": 2},
    "w4a16-g32": {**QAT, "scheme": "w4a16-g32"},
    "learned": {**QAT, "scheme": "w4a16-g32", "scales": "learned", "learning_rate": 3e-4},
    "static": {**QAT, "scheme": "w8a8-static", "scales": "learned", "learning_rate": 1e-5},
    "lora": {**QAT, "scheme": "w4a16-g32", "lora": True, "learning_rate": 3e-2},
    "qlora": {**QAT, "scheme": "w4a16-g32", "lora": {"base": "nf4"}, "learning_rate": 3e-2},
    "distilled": {**QAT, "scheme": "w4a16-g32", "distill": {"hidden_states": 0.5}},
    "distilled w8a8": {**QAT, "scheme": "w8a8", "distill": True, "gradient_accumulation": 3},
    "recomputed": {**QAT, "scheme": "w4a16-g32", "gradient_checkpointing": True},
    "recomputed lora": {
        **QAT,
        **{"scheme": "w4a16-g32", "lora": True, "learning_rate": 3e-2},
        **{"gradient_checkpointing": True, "batch_size": 2, "gradient_accumulation": 4},
    },
    "compiled": {**QAT, "scheme": "w4a16-g32", "compile": True},
    "classes": {"stage": "finetune", "gradient_accumulation": 3},
    "encoder": {"stage": "finetune", "gradient_accumulation": 3},
}


def main(requests: list[dict[str, Any]]) -> None:
    """Do all of them."""
    torch.set_num_threads(1)
    compiling.BACKEND = "aot_eager"  # cuts a model as any other, and builds nothing, which is slow
    with processes.together():
        for request in requests:
            os.environ[asked.VARIABLE] = "1" if request["sharded"] else "0"
            resume = Path(request["resume"])
            if request["begun"] and processes.is_first():
                begun = Path(request["begun"])
                shutil.copytree(begun, resume / begun.name)
            processes.meet()
            done = run(request["case"], resume, request["step"])
            if processes.is_first():
                out = Path(request["out"])
                out.mkdir(parents=True)
                (out / "facts.json").write_text(json.dumps(done[0]))
                save_file(done[1], out / "tensors.safetensors")
            processes.meet()


def run(
    case: str, resume: Path, changes: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Train; facts, and the weights and codes it ends with."""
    options = COMMON | CASES[case] | changes
    step = (QatStep if options["stage"] == "qat" else FinetuneStep).model_validate(options)
    data, model = made(case)
    teaching = None
    if isinstance(step, QatStep):
        if step.distill is not None:
            teacher = build_model(SMALL, build_tokenizer(64), seed=1)
            teaching = distillation.Teaching(teacher.eval().requires_grad_(False), step.distill)
        assert step.scheme is not None
        prepare_qat(model, SCHEMES[step.scheme])
        fixes, learned = step.scales != "current", step.scales == "learned"
        with TemporaryDirectory() as folder:
            data.save_to_disk(f"{folder}/train")
            find_grids(model, step, Path(folder), fixes_weights=fixes, learned=learned)
        if step.lora is not None:
            model = lora.add_adapters(model, step.lora)
    try:
        with roundings_seen() as seen:
            facts = train(
                model, data, step, pad_token_id=0, seed=0, resume=resume, teaching=teaching
            )
    except QuantshipError as error:
        return {"error": str(error)}, {}
    except KeyboardInterrupt:
        return {"error": "interrupted"}, {}
    if not processes.is_first():
        return facts, {}
    if hasattr(model, "peft_config"):
        model = lora.merge(model)
    tensors = {f"weight {name}": one.detach().clone() for name, one in model.named_parameters()}
    tensors |= {f"codes {name}": one.codes_OI.clone() for name, one in codes_of(model).items()}
    if case == "bfloat16":  # one micro-batch a step: the first matrix of each
        firsts = seen[:: len(seen) // step.max_steps] if step.max_steps else []
        tensors |= {f"seen {index}": one for index, one in enumerate(firsts)}
    return facts, tensors


@contextmanager
def roundings_seen() -> Iterator[list[torch.Tensor]]:
    """The codes of each rounding of a weight, in their order."""
    seen: list[torch.Tensor] = []
    codes = WeightRounding.codes

    def noted(rounding: WeightRounding, weight_OI: torch.Tensor) -> Codes:
        made = codes(rounding, weight_OI)
        seen.append(made.codes_OI.clone())
        return made

    WeightRounding.codes = noted  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        WeightRounding.codes = codes  # type: ignore[method-assign]


def made(case: str) -> tuple[Dataset, Any]:
    """Data of a case, and a fresh model."""
    generator = torch.Generator().manual_seed(0)
    lengths = [6 + index % 7 for index in range(NUM_ROWS)]
    rows = [torch.randint(4, 100, (length,), generator=generator).tolist() for length in lengths]
    classes = [index % CLASSES for index in range(NUM_ROWS)]
    if case == "classes":
        from quantship.mlp.model import build_model as build_mlp

        features = torch.randn(NUM_ROWS, 8, generator=generator).tolist()
        return Dataset.from_dict({"features": features, "labels": classes}), build_mlp(
            [8, 16, CLASSES], seed=0
        )
    if case == "encoder":
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=100,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            num_labels=CLASSES,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        return Dataset.from_dict(
            {"input_ids": rows, "labels": classes}
        ), BertForSequenceClassification(config)
    labels = [[-100] * (len(row) // 2) + row[len(row) // 2 :] for row in rows]
    model = build_model(SMALL, build_tokenizer(64), seed=0)
    return Dataset.from_dict({"input_ids": rows, "labels": labels}), model


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
