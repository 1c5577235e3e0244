from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from encoders import save_encoder, sentences, write_sst2

from quantship.artifact import Artifact
from quantship.data.digest import digest
from quantship.errors import DataError
from quantship.job import Job
from quantship.previewing.preview import preview
from quantship.previewing.schema import Preview
from quantship.recipe import Recipe, load
from quantship.stages import data

RECIPE = """\
model: {tiny: {}}
scheme: w8a8
data:
  train: [{adapter: builtin, num_examples: 60}]
  eval: [{adapter: builtin, split: eval, num_examples: 20}]
steps: [{stage: quantize}]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """A recipe with some keys changed."""

    def make(*overrides: str, text: str = RECIPE) -> Recipe:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return load(path, overrides=overrides)

    return make


def run(recipe: Recipe, model: Path, out: Path) -> tuple[Path, dict[str, Any]]:
    """What a run prepares, and its facts."""
    out.mkdir()
    settings = data.settings_of(recipe.data, recipe.seed)
    return out, data.run(Job(settings, {"model": Artifact(model, "model", "0", {})}, out, out))


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("data.holdout=0.2",),
        ("data.eval=[]", "data.holdout=0.2", "data.mask_prompt=false"),
        ("data.packing=true", "data.max_length=100", "seed=3"),
    ],
)
def test_counts_and_digests_are_those_of_a_run(
    recipe: Callable[..., Recipe], tiny_model_dir: Path, tmp_path: Path, changes: tuple[str, ...]
) -> None:
    given = recipe(*changes)
    found = preview(given, examples=1, limit=None)
    out, facts = run(given, tiny_model_dir, tmp_path / "out")
    assert [side.name for side in found.sides] == ["train", "eval"]
    for side in found.sides:
        made = facts[side.name]
        assert side.digest == digest(out / side.name) == made["digest"]
        assert (side.sequences, side.tokens) == (made["sequences"], made["tokens"])
        assert side.token_lengths == made["token_lengths"]
        assert sum(one.sequences for one in side.lengths) == sum(s.used for s in side.sources)
        for source, one in zip(side.sources, made["sources"], strict=True):
            assert (source.records, source.used) == (one["records"], one["used"])
            assert source.records_digest == one["records_digest"]
            assert source.held_out == one.get("held_out")
    assert [s.also_in_train for s in found.sides[1].sources] == facts["overlap"]
    learnt = sum(label != -100 for row in load_from_disk(out / "eval")["labels"] for label in row)
    assert found.sides[1].learnt_tokens == learnt


def test_examples_show_what_is_learnt(recipe: Callable[..., Recipe]) -> None:
    found = preview(recipe(), examples=3, limit=None)
    for side in found.sides:
        assert len(side.examples) == 3
        for example in side.examples:
            [answer] = [run.text for run in example.runs if run.learnt]
            assert answer.endswith("<|im_end|>")
            assert example.runs[0].text.startswith("<|im_start|>user\n")
            assert example.learnt_tokens < example.tokens


def test_a_limit_reads_the_beginning_of_each_source(recipe: Callable[..., Recipe]) -> None:
    found = preview(recipe(), examples=0, limit=5)
    assert [[source.records for source in side.sources] for side in found.sides] == [[5], [5]]
    assert found.limit == 5


def test_records_of_both_sides_are_counted(recipe: Callable[..., Recipe]) -> None:
    shared = recipe("data.eval=[{adapter: builtin, num_examples: 25}]")
    [source] = preview(shared, examples=0, limit=None).sides[1].sources
    assert source.also_in_train == 25


def test_data_of_tasks_is_shown_too(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one two three\n" * 100)
    source = f"{{adapter: wikitext, path: {text}}}"
    task = f"evaluation.tasks=[{{task: perplexity, name: book, source: {source}}}]"
    side = preview(recipe(task), examples=1, limit=None).sides[-1]
    assert (side.name, side.tokens, side.sources[0].windows) == ("book", 1400, 3)
    assert side.sources[0].name == "text.txt"


def test_a_model_directory_needs_no_weights(
    recipe: Callable[..., Recipe], tiny_model_dir: Path, tmp_path: Path
) -> None:
    for file in tiny_model_dir.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    given = recipe(f"model={tiny_model_dir}")
    given = given.model_copy(update={"model": given.model.model_copy(update={"path": tmp_path})})
    whole = preview(recipe(f"model={tiny_model_dir}"), examples=1, limit=None)
    assert preview(given, examples=1, limit=None).sides == whole.sides


def test_samples_are_counted_by_class(recipe: Callable[..., Recipe]) -> None:
    pytest.importorskip("sklearn")
    found = preview(
        recipe(
            text="model: {mlp: {sizes: [784, 8, 10]}}\nbenchmark: null\n"
            "steps: [{stage: finetune}]\n"
            "data: {train: [{adapter: digits, limit: 50}], holdout: 0.5}\n"
        ),
        examples=2,
        limit=None,
    )
    train, held_out = found.sides
    assert train.sequences + held_out.sequences == 50
    assert train.classes is not None
    assert sum(train.classes.values()) == train.sequences
    assert train.tokens is None
    assert found.max_length is None


def test_texts_are_shown_with_their_class(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    rows = sentences(60, seed=0)
    model = save_encoder(tmp_path / "encoder", [text for text, _ in rows])
    file = write_sst2(tmp_path / "train.tsv", rows)
    found = preview(
        recipe(
            text=f"model: {{path: {model}, head: classification}}\nbenchmark: null\n"
            "steps: [{stage: finetune}]\n"
            f"data: {{train: [{{adapter: glue, task: sst2, path: {file}}}], holdout: 0.3,\n"
            "  max_length: 64}\n"
        ),
        examples=2,
        limit=None,
    )
    train, held_out = found.sides
    assert train.classes is not None
    assert held_out.classes is not None
    for side in (train, held_out):
        assert sum((side.classes or {}).values()) == side.sequences == side.sources[0].records
    assert train.sequences + held_out.sequences == len({text for text, _ in rows}) == 60
    labels = dict(rows)
    for example in (*train.examples, *held_out.examples):
        text = "".join(run.text for run in example.runs)
        words = text.removeprefix("[CLS] ").removesuffix(" [SEP]")
        assert example.label == ("negative", "positive")[labels[words]]


def test_a_bad_record_is_named(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"messages": 3}\n')
    given = recipe(f"data.train=[{{adapter: chat, path: {path}}}]")
    with pytest.raises(DataError, match="'messages' must be a list") as caught:
        preview(given, examples=1, limit=None)
    assert caught.value.origin == f"{path}:1"


def test_a_preview_is_json(recipe: Callable[..., Recipe]) -> None:
    found = preview(recipe("data.holdout=0.2"), examples=2, limit=None)
    assert Preview.model_validate(json.loads(found.model_dump_json())) == found
