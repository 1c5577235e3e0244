"""Where every command begins: ``quantship``, and ``python -m quantship``.

Stops are heard before the command line and its libraries are imported, which takes a while: to the
first process of a container, SIGTERM means nothing until it asks for it.
"""

from __future__ import annotations

from quantship import processes, stopping


def main() -> None:
    """Entry point of the ``quantship`` command."""
    try:
        stopping.watch(speaks=processes.is_first())
        from quantship import cli
    except BaseException:
        if stopping.requested():  # some imports turn an interrupt into an error of theirs
            stopping.leave()
        raise
    try:
        cli.main()
    finally:
        stopping.over()


if __name__ == "__main__":
    main()
