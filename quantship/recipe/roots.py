"""Where a recipe's paths may lead: to the folders that its user works in, and those he names.

A recipe may come from anybody, so that it must not choose what is read of a machine. Allowed are
the current directory, the folder of the recipe, the Hub's cache, and the folders that the
environment variable QUANTSHIP_ROOTS names. A path that the user himself gives, with ``--set``, may
lead anywhere.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from quantship.data.source import MAY_BE_LOCAL
from quantship.recipe.findings import Finding
from quantship.recipe.yaml_source import Key, Place, Value, dotted, locate, nearest

ROOTS = "QUANTSHIP_ROOTS"
_NOWHERE = "of-nobody/outside-the-roots"
"""Stands for a data set whose folder is not to be looked at."""


class Named(NamedTuple):
    """A path in a recipe.

    Args:
        key: Where it stands.
        path: What it says.
    """

    key: Key
    path: Path


def allowed(file: Path) -> tuple[Path, ...]:
    """The folders that a recipe may read, without symbolic links.

    The root of a file system is one of them only where QUANTSHIP_ROOTS names it: a recipe that
    lies there, as in a container, would have the whole machine for its folder.

    Args:
        file: The recipe that the user named.
    """
    near = [found for found in (_real(Path.cwd()), _real(file.parent)) if found is not None]
    kept = [folder for folder in near if folder != Path(folder.anchor)]
    named = [Path(text) for text in os.environ.get(ROOTS, "").split(os.pathsep) if text]
    others = [found for folder in (*named, hub_cache()) if (found := _real(folder)) is not None]
    return tuple(dict.fromkeys([*kept, *others]))


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it fetches, which is read wherever a recipe says ``hub``."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.environ[name])
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HF_HOME") or Path(cache) / "huggingface") / "hub"


def is_inside(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a path, its links followed, leads into one of these folders.

    Args:
        path: A file or folder, there or not; what cannot be followed leads nowhere.
        folders: Without symbolic links.
    """
    real = _real(path)
    return real is not None and any(real.is_relative_to(folder) for folder in folders)


def paths(value: Any, key: Key = ()) -> Iterator[Named]:
    """Every path in a recipe or a part of it, found by its type."""
    if isinstance(value, Path):
        yield Named(key, value)
    elif isinstance(value, BaseModel):
        for name in (*type(value).model_fields, *(value.model_extra or {})):
            field = type(value).model_fields.get(name)
            inner = getattr(value, name)
            if field is not None and MAY_BE_LOCAL in field.metadata:
                inner = Path(inner) if _looks_local(inner) else None
            yield from paths(inner, (*key, name))
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from paths(inner, (*key, name))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from paths(inner, (*key, index))


def find_problems(
    recipe: BaseModel, source: Value, file: Path, written: Callable[[Key], Key] = lambda key: key
) -> Iterator[Finding]:
    """Paths that lead elsewhere, unless the user gave them.

    Args:
        recipe: The recipe, whose keys are those of ``source``.
        source: Its values, with where each was written.
        file: The recipe that the user named.
        written: The key, as it was written, of one in ``source``.
    """
    folders, refused = allowed(file), set[Key]()
    for key, path in paths(recipe):
        if _from_user(locate(source, key)):
            continue
        stray = _stray(path, folders)
        if stray is not None:
            refused.add(key)
            setting = f"--set {dotted(written(nearest(source, key)[1]))}={shlex.quote(str(path))}"
            remedy = (
                f"If that is what you want, give it on the command line: {setting}; or name its "
                f"folder in {ROOTS}. {readable(folders)}"
            )
            yield Finding(key, stray, remedy)
    yield from _below_definitions(without(recipe, refused), folders)


def without(recipe: Any, keys: Collection[Key]) -> Any:
    """A recipe without the paths at these keys, so that all else can be checked but they."""
    if not keys:
        return recipe
    if isinstance(recipe, BaseModel):
        changes = {name: _below(name, keys) for name in type(recipe).model_fields}
        return recipe.model_copy(
            update={
                name: without(getattr(recipe, name), below)
                for name, below in changes.items()
                if below
            }
        )
    if isinstance(recipe, tuple):
        return tuple(without(item, _below(index, keys)) for index, item in enumerate(recipe))
    return _NOWHERE if isinstance(recipe, str) else None


def readable(folders: Iterable[Path]) -> str:
    """A sentence that lists the folders that a recipe may read."""
    return f"A recipe may read below {', '.join(map(str, folders))}."


def _below(part: str | int, keys: Collection[Key]) -> list[Key]:
    return [key[1:] for key in keys if key[:1] == (part,)]


def _below_definitions(recipe: BaseModel, folders: tuple[Path, ...]) -> Iterator[Finding]:
    """Files elsewhere that definitions of tasks name: nobody gave those on a command line."""
    evaluation = getattr(recipe, "evaluation", None)
    for index, task in enumerate(evaluation.tasks if evaluation is not None else ()):
        home = getattr(task, "include_path", None)
        if home is None:
            continue
        try:
            files = task.files
        except (ValueError, OSError, RecursionError):  # told with the task's other obstacles
            continue
        for file in files:
            if not is_inside(file, (*folders, *_reals(home))):
                message = f"a definition in {home} reads {file}, outside the folders it may"
                remedy = f"Copy it there, or name its folder in {ROOTS}. {readable(folders)}"
                yield Finding(("evaluation", "tasks", index, "include_path"), message, remedy)


def _stray(path: Path, folders: tuple[Path, ...]) -> str | None:
    """How a path leaves these folders, in words; None: it does not."""
    if not is_inside(path, folders):
        real = _real(path)
        to = "" if real is None or real == path else f" (that is {real})"
        return f"{path}{to} is outside the folders that a recipe may read"
    for link in _links(path):
        if not is_inside(link, folders):
            return f"{link} is a link to {_real(link)}, outside the folders that a recipe may read"
    return None


def _links(path: Path) -> Iterator[Path]:
    """Symbolic links in a folder and those below it; links to folders are not followed."""
    for place, folders, files in os.walk(path, followlinks=False):
        for name in (*folders, *files):
            if (link := Path(place, name)).is_symlink():
                yield link


def _from_user(place: Place) -> bool:
    return place.file is None


def _looks_local(text: object) -> bool:
    """Whether a text that may also be a name on the Hub means a folder here."""
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        return text.startswith((".", "/", "~")) or ".." in Path(text).parts or Path(text).exists()
    except OSError:  # longer than a path may be
        return False


def _reals(path: Path) -> tuple[Path, ...]:
    real = _real(path)
    return () if real is None else (real,)


def _real(path: Path) -> Path | None:
    """A path without symbolic links; None where they go round in circles, or it can be none."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return None
