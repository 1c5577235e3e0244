from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console, RenderableType

from quantship.provenance import showing
from quantship.provenance.differences import Difference, Repeated, after, before
from quantship.provenance.lock_schema import Checkout, Environment, Lock

OTHER = "cd" * 32


@pytest.fixture
def here(lock: Lock) -> Environment:
    (environment,) = lock.environments.values()
    return environment


def changed(lock: Lock, key: str, **values: Any) -> Lock:
    """The lock with one of its sources or models changed."""
    if key in lock.models:
        model = lock.models[key].model_copy(update=values)
        return lock.model_copy(update={"models": lock.models | {key: model}})
    data = [
        one.model_copy(update=values) if one.key == key else one.model_copy() for one in lock.data
    ]
    return lock.model_copy(update={"data": data})


def text(shown: RenderableType) -> str:
    file = StringIO()
    Console(width=120, file=file).print(shown)
    return file.getvalue()


def test_nothing_differs_from_itself(lock: Lock, here: Environment) -> None:
    assert before(lock, here, lock) == []
    assert all(one.is_equal for one in after(lock, lock))
    assert "Data, models, packages and machine are the lock's" in text(showing.before([]))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("data.train.0", {"files": [OTHER]}),
        ("data.train.0", {"files": []}),
        ("data.eval.0", {"commit": OTHER[:40]}),
        ("model", {"fingerprint": OTHER, "commit": OTHER[:40]}),
        ("teacher ./big", {"fingerprint": OTHER}),
    ],
)
def test_other_data_and_other_models_forbid_a_run(
    lock: Lock, here: Environment, key: str, values: dict[str, Any]
) -> None:
    (found,) = before(lock, here, changed(lock, key, **values))
    assert found.name == key
    assert found.kind == ("data" if key.startswith("data") else "model")
    assert found.forbids
    assert found.locked != found.here


def test_data_that_lies_elsewhere_is_the_same(lock: Lock, here: Environment) -> None:
    assert before(lock, here, changed(lock, "data.train.0", path="other/place.jsonl")) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"quantship": "9"}, ("code", "quantship")),
        ({"checkout": Checkout(commit=OTHER, dirty=True)}, ("code", "git commit")),
        ({"python": "9"}, ("package", "python")),
        ({"cpu_model": "abacus"}, ("machine", "cpu")),
        ({"gpu": "H100"}, ("machine", "gpu")),
        ({"os": "other"}, ("machine", "os")),
        ({"threads": {"torch": "99"}}, ("threads", "torch")),
    ],
)
def test_other_software_and_machines_are_told_and_forbid_nothing(
    lock: Lock, here: Environment, values: dict[str, Any], expected: tuple[str, str]
) -> None:
    found = before(lock, here.model_copy(update=values), lock)
    assert expected in [(one.kind, one.name) for one in found]
    assert not any(one.forbids for one in found)


def test_a_package_that_is_gone_or_new_is_told(lock: Lock, here: Environment) -> None:
    packages = {name: version for name, version in here.packages.items() if name != "torch"}
    other = here.model_copy(update={"packages": packages | {"numpy": "1", "newcomer": "2"}})
    assert before(lock, other, lock) == [
        Difference("package", "numpy", here.packages["numpy"], "1"),
        Difference("package", "torch", here.packages["torch"], "–"),
        Difference("package", "newcomer", "–", "2"),
    ]


def test_what_is_made_otherwise_is_named_file_by_file(lock: Lock) -> None:
    made = lock.artifacts["qat"].model_copy(update={"files": {"a": OTHER, "c": OTHER}})
    now = lock.model_copy(update={"artifacts": lock.artifacts | {"qat": made}})
    assert after(lock, now) == [
        Repeated("qat", "qat", ("a", "b", "c"), {}),
        Repeated("evaluate qat", "evaluate", (), {}),
    ]
    shown = text(showing.after(after(lock, now), {"evaluate qat"}))
    assert "Models: 0 of 1 are the lock's" in shown
    assert "qat: other content: a, b, c" in shown
    assert "all 1 are the lock's" in shown
    assert "1 of 2 jobs were not repeated" in shown


def test_other_results_are_told_with_both_figures(lock: Lock) -> None:
    made = lock.artifacts["evaluate qat"].model_copy(update={"results": {"perplexity": 3.6}})
    now = lock.model_copy(update={"artifacts": lock.artifacts | {"evaluate qat": made}})
    assert after(lock, now)[1].results == {"perplexity": (3.5, 3.6)}
    assert "perplexity 3.5 → 3.6" in text(showing.after(after(lock, now), ()))


def test_jobs_that_did_not_run_again_are_left_out(lock: Lock) -> None:
    assert after(lock, lock.model_copy(update={"artifacts": {}})) == []
