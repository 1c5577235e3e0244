from __future__ import annotations

import json
import math
import random
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from quantship import lines
from quantship.errors import QuantshipError
from quantship.models import load_tokenizer
from quantship.runtimes.base import open_runtime
from quantship.tasks import lm_eval, scores
from quantship.tasks.base import Context, Outcome, Subject

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ["red", "green", "blue", "tree", "house", "river", "stone", "cloud", "bird", "fish"]
COMMON = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}, train: {data}}}}}
test_split: test
training_split: train
metadata: {{version: 1.0}}
"""
QUIZ = """
include: common
task: quiz
tag: all_of_them
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{gold}}"
doc_to_choice: "{{choices}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: mcc}
"""
SAY = """
include: common
task: say
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer[-1]}}"
generation_kwargs: {until: ["d2", "l", "I"], do_sample: false, max_gen_toks: 12}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    regexes_to_ignore: ["[a-z]"]
filter_list:
  - name: first-letter
    filter: [{function: regex, regex_pattern: "([A-Za-z])"}, {function: take_first}]
  - {name: whole, filter: [{function: take_first}]}
"""
ROLL = """
include: common
task: roll
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
"""
LAST = """
include: common
task: last
tag: all_of_them
output_type: loglikelihood
doc_to_text: "{{question}} It is"
doc_to_target: " {{answer}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Task definitions on data of their own."""
    path = tmp_path_factory.mktemp("tasks")
    draw = random.Random(0)
    rows = []
    for index in range(14):
        one, other = draw.sample(WORDS, 2)
        rows.append(
            {
                "question": f"Which word is longer, {one} or {other}?",
                "choices": [one, other, one + other],
                "gold": draw.randrange(3),
                "answer": one,
                "text": " ".join(draw.choices(WORDS, k=30 * (1 + index % 4))),
            }
        )
    data = path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "common").write_text(COMMON.format(data=data))
    for name, text in {"quiz": QUIZ, "say": SAY, "roll": ROLL, "last": LAST}.items():
        (path / f"{name}.yaml").write_text(text)
    return path


@pytest.fixture(scope="module")
def model_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with larger weights, so that it has something to say."""
    import torch
    from transformers import AutoModelForCausalLM

    path = tmp_path_factory.mktemp("lively")
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.mul_(8 if parameter.ndim == 2 else 1)
    model.save_pretrained(path)
    load_tokenizer(tiny_model_dir).save_pretrained(path)
    return path


def subject(path: Path) -> Subject:
    return Subject(path, open_runtime(path), load_tokenizer(path))


def ask(
    model: Subject, run: str, folder: Path, resume: Path, batch_size: int = 4, **keys: Any
) -> Outcome:
    options = lm_eval.Options(task="lm_eval", run=run, include_path=folder, **keys)
    context = Context(
        data=resume,
        reference=None,
        chat_template=None,
        max_length=512,
        batch_size=batch_size,
        seed=0,
        resume=resume,
    )
    return lm_eval.evaluate(model, options, context)


def theirs(path: Path, run: str, folder: Path, **keys: Any) -> Mapping[str, Any]:
    """What lm-eval's own run finds: of a float model on its ``hf`` model, as its command does."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from quantship.quant.loading import load
    from quantship.recipe.teacher import is_quantized

    model: Any = "hf"
    if is_quantized(path):  # transformers and torchao have gaps, which are filled on loading
        model = HFLM(pretrained=load(path), tokenizer=load_tokenizer(path), batch_size=4)
    found = simple_evaluate(
        model=model,
        model_args={"pretrained": str(path)},
        device="cpu",
        batch_size=4,
        tasks=[run],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        **keys,
    )
    assert found is not None
    return found


def figures(outcome: Outcome) -> dict[str, float]:
    means = {one.name: scores.mean(one, outcome.examples) for one in outcome.metrics}
    return means | dict(outcome.extra)


def printed(results: Mapping[str, Any], run: str) -> dict[str, float]:
    """The same names for what lm-eval prints."""
    return {
        key.removesuffix(",none").replace(",", "_").replace("-", "_"): float(value)
        for key, value in results["results"][run].items()
        if "," in key and "stderr" not in key
    }


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("quiz", {}),
    ("quiz", {"num_fewshot": 2, "limit": 9}),
    ("quiz", {"apply_chat_template": True, "num_fewshot": 1, "system_instruction": "Be brief."}),
    ("last", {"num_fewshot": 1}),
    ("roll", {}),
    ("say", {}),
    ("say", {"apply_chat_template": True, "num_fewshot": 1}),
]


