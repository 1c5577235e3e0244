"""Which run is to be pushed, and how: what the command line says, else the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import quantship.recipe as recipes
from quantship.errors import UsageError
from quantship.publishing.finished import Finished, open_run
from quantship.recipe import shipped
from quantship.recipe.language import Push

NO_MATTER = {"push", "description"}
"""Keys that may have changed since the run."""


@dataclass(frozen=True)
class Asked:
    """A run to push.

    Args:
        run: The run.
        push: What its recipe says of pushing; None: nothing.
    """

    run: Finished
    push: Push | None


def find(name: str, artifacts: Path, overrides: Sequence[str], profile: str | None) -> Asked:
    """The run that a directory or a recipe stands for.

    Args:
        name: A run's directory, a recipe's file or the name of one that comes with quantship.
        artifacts: Where the recipe's run is.
        overrides: Settings of the recipe.
        profile: Profile of the recipe.

    Raises:
        RecipeError: The recipe is wrong.
        UsageError: There is no such run, or it was made from another recipe.
    """
    if Path(name).is_dir():
        if overrides or profile:
            raise UsageError("--set and --profile are for a recipe, and this is a run's directory")
        run = open_run(Path(name))
        return Asked(run, run.push)
    recipe = recipes.load(shipped.find(name), overrides=overrides, profile=profile)
    run = open_run(artifacts / "runs" / recipe.name)
    now = recipe.model_dump(mode="json")
    changed = _changed(now, run.report.recipe)
    if changed:
        raise UsageError(
            f"{run.directory} was made from another recipe ({', '.join(changed)}); run this one "
            "first, what is there is reused, or give the run's directory"
        )
    return Asked(run, recipe.push)


def options(
    asked: Asked, repo: str | None, models: Sequence[str] | None, license: str | None = None
) -> Push:
    """What to push where.

    Args:
        asked: The run.
        repo: Repository in place of the recipe's.
        models: Models in place of the recipe's.
        license: License in place of the recipe's.

    Raises:
        UsageError: The recipe says nothing and the command line too little, or what it says is no
            repository.
    """
    said: dict[str, Any] = asked.push.model_dump() if asked.push is not None else {}
    given = {"repo": repo, "models": tuple(models) if models else None, "license": license}
    said |= {key: value for key, value in given.items() if value is not None}
    missing = [f"--{key}" for key in ("repo", "model") if not {key, f"{key}s"} & said.keys()]
    if missing:
        known = ", ".join(row.name for row in asked.run.report.models)
        raise UsageError(
            f"the recipe of {asked.run.directory} does not say what to push; give "
            f"{' and '.join(missing)} (models: {known})"
        )
    try:
        return Push.model_validate(said)
    except ValidationError as error:
        if any(one["loc"] == ("license",) for one in error.errors()):
            message = f"--license {license} is no license by the Hub's name, as apache-2.0 is"
            raise UsageError(message) from error
        raise UsageError(f"--repo {repo} is no repository, as me/my-model is") from error


def _changed(now: dict[str, Any], then: dict[str, Any]) -> list[str]:
    keys = dict.fromkeys([*now, *then])
    return [key for key in keys if key not in NO_MATTER and now.get(key) != then.get(key)]
