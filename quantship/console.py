"""What every command has in common: the terminal, errors as messages, and quiet libraries."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import typer
from rich.console import Console
from rich.text import Text

from quantship import processes, stopping
from quantship.errors import QuantshipError
from quantship.progress import bars
from quantship.scrubbing import scrub, scrub_logs

INTERNAL_ERROR = 1
PIPED_WIDTH = 120
"""Columns where the output is no terminal: the table of models needs 100."""


@contextmanager
def errors_shown(debug: bool) -> Iterator[None]:
    """Turn whatever goes wrong inside into a message and an exit code.

    Args:
        debug: Show the traceback in place of the message.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise _stopped(debug) from None
    except QuantshipError as error:
        if stopping.interrupted() and processes.current() is None:
            raise _stopped(debug) from None
        ended = _ended(error.exit_code, str(error), debug)
        if stopping.requested() and processes.current() is None:  # which it may have failed of
            raise _stopped(debug) from None
        raise ended from None
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - the last resort: no user meets a bare traceback
        if stopping.interrupted() and processes.current() is None:
            raise _stopped(debug) from None
        message = f"internal error: {type(error).__name__}: {error}"
        bug = f"{message}\n    This is a bug in quantship; --debug shows where."
        raise _ended(INTERNAL_ERROR, bug, debug) from None


@contextmanager
def session(debug: bool) -> Iterator[None]:
    """``errors_shown``, and unless debugging the libraries kept quiet."""
    with errors_shown(debug):
        scrub_logs()
        if not debug:
            quiet_libraries()
        yield


@contextmanager
def session_together(debug: bool) -> Iterator[None]:
    """``session``, connected with the other processes of the same run."""
    with session(debug), processes.together(), errors_shown(debug):
        yield


def bars_beside_the_output() -> AbstractContextManager[None]:
    """Progress bars on standard error, for what is printed may be for a program."""
    errors = Console(stderr=True)
    return bars(errors) if errors.is_terminal else nullcontext()


def _stopped(debug: bool) -> typer.Exit:
    stopping.caught()
    ended = _ended(stopping.EXIT_CODE, stopping.MESSAGE, debug)
    stopping.told()
    return ended


def _ended(code: int, message: str, debug: bool) -> typer.Exit:
    """Say why this process ends, unless another process of the same run says so."""
    code, words = processes.ending(code, message)
    if words is not None:
        _complain(words, debug)
    return typer.Exit(code)


def _complain(message: str, debug: bool) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if debug:
        console.print(Text(scrub(traceback.format_exc())), end="")
    else:
        console.print(Text(scrub(message), "red"))


def screen() -> Console:
    """Where commands print: of several processes that run a recipe, the first one does.

    That is standard output as it is now: what hushes a library by a redirection hushes nothing of
    what another thread tells meanwhile.
    """
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    quiet = not processes.is_first()
    return Console(file=sys.stdout, highlight=False, width=width, quiet=quiet)


def quiet_libraries() -> None:
    """Keep the libraries' progress bars, warnings and logs off the user's screen.

    By environment variables where there are any: they reach child processes as well, and must be
    set before the libraries are imported.
    """
    quiet = {
        "DATASETS_VERBOSITY": "error",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_VERBOSITY": "error",
        "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "TORCH_LOGS": "-all",
        "TQDM_DISABLE": "1",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)  # who sets one of these wants to hear it
    warnings.filterwarnings("ignore")
    theirs = (
        "torch",
        "torchao",
        "transformers",
        "datasets",
        "onnxruntime",
        "onnxscript",
        "lm_eval",
    )
    for name in theirs:
        logging.getLogger(name).setLevel(logging.ERROR)