@pytest.mark.parametrize(("run", "keys"), SETTINGS)
def test_figures_are_lm_evals_own(
    run: str, keys: dict[str, Any], folder: Path, model_dir: Path, tmp_path: Path
) -> None:
    found = ask(subject(model_dir), run, folder, tmp_path, **keys)
    reference = theirs(model_dir, run, folder, **keys)
    assert figures(found) == pytest.approx(printed(reference, run), rel=1e-9)
    assert len(found.examples) == len({one.id for one in found.examples}) == keys.get("limit", 14)


@pytest.mark.parametrize("run", ["quiz", "say"])
def test_every_answer_is_the_one_that_lm_eval_gets(
    run: str, folder: Path, model_dir: Path, tmp_path: Path
) -> None:
    ask(subject(model_dir), run, folder, tmp_path)
    ours = dict(lines.read(tmp_path / "answers.jsonl"))
    samples = theirs(model_dir, run, folder)["samples"][run]
    for sample in samples:
        for arguments, responses in zip(sample["arguments"], sample["resps"], strict=True):
            method = "loglikelihood" if run == "quiz" else "generate_until"
            answer = ours[json.dumps([method, *arguments])]
            expected = responses[0]
            assert answer == (list(expected) if isinstance(expected, tuple) else expected)
    assert len({json.dumps(one) for one in ours.values()}) == len(ours)


