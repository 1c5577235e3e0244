"""Install distributions of no files that stand for those whose CUDA builds are installed.

    python stand_in.py SITE_PACKAGES CONSTRAINTS

``onnxruntime`` and ``onnxruntime-gpu`` write the same files, so only one of them may be installed;
what asks for the other is content with its stand-in, which in turn asks for the one that is there.
"""

from __future__ import annotations

import sys
from pathlib import Path

from requirements import CUDA_BUILDS, pins

METADATA = """\
Metadata-Version: 2.1
Name: {name}
Version: {version}
Summary: Stands for {name}, whose modules {twin} holds.
Requires-Dist: {twin}=={version}
"""


def install(packages: Path, name: str, version: str, twin: str) -> None:
    """Write the metadata of the stand-in."""
    info = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format(name=name, version=version, twin=twin))
    (info / "INSTALLER").write_text("stand_in\n")
    files = ("METADATA", "INSTALLER", "RECORD")
    (info / "RECORD").write_text("".join(f"{info.name}/{file},,\n" for file in files))


if __name__ == "__main__":
    packages, constraints = map(Path, sys.argv[1:])
    for name, twin in CUDA_BUILDS.items():
        install(packages, name, pins(constraints)[name], twin)
