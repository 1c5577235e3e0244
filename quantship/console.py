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

from quantship.errors import QuantshipError
from quantship.progress import bars

INTERRUPTED = 130
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
        _complain("Interrupted. The same command resumes where it stopped.", debug)
        raise typer.Exit(INTERRUPTED) from None
    except QuantshipError as error:
        _complain(str(error), debug)
        raise typer.Exit(error.exit_code) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - the last resort: no user meets a bare traceback
        message = f"internal error: {type(error).__name__}: {error}"
        _complain(f"{message}\n    This is a bug in quantship; --debug shows where.", debug)
        raise typer.Exit(INTERNAL_ERROR) from None


@contextmanager
def session(debug: bool) -> Iterator[None]:
    """``errors_shown``, and unless debugging the libraries kept quiet."""
    with errors_shown(debug):
        if not debug:
            quiet_libraries()
        yield


def bars_beside_the_output() -> AbstractContextManager[None]:
    """Progress bars on standard error, for what is printed may be for a program."""
    errors = Console(stderr=True)
    return bars(errors) if errors.is_terminal else nullcontext()


def _complain(message: str, debug: bool) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if debug:
        traceback.print_exc()
    else:
        console.print(Text(message, "red"))


def screen() -> Console:
    """Where commands print."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)


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
