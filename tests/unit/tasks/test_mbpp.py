from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from quantship import lines
from quantship.data import mbpp as data
from quantship.tasks import answers, mbpp, sandbox
from quantship.tasks.base import Context, Subject

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(sandbox.reject() is not None, reason="needs a Unix system"),
]

RIGHT = "def double(x):\n    return 2 * x"
WRONG = "def double(x):\n    return x"


def record(task_id: int, **changes: Any) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "text": "Write a function that doubles.",
        "code": RIGHT,
        "test_setup_code": "",
        "test_list": ["assert double(1) == 2", "assert double(4) == 8"],
    } | changes


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., mbpp.Options]:
    path = tmp_path / "mbpp.jsonl"
    records = [record(task_id) for task_id in (1, 2, 3, 11, 12, 13, 14, 15, 601)]
    path.write_text("".join(json.dumps(one) + "\n" for one in records))

    def options(**given: Any) -> mbpp.Options:
        source = {"adapter": "mbpp", "path": str(path)}
        return mbpp.Options.model_validate(
            {"task": "mbpp", "source": source, "max_new_tokens": 6} | given
        )

    return options


@pytest.fixture
def problem(options: Callable[..., mbpp.Options]) -> data.Problem:
    return next(data.problems(options().source))


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        (RIGHT, True),
        (f"Sure!\n```python\n{RIGHT}\n```\nIt doubles.", True),
        (f"```\n{RIGHT}\n```", True),
        (f"```py\n{RIGHT}", True),  # cut off by the limit
        (f"```python\n{RIGHT}\n```\n```python\n{WRONG}\n```", True),
        (f"Sure!\n{RIGHT}", False),
        (WRONG, False),
        ("", False),
        ("def double(x):\n    return 2 * x\nimport os; os._exit(0)", False),
    ],
)
def test_the_first_block_of_code_counts_or_all_of_the_answer(
    problem: data.Problem, answer: str, passes: bool
) -> None:
    assert sandbox.run(mbpp.program(answer, problem)).passed is passes


def test_what_tests_need_comes_after_the_answer_it_may_need(problem: data.Problem) -> None:
    needy = data.Problem("t", "four = double(2)", ("assert four == 4",), RIGHT, "here")
    assert sandbox.run(mbpp.program(RIGHT, needy)).passed


@pytest.mark.parametrize("form", ["torch", "onnxruntime"])
def test_the_share_that_passes_is_what_programs_do(
    subjects: dict[str, Subject],
    options: Callable[..., mbpp.Options],
    context: Callable[..., Context],
    form: str,
) -> None:
    asked, where = options(), context()
    said = [RIGHT, WRONG, f"```python\n{RIGHT}\n```", "while True: pass"]
    for index, text in enumerate(said):  # as if a killed run had left them
        lines.append([asdict(answers.Answer(index, text, 3, True))], where.resume / answers.FILE)
    outcome = mbpp.evaluate(subjects[form], options(timeout_s=2), where)
    assert [example.values["pass_at_1"] for example in outcome.examples] == [1, 0, 1, 0, 0]
    assert [example.id.rpartition(":")[2] for example in outcome.examples] == list("45678")
    assert outcome.examples[0].expected == RIGHT
    failed, held = outcome.notes
    assert "1 AssertionError" in failed
    assert "1 out of time" in failed
    assert "limits on CPU time" in held
    assert asked.source.split == "test"


def test_running_code_has_to_be_allowed(options: Callable[..., mbpp.Options]) -> None:
    assert "runs the Python programs" in str(options().runs_code)
    assert list(options().find_obstacles()) == []


def test_solved_problems_come_from_the_prompt_split(
    subjects: dict[str, Subject],
    options: Callable[..., mbpp.Options],
    context: Callable[..., Context],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    collect = answers.collect
    monkeypatch.setattr(
        answers,
        "collect",
        lambda subject, requests, *rest, **more: (
            seen.extend(requests) or collect(subject, requests, *rest, **more)
        ),
    )
    mbpp.evaluate(subjects["torch"], options(shots=2, limit=1), context())
    [request] = seen
    assert [message["role"] for message in request.messages] == ["user", "assistant"] * 2 + ["user"]
    assert request.messages[1]["content"] == f"```python\n{RIGHT}\n```"
    assert request.text.count("[BEGIN]") == 3
    assert request.text.count("[DONE]") == 2
    assert request.text.endswith("[BEGIN]\n")


def test_solutions_of_the_whole_set_pass(shared_data: Path) -> None:
    source = data.Options(adapter="mbpp", path=shared_data / "mbpp" / "mbpp.jsonl", split="test")
    setups = [one for one in data.problems(source) if one.setup.strip()]
    first = list(islice(data.problems(source), 12))
    for one in [*first, *setups[:4]]:
        assert sandbox.run(mbpp.program(one.code, one)).reason is None
        assert not sandbox.run(mbpp.program("", one)).passed
