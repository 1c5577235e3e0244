"""Every error a user can meet.

    QuantshipError          exit code 3
    ├── RecipeError         2   one or more Problems: file, line, key, what is allowed
    ├── UsageError          2   the command line asks for something that cannot be
    ├── DataError           3   a record, named by file and line
    ├── StageError          3   a stage failed; wraps whatever a library raised
    ├── ParityError         3   the numbers that would ship are not the numbers that were made
    └── GateError           4   a limit of the recipe does not hold

Only ``cli`` prints them. Library exceptions are wrapped once, in ``pipeline``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quantship.scrubbing import scrub


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a recipe, and what to do about it.

    Args:
        message: What is wrong, with what was given.
        file: The recipe (or the base it extends) that holds the value; None for ``--set``.
        line: 1-based line in ``file``.
        key: Dotted path of the key, as ``steps.2.input``.
        remedy: What is allowed, or what to do.
    """

    message: str
    file: Path | None = None
    line: int | None = None
    key: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        place = ""
        if self.file is not None:
            place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        key = f"{self.key}: " if self.key else ""
        remedy = f"\n    {self.remedy}" if self.remedy else ""
        return f"{place}{key}{self.message}{remedy}"


class QuantshipError(Exception):
    """Base of all errors that are meant for the user's eyes."""

    exit_code = 3

    def __str__(self) -> str:
        """The message, without the secrets that what it quotes may hold."""
        return scrub(super().__str__())


class RecipeError(QuantshipError):
    """A recipe cannot be run; carries every problem found, not only the first."""

    exit_code = 2

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


class UsageError(QuantshipError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class DataError(QuantshipError):
    """A record that cannot be used, named by file and line."""

    def __init__(self, message: str, origin: str) -> None:
        self.origin = origin
        super().__init__(f"{origin}: {message}")


class StageError(QuantshipError):
    """A stage failed.

    Args:
        step: Name of the step in the recipe.
        message: What went wrong, for the user.
        partial: Directory that the failed stage leaves to look at, if any.
    """

    def __init__(self, step: str, message: str, partial: Path | None = None) -> None:
        self.step = step
        self.partial = partial
        left = f"\n    What it had written so far: {partial}" if partial else ""
        super().__init__(f"step '{step}' failed: {message}{left}")


class ParityError(QuantshipError):
    """Integers or logits that must be equal are not; nothing is shipped."""


class GateError(QuantshipError):
    """A run is finished and its report written, and a limit of the recipe does not hold.

    Args:
        message: Which limits do not hold, with the figures.
        result: What the run would have returned: report, directories.
    """

    exit_code = 4

    def __init__(self, message: str, result: object = None) -> None:
        self.result = result
        super().__init__(message)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, the one that it came of, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
