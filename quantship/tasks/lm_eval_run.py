"""Ask lm-eval to evaluate: what its ``simple_evaluate`` does, without looking at the machine."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import lm_eval.utils
import numpy as np
import torch
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from quantship.errors import QuantshipError
from quantship.tasks import lm_eval_definitions as definitions
from quantship.tasks.base import Context, Subject
from quantship.tasks.lm_eval import Options
from quantship.tasks.lm_eval_model import RuntimeModel, generation_config

JOURNAL = "answers.jsonl"
CHANGED_BY = ("repetition_penalty", "no_repeat_ngram_size", "encoder_repetition_penalty")
"""Settings of a model's own that transformers heeds where the likeliest token is taken too."""


def run(subject: Subject, options: Options, context: Context) -> dict[str, Any]:
    """What lm-eval's ``evaluate`` returns, with every sample.

    Raises:
        QuantshipError: The task runs what models write, or samples.
    """
    assert subject.tokenizer is not None
    if context.chat_template is not None:
        subject.tokenizer.chat_template = context.chat_template
    model = RuntimeModel(
        subject,
        context.resume / JOURNAL,
        context.batch_size,
        options.max_length,
        options.add_bos_token,
    )
    with _templates_kept_in():
        _seed()
        tasks = _manager(options.run, options.include_path).load([options.run])
        for name, task in tasks["tasks"].items():
            if getattr(task, "UNSAFE_CODE", False):
                raise QuantshipError(f"lm-eval's '{name}' runs what a model writes")
            _set(task, options)
        found: dict[str, Any] = evaluate(
            model,
            tasks,
            limit=options.limit,
            bootstrap_iters=0,
            system_instruction=options.system_instruction,
            apply_chat_template=options.apply_chat_template,
            fewshot_as_multiturn=True,
        )
    return found


def notes(subject: Subject) -> tuple[str, ...]:
    """Where lm-eval's own ``hf`` model would generate otherwise."""
    config = generation_config(subject.path)
    heeded = {name: getattr(config, name, None) for name in CHANGED_BY}
    changed = [f"{name}: {value}" for name, value in heeded.items() if value not in (None, 0, 1)]
    if not changed:
        return ()
    return (f"Generated without the model's own {', '.join(changed)}, which transformers heeds.",)


def _seed() -> None:
    """Begin with lm-eval's own seeds: its figures are drawn with them."""
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)
    torch.manual_seed(DEFAULT_OTHER_SEED)


def _set(task: Any, options: Options) -> None:
    """Options as lm-eval applies them: a task that wants no examples gets none."""
    if task.get_config("output_type") == "generate_until" and options.max_new_tokens is not None:
        length = {"max_gen_toks": options.max_new_tokens}
        task.set_config(key="generation_kwargs", value=length, update=True)
    wanted = task.get_config("num_fewshot")
    if wanted is None or (options.num_fewshot is not None and wanted != 0):
        task.set_config(key="num_fewshot", value=options.num_fewshot or 0)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


@cache
def _manager(name: str, directory: Path | None) -> TaskManager:
    """What finds a task; lm-eval's own definitions take seconds to read and may not be needed."""
    alone = directory is not None and name in definitions.read(directory, name).tasks
    return TaskManager(include_path=directory, include_defaults=not alone)


@contextmanager
def _templates_kept_in() -> Iterator[None]:
    """Render the templates of definitions where they reach their own data only."""
    theirs = lm_eval.utils.env
    sandbox = SandboxedEnvironment(
        loader=theirs.loader, undefined=theirs.undefined, keep_trailing_newline=True
    )
    sandbox.filters.update(theirs.filters)
    lm_eval.utils.env = sandbox
    try:
        yield
    finally:
        lm_eval.utils.env = theirs
