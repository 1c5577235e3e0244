"""Upload finished models, their card and their report to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from quantship.publishing import access, finished, repository
from quantship.publishing import base as bases
from quantship.publishing import upload as uploading
from quantship.publishing.finished import Finished
from quantship.publishing.layout import repositories
from quantship.publishing.licenses import license_of
from quantship.publishing.repository import Repository
from quantship.publishing.upload import Pushed
from quantship.recipe.language import Push, Recipe


def check(recipe: Recipe, base: Path | None) -> access.Access:
    """Find out before the work whether its push can succeed: the license, the token, the rights.

    Args:
        recipe: One that pushes.
        base: Directory of the model that it starts from; None: it makes its own.

    Raises:
        UsageError: The base model's license forbids it, or is not known.
        StageError: There is no token that may write; one that cannot be asked about is a warning.
    """
    assert recipe.push is not None
    names = list(repositories(recipe.push))
    known = bases.base_of(recipe.model, base, recipe.push.base_model)
    license_of(known, recipe.push.license, names)
    return access.check(names)


def prepare(run: Finished, options: Push) -> list[Repository]:
    """What a run uploads; nothing is uploaded, and no network is used.

    Raises:
        GateError: A gate failed.
        UsageError: A model is missing or has no place, or the license forbids it.
    """
    finished.require_gates(run.report)
    return repository.prepare(run, options)


def upload(
    options: Push, directory: Path, notify: Callable[[Pushed], None] = lambda pushed: None
) -> list[Pushed]:
    """Upload a finished run.

    Args:
        options: What goes where.
        directory: The run's directory.
        notify: Told of every repository that is done.

    Raises:
        GateError: A gate failed.
        UsageError: A model is missing or has no place, or the license forbids it.
        StageError: No token, no permission, or the Hub cannot be reached.
    """
    done = []
    for one in prepare(finished.open_run(directory), options):
        done.append(uploading.upload(one, options))
        notify(done[-1])
    return done
