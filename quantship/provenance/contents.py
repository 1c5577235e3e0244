"""What files hold, apart from how they are laid out: equal digests are equal results."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from quantship import header
from quantship.artifact import MANIFEST, digest_file

LOCK = "lock.json"
ABOUT = (MANIFEST, LOCK)
"""Files that tell when and where the others were made; so do logs."""
_PIECE = 1 << 20


def digests(directory: Path) -> dict[str, str]:
    """Digest of what each file below a directory holds, by its path; hidden ones left out."""
    found = {}
    for file in sorted(directory.rglob("*")):
        inside = file.relative_to(directory)
        hidden = any(part.startswith(".") for part in inside.parts)
        about = inside.as_posix() in ABOUT or file.suffix == ".log"
        if file.is_file() and not hidden and not about:
            found[inside.as_posix()] = _DIGESTS.get(file.suffix, digest_file)(file)
    return found


def digest_tensors(path: Path) -> str:
    """SHA-256 over a safetensors file's tensors by name, in hexadecimal.

    Neither their order in the file nor its metadata is in it.
    """
    whole = sha256()
    with path.open("rb") as file:
        entries, first = header.read(path)
        entries.pop(header.METADATA, None)
        for name in sorted(entries):
            entry = entries[name]
            start, end = entry["data_offsets"]
            whole.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
            file.seek(first + start)
            while start < end:
                piece = file.read(min(_PIECE, end - start))
                if not piece:
                    raise ValueError(f"{path} ends before its tensors do")
                whole.update(piece)
                start += len(piece)
    return whole.hexdigest()


def digest_graph(path: Path) -> str:
    """SHA-256 over an ONNX model's graph with its inline initializers, in hexadecimal.

    The model's metadata, which names the files it was made from, is not in it; initializers in a
    file of their own are in that file's digest.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    model.ClearField("metadata_props")
    return sha256(model.SerializeToString(deterministic=True)).hexdigest()


_DIGESTS: dict[str, Callable[[Path], str]] = {
    ".safetensors": digest_tensors,
    ".onnx": digest_graph,
}