@pytest.mark.parametrize("run", ["quiz", "say", "roll"])
def test_a_quantized_checkpoint_is_asked_the_same(
    run: str, folder: Path, model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    path = model_dirs["torchao"]
    found = ask(subject(path), run, folder, tmp_path)
    assert figures(found) == pytest.approx(printed(theirs(path, run, folder), run), rel=1e-9)


def test_onnx_finds_what_torch_finds(folder: Path, model_dir: Path, tmp_path: Path) -> None:
    from quantship.exporters import decoder

    onnx = tmp_path / "onnx"
    onnx.mkdir()
    decoder.export(model_dir, "float", None, onnx, "x86")
    for run in ("quiz", "last", "roll", "say"):
        torch, ort = (
            ask(subject(path), run, folder, tmp_path / path.name / run)
            for path in (model_dir, onnx)
        )
        assert figures(ort) == pytest.approx(figures(torch), rel=1e-4)
        assert [one.answer for one in ort.examples] == [one.answer for one in torch.examples]
        assert scores.digest(ort.examples) == scores.digest(torch.examples)


@pytest.mark.parametrize("run", ["quiz", "last", "roll", "say"])
def test_batching_changes_no_answer(
    run: str, folder: Path, model_dir: Path, tmp_path: Path
) -> None:
    model = subject(model_dir)
    one, many = (ask(model, run, folder, tmp_path / str(size), batch_size=size) for size in (1, 14))
    assert figures(one) == pytest.approx(figures(many), rel=1e-5)
    assert [each.answer for each in one.examples] == [each.answer for each in many.examples]


@pytest.mark.parametrize("run", ["quiz", "roll", "say"])
def test_a_killed_run_goes_on_after_the_answers_it_has(
    run: str, folder: Path, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = subject(model_dir)
    whole = ask(model, run, folder, tmp_path)
    journal = tmp_path / "answers.jsonl"
    before = lines.read(journal)
    written = journal.read_text().splitlines()
    journal.write_text("\n".join(written[: len(written) // 2]) + "\n" + written[-1][:-5])
    asked = list[int]()
    for method in ("logits", "prefill"):
        real = getattr(model.runtime, method)

        def counted(batch: Any, *rest: Any, real: Any = real) -> Any:
            asked.append(len(batch))
            return real(batch, *rest)

        monkeypatch.setattr(model.runtime, method, counted)
    again = ask(model, run, folder, tmp_path)
    assert figures(again) == pytest.approx(figures(whole), rel=1e-6)
    assert [one.answer for one in again.examples] == [one.answer for one in whole.examples]
    assert {key for key, _ in lines.read(journal)} == {key for key, _ in before}
    asked.clear()
    assert ask(model, run, folder, tmp_path) == again
    assert asked == []


def test_a_tag_is_all_its_tasks(folder: Path, model_dir: Path, tmp_path: Path) -> None:
    model = subject(model_dir)
    found = ask(model, "all_of_them", folder, tmp_path)
    parts = {run: printed(theirs(model_dir, run, folder), run) for run in ("last", "quiz")}
    assert [one.name for one in found.metrics] == ["acc"]
    assert scores.mean(found.metrics[0], found.examples) == pytest.approx(
        (parts["last"]["acc"] + parts["quiz"]["acc"]) / 2
    )
    assert found.extra == pytest.approx(
        {f"{run}.{name}": value for run, part in parts.items() for name, value in part.items()}
    )
    assert [one.id for one in found.examples[::14]] == ["last[0]", "quiz[0]"]


def test_examples_say_what_was_asked_and_answered(
    folder: Path, model_dir: Path, tmp_path: Path
) -> None:
    model = subject(model_dir)
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for row, one in zip(rows, ask(model, "quiz", folder, tmp_path).examples, strict=True):
        assert one.prompt == f"Question: {row['question']}\nAnswer:"
        assert one.expected == f" {row['choices'][row['gold']]}"
        assert one.values["acc"] == (one.expected == one.answer)
    said = ask(model, "say", folder, tmp_path).examples
    assert [one.expected for one in said] == [row["answer"][-1] for row in rows]
    judged = [one.values["exact_match_first_letter"] for one in said]
    assert judged == [one.answer in string.ascii_lowercase for one in said]
    assert 0 < sum(judged) < len(judged)
    rolled = ask(model, "roll", folder, tmp_path)
    assert [one.weight for one in rolled.examples] == [len(row["text"].split()) for row in rows]
    nats = [one.values["word_perplexity"] for one in rolled.examples]
    words = sum(one.weight for one in rolled.examples)
    assert figures(rolled)["word_perplexity"] == pytest.approx(math.exp(sum(nats) / words))


def test_a_task_that_samples_is_refused(model_dir: Path, folder: Path, tmp_path: Path) -> None:
    text = SAY.replace("do_sample: false", "do_sample: true, temperature: 0.7")
    (tmp_path / "common").write_text((folder / "common").read_text())
    (tmp_path / "say.yaml").write_text(text)
    with pytest.raises(QuantshipError, match=r"generates with do_sample: True.*likeliest token"):
        ask(subject(model_dir), "say", tmp_path, tmp_path)


def test_templates_reach_their_data_only(model_dir: Path, folder: Path, tmp_path: Path) -> None:
    from jinja2.exceptions import SecurityError

    text = QUIZ.replace("{{question}}", "{{question.__class__.__mro__}}")
    (tmp_path / "common").write_text((folder / "common").read_text())
    (tmp_path / "quiz.yaml").write_text(text)
    with pytest.raises(SecurityError, match="unsafe"):
        ask(subject(model_dir), "quiz", tmp_path, tmp_path)


def test_what_the_model_itself_would_change_is_told(model_dir: Path, tmp_path: Path) -> None:
    from transformers import GenerationConfig

    from quantship.tasks.lm_eval_run import notes

    model = subject(model_dir)
    assert notes(model) == ()
    GenerationConfig(repetition_penalty=1.1).save_pretrained(tmp_path)
    (note,) = notes(Subject(tmp_path, model.runtime, model.tokenizer))
    assert "repetition_penalty: 1.1" in note


def test_a_task_is_called_what_it_runs() -> None:
    named = [
        lm_eval.Options.model_validate({"task": "lm_eval", "run": run, **more}).name
        for run, more in [("MMLU.Pro", {}), ("quiz", {"name": "mine"}), ("a b", {})]
    ]
    assert named == ["mmlu-pro", "mine", None]


def test_sst2_is_what_lm_eval_finds(shared_data: Path, model_dir: Path, tmp_path: Path) -> None:
    """The harness's own definition of SST-2, on local data."""
    data = shared_data / "glue-sst2"
    (tmp_path / "sst2.yaml").write_text(
        "task: sst2_here\n"
        "dataset_path: csv\n"
        "dataset_kwargs:\n"
        '  delimiter: "\\t"\n'
        "  quoting: 3\n"
        f"  data_files: {{train: {data}/train.tsv, validation: {data}/dev.tsv}}\n"
        "output_type: multiple_choice\n"
        "training_split: train\n"
        "validation_split: validation\n"
        'doc_to_text: "{{sentence}}\\nQuestion: Is this sentence positive or negative?\\nAnswer:"\n'
        "doc_to_target: label\n"
        'doc_to_choice: ["negative", "positive"]\n'
        "metric_list: [{metric: acc}]\n"
    )
    keys = {"limit": 32, "num_fewshot": 2}
    found = ask(subject(model_dir), "sst2_here", tmp_path, tmp_path, **keys)
    assert figures(found) == printed(theirs(model_dir, "sst2_here", tmp_path, **keys), "sst2_here")
    rows = (data / "dev.tsv").read_text().splitlines()[1:33]
    wanted = [" negative" if row.endswith("0") else " positive" for row in rows]
    assert [one.expected for one in found.examples] == wanted
