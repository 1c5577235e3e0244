"""What a data adapter is: ``Options`` in, chat messages out.

An adapter is one file: an ``Options`` class whose ``adapter`` literal is its name in a recipe, and
``rows(options)``, which yields an ``Example`` a record and raises ``DataError`` naming file and
line for a record it cannot use. ``quantship.data.rows`` applies ``limit``; adapters need not.
One whose data is not text has ``samples(options)`` instead, which yields a ``Sample`` a record, for
models that classify.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypedDict, get_args

from pydantic import AfterValidator, Field

from quantship.errors import DataError
from quantship.frozen import Frozen

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Role = Literal["system", "user", "assistant"]


def expand_home(path: Path) -> Path:
    """The path with a leading ``~`` replaced; ValueError where that means nobody's folder."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"'{path}' starts in the home folder of an unknown user") from None


def _is_revision(name: str) -> str:
    """The name itself; ValueError where it could lead to another folder of the Hub's cache."""
    if not name or ".." in name or "\\" in name or name.startswith(("/", "-")):
        raise ValueError(f"'{name}' is no branch, tag or commit")
    return name


Revision = Annotated[str, AfterValidator(_is_revision)]
LocalPath = Annotated[Path, AfterValidator(expand_home)]
MAY_BE_LOCAL = "a folder on this machine, or a name on the Hub"
"""Marks a text that may be a path, so that it is kept in bounds as a path is."""


class Message(TypedDict):
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Example:
    """One record as chat messages; one that exists is sound.

    Args:
        messages: At least one turn.
        origin: Where the record came from, as ``path:line`` or ``dataset[index]``.
        raw: True for running text: one assistant turn whose content is tokenized as it stands,
            without a chat template, and may be split into windows.

    Raises:
        DataError: A role is unknown, a content is blank or cannot be written as UTF-8, or there
            is no assistant turn.
    """

    messages: tuple[Message, ...]
    origin: str
    raw: bool = False

    def __post_init__(self) -> None:
        for index, message in enumerate(self.messages):
            problem = _problem(message)
            if problem:
                raise DataError(f"messages[{index}]: {problem}", self.origin)
        if not any(message["role"] == "assistant" for message in self.messages):
            raise DataError("no assistant turn, so there is nothing to learn", self.origin)


@dataclass(frozen=True, eq=False)
class Sample:
    """One record that is not text.

    Args:
        features: float32, one dimension.
        label: The class it belongs to, from 0.
    """

    features: npt.NDArray[np.float32]
    label: int


@dataclass(frozen=True)
class Labelled:
    """One record of a data set for classification.

    Args:
        texts: One text, or two that are judged together.
        label: The class, from 0; an index of the source's class names.
        origin: Where the record came from, as ``path:line`` or ``dataset[index]``.
    """

    texts: tuple[str, ...]
    label: int
    origin: str


@dataclass(frozen=True)
class Question:
    """One record that is answered by choosing.

    Args:
        prompt: What is asked, in words; no white space at its ends.
        choices: Possible answers, each as it goes on after the prompt: it begins with a space.
            Without it, it is an assistant's turn.
        answer: Index of the right one.
        origin: Where the record came from, as ``path:line`` or ``dataset[index]``.
    """

    prompt: str
    choices: tuple[str, ...]
    answer: int
    origin: str


def _problem(message: Message) -> str | None:
    if message["role"] not in get_args(Role):
        return f"unknown role {message['role']!r}; known are {', '.join(get_args(Role))}"
    if not message["content"].strip():
        return f"the content of the {message['role']} turn is blank"
    try:
        message["content"].encode()
    except UnicodeEncodeError as error:
        return f"the content holds half a surrogate pair at character {error.start}"
    return None


class SourceOptions(Frozen):
    """What every source understands."""

    split: str = "train"
    """Split to read, where the source has splits."""
    limit: int | None = Field(default=None, ge=1)
    """Read at most this many records, from the start."""


class FileOptions(SourceOptions):
    """A source read from a local file, or from the Hub where no file is given."""

    hub: ClassVar[str]
    """The adapter's data set on the Hub."""
    path: LocalPath | None = None
    """Local file; relative to the current directory. None: the adapter's data set on the Hub."""
    revision: Revision = "main"
    """Branch, tag or commit of the data set on the Hub; unused where ``path`` is given."""
