from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from quantship.tasks import generations
from quantship.tasks.base import Context, Outcome, Subject

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def evaluate(
    subjects: dict[str, Subject], context: Callable[..., Context]
) -> Callable[..., Outcome]:
    def evaluate(form: str = "torch", **given: Any) -> Outcome:
        options = {"task": "generations", "max_new_tokens": 4} | given
        return generations.evaluate(
            subjects[form], generations.Options.model_validate(options), context()
        )

    return evaluate


@pytest.mark.parametrize("form", ["torch", "onnxruntime"])
def test_prompts_of_the_recipe_are_answered_in_order(
    evaluate: Callable[..., Outcome], form: str
) -> None:
    outcome = evaluate(form, prompts=["What is a comet?", "Hello!"])
    assert [example.prompt for example in outcome.examples] == ["What is a comet?", "Hello!"]
    assert [example.id for example in outcome.examples] == ["prompt 1", "prompt 2"]
    for example in outcome.examples:
        assert example.answer is not None
        assert example.expected is None
        assert 0 <= example.values["num_tokens"] <= 4
        assert example.values["ended"] == (example.values["num_tokens"] < 4)


def test_prompts_of_a_source_are_chats_up_to_the_first_answer(
    evaluate: Callable[..., Outcome], tmp_path: Path
) -> None:
    turns = [("system", "Be brief."), ("user", "Why?"), ("assistant", "So."), ("user", "Oh?")]
    chat = [{"role": role, "content": content} for role, content in [*turns, ("assistant", "Yes")]]
    silent = [{"role": "assistant", "content": "Hello there."}]
    path = tmp_path / "chats.jsonl"
    lines = [json.dumps({"messages": messages}) for messages in (chat, silent, chat)]
    path.write_text("\n".join(lines))
    outcome = evaluate(source={"adapter": "chat", "path": str(path)})
    first, second = outcome.examples
    assert (first.prompt, first.expected) == ("Be brief.\n\nWhy?", "So.")
    assert (first.id, second.id) == ("chats.jsonl:1", "chats.jsonl:3")  # wherever the file lies
    assert first.answer == second.answer


def test_running_text_is_gone_on_with(evaluate: Callable[..., Outcome], tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    words = [f"word{n}" for n in range(100)]
    path.write_text(" ".join(words) + "\n")
    [example] = evaluate(source={"adapter": "wikitext", "path": str(path)}).examples
    assert example.prompt == " ".join(words[: generations.FIRST_WORDS])
    assert str(example.expected).startswith(words[generations.FIRST_WORDS])


@pytest.mark.parametrize(
    "given", [{}, {"prompts": ["a"], "source": {"adapter": "builtin"}}, {"prompts": [" "]}]
)
def test_prompts_come_from_one_place(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        generations.Options.model_validate({"task": "generations"} | given)


def test_eight_are_asked_unless_told_otherwise(evaluate: Callable[..., Outcome]) -> None:
    source = {"adapter": "builtin", "split": "eval"}
    assert len(evaluate(source=source, max_new_tokens=1).examples) == 8
    assert len(evaluate(source=source, limit=3, max_new_tokens=1).examples) == 3
