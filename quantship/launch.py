"""``torchrun`` for quantship, ending as its processes end.

    python -m quantship.launch --standalone --nproc-per-node=gpu run recipe.yaml

torchrun itself ends with 1 whatever happened. Schedulers want to tell a recipe that is wrong (2) or
a gate that fails (4), which a retry does not mend, from an interruption (130), which it does.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from quantship import stopping


def launch(arguments: Sequence[str]) -> int:
    """Run quantship in as many processes as asked for; the exit code of the first that failed.

    Args:
        arguments: Options of torchrun, then the arguments of quantship.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    asked = run.parse_args(list(arguments))
    asked.module = True
    asked.training_script_args = [asked.training_script, *asked.training_script_args]
    asked.training_script = "quantship"
    if asked.standalone and asked.local_addr is None:
        asked.local_addr = "localhost"  # without a network, a machine's own name means nothing
    try:
        run.run(asked)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        code: int = failure.exitcode
        return 128 - code if code < 0 else code  # as shells say it: 137 for SIGKILL
    except SignalException:
        return stopping.EXIT_CODE
    return 0


def main() -> None:
    """Entry point of ``python -m quantship.launch``."""
    # Until torchrun listens, there is nothing to save and nobody to tell.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(stopping.EXIT_CODE))
    code = launch(sys.argv[1:])
    stopping.over()
    sys.exit(code)


if __name__ == "__main__":
    main()
