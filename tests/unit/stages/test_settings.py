"""Every setting of every stage is in its fingerprint: found by walking the models, not listed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from quantship import artifact
from quantship.algorithms import gptq
from quantship.algorithms.table import ALGORITHMS
from quantship.data import Source
from quantship.frozen import Frozen
from quantship.plan import STAGES, describe
from quantship.quant.scheme import SCHEMES, ActivationFormat, Override, Scheme, WeightFormat
from quantship.recipe.language import (
    Benchmark,
    Data,
    Distillation,
    FinetuneStep,
    Lora,
    MlpModel,
    QatStep,
    QuantizeStep,
    SearchStep,
    Teacher,
    TinyModel,
)
from quantship.recipe.search_options import CONSTRAINTS
from quantship.recipe.tracking_options import TrackedRun
from quantship.stages import (
    benchmark,
    data,
    evaluate,
    export,
    finetune,
    head,
    mlp,
    online,
    qat,
    quantize,
    search,
    statistics,
    task,
    tiny,
)
from quantship.tasks.table import TASKS

SOURCES = Data.model_validate(
    {
        "eval": [
            {"adapter": "alpaca", "path": "alpaca.jsonl"},
            {"adapter": "builtin"},
            {"adapter": "chat", "path": "chats.jsonl"},
            {"adapter": "digits"},
            {"adapter": "glue", "task": "sst2", "path": "sst2.tsv"},
            {"adapter": "gsm8k", "path": "gsm8k.jsonl"},
            {"adapter": "hub", "dataset": "me/chats", "messages": "m"},
            {"adapter": "hub", "dataset": "me/prompts", "prompt": "q", "completion": "a"},
            {"adapter": "hub", "dataset": "me/texts", "text": "t"},
            {"adapter": "mbpp"},
            {"adapter": "sharegpt", "path": "sharegpt.jsonl"},
            {"adapter": "squad"},
            {"adapter": "superglue", "task": "boolq"},
            {"adapter": "wikitext"},
        ]
    }
).eval
SCHEME = Scheme(
    name="mixed",
    weight=WeightFormat(bits=8),
    activation=ActivationFormat(granularity="per_tensor", ranges="static"),
    head=WeightFormat(bits=8),
    overrides=(
        Override(layers="*.down_proj", weight=WeightFormat(bits=4, group_size=32)),
        Override(layers="*.up_proj", weight=WeightFormat(bits=8), activation=ActivationFormat()),
    ),
)
GLUE = {"adapter": "glue", "task": "sst2", "path": "chats.jsonl"}
TASK_OPTIONS: dict[str, dict[str, Any]] = {
    "choices": {"source": GLUE},
    "classification": {"source": GLUE},
    "divergence": {},
    "generations": {"prompts": ("Hello.", "Why?")},
    "gsm8k": {"source": {"adapter": "gsm8k", "path": "chats.jsonl"}},
    "lm_eval": {"run": "hellaswag"},
    "mbpp": {},
    "perplexity": {"source": {"adapter": "wikitext", "path": "chats.jsonl"}},
    "squad": {},
}


def of_task(kind: str) -> task.Settings:
    return task.Settings(
        task=TASKS[kind].Options(task=kind, **TASK_OPTIONS[kind]),
        file_digests=("a",),
        versions={"x": "1"},
        chat_template=None,
        max_length=8,
        batch_size=4,
        seed=0,
    )


TRACKED = TrackedRun(report_to=("tensorboard",), project="p", name="n")
SAMPLES: dict[str, Frozen] = {
    "tiny": tiny.Settings(dimensions=TinyModel(), seed=0),
    "head": head.Settings(classes=("no", "yes"), seed=0),
    "mlp": mlp.Settings(dimensions=MlpModel(sizes=(784, 512, 10)), seed=0),
    "data": data.Settings(
        data=Data(train=SOURCES, eval=SOURCES, chat_template="{{ messages }}"),
        seed=0,
        file_digests=(("a", "b"), ()),
    ),
    "finetune": finetune.Settings(
        step=FinetuneStep(stage="finetune", name="f"), seed=0, tracking=TRACKED
    ),
    "qat": qat.Settings(
        step=QatStep(
            stage="qat",
            name="q",
            input="f",
            scheme="w8a8",
            distill=Distillation(teacher=Teacher(step="f"), weight=0.3),
            lora=Lora(),
        ),
        scheme=SCHEME,
        seed=0,
        tracking=TRACKED,
    ),
    "quantize": quantize.Settings(
        step=QuantizeStep(stage="quantize", scheme="w8a8", algorithm=gptq.Options()), scheme=SCHEME
    ),
    "statistics": statistics.Settings(sequences=4, seed=None),
    "search": search.Settings(
        step=SearchStep(
            stage="search", scheme="w8a8", candidates=("w8a8", "w8a16"), max_bytes="w8a8"
        ),
        base=SCHEME,
        candidates=(SCHEME, SCHEMES["w8a8"]),
        as_large_as=SCHEME,
        machine={"cpu": "this one"},
    ),
    "export": export.Settings(lowering="nbits", target="x86", scheme=SCHEME),
    "online": online.Settings(scheme=SCHEME, batch_size=4, limit=None),
    "evaluate": evaluate.Settings(batch_size=4, limit=None, parity_sequences=4),
    "task": of_task("perplexity"),
    "benchmark": benchmark.Settings(
        benchmark=Benchmark(), threads=2, seed=0, machine={"cpu": "this one"}
    ),
}
CANDIDATES: tuple[Any, ...] = (
    *(None, True, False, 1, 2, 7, 64, 0.25, 0.5, (), (1, 2), (("x",),), {"cpu": "another"}),
    *("x", "y", "w8a16", ("w8a16", "w4a8")),
    *({"bits": 4}, {"bits": 8, "group_size": 16}, {"symmetric": True}, 99.0),
)
EXCLUSIVE = {
    *(f"quantship.recipe.model_options.Teacher.{name}" for name in Teacher.model_fields),
    *(f"quantship.recipe.language.SearchStep.{name}" for name in CONSTRAINTS),
}
"""Fields of which only one can be given, so that none can change alone."""
IRRELEVANT = {
    *(("step", "name"), ("step", "input"), ("step", "distill", "teacher"), ("tracking",)),
    *(("task", "name"), ("task", "models"), ("task", "include_path")),
}
"""What a step or task is called, who is told of it, or where it reads from: inputs and digests say
the latter."""


class Change(NamedTuple):
    """Settings that differ from a sample in a single field, however deep."""

    place: tuple[str | int, ...]
    field: str
    """The field with the name of the class that has it."""
    settings: Any


def changes(value: Frozen, place: tuple[str | int, ...] = ()) -> Iterator[Change]:
    """Every change to a value, or to a value inside it, that its class allows."""
    for name, field in type(value).model_fields.items():
        here, current = (*place, name), getattr(value, name)
        for change in inside(current, here):
            yield change._replace(settings=value.model_copy(update={name: change.settings}))
        named = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        for candidate in (*CANDIDATES, *named):
            with suppress(ValidationError):
                new = type(value).model_validate(value.model_dump() | {name: candidate})
                if getattr(new, name) != current:
                    yield Change(here, field_name(type(value), name), new)


def inside(current: object, place: tuple[str | int, ...]) -> Iterator[Change]:
    if isinstance(current, Frozen):
        yield from changes(current, place)
    elif isinstance(current, tuple) and current and isinstance(current[0], Frozen):
        yield Change(place, "", current[1:])
        yield Change(place, "", (*current[1:], current[0]))
        for index, item in enumerate(current):
            for change in changes(item, (*place, index)):
                changed = (*current[:index], change.settings, *current[index + 1 :])
                yield change._replace(settings=changed)


def field_name(owner: type[Frozen], name: str) -> str:
    return f"{owner.__module__}.{owner.__name__}.{name}"


def classes(value: object) -> set[str]:
    """Names of the models that a value is made of."""
    if isinstance(value, Frozen):
        parts = [classes(getattr(value, name)) for name in type(value).model_fields]
        return {type(value).__name__}.union(*parts)
    return set().union(*map(classes, value)) if isinstance(value, tuple) else set()


def fields(value: object) -> set[str]:
    """Every field of the models inside a value that holds no model, and has another value."""
    if isinstance(value, tuple):
        return set().union(*map(fields, value))
    if not isinstance(value, Frozen):
        return set()
    every = set()
    for name, field in type(value).model_fields.items():
        deeper = fields(getattr(value, name))
        fixed = get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
        every |= deeper or (set() if fixed else {field_name(type(value), name)})
    return every


def fingerprint(settings: Frozen) -> str:
    return artifact.fingerprint("stage", 1, describe(settings), {})


def irrelevant(place: tuple[str | int, ...]) -> bool:
    if any(place[: len(one)] == one for one in IRRELEVANT):
        return True
    return place[0] in ("data", "task") and place[-1] == "path"


def test_every_stage_and_every_adapter_has_a_sample() -> None:
    assert SAMPLES.keys() == STAGES.keys()
    assert all(type(SAMPLES[name]) is stage.Settings for name, stage in STAGES.items())
    adapters = get_args(get_args(Source)[0])
    assert {type(source) for source in SOURCES} == set(adapters)


@pytest.mark.parametrize("stage", SAMPLES)
def test_a_sample_holds_every_model_that_its_settings_can_hold(stage: str) -> None:
    definitions = type(SAMPLES[stage]).model_json_schema().get("$defs", {})
    titles = {definition["title"] for definition in definitions.values()}
    assert titles <= classes(SAMPLES[stage])


CHANGES = {stage: list(changes(sample)) for stage, sample in SAMPLES.items()}


@pytest.mark.parametrize("stage", SAMPLES)
def test_changing_any_setting_changes_the_fingerprint(stage: str) -> None:
    before = fingerprint(SAMPLES[stage])
    for change in CHANGES[stage]:
        assert (fingerprint(change.settings) == before) == irrelevant(change.place), change.place
    tried = {change.field for change in CHANGES[stage]}
    assert fields(SAMPLES[stage]) - EXCLUSIVE <= tried, "no other value is known for some setting"


@pytest.mark.parametrize(
    "bound", [{"target_bits": 5}, {"max_latency_ms": 5}, {"max_perplexity_increase": 0.5}]
)
def test_changing_the_bound_of_a_search_changes_the_fingerprint(bound: dict[str, float]) -> None:
    sample = SAMPLES["search"]
    step = SearchStep(stage="search", candidates=("w8a8", "w8a16"), **bound)
    ((name, value),) = bound.items()
    other = SearchStep(stage="search", candidates=("w8a8", "w8a16"), **{name: value / 2})
    one, two = (fingerprint(sample.model_copy(update={"step": each})) for each in (step, other))
    assert one != two


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_changing_any_option_of_an_algorithm_changes_the_fingerprint(kind: str) -> None:
    plain = ALGORITHMS[kind].Options()

    def described(options: Any) -> str:
        step = QuantizeStep(stage="quantize", scheme="w8a8", algorithm=options)
        return fingerprint(quantize.Settings(step=step, scheme=SCHEME))

    tried = list(changes(plain))
    assert fields(plain) == {change.field for change in tried}
    for change in tried:
        assert described(change.settings) != described(plain), change.place


@pytest.mark.parametrize("kind", TASKS)
def test_changing_any_option_of_a_task_changes_the_fingerprint(kind: str) -> None:
    before = fingerprint(of_task(kind))
    tried = [change for change in changes(of_task(kind)) if change.place[0] == "task"]
    assert len(tried) > 2
    for change in tried:
        assert (fingerprint(change.settings) == before) == irrelevant(change.place), change


@given(st.data())
def test_equal_fingerprints_mean_equal_settings(draw: st.DataObject) -> None:
    stage = draw.draw(st.sampled_from(sorted(SAMPLES)))
    some = st.sampled_from([change.settings for change in CHANGES[stage]])
    one, other = draw.draw(some), draw.draw(some)
    assert (fingerprint(one) == fingerprint(other)) == (describe(one) == describe(other))


@pytest.mark.parametrize("stage", SAMPLES)
def test_a_description_is_json_without_the_place_of_a_file(stage: str) -> None:
    import json

    described = describe(SAMPLES[stage])
    assert json.loads(json.dumps(described)) == described
    assert "chats.jsonl" not in json.dumps(described)
