"""What lm-eval's task definitions say, read without running any of it.

A definition is a YAML file. Most are data; what is not, as ``!function`` and metrics that are
fetched from elsewhere, is code, which a user has to allow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from quantship.tasks.base import Obstacle

PACKAGE = "lm_eval"
_PICKLED = "pandas"
"""The one builder of local data sets that reads pickles, which can run any code."""


class Function(str):
    """What a ``!function`` names, as ``utils.score``."""


@dataclass
class Definitions:
    """What YAML files hold, with all they include.

    Args:
        tasks: Every task's keys and values by its name; all scalars are strings.
        names: Names of groups and tags.
        files: The definitions, the Python beside them, and their local data.
        missing: Local data that is not there, as ``quiz.yaml: no such file: quiz.jsonl``.
        foreign: What is code, as ``quiz.yaml: !function utils.score``.
    """

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    files: list[Path] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def read(directory: Path, run: str) -> Definitions:
    """What the definitions below a directory say of a task, or of everything where it is no task.

    Raises:
        ValueError: A file is no YAML mapping, or names what can be no file.
    """
    try:
        return _read(directory, run)
    except (OSError, RuntimeError) as error:  # names of thousands of letters; links to themselves
        raise ValueError(f"{directory} cannot be read: {error}") from error


def _read(directory: Path, run: str) -> Definitions:
    definitions = []
    for path in sorted(directory.rglob("*.yaml")):
        sources = set[Path]()
        definitions.append((path, load(path, sources), sources))
    found = Definitions()
    for _, definition, _ in definitions:
        names = [definition.get("group"), *_listed(definition.get("tag"))]
        found.names.update(name for name in names if isinstance(name, str))
        if isinstance(definition.get("task"), str):
            found.tasks[definition["task"]] = definition
    files = set[Path]()
    for path, definition, sources in definitions:
        if run in found.tasks and definition is not found.tasks[run]:
            continue
        found.foreign += [f"{path.name}: {one}" for one in _foreign(definition)]
        for data in _data_files(definition):
            if data.is_file():
                files.add(data)
            else:
                found.missing.append(f"{path.name}: no such file: {data}")
        files.update(file for source in sources for file in (source, *source.parent.glob("*.py")))
    found.files = sorted(files)
    return found


def load(path: Path, sources: set[Path]) -> dict[str, Any]:
    """One definition with all it includes; every scalar is a string.

    Args:
        path: A YAML file.
        sources: The file, and those that it includes, are added to it.

    Raises:
        ValueError: It is no YAML mapping, includes what is not there, or itself.
    """
    return _load(path, sources, ())


def _load(path: Path, sources: set[Path], above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise ValueError(f"{path} includes itself")
    try:
        node = YAML(typ="safe", pure=True).compose(path)
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(node, MappingNode):
        raise ValueError(f"{path} holds no mapping")
    sources.add(path)
    try:
        own: dict[str, Any] = _plain(node)
    except RecursionError as error:
        raise ValueError(f"{path} holds itself") from error
    merged: dict[str, Any] = {}
    for include in _listed(own.pop("include", None)):
        merged |= _load(path.parent / include, sources, (*above, path.resolve()))
    return merged | own


def _plain(node: Node) -> Any:
    if isinstance(node, MappingNode):
        return {str(_plain(key)): _plain(value) for key, value in node.value}
    if isinstance(node, SequenceNode):
        return [_plain(item) for item in node.value]
    assert isinstance(node, ScalarNode)
    value = str(node.value)
    return Function(value) if str(node.tag).startswith("!") else value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _foreign(definition: dict[str, Any]) -> Iterator[str]:
    """What in a definition is more than data."""
    yield from _functions(definition)
    if definition.get("dataset_path") == _PICKLED:
        yield "pickled data"
    if "process_results" in definition:  # metrics are what that function calls them
        return
    for metric in _listed(definition.get("metric_list")):
        name = metric.get("metric") if isinstance(metric, dict) else metric
        if isinstance(name, Function):
            continue
        fetched = isinstance(metric, dict) and metric.get("hf_evaluate") == "true"
        if fetched or name not in _metrics():
            yield f"metric {name} of Hugging Face's evaluate"


def _functions(value: Any) -> Iterator[str]:
    if isinstance(value, Function):
        yield f"!function {value}"
    if isinstance(value, dict):
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _functions(item)


def _metrics() -> set[str]:
    """Names of the metrics that come with lm-eval."""
    if find_spec(PACKAGE) is None:
        return set()
    from lm_eval.api import metrics, registry

    assert metrics
    return set(registry.METRIC_REGISTRY)


def _data_files(definition: dict[str, Any]) -> Iterator[Path]:
    """Local files that a definition reads, as far as their names say so."""
    settings = definition.get("dataset_kwargs")
    named = settings.get("data_files") if isinstance(settings, dict) else None
    for value in _listed(named):
        for part in value.values() if isinstance(value, dict) else (value,):
            for name in _listed(part):
                if "://" not in name:
                    yield from _matching(Path(name))


def _matching(path: Path) -> Iterable[Path]:
    """The files that a name with or without wildcards stands for."""
    start = Path(path.anchor)
    return sorted(start.glob(str(path.relative_to(start)))) if "*" in str(path) else (path,)


def code(directory: Path, run: str) -> str | None:
    """What is code in the definitions of a directory, in words; None: they are data.

    Args:
        directory: The definitions.
        run: Name of a task, group or tag.
    """
    found = read(directory, run).foreign
    return f"runs code that {directory} names ({', '.join(found)})" if found else None


def find_obstacles(run: str, directory: Path | None) -> Iterator[Obstacle]:
    """Why a task cannot run here.

    Args:
        run: Name of a task, group or tag.
        directory: Definitions of the user's own.
    """
    if find_spec(PACKAGE) is None:
        remedy = "Install it: pip install 'quantship[lm-eval]'."
        yield Obstacle("task", "lm-evaluation-harness is not installed", remedy)
        return
    own = Definitions()
    if directory is not None:
        if not directory.is_dir():
            remedy = f"Give a directory; paths start from the current one, {Path.cwd()}."
            yield Obstacle("include_path", f"no such directory: {directory}", remedy)
            return
        try:
            own = read(directory, run)
        except ValueError as error:
            yield Obstacle("include_path", str(error), "Give definitions as lm-eval reads them.")
            return
        for missing in own.missing:
            remedy = f"Paths start from the current directory, {Path.cwd()}."
            yield Obstacle("include_path", missing, remedy)
    known = sorted(own.tasks.keys() | own.names)
    builtin = [] if run in known else _holding(run)
    if run not in known and not builtin:
        here = f" {directory} defines {', '.join(known)}." if known else ""
        yield Obstacle("run", f"lm-eval has no task '{run}'", f"See: lm-eval ls tasks.{here}")
    if own.tasks.get(run, {}).get("unsafe_code") == "true" or any(
        _is_unsafe(path, run) for path in builtin
    ):
        message = f"'{run}' runs what a model writes in quantship's own process, without limits"
        yield Obstacle("run", message, "Use the task mbpp, which limits it.")


@cache
def _holding(name: str) -> list[Path]:
    """Files that come with lm-eval and hold a name: faster than to parse its 14,000 definitions."""
    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    word = re.compile(rb"(?<![\w.-])" + re.escape(name.encode()) + rb"(?![\w.-])")
    files = (Path(spec.origin).parent / "tasks").rglob("*")
    kinds = (".yaml", "")  # what definitions include often has no suffix
    return [
        file
        for file in files
        if file.suffix in kinds and file.is_file() and word.search(file.read_bytes())
    ]


def _is_unsafe(path: Path, name: str) -> bool:
    """Whether a file defines this task, and as one that runs what models write."""
    try:
        definition = load(path, set())
    except ValueError:  # a file that definitions include need not be one
        return False
    return definition.get("task") == name and definition.get("unsafe_code") == "true"
