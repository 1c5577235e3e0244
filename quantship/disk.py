"""A disk that is full: how the libraries that write to it say so, and what to tell the user."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from pathlib import Path

from quantship.errors import chain

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_SPACE, NO_QUOTA = "no space left on device", "disk quota exceeded"
"""What errors say of it that come from other languages, without the system's number."""
VAGUE = ("inline_container", "iostream error")
"""What ``torch.save`` and OpenVINO say when they cannot write, whatever the reason; the latter then
removes what it has written, so that there is some room again."""
NOTHING_BYTES = 1 << 16
"""A disk with less room is taken for the reason of any failure."""


def complaint(
    error: BaseException, root: Path, *, written_bytes: int = 0, needed_bytes: int | None = None
) -> str | None:
    """What to tell of a failure that a full disk has caused; None: it has not.

    Args:
        error: What a library has raised.
        root: Directory that is written to, which is there.
        written_bytes: What had been written of the job that failed.
        needed_bytes: What the job writes in all, roughly; None: not known.
    """
    causes = list(chain(error))
    over_quota = any(_tells(one, errno.EDQUOT, NO_QUOTA) for one in causes)
    told = over_quota or any(_tells(one, errno.ENOSPC, NO_SPACE) for one in causes)
    remedies = {
        root: "give --artifacts on a larger one; what is finished can be moved there",
        Path(tempfile.gettempdir()): "name a folder on a larger one in TMPDIR",
    }
    vague = any(text in str(one) for one in causes for text in VAGUE)
    short_bytes = max(NOTHING_BYTES, needed_bytes or 0) if vague else NOTHING_BYTES
    empty = next((place for place in remedies if _room(place) < short_bytes), None)
    if empty is None and not told:
        return None
    place = empty or root
    about = [f"{_size(written_bytes)} had been written"] if written_bytes else []
    about += [f"roughly {_size(needed_bytes)} are needed"] if needed_bytes else []
    lines = [
        _quota(place) if over_quota else _state(place),
        f"{', '.join(about)}." if about else "",
        f"Make room there, or {remedies[place]}. The same command then goes on.",
        "" if told else f"What came of it: {type(error).__name__}: {error}",
    ]
    return "\n    ".join(filter(None, lines))


def _state(place: Path) -> str:
    space, counts = shutil.disk_usage(place), os.statvfs(place)
    no_names = (
        ", and there are no inodes for more files" if counts.f_favail == 0 < counts.f_files else ""
    )
    return (
        f"the disk at {_mount(place)} is full: {_size(space.free)} of {_size(space.total)} are "
        f"free{no_names}"
    )


def _quota(place: Path) -> str:
    return f"your quota on the disk at {_mount(place)} is used up"


def _mount(place: Path) -> Path:
    whole = place.resolve()
    return next(one for one in (whole, *whole.parents) if one.is_mount())


def _room(place: Path) -> float:
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return math.inf


def _tells(error: BaseException, number: int, text: str) -> bool:
    return getattr(error, "errno", None) == number or text in str(error).lower()


def _size(num_bytes: int) -> str:
    units = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"))
    scale, unit = next((one for one in units if num_bytes >= one[0]), (1e3, "kB"))
    return f"{num_bytes / scale:.1f} {unit}"
