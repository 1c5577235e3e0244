"""A task of EleutherAI's lm-evaluation-harness, through its own interface.

- {task: lm_eval, run: hellaswag, limit: 100}
- {task: lm_eval, run: my_quiz, include_path: my_tasks, num_fewshot: 3}

The requests are lm-eval's, and so are their order, the few-shot examples and the scores; the models
answer on quantship's runtimes. The float model's figures are those of lm-eval's own ``hf`` model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from quantship.data.source import LocalPath
from quantship.tasks import lm_eval_definitions as definitions
from quantship.tasks.base import TASK_NAME, Context, Obstacle, Outcome, Subject, TaskOptions

PACKAGE = "lm_eval"


class Options(TaskOptions):
    """A task, group or tag of lm-evaluation-harness (``quantship[lm-eval]``)."""

    task: Literal["lm_eval"]
    run: str = Field(min_length=1)
    """Which, by the name that lm-eval knows it by, as ``hellaswag``; the default of ``name``."""
    include_path: LocalPath | None = None
    """Directory with task definitions of your own, as lm-eval reads them."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Solved examples before each question; default: as the task says."""
    apply_chat_template: bool = False
    """Put questions as turns of a chat."""
    system_instruction: str | None = None
    """What is said before everything else."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Longest answer in tokens where text is generated; default: as the task says."""
    max_length: int | None = Field(default=None, ge=2)
    """Longest sequence in tokens; default: as many as the model has positions for."""
    add_bos_token: bool | None = None
    """Begin sequences with the tokenizer's first token; default: as the tokenizer does."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        """Several of these in a recipe need no names of their own."""
        if not isinstance(values, Mapping) or values.get("name") is not None:
            return values
        name = str(values.get("run", "")).lower().replace(".", "-")
        return {**values, "name": name} if re.match(TASK_NAME, name) else values

    @property
    def files(self) -> tuple[Path, ...]:
        """Definitions of the user's own, what they include, their code and their data."""
        if self.include_path is None:
            return ()
        return tuple(definitions.read(self.include_path, self.run).files)

    @property
    def packages(self) -> tuple[str, ...]:
        """What defines the tasks."""
        return (PACKAGE,)

    @property
    def runs_code(self) -> str | None:
        """What in the user's own definitions is more than data, in words."""
        return None if self.include_path is None else definitions.code(self.include_path, self.run)

    def find_obstacles(self) -> Iterator[Obstacle]:
        """Whether lm-eval is here and knows the task."""
        return definitions.find_obstacles(self.run, self.include_path)


def evaluate(subject: Subject, options: Options, context: Context) -> Outcome:
    """What lm-eval makes of the model's answers, example by example."""
    from quantship.tasks import lm_eval_outcome, lm_eval_run

    results = lm_eval_run.run(subject, options, context)
    return lm_eval_outcome.read(results, options.run, lm_eval_run.notes(subject))
