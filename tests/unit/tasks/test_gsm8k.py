from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from quantship.data import gsm8k as data
from quantship.runtimes.base import greedy
from quantship.tasks import gsm8k, scores
from quantship.tasks.base import Context, Subject

pytestmark = pytest.mark.usefixtures("one_thread")

PROBLEMS = [
    {"question": f"Ann has {count} pens and buys 2. How many?", "answer": f"Sum.\n#### {count + 2}"}
    for count in range(5)
]


def write(path: Path, records: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., gsm8k.Options]:
    path = write(tmp_path / "test.jsonl", PROBLEMS)

    def options(**given: Any) -> gsm8k.Options:
        source = {"adapter": "gsm8k", "path": str(path)}
        return gsm8k.Options.model_validate(
            {"task": "gsm8k", "source": source, "max_new_tokens": 6} | given
        )

    return options


@pytest.mark.parametrize(
    ("answer", "exact", "strict"),
    [
        ("So 7 * 6 = <<7*6=42>>42.\n#### 42", 1, 1),
        ("The answer is $42.00", 0, 0),
        ("It is 42.", 1, 0),
        ("#### 42\nQuestion: 13?", 0, 1),
        ("#### $42", 1, 0),
        ("#### 42.", 1, 1),
        ("42 and then nothing", 1, 0),
        ("no number", 0, 0),
        ("", 0, 0),
        ("#### 420", 0, 0),
    ],
)
def test_the_last_number_counts_or_the_one_after_the_marks(
    answer: str, exact: int, strict: int
) -> None:
    found = gsm8k.judge(answer, "6 * 7\n#### 42")
    assert found == {"exact_match": exact, "strict_match": strict}


def test_thousands_and_signs_are_read_alike_on_both_sides() -> None:
    assert gsm8k.judge("#### 1,234,567", "x\n#### 1234567")["strict_match"] == 1
    assert gsm8k.judge("#### -5", "x\n#### -5") == {"exact_match": 1, "strict_match": 1}


texts = st.one_of(
    st.text(st.sampled_from("#$-.,0123456789 \nab"), max_size=40),
    st.builds("{}#### {}{}".format, st.text(max_size=9), st.integers(), st.sampled_from(["", "."])),
)


@given(answer=texts, number=st.integers(-9999, 99999), grouped=st.booleans())
def test_judgements_are_those_of_lm_eval(answer: str, number: int, grouped: bool) -> None:
    extraction = pytest.importorskip("lm_eval.filters.extraction")
    metrics = pytest.importorskip("lm_eval.api.metrics")
    right = f"Therefore.\n#### {number:,}" if grouped else f"Therefore.\n#### {number}"
    filters = {
        "strict_match": extraction.RegexFilter(r"#### (\-?[0-9\.\,]+)"),
        "exact_match": extraction.RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1),
    }
    for name, value in gsm8k.judge(answer, right).items():
        [[found]] = filters[name].apply([[answer]], [{}])
        theirs = metrics.exact_match_hf_evaluate(
            [found],
            [right],
            regexes_to_ignore=[",", r"\$", r"(?s).*#### ", r"\.$"],
            ignore_case=True,
        )
        assert value == theirs["exact_match"]


def test_every_solution_is_right_about_itself(shared_data: Path) -> None:
    source = data.Options(adapter="gsm8k", path=shared_data / "gsm8k" / "test.jsonl")
    problems = list(data.problems(source))
    assert len(problems) == 1319
    assert all(
        gsm8k.judge(one.answer, one.answer) == {"exact_match": 1, "strict_match": 1}
        for one in problems
    )


@pytest.mark.parametrize("form", ["torch", "torchao", "onnxruntime", "onnxruntime of torchao"])
def test_answers_are_greedy_text_in_the_order_of_the_problems(
    subjects: dict[str, Subject],
    options: Callable[..., gsm8k.Options],
    context: Callable[..., Context],
    form: str,
) -> None:
    subject: Any = subjects[form]
    outcome = gsm8k.evaluate(subject, options(limit=4), context(batch_size=1))
    assert [example.id.rpartition(":")[2] for example in outcome.examples] == ["1", "2", "3", "4"]
    for problem, example in zip(PROBLEMS, outcome.examples, strict=False):
        turn = [{"role": "user", "content": problem["question"]}]
        prompt = subject.tokenizer.apply_chat_template(turn, add_generation_prompt=True)
        prompt = prompt if isinstance(prompt, list) else prompt["input_ids"]
        new = greedy(subject.runtime, prompt, 6, frozenset([subject.tokenizer.eos_token_id]))
        assert example.answer == subject.tokenizer.decode(new, skip_special_tokens=True)
        assert example.prompt == problem["question"]
        assert example.expected == problem["answer"].rpartition(" ")[2]
        assert example.values == gsm8k.judge(str(example.answer), problem["answer"])
    assert all(0 <= scores.mean(metric, outcome.examples) <= 1 for metric in outcome.metrics)


def test_solved_problems_come_before_the_question(
    subjects: dict[str, Subject],
    options: Callable[..., gsm8k.Options],
    context: Callable[..., Context],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from quantship.tasks import answers

    train = write(tmp_path / "train.jsonl", [{"question": "Q?", "answer": "A.\n#### 1"}] * 3)
    seen: list[Any] = []
    collect = answers.collect
    monkeypatch.setattr(
        answers,
        "collect",
        lambda subject, requests, *rest, **more: (
            seen.extend(requests) or collect(subject, requests, *rest, **more)
        ),
    )
    asked = options(shots=2, shots_source={"adapter": "gsm8k", "path": str(train)}, limit=1)
    gsm8k.evaluate(subjects["torch"], asked, context())
    [request] = seen
    question = PROBLEMS[0]["question"]
    assert [message["role"] for message in request.messages] == ["user", "assistant"] * 2 + ["user"]
    assert request.messages[-1]["content"] == question
    shown = "Question: Q?\nAnswer: A.\n#### 1"
    assert request.text == f"{shown}\n\n{shown}\n\nQuestion: {question}\nAnswer:"
    assert {path.name for path in asked.files} == {"test.jsonl", "train.jsonl"}


def test_the_test_split_is_meant_unless_another_is_named() -> None:
    made = gsm8k.Options.model_validate
    assert made({"task": "gsm8k"}).source.split == "test"
    assert made({"task": "gsm8k", "source": {"adapter": "gsm8k"}}).source.split == "test"
    named = made({"task": "gsm8k", "source": {"adapter": "gsm8k", "split": "train"}})
    assert named.source.split == "train"
    assert made({"task": "gsm8k", "shots": 2}).sources[1].split == "train"


def test_shots_for_a_local_file_must_come_from_somewhere(
    options: Callable[..., gsm8k.Options],
) -> None:
    with pytest.raises(ValidationError, match="shots_source"):
        options(shots=1)
    with pytest.raises(ValidationError):
        options(shots=9)
