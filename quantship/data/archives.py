"""Archives that the library for data sets unpacks: refused where a member would leave its folder.

That library passes such members over in silence, or writes them elsewhere inside its own folder; a
data set that tries is none to read the rest of.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from quantship.errors import DataError

ENDINGS = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def require_sound(file: Path) -> None:
    """Refuse an archive that would write or read outside the folder that it is unpacked into.

    Args:
        file: Any file; what is no archive passes.

    Raises:
        DataError: With the first member that would, or what keeps the archive from being read.
    """
    if not file.name.lower().endswith(ENDINGS):
        return
    try:
        for name, target in _members(file):
            if _leaves(name) or (target is not None and _leaves(target, PurePosixPath(name))):
                to = "" if target is None else f", a link to {target!r}"
                raise DataError(f"the member {name!r}{to} leads out of the archive", str(file))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"no archive that can be read: {error}", str(file)) from error


def _members(file: Path) -> Iterator[tuple[str, str | None]]:
    """Each member's name, and where it leads if it is a link."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as opened:
            for one in opened.infolist():
                is_link = stat.S_ISLNK(one.external_attr >> 16)
                yield one.filename, opened.read(one).decode() if is_link else None
    elif tarfile.is_tarfile(file):
        with tarfile.open(file) as tar:
            for entry in tar:
                if entry.isdev():
                    raise DataError(f"the member {entry.name!r} is a device", str(file))
                yield entry.name, entry.linkname if entry.issym() else None
                if entry.islnk():
                    yield entry.linkname, None


def _leaves(name: str, link: PurePosixPath | None = None) -> bool:
    """Whether a name, seen from the top of the archive or from a link in it, leads out of it."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or any(part.endswith(":") for part in path.parts[:1]):
        return True
    depth = 0 if link is None else len(link.parent.parts)
    for part in path.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False
