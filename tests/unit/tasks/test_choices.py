from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from quantship import lines
from quantship.tasks import choices, scores
from quantship.tasks.base import Context, Outcome, Subject

pytestmark = pytest.mark.usefixtures("one_thread")

SENTENCES = (
    ("a gorgeous , witty film", 1),
    ("flat , dull and far too long", 0),
    ("i laughed from start to end", 1),
    ("the worst film of the year", 0),
    ("charming", 1),
)


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., choices.Options]:
    path = tmp_path / "folder" / "dev.tsv"
    path.parent.mkdir()
    lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in SENTENCES)]
    path.write_text("\n".join(lines) + "\n")

    def options(**given: Any) -> choices.Options:
        source = {"adapter": "glue", "task": "sst2", "path": str(path)}
        return choices.Options.model_validate({"task": "choices", "source": source} | given)

    return options


def answers(outcome: Outcome) -> list[str | None]:
    return [example.answer for example in outcome.examples]


def test_the_answer_is_the_choice_that_torch_finds_most_likely(
    subjects: dict[str, Subject],
    options: Callable[..., choices.Options],
    context: Callable[..., Context],
) -> None:
    subject = subjects["torch"]
    outcome = choices.evaluate(subject, options(), context())
    model: Any = AutoModelForCausalLM.from_pretrained(subject.path).eval()
    tokenizer: Any = subject.tokenizer
    right = right_norm = 0
    for (text, label), example in zip(SENTENCES, outcome.examples, strict=True):
        prompt = f"{text}\nQuestion: Is this sentence positive or negative?\nAnswer:"
        before = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        likely = []
        for word in ("negative", "positive"):
            ids = tokenizer(f"{prompt} {word}", add_special_tokens=False, return_tensors="pt")
            ids = ids["input_ids"]
            with torch.inference_mode():
                found = model(input_ids=ids).logits[0].double().log_softmax(-1)
            likely.append(sum(found[i - 1, ids[0, i]].item() for i in range(before, ids.shape[1])))
        best = likely.index(max(likely))
        by_length = [one / 8 for one in likely]
        right += best == label
        right_norm += by_length.index(max(by_length)) == label
        assert example.prompt == prompt
        assert example.expected == ("negative", "positive")[label]
        assert example.answer == ("negative", "positive")[best]
        assert example.values["accuracy"] == float(best == label)
    assert scores.mean(outcome.metrics[0], outcome.examples) == right / len(SENTENCES)
    assert scores.mean(outcome.metrics[1], outcome.examples) == right_norm / len(SENTENCES)


def test_examples_are_the_same_for_every_runtime_and_wherever_the_file_lies(
    subjects: dict[str, Subject],
    options: Callable[..., choices.Options],
    context: Callable[..., Context],
    tmp_path: Path,
) -> None:
    digests = {}
    for name, subject in subjects.items():
        outcome = choices.evaluate(subject, options(), context(resume=tmp_path / name))
        assert [one.id for one in outcome.examples] == [f"dev.tsv:{n}" for n in range(2, 7)]
        digests[name] = scores.digest(outcome.examples)
        assert outcome.notes == []
    assert len(set(digests.values())) == 1


@pytest.mark.parametrize(
    ("exported", "source"), [("onnxruntime", "torch"), ("onnxruntime of torchao", "torchao")]
)
@pytest.mark.parametrize("chat", [False, True])
def test_onnx_answers_as_its_source_does(
    subjects: dict[str, Subject],
    options: Callable[..., choices.Options],
    context: Callable[..., Context],
    tmp_path: Path,
    exported: str,
    source: str,
    chat: bool,
) -> None:
    ours, theirs = (
        choices.evaluate(subjects[one], options(chat=chat), context(resume=tmp_path / one))
        for one in (exported, source)
    )
    assert answers(ours) == answers(theirs)


def test_through_the_chat_template_models_read_what_it_writes(
    subjects: dict[str, Subject],
    options: Callable[..., choices.Options],
    context: Callable[..., Context],
) -> None:
    subject = subjects["torch"]
    read: list[str] = []

    class Watched:
        name = "torch"

        def logits(self, input_ids: Any, attention_mask: Any) -> Any:
            runtime, tokenizer = subject.runtime, subject.tokenizer
            assert tokenizer is not None
            for row, mask in zip(input_ids, attention_mask, strict=True):
                read.append(tokenizer.decode(row[: mask.sum()]))
            return runtime.logits(input_ids, attention_mask)  # type: ignore[union-attr]

    watched: Any = Watched()
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    choices.evaluate(
        Subject(subject.path, watched, subject.tokenizer),
        options(chat=True, limit=1),
        context(chat_template=template),
    )
    whole = f"<user>{SENTENCES[0][0]}\nQuestion: Is this sentence positive or negative?\nAnswer:"
    assert sorted(read) == [f"{whole}<assistant>{word}" for word in ("negativ", "positiv")]


def test_a_killed_evaluation_goes_on_where_it_was(
    subjects: dict[str, Subject],
    options: Callable[..., choices.Options],
    context: Callable[..., Context],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choices, "AT_ONCE", 2)
    subject = subjects["torch"]
    undisturbed = choices.evaluate(subject, options(), context(resume=tmp_path / "other"))
    batches = 0

    class Killed:
        def logits(self, input_ids: Any, attention_mask: Any) -> Any:
            nonlocal batches
            batches += 1
            if batches == 4:
                raise KeyboardInterrupt
            return subject.runtime.logits(input_ids, attention_mask)  # type: ignore[union-attr]

    killed: Any = Killed()
    with pytest.raises(KeyboardInterrupt):
        choices.evaluate(Subject(subject.path, killed, subject.tokenizer), options(), context())
    assert len(lines.read(context().resume / choices.UNFINISHED)) == 2
    batches = 5
    done = choices.evaluate(Subject(subject.path, killed, subject.tokenizer), options(), context())
    assert done == undisturbed
    assert batches == 5 + math.ceil(2 * 2 / 3) + 1


def test_questions_that_are_too_long_are_noted(
    subjects: dict[str, Subject],
    options: Callable[..., choices.Options],
    context: Callable[..., Context],
) -> None:
    outcome = choices.evaluate(subjects["torch"], options(), context(max_length=20))
    assert outcome.notes == [
        "5 of 5 questions are longer than 20 tokens: models did not see their beginning."
    ]
    assert len(outcome.examples) == 5


def test_the_tasks_own_score_is_given_where_it_is_not_accuracy(
    subjects: dict[str, Subject], context: Callable[..., Context], tmp_path: Path
) -> None:
    path = tmp_path / "cola.tsv"
    path.write_text("x\t1\t\tThey sang.\nx\t0\t*\tSang they the.\nx\t1\t\tShe left.\n")
    source = {"adapter": "glue", "task": "cola", "path": str(path)}
    asked = choices.Options.model_validate({"task": "choices", "source": source})
    outcome = choices.evaluate(subjects["torch"], asked, context())
    assert list(outcome.extra) == ["matthews"]
    assert -1 <= outcome.extra["matthews"] <= 1


def test_a_source_without_questions_is_refused() -> None:
    with pytest.raises(ValidationError, match="builtin has no questions"):
        choices.Options.model_validate({"task": "choices", "source": {"adapter": "builtin"}})
