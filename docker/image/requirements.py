"""Print what one of the images installs, a requirement a line: pyproject.toml's, less quantship.

    python requirements.py cpu|cuda PYPROJECT CONSTRAINTS

A change of quantship's code does not change this list, so it does not install PyTorch again.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = {
    "cpu": ("examples", "lm-eval", "openvino", "tracking"),
    "cuda": ("examples", "lm-eval", "tracking"),  # OpenVINO is for processors of Intel
}
"""Extras inside; what compiles, or what only developers need, stays out."""

CUDA_BUILDS = {"onnxruntime": "onnxruntime-gpu", "onnxruntime-genai": "onnxruntime-genai-cuda"}
"""Distributions whose CUDA build has a name of its own, and the same modules inside."""


def pins(constraints: Path) -> dict[str, str]:
    """The exact version of each distribution."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", constraints.read_text(), re.MULTILINE))


def requirements(image: str, pyproject: Path, constraints: Path) -> list[str]:
    """What to install, with the CUDA builds pinned to the versions of their plain twins."""
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for name in EXTRAS[image] for line in extras[name])]
    lines = {re.split(r"[^\w.-]", line)[0]: line for line in sorted(wanted)}
    if image == "cuda":
        versions = pins(constraints)
        for name, twin in CUDA_BUILDS.items():
            lines[name] = f"{twin}=={versions[name]}"
    return list(lines.values())


if __name__ == "__main__":
    image, pyproject, constraints = sys.argv[1:]
    sys.stdout.write("\n".join(requirements(image, Path(pyproject), Path(constraints))) + "\n")
