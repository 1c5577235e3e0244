"""Small real files of every kind that quantship reads, made by quantship itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from mutate import OUTSIDE, SECRETS

ONNX = (("float", "float"), ("w8a8", "integer"), ("w4a16-g32", "nbits"), ("w8a8-static", "qdq"))
"""Scheme and lowering of the exports."""
CHECKPOINTS = ("w8a8", "w4a16-g32", "w8a8-static")
RECIPE = """\
extends: base.yaml
model: model
scheme: w8a8
data:
  train: [{adapter: chat, path: chat.jsonl, limit: 3}]
  eval: [{adapter: builtin, split: eval}]
  max_length: 48
schemes:
  mine:
    base: w8a8
    weight: {bits: 4, group_size: 32}
    overrides: [{layers: "*.down_proj", weight: float}]
steps:
  - {stage: finetune, max_steps: 2}
  - {stage: qat, input: finetune, learning_rate: 1e-3, distill: {teacher: model}}
  - {stage: quantize, name: ptq, scheme: [w8a8, w8a16], algorithm: [rtn, {kind: gptq}]}
  - {stage: quantize, name: own, scheme: mine}
  - {stage: export, input: [finetune, qat, ptq]}
evaluation:
  limit: 4
  tasks: [{task: perplexity, source: {adapter: chat, path: chat.jsonl}}]
gates: [{perplexity: {max_increase: 5%, over: finetune}}]
"""
BASE = """\
description: a base
seed: 3
benchmark: null
profiles:
  smoke: {steps.qat.max_steps: 1, data: {max_length: 64}}
"""
RUN = """\
model:
  tiny: {hidden_size: 32, intermediate_size: 64, num_layers: 1, num_heads: 2, num_kv_heads: 1,
         max_positions: 64}
data:
  train: [{adapter: builtin, num_examples: 4}]
  eval: [{adapter: builtin, split: eval, num_examples: 4}]
  max_length: 64
steps:
  - {stage: quantize, name: ptq, scheme: w8a8}
  - {stage: export, input: [ptq]}
evaluation: {parity_sequences: 2}
benchmark: null
gates: [{perplexity: {max_increase: 90%, over: model}}]
"""
DEFINITION = """\
task: quiz
dataset_path: json
dataset_kwargs: {data_files: {test: quiz.jsonl}}
include: common.yaml
output_type: multiple_choice
doc_to_text: "{{question}}"
tag: [quizzes]
"""


def make(folder: Path, *, with_run: bool = True) -> None:
    """Write every seed below a folder, each into a folder of its own, and what lies outside.

    Args:
        folder: An empty one.
        with_run: Also run a recipe, which takes as long as the rest.
    """
    model = _float_model(folder / "float")
    _checkpoints(folder, model)
    _exports(folder)
    _recipe(folder / "recipe", model)
    _definitions(folder / "definitions")
    _module(folder / "module")
    _data(folder / "data")
    if with_run:
        _run(folder)
    outside = folder / OUTSIDE
    outside.mkdir()
    for name in SECRETS:
        (outside / name).write_bytes(b"not yours\n" * 500)
    shutil.copy(folder / "w8a8" / "model.safetensors", outside / "model.safetensors")


def _float_model(out: Path) -> Path:
    from quantship.recipe.language import TinyModel
    from quantship.tiny import build_model, build_tokenizer

    tokenizer = build_tokenizer(max_length=64)
    sizes = TinyModel(
        hidden_size=32,
        intermediate_size=64,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        max_positions=64,
    )
    build_model(sizes, tokenizer, seed=0).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def _checkpoints(folder: Path, model: Path) -> None:
    import torch

    from quantship.models import copy_tokenizer, load_float
    from quantship.quant.calibration import calibrate
    from quantship.quant.convert import convert
    from quantship.quant.modules import prepare_qat
    from quantship.quant.scheme import SCHEMES
    from quantship.recipe.rounding_options import Calibration

    for name in CHECKPOINTS:
        made: Any = prepare_qat(load_float(model).eval(), SCHEMES[name])
        if SCHEMES[name].is_static:
            batch = torch.randint(4, 260, (4, 32), generator=torch.Generator().manual_seed(4))
            calibrate(made, [batch], lambda ids, made=made: made(input_ids=ids), Calibration())
        (folder / name).mkdir()
        convert(made, folder / name)
        copy_tokenizer(model, folder / name)


def _exports(folder: Path) -> None:
    from quantship.exporters import decoder

    for scheme, lowering in ONNX:
        out = folder / f"onnx-{lowering}"
        out.mkdir()
        known = None if scheme == "float" else scheme
        decoder.export(folder / scheme, lowering, known, out, "x86")  # type: ignore[arg-type]


def _recipe(out: Path, model: Path) -> None:
    out.mkdir()
    (out / "recipe.yaml").write_text(RECIPE)
    (out / "base.yaml").write_text(BASE)
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (out / "chat.jsonl").write_text(f"{json.dumps(chat)}\n" * 3)
    shutil.copytree(model, out / "model")


def _definitions(out: Path) -> None:
    out.mkdir()
    (out / "quiz.yaml").write_text(DEFINITION)
    (out / "common.yaml").write_text("metric_list: [{metric: acc}]\nnum_fewshot: 0\n")
    (out / "quiz.jsonl").write_text('{"question": "a?", "choices": ["b"], "answer": 0}\n')


def _module(out: Path) -> None:
    import torch

    import quantship

    out.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        quantship.save(quantship.quantize(module(), "w8a8"), out / "model.safetensors")


def module() -> Any:
    """The module whose weights the seed ``module`` holds."""
    from torch import nn

    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))


def _data(out: Path) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as parquet

    out.mkdir()
    rows = [{"instruction": "a", "input": "", "output": "b"}] * 3
    (out / "alpaca.json").write_text(json.dumps(rows))
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    (out / "sharegpt.json").write_text(json.dumps([{"conversations": turns}] * 3))
    (out / "chat.jsonl").write_text('{"messages": [{"role": "assistant", "content": "b"}]}\n' * 3)
    table = pa.table({"sentence": ["a", "b"], "label": [0, 1], "idx": [0, 1]})
    parquet.write_table(table, out / "sst2.parquet")
    (out / "sst2.tsv").write_text("sentence\tlabel\na\t0\nb\t1\n")
    answers = [{"text": "b", "answer_start": 0}]
    asked = {"context": "b c", "qas": [{"id": "1", "question": "a?", "answers": answers}]}
    squad = {"data": [{"title": "t", "paragraphs": [asked]}]}
    (out / "squad.json").write_text(json.dumps(squad))
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(str(out / "saved"))


def _run(folder: Path) -> None:
    """A finished run, whose folder is the artifacts' root."""
    from quantship import pipeline
    from quantship.recipe import load

    recipe = folder / "small.yaml"
    recipe.write_text(RUN)
    pipeline.run(load(recipe), folder / "run")
