from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantship.errors import QuantshipError
from quantship.runtimes.base import greedy
from quantship.tasks import answers, prompting
from quantship.tasks.base import Context, Subject
from quantship.tasks.prompting import Request

pytestmark = pytest.mark.usefixtures("one_thread")

QUESTIONS = [f"What is {n} and {n}{'?' * n}" for n in range(9)]
ENDLESS = """
import sys, time
from pathlib import Path
import torch
from quantship.models import load_tokenizer
from quantship.runtimes.base import open_runtime
from quantship.tasks import answers
from quantship.tasks.base import Context, Subject
from quantship.tasks.prompting import Request

torch.set_num_threads(1)
model, resume, *questions = sys.argv[1:]
runtime = open_runtime(Path(model), 1)
decode = runtime.decode
runtime.decode = lambda tokens: (time.sleep(0.05), decode(tokens))[1]
subject = Subject(Path(model), runtime, load_tokenizer(Path(model)))
context = Context(Path("."), None, None, 200, 2, 0, Path(resume))
requests = [Request(({"role": "user", "content": one},), one, one) for one in questions]
answers.collect(subject, requests, 8, context)
"""


def request(question: str) -> Request:
    return Request(({"role": "user", "content": question},), question, question)


def test_a_killed_evaluation_goes_on_after_the_answers_it_has(
    model_dirs: dict[str, Path],
    subjects: dict[str, Subject],
    context: Callable[..., Context],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, resume = model_dirs["torch"], tmp_path / "killed"
    command = [sys.executable, "-c", ENDLESS, str(path), str(resume), *QUESTIONS]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    file = resume / answers.FILE
    try:
        deadline = time.monotonic() + 120
        while not file.exists() or file.read_bytes().count(b"\n") < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = file.read_bytes().count(b"\n")
    assert 3 <= done < len(QUESTIONS)
    subject: Any = subjects["torch"]
    requests = [request(question) for question in QUESTIONS]
    fresh, _ = answers.collect(
        subject, requests, 8, context(resume=tmp_path / "fresh", batch_size=2)
    )
    asked: list[int] = []
    prefill = subject.runtime.prefill

    def note(input_ids: Any, *rest: Any) -> Any:
        asked.append(len(input_ids))
        return prefill(input_ids, *rest)

    monkeypatch.setattr(subject.runtime, "prefill", note)
    resumed, _ = answers.collect(subject, requests, 8, context(resume=resume, batch_size=2))
    assert resumed == fresh
    assert 0 < sum(asked) <= len(QUESTIONS) - done + 1  # the batch that was killed is read again
    asked.clear()
    again, _ = answers.collect(subject, requests, 8, context(resume=resume, batch_size=2))
    assert (again, asked) == (fresh, [])


def said_with_ascii(runtime: Any, tokenizer: Any) -> Iterator[tuple[str, str, str]]:
    """Prompts, what is said to them, and a letter of that which is not its first."""
    for number in range(200):
        asked = f"Go on {number}"
        said = greedy(runtime, tokenizer(asked)["input_ids"], 12)
        text = tokenizer.decode(said, skip_special_tokens=True)
        end = next((mark for mark in text[1:] if mark.isascii() and mark != text[0]), None)
        if end is not None:
            yield asked, text, end


def test_a_text_ends_the_answer_of_a_model_without_a_template(
    subjects: dict[str, Subject], context: Callable[..., Context], tmp_path: Path
) -> None:
    subject: Any = subjects["torch"]
    bare: Any = subject.tokenizer.__class__.from_pretrained(subject.path)
    bare.chat_template = None
    plain = Subject(subject.path, subject.runtime, bare)
    asked, whole, end = next(said_with_ascii(subject.runtime, bare))
    for until, expected in ((end, whole.partition(end)[0]), ("never said", whole)):
        where = context(resume=tmp_path / until)
        [found], _ = answers.collect(plain, [request(asked)], 12, where, until=[until])
        assert found.text == expected
        assert found.ended == (until == end)
    templated = context(resume=tmp_path / "templated")
    [found], _ = answers.collect(subject, [request(asked)], 12, templated, until=[end])
    assert found.num_tokens == 12


def test_what_a_model_cannot_read_is_cut_off_and_told(
    subjects: dict[str, Subject], context: Callable[..., Context], tmp_path: Path
) -> None:
    subject = subjects["onnxruntime"]
    length = prompting.context_length(subject.path)
    assert (
        length == json.loads((subject.path / "config.json").read_text())["max_position_embeddings"]
    )
    requests = [request("x" * (2 * length)), request("short")]
    found, notes = answers.collect(subject, requests, 4, context())
    assert len(found) == 2
    assert notes == [f"1 of 2 prompts are longer than {length - 4} tokens and lost their beginning"]
    _, notes = answers.collect(
        subject, requests[1:], 10 * length, context(resume=tmp_path / "other")
    )
    assert notes == [f"the model reads {length} tokens, so that answers end after {length // 2}"]


def test_an_answer_ends_where_a_turn_does(
    subjects: dict[str, Subject], context: Callable[..., Context]
) -> None:
    subject: Any = subjects["torch"]
    end = subject.tokenizer.eos_token_id
    assert prompting.stop_tokens(subject, context()) == {end}
    other = "{% for m in messages %}{{ m.role + ':' + m.content + '<|end|>' }}{% endfor %}"
    stops = prompting.stop_tokens(subject, context(chat_template=other))
    assert stops == {end, subject.tokenizer.convert_tokens_to_ids("<|end|>")}
    unmarked = "{% for m in messages %}{{ m.role + ':' + m.content + '\n' }}{% endfor %}"
    assert prompting.stop_tokens(subject, context(chat_template=unmarked)) == {end}


def test_a_model_that_writes_no_text_is_refused(context: Callable[..., Context]) -> None:
    class Judge:
        name = "onnxruntime"

        def classify(self, inputs: Any) -> Any:
            return np.zeros((1, 2), np.float32)

    subject = Subject(Path("judge"), Judge(), None)
    with pytest.raises(QuantshipError, match="judge writes no text"):
        answers.collect(subject, [request("?")], 4, context())


def test_long_prompts_keep_their_ends() -> None:
    text = "a" * 1000 + "b" * 1000
    short = prompting.shortened(text)
    assert len(short) < 700
    assert (short[0], short[-1]) == ("a", "b")
    assert prompting.shortened("as it is") == "as it is"
