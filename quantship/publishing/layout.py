"""Which file of a run goes where in which repository.

``one``      a checkpoint at the top; ONNX models in ``onnx/`` with all that their clients read
``several``  the same, with a repository for each model
``folders``  each model as it lies on disk, in a folder of its name
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantship.artifact import MANIFEST
from quantship.errors import UsageError
from quantship.exporters.file_names import file_name
from quantship.publishing import onnx_files
from quantship.publishing.finished import Finished, scheme_of
from quantship.publishing.onnx_files import CONFIG, GENAI, Export
from quantship.publishing.uploads import SUMS, Upload
from quantship.recipe.language import Push
from quantship.reporting.schema import ModelRow

OPENVINO = "openvino"
OF_THE_RUN = ("lock.json", SUMS, "bom.cdx.json")
"""What may lie beside a model and speaks of this machine's files; the run's own are uploaded."""
_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model"),
)
_MODEL_FILES = (".onnx", ".onnx_data")


@dataclass(frozen=True)
class Place:
    """Where a model is in a repository.

    Args:
        row: What the report says of it.
        path: Its directory on this machine.
        folder: Its folder in the repository; empty: the top.
        file: Name of its ONNX file there; None: not an ONNX model.
        dtype: What transformers.js calls it; None: nothing.
    """

    row: ModelRow
    path: Path
    folder: str
    file: str | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Layout:
    """One repository's models and their files.

    Args:
        repository: Its name, as ``me/my-model``.
        places: Its models, in the order of the recipe.
        uploads: Their files.
    """

    repository: str
    places: tuple[Place, ...]
    uploads: tuple[Upload, ...]


def repositories(options: Push) -> dict[str, tuple[str, ...]]:
    """Names of the models that go to each repository."""
    if options.layout == "several":
        return {f"{options.repo}-{name}": (name,) for name in options.models}
    return {options.repo: options.models}


def lay_out(run: Finished, options: Push) -> list[Layout]:
    """Every repository with its models.

    Raises:
        UsageError: A model is not there, or two would take each other's place.
    """
    together = _in_folders if options.layout == "folders" else _as_one
    return [
        together(repository, [(run.row(name), run.path(name)) for name in names])
        for repository, names in repositories(options).items()
    ]


def _in_folders(repository: str, models: Sequence[tuple[ModelRow, Path]]) -> Layout:
    places = []
    uploads: list[Upload] = []
    for row, path in models:
        file = onnx_files.GRAPH_FILE if row.kind == "onnx" else None
        places.append(Place(row, path, row.name, file))
        uploads += [Upload(f"{row.name}/{name}", path / name) for name in _names(path)]
    return Layout(repository, tuple(places), tuple(uploads))


def _as_one(repository: str, models: Sequence[tuple[ModelRow, Path]]) -> Layout:
    places, exports, taken = [], [], dict[str, str]()
    for row, path in models:
        if row.kind == "onnx":
            export = Export(path, file_name(scheme_of(path)))
            exports.append(export)
            place = Place(row, path, onnx_files.FOLDER, export.file, export.name.dtype)
        else:
            place = Place(row, path, OPENVINO if row.kind == "openvino" else "")
        spot = f"{place.folder}/{place.file or ''}"
        other = taken.setdefault(spot, row.name)
        if other != row.name:
            raise UsageError(
                f"'{other}' and '{row.name}' cannot both be at {spot} of {repository}; use "
                "`layout: folders` or `layout: several`"
            )
        places.append(place)
    tops = [place.path for place in places if not place.folder]
    uploads = [*_top(tops, exports), *_onnx(exports)]
    for place in places:
        if place.folder == OPENVINO:
            names = _names(place.path)
            uploads += [Upload(f"{OPENVINO}/{name}", place.path / name) for name in names]
    return Layout(repository, tuple(places), tuple(uploads))


def _top(checkpoints: Sequence[Path], exports: Sequence[Export]) -> Iterator[Upload]:
    """The checkpoint; without one, what transformers.js wants to find at the top."""
    if not checkpoints and not exports:
        return
    source = checkpoints[0] if checkpoints else exports[0].path
    names = _names(source)
    if not checkpoints:
        names = [name for name in names if name in (CONFIG, "generation_config.json", *_TOKENIZER)]
    for name in names:
        if exports and name == CONFIG:
            yield Upload(name, onnx_files.with_browser_words(source / name, exports))
        elif exports and name == "tokenizer_config.json":
            written = exports[0].path / name  # in words that transformers.js reads as well
            yield Upload(name, written if written.is_file() else source / name)
        else:
            yield Upload(name, source / name)


def _onnx(exports: Sequence[Export]) -> Iterator[Upload]:
    """The folder of ONNX models, which onnxruntime-genai and optimum load as it is."""
    for export in exports:
        yield from onnx_files.model_files(export)
    if not exports:
        return
    first = exports[0]
    for name in _names(first.path):
        place = f"{onnx_files.FOLDER}/{name}"
        if name.endswith(_MODEL_FILES):
            continue
        if name == CONFIG:
            yield Upload(place, onnx_files.with_browser_words(first.path / name, exports))
        elif name == GENAI:
            yield Upload(place, onnx_files.genai_config(first))
        else:
            yield Upload(place, first.path / name)


def _names(directory: Path) -> list[str]:
    """Files of a model's directory that belong to the model."""
    files = (file.relative_to(directory) for file in directory.rglob("*") if file.is_file())
    return sorted(
        file.as_posix()
        for file in files
        if file.name != MANIFEST
        and file.suffix != ".log"
        and file.as_posix() not in OF_THE_RUN
        and not any(part.startswith(".") for part in file.parts)
    )
