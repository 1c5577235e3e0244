from __future__ import annotations

from pathlib import Path

import pytest

from quantship.publishing.base import base_of
from quantship.recipe.model_options import Model


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "0c0ffee"
    path.mkdir()
    return path


def test_a_directory_says_what_its_card_says_and_no_more(directory: Path) -> None:
    model = Model(path=directory)
    assert base_of(model, directory).card == {}
    (directory / "README.md").write_text("---\nlicense: mit\ntags: [a, b]\n---\ntext\n")
    found = base_of(model, directory)
    assert found.name is None
    assert found.listed("license") == ["mit"]
    assert found.listed("tags") == ["a", "b"]
    assert found.listed("language") == []
    assert base_of(model, directory, "they/it").name == "they/it"


@pytest.mark.parametrize(
    "card",
    [b"no metadata", b"---\n: [\n---\n", b"---\n- a\n- list\n---\n", b"---\nlicense: \xff\n---\n"],
    ids=["none", "not YAML", "no mapping", "not UTF-8"],
)
def test_a_card_that_cannot_be_read_says_nothing(directory: Path, card: bytes) -> None:
    (directory / "README.md").write_bytes(card)
    assert base_of(Model(path=directory), directory).card == {}


def test_a_model_of_the_hub_has_a_name_and_a_commit(directory: Path) -> None:
    found = base_of(Model(hub="they/it"), directory)
    assert (found.kind, found.name, found.revision) == ("hub", "they/it", "0c0ffee")


def test_gates_of_the_hub_are_seen(directory: Path) -> None:
    (directory / "README.md").write_text("---\nextra_gated_prompt: Accept\n---\n")
    assert base_of(Model(hub="they/it"), directory).is_gated


def test_licenses_and_notices_go_along(directory: Path) -> None:
    for name in ("LICENSE.txt", "NOTICE", "USE_POLICY.md", "config.json"):
        (directory / name).write_text("")
    texts = base_of(Model(path=directory), directory).texts
    assert [file.name for file in texts] == ["LICENSE.txt", "NOTICE", "USE_POLICY.md"]


def test_a_model_that_the_recipe_makes_has_no_base() -> None:
    found = base_of(Model.model_validate({"tiny": {}}), None)
    assert (found.kind, found.name, found.card) == ("made", None, {})
