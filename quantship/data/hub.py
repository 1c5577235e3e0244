"""Any data set on the Hugging Face Hub, or in a local directory.

A record holds one of three things, in columns of these or other names:

    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}
    {"prompt": "The capital of France?", "completion": "Paris"}
    {"text": "Running text, tokenized as it stands and split into windows."}

``prompt`` and ``completion`` may hold lists of messages as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator, model_validator

from quantship.data.fields import checked, turns
from quantship.data.source import Example, Message, Role, SourceOptions, expand_home
from quantship.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

_FORMS = (("messages",), ("prompt", "completion"), ("text",))


class Options(SourceOptions):
    """A data set on the Hub or in a local directory, of chats, prompts or running text.

    Columns are found by their usual names (``messages``, else ``prompt`` and ``completion``, else
    ``text``) unless one of these keys names others.
    """

    adapter: Literal["hub"]
    dataset: str
    """Hub id, or local directory: one of ``save_to_disk``, or of data files."""
    config: str | None = None
    """Configuration of the data set, where it has several."""
    revision: str = "main"
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
    for index, record in enumerate(_load(dataset, config, revision, split)):
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
    with _quiet():
        if not saved:
            name, commit = (dataset, revision) if local is None else (str(local), None)
            return datasets.load_dataset(name, config, revision=commit, split=split)
        loaded = datasets.load_from_disk(str(local))
    if isinstance(loaded, datasets.Dataset):
        return loaded
    if split not in loaded:
        raise DataError(f"no split '{split}'; it has {', '.join(loaded)}", dataset)
    return loaded[split]


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
