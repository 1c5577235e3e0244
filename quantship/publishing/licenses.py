"""Whether a model's license lets one share what is made from it, and what it asks for in return.

This holds what licenses say in so many words, by their names on the Hub
(https://huggingface.co/docs/hub/repositories-licenses). It is no legal advice, and reads no text.

- Creative Commons licenses with ND let one "produce and reproduce, but not Share, Adapted Material"
  (CC BY-ND 4.0, section 2(a)(1)(B)); a quantized or trained model is adapted.
- Llama licenses, section 1.b.i: who distributes a derivative provides a copy of the agreement and
  displays "Built with Llama" ("Built with Meta Llama 3" in Llama 3's); an AI model that is made
  with it carries "Llama" ("Llama 3" in Llama 3's) at the beginning of its name; section 1.b.iii: a
  file NOTICE with one sentence. Llama 2's asks for the copy and the notice.
- Gemma Terms of Use, section 3.1: a copy of the terms, the use restrictions of section 3.2 as a
  provision, a notice that files were modified, and a file NOTICE with one sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantship.errors import UsageError
from quantship.publishing.base import Base

UNSAID = ("other", "unknown")
"""Names that say nothing of the terms."""
FREE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "bsd", "cc0-1.0", "unlicense", "isc")
"""Licenses under which derivatives may carry another license, as long as the notices stay."""


@dataclass(frozen=True)
class _Terms:
    """What a license asks of those who share a model made from another.

    Args:
        notice: Sentence that a file NOTICE must hold.
        beginning: Beginning of the name of such a model; None: any.
        display: What must be displayed; None: nothing.
        wants_copy: Whether its text goes along.
    """

    notice: str | None = None
    beginning: str | None = None
    display: str | None = None
    wants_copy: bool = True


def _llama(version: str, *, meta: str = "", beginning: str = "Llama") -> _Terms:
    name = f"{meta}Llama {version}"
    copyright = "Copyright © Meta Platforms, Inc. All Rights Reserved."
    return _Terms(
        notice=f"{name} is licensed under the {name} Community License, {copyright}",
        beginning=beginning,
        display=f"Built with {meta}{beginning}",
    )


TERMS = {
    "llama2": _Terms(
        notice="Llama 2 is licensed under the LLAMA 2 Community License, Copyright (c) Meta "
        "Platforms, Inc. All Rights Reserved."
    ),
    "llama3": _llama("3", meta="Meta ", beginning="Llama 3"),
    "llama3.1": _llama("3.1"),
    "llama3.2": _llama("3.2"),
    "llama3.3": _llama("3.3"),
    "llama4": _llama("4"),
    "gemma": _Terms(
        notice="Gemma is provided under and subject to the Gemma Terms of Use found at "
        "ai.google.dev/gemma/terms"
    ),
}


@dataclass(frozen=True)
class License:
    """The terms under which models are uploaded.

    Args:
        name: The Hub's name for them; None: not stated.
        title: Their own name, where the Hub has none.
        link: Where their text is, where the Hub does not know.
        notice: What a file NOTICE must hold; None: nothing.
        display: What must be displayed; None: nothing.
        remarks: What whoever publishes should know, in sentences.
    """

    name: str | None
    title: str | None = None
    link: str | None = None
    notice: str | None = None
    display: str | None = None
    remarks: tuple[str, ...] = ()


def license_of(base: Base, given: str | None, repositories: Sequence[str]) -> License:
    """The license to upload under.

    Args:
        base: Where the models come from.
        given: ``push.license`` of the recipe.
        repositories: Where they go, as ``me/my-model``.

    Raises:
        UsageError: The base model's license forbids it, or is not known and nothing is given.
    """
    stated = next(iter(base.listed("license")), None)
    what = base.title or "the base model"
    if base.kind == "made":
        return License(given)
    for name in (stated, given):
        if name is not None and forbids_derivatives(name):
            raise UsageError(
                f"{what} is under {name}, which forbids sharing what is made from it; nothing is "
                "pushed"
            )
    if stated is None or stated in UNSAID:
        return _confirmed(base, stated, given, what)
    if given is not None and given != stated and stated not in FREE:
        raise UsageError(
            f"push.license is {given}, and {what} is under {stated}, which its derivatives keep; "
            f"leave push.license out"
        )
    return _with_terms(base, stated, given or stated, repositories)


def forbids_derivatives(name: str) -> bool:
    """Whether a license forbids sharing what is made from a work."""
    return name.startswith("cc-") and "nd" in name.split("-")


def _confirmed(base: Base, stated: str | None, given: str | None, what: str) -> License:
    if given is None:
        known = (
            f"{what} states no license"
            if stated is None
            else f"{what} is under a license that the Hub calls '{stated}'"
        )
        raise UsageError(
            f"{known}: whether what is made from it may be shared is not known.\n"
            "    Read its terms; if they allow it, say so with push.license, as "
            "`license: apache-2.0` or `license: other`, or with `quantship push --license`."
        )
    kept = given in UNSAID
    return License(
        given,
        title=_text(base, "license_name") if kept else None,
        link=_text(base, "license_link") if kept else None,
        remarks=(f"The license is {given} because whoever pushes says so; {what} does not.",)
        if stated is None
        else (),
    )


def _with_terms(base: Base, stated: str, chosen: str, repositories: Sequence[str]) -> License:
    terms = TERMS.get(stated)
    if terms is None:
        return License(chosen, _text(base, "license_name"), _text(base, "license_link"))
    _require_beginning(stated, terms, repositories)
    remarks = []
    if terms.wants_copy and not any(_is_license(file.name) for file in base.texts):
        remarks.append(
            f"{stated} asks for a copy of its text beside the model, and the base model's "
            "directory has none (LICENSE): add one before you share the repository."
        )
    if terms.display:
        remarks.append(f'{stated} asks to display "{terms.display}"; the model card does.')
    return License(
        chosen,
        _text(base, "license_name"),
        _text(base, "license_link"),
        terms.notice,
        terms.display,
        tuple(remarks),
    )


def _require_beginning(stated: str, terms: _Terms, repositories: Sequence[str]) -> None:
    if terms.beginning is None:
        return
    wanted = _letters(terms.beginning)
    for repository in repositories:
        short = repository.partition("/")[2]
        if not _letters(short).startswith(wanted):
            raise UsageError(
                f"{stated} asks that the name of a model made with it begin with "
                f'"{terms.beginning}", and push.repo is {repository}; call it '
                f"{repository.partition('/')[0]}/{terms.beginning.replace(' ', '-')}-…"
            )


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _is_license(name: str) -> bool:
    return name.upper().startswith(("LICENSE", "LICENCE", "COPYING"))


def _text(base: Base, key: str) -> str | None:
    value = base.card.get(key)
    return None if value is None else str(value)
