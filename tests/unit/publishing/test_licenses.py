from __future__ import annotations

from pathlib import Path

import pytest

from quantship.errors import UsageError
from quantship.publishing.base import Base
from quantship.publishing.licenses import TERMS, License, forbids_derivatives, license_of

REPO = ["me/my-model"]


def of(license: object, given: str | None = None, *repos: str, **card: object) -> License:
    base = Base("hub", "they/base", "c0ffee", {"license": license, **card})
    return license_of(base, given, repos or REPO)


def refusal(license: object, given: str | None = None, *repos: str) -> str:
    with pytest.raises(UsageError) as caught:
        of(license, given, *repos)
    return str(caught.value)


@pytest.mark.parametrize("name", ["cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"])
def test_licenses_without_derivatives_forbid_sharing_whatever_the_recipe_says(name: str) -> None:
    for given in (None, name, "mit"):
        assert "they/base is under" in refusal(name, given)
    assert "forbids sharing" in refusal("apache-2.0", name)


@pytest.mark.parametrize(
    "name",
    ["cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc0-1.0", "mit", "gpl-3.0", "openrail"],
)
def test_other_licenses_allow_it_and_are_inherited(name: str) -> None:
    assert not forbids_derivatives(name)
    assert of(name).name == name


@pytest.mark.parametrize("stated", [None, "other", "unknown"])
def test_terms_that_are_not_known_have_to_be_confirmed(stated: str | None) -> None:
    assert "push.license" in refusal(stated)
    assert of(stated, "apache-2.0").name == "apache-2.0"
    kept = of(stated, "other", license_name="their-own", license_link="https://they/terms")
    assert (kept.name, kept.title, kept.link) == ("other", "their-own", "https://they/terms")


def test_a_confirmed_license_does_not_keep_the_name_of_another() -> None:
    confirmed = of("other", "mit", license_name="their-own")
    assert (confirmed.name, confirmed.title) == ("mit", None)


def test_a_license_that_is_passed_on_is_not_changed() -> None:
    assert "which its derivatives keep" in refusal("gemma", "mit")
    assert of("mit", "apache-2.0").name == "apache-2.0"
    assert of("gemma", "gemma").name == "gemma"


@pytest.mark.parametrize(
    ("license", "good", "bad"),
    [
        ("llama3.2", "me/Llama-3.2-1B-w8a8", "me/my-llama"),
        ("llama3.1", "me/llama_3.1-8b", "me/SmolLlama"),
        ("llama3", "me/Llama-3-8B-w4", "me/Llama-8B-w4"),
        ("llama4", "me/Llama4-Scout", "me/scout"),
    ],
)
def test_llama_derivatives_begin_with_its_name(license: str, good: str, bad: str) -> None:
    found = of(license, None, good)
    assert found.name == license
    assert found.notice is not None
    assert "Community License, Copyright © Meta Platforms" in found.notice
    assert (found.display or "").startswith("Built with ")
    assert "begin with" in refusal(license, None, bad)
    assert "begin with" in refusal(license, None, good, bad)


def test_the_notice_of_each_version_names_it() -> None:
    notices = {name: terms.notice or "" for name, terms in TERMS.items()}
    assert notices["llama3.2"].startswith("Llama 3.2 is licensed under the Llama 3.2 Community")
    assert notices["llama3"].startswith("Meta Llama 3 is licensed under the Meta Llama 3 Community")
    assert "ai.google.dev/gemma/terms" in notices["gemma"]
    assert of("llama2").display is None
    assert of("gemma").display is None


def test_a_text_that_has_to_go_along_and_is_not_there_is_told() -> None:
    assert any("add one before you share" in remark for remark in of("gemma").remarks)
    base = Base("hub", "they/base", None, {"license": "gemma"}, (Path("LICENSE.txt"),))
    assert license_of(base, None, REPO).remarks == ()


def test_a_model_that_the_recipe_made_is_the_users_own() -> None:
    assert license_of(Base("made"), None, REPO).name is None
    assert license_of(Base("made"), "mit", REPO).name == "mit"
