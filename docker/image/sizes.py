"""What an image weighs beside PyTorch and onnxruntime; fails where that is over the limit.

    python sizes.py cpu|cuda [IMAGE_BYTES]

Runs inside the image. A wheel counts with all that it unpacks to, as its RECORD says.
"""

from __future__ import annotations

import csv
import os
import re
import sys
from importlib.metadata import Distribution, distributions

MB = 1_000_000
LIMITS_BYTES = {"cpu": 2000 * MB, "cuda": 400 * MB}
"""``cpu``: of the whole image. ``cuda``: of what is in it beside PyTorch and onnxruntime."""
COUNTED = re.compile(r"torch$|triton$|nvidia-|cuda-|onnxruntime(-gpu)?$")
"""PyTorch with the CUDA libraries and the compiler that it brings, and onnxruntime."""
NO_FILES = {"/proc", "/sys", "/dev"}


def unpacked_bytes(distribution: Distribution) -> int:
    """Size of the files that came in the wheel, whether or not they are still there."""
    rows = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    return sum(int(size or 0) for name, _, size in rows if not name.endswith(".pyc"))


def file_system_bytes() -> int:
    """Size of all files in the image, each counted once."""
    seen: dict[tuple[int, int], int] = {}
    for folder, folders, files in os.walk("/"):
        folders[:] = [one for one in folders if os.path.join(folder, one) not in NO_FILES]  # noqa: PTH118
        for name in files:
            found = os.lstat(os.path.join(folder, name))  # noqa: PTH118
            seen[found.st_dev, found.st_ino] = found.st_size
    return sum(seen.values())


def main(image: str, image_bytes: int) -> int:
    """Print the figures; the exit code."""
    wheels = {
        name: unpacked_bytes(one)
        for one in distributions()
        if COUNTED.match(name := one.metadata["Name"].lower())
    }
    unpacked, limit = sum(wheels.values()), LIMITS_BYTES[image]
    measured = image_bytes if image == "cpu" else image_bytes - unpacked
    lines = [f"  {name} {size / MB:.0f} MB" for name, size in sorted(wheels.items()) if size >= MB]
    sys.stdout.write(
        f"{image} image: {image_bytes / MB:.0f} MB\n"
        f"wheels of PyTorch and onnxruntime unpack to {unpacked / MB:.0f} MB:\n"
        + "\n".join(lines)
        + f"\nthe image beside them: {(image_bytes - unpacked) / MB:.0f} MB\n"
        f"limit {limit / MB:.0f} MB, measured {measured / MB:.0f} MB: "
        f"{'kept' if measured <= limit else 'EXCEEDED'}\n"
    )
    return 0 if measured <= limit else 1


if __name__ == "__main__":
    size = int(sys.argv[2]) if len(sys.argv) > 2 else file_system_bytes()
    sys.exit(main(sys.argv[1], size))
