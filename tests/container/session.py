"""Build the images and try them.

nox -s docker                 the image for CPUs
nox -s docker -- cuda         and the one for NVIDIA GPUs, of which what needs no GPU is tried
nox -s docker -- -k help      other arguments go to pytest
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import engines
from rich.console import Console

NO_ENGINE = 77
"""Exit code where no engine can be had, and none is required."""
MISSING = """\
THE IMAGE WAS NEITHER BUILT NOR TRIED: there is no container engine here.
    Install docker or podman. QUANTSHIP_REQUIRE_CONTAINER=1 makes this a failure."""


def main(arguments: list[str]) -> int:
    """Build, weigh and try; the exit code."""
    console = Console(highlight=False, soft_wrap=True)
    began = time.monotonic()
    engine = engines.find()
    if engine is None:
        console.print(MISSING, style="bold red")
        return 1 if os.environ.get("QUANTSHIP_REQUIRE_CONTAINER") == "1" else NO_ENGINE
    console.print(f"{engine} is ready: {time.monotonic() - began:.0f} s")
    targets = ["cpu", *({"cuda"} & set(arguments))]
    env = os.environ | {"QUANTSHIP_CONTAINER_ENGINE": engine}
    for target in targets:
        tag = f"quantship:{target}"
        began = time.monotonic()
        engines.build(engine, target, tag)
        console.print(f"{tag} is built: {time.monotonic() - began:.0f} s")
        size = str(engines.size_bytes(engine, tag))
        weigh = ("--rm", "--entrypoint", "python", tag, engines.SIZES, target, size)
        if subprocess.run([engine, "run", *weigh], check=False).returncode != 0:
            return 1
        env[f"QUANTSHIP_IMAGE_{target.upper()}"] = tag
    began = time.monotonic()
    rest = [one for one in arguments if one not in ("cpu", "cuda")]
    command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), "--durations=0"]
    tried = subprocess.run([*command, *rest], env=env, check=False)
    console.print(f"tried in {time.monotonic() - began:.0f} s")
    return tried.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
