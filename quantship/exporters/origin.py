"""What an exported model says about where it comes from."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from quantship.artifact import MANIFEST, digest_file
from quantship.exporters.lowering import Lowering
from quantship.exporters.targets import Target


def describe(
    source: Path, lowering: Lowering, scheme: str | None, target: Target
) -> dict[str, Any]:
    """JSON values for the model's metadata: what it was made from, how, and for what.

    Args:
        source: Directory of the model that is exported.
        lowering: Form of the quantized layers.
        scheme: Name of the checkpoint's scheme; None for a float model.
        target: Machine that the model is for.
    """
    return {
        "quantship_version": metadata.version("quantship"),
        "lowering": lowering,
        "target": target,
        "scheme": scheme,
        "algorithm": None if scheme is None else algorithm(source),
        "source_sha256": digest_weights(source),
    }


def algorithm(source: Path) -> str | None:
    """How a checkpoint's codes were found: ``qat``, or a post-training algorithm; None: unknown.

    Args:
        source: Directory that a step has made, or any other, which does not say.
    """
    if not (source / MANIFEST).is_file():
        return None
    manifest = json.loads((source / MANIFEST).read_bytes())
    found: str | None = manifest["facts"].get("algorithm")
    return found or ("qat" if manifest["stage"] == "qat" else None)


def digest_weights(source: Path) -> str:
    """SHA-256 of the weights of a directory: of its safetensors file.

    Where there are several, of their names and digests, one a line, in the order of their names.
    """
    digests = {path.name: digest_file(path) for path in sorted(source.glob("*.safetensors"))}
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{name}\0{digest}\n" for name, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest()
