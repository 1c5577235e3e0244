"""Any data set on the Hugging Face Hub, or in a local directory.

A record holds one of three things, in columns of these or other names:

    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}
    {"prompt": "The capital of France?", "completion": "Paris"}
    {"text": "Running text, tokenized as it stands and split into windows."}

``prompt`` and ``completion`` may hold lists of messages as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import field_validator, model_validator

from quantship.data import archives
from quantship.data.fields import checked, turns
from quantship.data.source import (
    MAY_BE_LOCAL,
    Example,
    Message,
    Revision,
    Role,
    SourceOptions,
    expand_home,
)
from quantship.errors import DataError
from quantship.reading import reading

if TYPE_CHECKING:
    from datasets import Dataset

_FORMS = (("messages",), ("prompt", "completion"), ("text",))


class Options(SourceOptions):
    """A data set on the Hub or in a local directory, of chats, prompts or running text.

    Columns are found by their usual names (``messages``, else ``prompt`` and ``completion``, else
    ``text``) unless one of these keys names others.
    """

    adapter: Literal["hub"]
    dataset: Annotated[str, MAY_BE_LOCAL]
    """Hub id, or local directory: one of ``save_to_disk``, or of data files."""
    config: str | None = None
    """Configuration of the data set, where it has several."""
    revision: Revision = "main"
    """Branch, tag or commit on the Hub; unused for a local directory."""
    messages: str | None = None
    """Column that holds whole chats."""
    prompt: str | None = None
    """Column that holds the user's turn; with ``completion``."""
    completion: str | None = None
    """Column that holds the assistant's turn; with ``prompt``."""
    text: str | None = None
    """Column that holds running text; blank rows are passed over."""

    @field_validator("dataset")
    @classmethod
    def _in_home(cls, value: str) -> str:
        return str(expand_home(Path(value))) if value.startswith("~") else value

    @model_validator(mode="after")
    def _one_form(self) -> Options:
        named = [part for form in _FORMS for part in form if getattr(self, part) is not None]
        if named and tuple(named) not in _FORMS:
            allowed = "messages, or prompt and completion, or text"
            raise ValueError(f"name the columns {allowed}; got {' and '.join(named)}")
        return self


def rows(options: Options) -> Iterator[Example]:
    """Yield one example a record.

    Raises:
        DataError: There is no such split or column, or a record is malformed; names its index.
    """
    found = records(options.dataset, options.config, options.revision, options.split)
    for origin, record in found:
        columns = _columns(options, record, origin)
        if "text" in columns:
            text = checked(record[columns["text"]], str, origin, columns["text"])
            if text.strip():  # a blank row separates paragraphs in line-wise data sets
                yield Example(({"role": "assistant", "content": text},), origin, raw=True)
        elif "messages" in columns:
            chat = checked(record[columns["messages"]], list, origin, columns["messages"])
            yield Example(turns(chat, origin), origin)
        else:
            asked = _turns(record, columns["prompt"], "user", origin)
            answered = _turns(record, columns["completion"], "assistant", origin)
            yield Example(asked + answered, origin)


def records(
    dataset: str, config: str | None, revision: str, split: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield ``(dataset split[index], record)`` for every record of a split.

    Args:
        dataset: Hub id, or local directory.
        config: Configuration, where there are several.
        revision: Branch, tag or commit on the Hub.
        split: Name of the split; unused for a directory that ``Dataset.save_to_disk`` wrote.

    Raises:
        DataError: A local directory has no such split.
    """
    found = _load(dataset, config, revision, split)
    with reading(dataset):
        for index, record in enumerate(found):
            yield f"{dataset} {split}[{index}]", record


def local_directory(dataset: str) -> Path | None:
    """The directory, where the data set is one on this machine."""
    path = Path(dataset)
    return path if path.is_dir() else None


def _load(dataset: str, config: str | None, revision: str, split: str) -> Dataset:
    import datasets

    local = local_directory(dataset)
    saved = local is not None and any(
        (local / name).is_file() for name in ("dataset_dict.json", "state.json")
    )
    with _quiet(), reading(dataset):
        if not saved:
            name, commit = (dataset, revision) if local is None else (str(local), None)
            builder = datasets.load_dataset_builder(name, config, revision=commit)
            _require_own_files(builder, dataset, local)
            return datasets.load_dataset(name, config, revision=commit, split=split)
        _require_own_tables(local, dataset)
        loaded = datasets.load_from_disk(str(local))
    if isinstance(loaded, datasets.Dataset):
        return loaded
    if split not in loaded:
        raise DataError(f"no split '{split}'; it has {', '.join(loaded)}", dataset)
    return loaded[split]


def _require_own_files(builder: Any, dataset: str, local: Path | None) -> None:
    """Refuse a data set whose description names files of elsewhere, which nobody asked to read.

    Raises:
        DataError: With the first of them.
    """
    files = [file for split in (builder.config.data_files or {}).values() for file in split]
    home = f"hf://datasets/{dataset}@" if local is None else str(local.resolve())
    for file in files:
        inner = file.rpartition("::")[2]
        own = inner.startswith(home) if local is None else _is_below(Path(inner), Path(home))
        if not own or ".." in Path(inner).parts:
            raise DataError(f"it names a file that is not its own: {inner}", dataset)
        if local is not None:
            archives.require_sound(Path(inner))


def _require_own_tables(directory: Path | None, dataset: str) -> None:
    """Refuse a data set of ``save_to_disk`` that names files outside its folder.

    Raises:
        DataError: With the first of them.
    """
    assert directory is not None
    home = directory.resolve()
    for state in home.rglob("state.json"):
        try:
            listed = json.loads(state.read_bytes())["_data_files"]
            names = [entry["filename"] for entry in listed]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{state.name} is none that save_to_disk wrote", dataset) from error
        for name in names:
            if not isinstance(name, str) or not _is_below(state.parent / name, home):
                raise DataError(f"it names a file that is not its own: {name}", dataset)


def _is_below(file: Path, home: Path) -> bool:
    return file.resolve().is_relative_to(home)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's own progress bars off the screen."""
    import datasets

    were_off = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            datasets.enable_progress_bars()


def _columns(options: Options, record: Mapping[str, Any], origin: str) -> dict[str, str]:
    """Part of a record -> column that holds it: as the options name them, else the usual names."""
    named = {part: getattr(options, part) for form in _FORMS for part in form}
    given = {part: column for part, column in named.items() if column is not None}
    for form in _FORMS:
        usual = {part: part for part in form}
        if not given and usual.keys() <= record.keys():
            return usual
    missing = [column for column in given.values() if column not in record]
    if missing or not given:
        wanted = " and ".join(missing) or "messages, or prompt and completion, or text"
        raise DataError(f"no column {wanted}; it has {', '.join(record)}", origin)
    return given


def _turns(record: Mapping[str, Any], column: str, role: Role, origin: str) -> tuple[Message, ...]:
    value = record[column]
    if isinstance(value, list):
        return turns(value, origin)
    return ({"role": role, "content": checked(value, str, origin, column)},)
