from __future__ import annotations

import json
from hashlib import sha1
from pathlib import Path

import pytest

from quantship import hub
from quantship import plan as planning
from quantship.artifact import digest_file
from quantship.job import Plan
from quantship.provenance import differences, environment, sources
from quantship.provenance.lock import planned, recipe_text
from quantship.provenance.lock_schema import LockedModel, LockedSource, Revision
from quantship.recipe import Recipe, load
from quantship.recipe.load import load_text

RECIPE = """\
model: {{hub: me/base, revision: v1}}
data:
  train:
    - {{adapter: gsm8k}}
    - {{adapter: gsm8k, path: {path}}}
  eval: [{{adapter: gsm8k, split: test, revision: old}}]
evaluation:
  tasks:
    - {{task: perplexity, name: text, source: {{adapter: wikitext}}}}
    - {{task: perplexity, name: own}}
    - {{task: choices, name: local, models: [qat],
        source: {{adapter: glue, task: sst2, path: {glue}}}}}
steps:
  - {{stage: qat, scheme: w8a8, distill: {{teacher: {{hub: me/teacher}}}}}}
"""


def commit(repo: str, revision: str, kind: str = "model") -> str:
    """What the Hub would say: a revision's commit, or the commit itself."""
    if len(revision) == 40:
        return revision
    return sha1(f"{repo}@{revision}".encode(), usedforsecurity=False).hexdigest()


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(hub, "commit", commit)
    data, glue = tmp_path / "train.jsonl", tmp_path / "dev.tsv"
    data.write_text(json.dumps({"question": "1 + 1?", "answer": "#### 2"}) + "\n")
    glue.write_text("sentence\tlabel\ngood\t1\n")
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.format(path=data, glue=glue))
    return load(path)


@pytest.fixture
def plan(recipe: Recipe) -> Plan:
    return planning.make(recipe, download=False)


def test_everything_that_comes_from_the_hub_is_told_with_its_commit(
    recipe: Recipe, plan: Plan
) -> None:
    wanted = [
        ("dataset", "openai/gsm8k", "main"),
        ("dataset", "openai/gsm8k", "old"),
        ("dataset", "Salesforce/wikitext", "main"),
        ("model", "me/base", "v1"),
        ("model", "me/teacher", "main"),
    ]
    assert [(one.kind, one.id, one.asked) for one in sources.revisions(recipe, plan)] == wanted
    for one in sources.revisions(recipe, plan):
        assert one == Revision(
            kind=one.kind, id=one.id, asked=one.asked, commit=commit(one.id, one.asked)
        )


def test_models_and_data_are_told_as_they_were_planned(
    recipe: Recipe, plan: Plan, tmp_path: Path
) -> None:
    models = sources.models(recipe, plan)
    assert models["model"] == LockedModel(
        hub="me/base",
        path=None,
        commit=commit("me/base", "v1"),
        fingerprint=plan["model"].fingerprint,
    )
    taught = commit("me/teacher", "main")
    assert models[f"teacher me/teacher@{taught}"].commit == taught
    data = {one.key: one for one in sources.data(recipe, plan)}
    assert list(data) == [
        *("data.train.0", "data.train.1", "data.eval.0"),
        *("evaluation.tasks.0.source", "evaluation.tasks.2.source"),
    ]
    path = tmp_path / "train.jsonl"
    assert data["data.train.1"] == LockedSource(
        key="data.train.1",
        adapter="gsm8k",
        path=str(path),
        hub=None,
        commit=None,
        files=[digest_file(path)],
    )
    assert data["evaluation.tasks.2.source"].files == [digest_file(tmp_path / "dev.tsv")]
    assert data["evaluation.tasks.0.source"].commit == commit("Salesforce/wikitext", "main")


def test_a_pinned_recipe_plans_the_same_jobs_and_asks_for_commits_only(
    recipe: Recipe, plan: Plan
) -> None:
    tied = sources.pinned(recipe, plan)
    again = planning.make(tied, download=False)
    mine = {node.name: node.fingerprint for node in plan.nodes}
    theirs = {node.name: node.fingerprint for node in again.nodes}
    # A teacher's node is called by its revision.
    assert set(mine.values()) == set(theirs.values())
    assert all(one.asked == one.commit for one in sources.revisions(tied, again))
    assert sources.pinned(tied, again) == tied
    assert sources.models(tied, again) == sources.models(recipe, plan)
    assert differences.after(planned(recipe, plan), planned(tied, again)) == []
    here = environment.current()
    assert differences.before(planned(recipe, plan), here, planned(tied, again)) == []


def test_the_recipe_of_a_lock_loads_as_what_it_was(
    recipe: Recipe, plan: Plan, tmp_path: Path
) -> None:
    lock = planned(recipe, plan)
    again = load_text(recipe_text(lock), tmp_path / "lock.json")
    assert again == sources.pinned(recipe, plan)
    changed = load_text(recipe_text(lock), tmp_path / "lock.json", overrides=["seed=7"])
    assert changed == again.model_copy(update={"seed": 7})
