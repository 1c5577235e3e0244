"""Archives whose members would leave their folder are refused; sound ones pass."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from quantship.data.archives import require_sound
from quantship.errors import DataError

OUTSIDE = ("../a", "a/../../a", "/a", "..\\a", "C:/a", "a/b/../../../c")
INSIDE = ("a", "a/b.jsonl", "a/../b", "./a", "..a", "a..b/c")


def zipped(path: Path, name: str, link: str | None = None) -> Path:
    info = zipfile.ZipInfo(name)
    info.external_attr = (0o120777 if link else 0o100644) << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(info, link or "{}")
    return path


def tarred(path: Path, name: str, link: str | None = None, kind: bytes = tarfile.SYMTYPE) -> Path:
    info = tarfile.TarInfo(name)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as file:
        if link is None:
            info.size = 2
        else:
            info.type, info.linkname = kind, link
        file.addfile(info, None if link else io.BytesIO(b"{}"))
    return path


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_leave(tmp_path: Path, name: str) -> None:
    made = [zipped(tmp_path / "a.zip", name), tarred(tmp_path / "a.tar", name)]
    for archive in (*made, tarred(tmp_path / "a.tar.gz", name)):
        with pytest.raises(DataError, match="leads out of the archive"):
            require_sound(archive)


@pytest.mark.parametrize("name", INSIDE)
def test_names_that_stay(tmp_path: Path, name: str) -> None:
    require_sound(zipped(tmp_path / "a.zip", name))
    require_sound(tarred(tmp_path / "a.tar.gz", name))


@pytest.mark.parametrize("link", ["/etc/passwd", "../../a", "../a/../../b"])
def test_links_that_leave(tmp_path: Path, link: str) -> None:
    for archive in (
        zipped(tmp_path / "a.zip", "in/link", link),
        tarred(tmp_path / "a.tar", "in/link", link),
        tarred(tmp_path / "b.tar", "in/link", link, tarfile.LNKTYPE),
    ):
        with pytest.raises(DataError, match="leads out of the archive"):
            require_sound(archive)


def test_links_that_stay(tmp_path: Path) -> None:
    require_sound(zipped(tmp_path / "a.zip", "in/link", "../other"))
    require_sound(tarred(tmp_path / "a.tar", "in/link", "../other"))


def test_devices_and_torn_archives(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a device"):
        require_sound(tarred(tmp_path / "a.tar", "null", "x", tarfile.CHRTYPE))
    whole = zipped(tmp_path / "a.zip", "a").read_bytes()
    (tmp_path / "torn.zip").write_bytes(whole[:-3] + b"\0\0\0" + b"PK\x05\x06" + b"\xff" * 18)
    with pytest.raises(DataError, match="no archive that can be read"):
        require_sound(tmp_path / "torn.zip")


def test_what_is_no_archive_passes(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.jsonl.gz", "a.zip"):
        (tmp_path / name).write_text("{}")
        require_sound(tmp_path / name)
