"""What one of two processes does in ``test_meeting``: ``python meet.py CASE FOLDER``."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from quantship import processes, stopping
from quantship.console import errors_shown
from quantship.errors import GateError, QuantshipError


def tell(folder: Path) -> None:
    """Everything that is told without an error, into a file for each process."""
    news: list[str] = []
    index = processes.index()
    with processes.told(news.append) as say:
        taken = []
        for turn in processes.turns(9):
            taken.append(turn)
            say(f"{index} took {turn}")
            time.sleep(0.01 + 0.2 * (index == 1))  # the second one is slow
        processes.meet()
    with processes.alone():
        alone = processes.number(), processes.index(), processes.gathered(index)
    found = {
        "gathered": processes.gathered("x" * (10 ** (index + 1)) + str(index)),
        "agreed": processes.agreed(f"from {index}"),
        "first": processes.first_does(lambda: os.getpid()),
        "taken": taken,
        "alone": alone,
        "news": news,
    }
    (folder / f"{index}.json").write_text(json.dumps(found))


def differ(code: type[QuantshipError]) -> None:
    """The second process fails in step with the first."""

    def work() -> None:
        if processes.index() == 1:
            raise code("only here")

    processes.in_step(work)


def leave(error: BaseException) -> None:
    """The second process fails while the first one waits for it."""
    if processes.index() == 1:
        time.sleep(0.5)
        raise error
    processes.meet()


def wait(folder: Path) -> None:
    """The first process waits for the second, which is somewhere else."""
    (folder / f"{processes.index()}.waits").write_text(str(os.getpid()))
    if processes.index() == 1:
        time.sleep(600)
    processes.meet()


def main(case: str, folder: Path) -> None:
    stopping.watch(speaks=processes.is_first())
    with errors_shown(False), processes.together(), errors_shown(False):
        if case == "tell":
            tell(folder)
        elif case == "differ":
            differ(GateError)
        elif case == "leave":
            leave(QuantshipError("the second one's own"))
        elif case == "bug":
            leave(RuntimeError("the second one's bug"))
        elif case == "interrupt":
            leave(KeyboardInterrupt())
        elif case == "die":
            if processes.index() == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            processes.meet()
        elif case == "wait":
            wait(folder)


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except Exception as error:  # noqa: BLE001 - as typer ends a command
        sys.exit(getattr(error, "exit_code", 70))
