"""Finished blocks on disk: what a killed run leaves to the next one, and what a checkpoint is of.

A part is a safetensors file with the tensors that the checkpoint will have for a block, and beside
it a small file that says what it is. That one is written last: without it, or where it does not fit
the tensors or itself, there is no part.

    <folder>/model.layers.3.safetensors
    <folder>/model.layers.3.json
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from quantship import sealed
from quantship.artifact import digest_file
from quantship.frozen import Frozen
from quantship.quant.container import Spec, Writer
from quantship.quant.numerics import Codes

TAIL = "tail"
"""Key of what is in no block; a block's is its name."""


class About(Frozen):
    """What the small file holds."""

    schema_version: Literal[1] = 1
    job: str
    """What the part was made for."""
    digest: str
    """SHA-256 of the file with the tensors."""
    codes: dict[str, str]
    """Digest of the codes of each layer as they were in memory; see ``CodesDigest``."""
    notes: tuple[str, ...] = ()
    """Remarks of the algorithm."""
    corrected: tuple[str, ...] = ()
    """Layers whose bias was corrected."""
    errors: dict[str, float] = Field(default_factory=dict)
    """Rounding error of each layer; see ``RoundingError``."""


@dataclass(frozen=True)
class Part:
    """One finished part.

    Args:
        path: File with the tensors.
        about: What it is.
    """

    path: Path
    about: About


class Parts:
    """The finished parts of one job.

    Args:
        folder: Where they lie; made when the first one is written.
        job: Tells this job from others that may have used the folder.
    """

    def __init__(self, folder: Path, job: str) -> None:
        self._folder, self._job = folder, job

    def find(self, key: str) -> Part | None:
        """A part that is whole and of this job; None if there is none."""
        path = self._folder / f"{key}.safetensors"
        try:
            about = About.model_validate(sealed.loads(path.with_suffix(".json").read_bytes()))
            sound = about.job == self._job and about.digest == digest_file(path)
        except (OSError, ValueError):
            return None
        return Part(path, about) if sound else None

    def write(
        self,
        key: str,
        specs: Mapping[str, Spec],
        metadata: Mapping[str, str],
        fill: Callable[[Writer], dict[str, str]],
        *,
        notes: tuple[str, ...] = (),
        corrected: tuple[str, ...] = (),
        errors: Callable[[], Mapping[str, float]] = dict,
    ) -> Part:
        """Write a part.

        Args:
            key: Name of the block, or another one.
            specs: Its tensors.
            metadata: Of its file.
            fill: Writes the tensors, and returns the digest of each layer's codes.
            notes: Remarks of the algorithm.
            corrected: Layers whose bias was corrected.
            errors: Rounding error of each layer, known when the part is filled.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{key}.safetensors"
        path.with_suffix(".json").unlink(missing_ok=True)
        unfinished = path.with_suffix(".unfinished")
        with Writer(unfinished, specs, metadata) as file:
            codes = fill(file)
        about = About(
            job=self._job,
            digest=digest_file(unfinished),
            codes=codes,
            notes=notes,
            corrected=corrected,
            # Of broken weights there is none that JSON can hold; they are refused in the end.
            errors={name: error for name, error in errors().items() if math.isfinite(error)},
        )
        unfinished.rename(path)
        unfinished.write_text(sealed.dumps(about.model_dump()))
        unfinished.rename(path.with_suffix(".json"))
        return Part(path, about)


class CodesDigest:
    """SHA-256 over the codes of a matrix, its scales and zero points, given some rows at a time."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._scales: list[torch.Tensor] = []
        self._zeros: list[torch.Tensor] = []

    def add(self, codes: Codes) -> None:
        """The rows that come next."""
        zero_OG = codes.zero_OG
        zero_OG = torch.zeros_like(codes.scale_OG) if zero_OG is None else zero_OG
        self._hash.update(_bytes(codes.codes_OI))
        self._scales.append(codes.scale_OG.detach().cpu().float())
        self._zeros.append(zero_OG.cpu().to(torch.int8))

    def hexdigest(self) -> str:
        """Of all rows; zero points that are all 0 count as none."""
        self._hash.update(_bytes(torch.cat(self._scales)))
        zero_OG = torch.cat(self._zeros)
        if bool(zero_OG.any()):
            self._hash.update(_bytes(zero_OG))
        return self._hash.hexdigest()


def digest_of(codes: Codes) -> str:
    """Digest of a matrix that is all there."""
    whole = CodesDigest()
    whole.add(codes)
    return whole.hexdigest()


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
