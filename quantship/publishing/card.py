"""The model card of a repository: metadata for the Hub, and a text for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantship.publishing import measured
from quantship.publishing.base import Base
from quantship.publishing.finished import Finished, scheme_of
from quantship.publishing.layout import Layout, Place
from quantship.publishing.licenses import License
from quantship.publishing.making import making
from quantship.publishing.snippets import Snippet, snippets, templates
from quantship.recipe.language import Push
from quantship.recipe.scheme_words import activation_words, weight_words
from quantship.reporting import facts, formatting
from quantship.reporting.markdown import escape
from quantship.reporting.schema import ModelRow, Report

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

TEXT_GENERATION = "text-generation"


@dataclass(frozen=True)
class About:
    """What a card is written from.

    Args:
        run: The run that made the models.
        layout: The repository's models.
        base: The model that they come from.
        license: The terms of the upload.
        push: What the recipe asks for.
        files: Other files of the repository.
    """

    run: Finished
    layout: Layout
    base: Base
    license: License
    push: Push
    files: frozenset[str]

    @property
    def report(self) -> Report:
        """The run's report."""
        return self.run.report

    @property
    def subject(self) -> ModelRow:
        """The model that the card's metadata speaks of: the checkpoint, else the first."""
        rows = [place.row for place in self.layout.places]
        return next((row for row in rows if row.kind in ("float", "torchao")), rows[0])


def card(about: About) -> str:
    """README.md of a repository.

    Raises:
        ValueError: The metadata is not what the Hub accepts.
    """
    from huggingface_hub import ModelCard

    data = metadata(about)
    text = templates().get_template("model_card.md.j2").render(**_content(about))
    content = f"---\n{data.to_yaml()}\n---\n\n{text}"
    read: str = ModelCard(content).data.to_yaml()
    assert read == data.to_yaml(), "the card's YAML is not what was meant"
    return content


def metadata(about: About) -> ModelCardData:
    """What the Hub reads of a card."""
    from huggingface_hub import ModelCardData

    base, report, subject = about.base, about.report, about.subject
    name = about.layout.repository.partition("/")[2]
    task = _task(about)
    results = measured.evaluations(report, subject, task or "other")
    more: dict[str, Any] = {}
    if base.name is not None:
        more["base_model_relation"] = "finetune" if subject.scheme is None else "quantized"
    return ModelCardData(
        base_model=base.name,
        datasets=_trained_on(about) or None,
        eval_results=results or None,
        language=base.listed("language") or None,
        library_name=_library(about),
        license=about.license.name,
        license_name=about.license.title,
        license_link=about.license.link,
        model_name=name if results else None,
        pipeline_tag=task,
        tags=_tags(about),
        **more,
    )


def _task(about: About) -> str | None:
    """What the model does, in the Hub's words: as the base model's card says, else by its class."""
    stated = next(iter(about.base.listed("pipeline_tag")), None)
    if stated is not None:
        return stated
    kinds = {snippet.title for snippet in _snippets(about)}
    return TEXT_GENERATION if kinds & {"onnxruntime-genai", "transformers"} else None


def _library(about: About) -> str | None:
    if about.subject.kind in ("float", "torchao"):
        stated = next(iter(about.base.listed("library_name")), None)
        return stated or "transformers"
    return "transformers.js" if about.layout.places[0].dtype else None


def _tags(about: About) -> list[str]:
    own = ["quantship"]
    for place in about.layout.places:
        row = place.row
        own += [row.kind] if row.kind != "float" else []
        own += [row.group, row.scheme] if row.scheme is not None else []
    dropped = ("base_model:", "license:", "region:", "arxiv:", "dataset:")
    inherited = [tag for tag in about.base.listed("tags") if not tag.startswith(dropped)]
    return list(dict.fromkeys([*inherited, *own]))


def _trained_on(about: About) -> list[str]:
    """Data sets on the Hub that the models were trained on, in this run."""
    rows = [place.row for place in about.layout.places]
    names = {row.float_source for row in rows} | {row.name for row in rows}
    groups = {row.group for row in about.report.models if row.name in names}
    if not groups & {"finetune", "qat"}:
        return []
    data: Any = about.report.recipe.get("data") or {}
    ids = (measured.hub_id(source) for source in measured.datasets_of(data.get("train")))
    return list(dict.fromkeys(one for one in ids if one is not None))


def _content(about: About) -> dict[str, Any]:
    report, places = about.report, about.layout.places
    rows = measured.shown(report, [place.row.name for place in places])
    titles, lines = measured.table(report, rows)
    return {
        "title": escape(about.layout.repository.partition("/")[2]),
        "about": about,
        "base": about.base,
        "base_words": base_words(about.base),
        "license": about.license,
        "description": escape(str(report.recipe.get("description") or "")),
        "models": [_model(place) for place in places],
        "making": {place.row.name: making(report, place.row) for place in places},
        "titles": titles,
        "lines": [[escape(cell) for cell in line] for line in lines],
        "contrasts": [escape(line) for line in _contrasts(about)],
        "hardware": [(name, escape(value)) for name, value in facts.environment(report)],
        "speeds": any(row.benchmark for row in rows),
        "benchmark": next((row.benchmark for row in rows if row.benchmark), None),
        "confidence": _confidence(report),
        "snippets": _snippets(about),
        "several_onnx": [place for place in places if place.folder == "onnx"][1:],
        "limitations": [escape(line) for line in _limitations(about)],
        "recipe": facts.recipe_yaml(report),
        "fence": "`" * max(3, _longest_fence(facts.recipe_yaml(report)) + 1),
        "mb_statement": formatting.MB_STATEMENT,
    }


def base_words(base: Base) -> str:
    """The base model in a sentence, with nothing made up."""
    if base.kind == "made":
        return "a small model with random weights that the recipe made and trained from scratch"
    if base.name is not None:
        link = f"[{base.name}](https://huggingface.co/{base.name})"
        return f"{link} (commit `{base.revision}`)" if base.revision else link
    return "a model from a local directory, of which no name on the Hub is known"


def _model(place: Place) -> dict[str, Any]:
    scheme = scheme_of(place.path)
    where = "/".join(part for part in (place.folder, place.file) if part)
    numbers = []
    if scheme is not None:
        numbers = [
            f"weights: {weight_words(scheme.weight)}",
            f"inputs of linear layers: {activation_words(scheme.activation)}",
            f"embedding: {weight_words(scheme.embedding)}",
        ]
        numbers += ["other formats in some layers"] if scheme.overrides else []
    return {
        "row": place.row,
        "where": where,
        "size": formatting.size(place.row.size_bytes),
        "numbers": escape("; ".join(numbers)),
        "dtype": place.dtype,
    }


def _contrasts(about: About) -> list[str]:
    """How the models differ from their float models, where that was measured in pairs."""
    evidence = about.report.evidence
    if evidence is None:
        return []
    names = {place.row.name for place in about.layout.places}
    lines = []
    for one in evidence.contrasts:
        if one.model not in names or one.why != "float" or one.difference is None:
            continue
        kinds = {task.name: {m.name: m.kind for m in task.metrics} for task in evidence.tasks}
        relative = kinds.get(one.task, {}).get(one.metric) in ("perplexity", "share")
        factor, unit = (100, " %") if relative else (1, "")
        if kinds.get(one.task, {}).get(one.metric) == "share":
            unit = " percentage points"
        value, low, high = (
            f"{factor * end:+.2f}"
            for end in (one.difference.value, one.difference.low, one.difference.high)
        )
        metric = one.metric.replace("_", " ")
        lines.append(
            f"{one.model} against {one.over}, {metric} on {one.task}: {value}{unit} "
            f"({low} to {high})"
        )
    return lines


def _confidence(report: Report) -> str | None:
    return None if report.evidence is None else formatting.share(report.evidence.confidence)


def _limitations(about: About) -> list[str]:
    lines = []
    for place in about.layout.places:
        row = place.row
        lines += [f"{row.name}: {warning}." for warning in row.warnings]
        if row.inexact:
            lines.append(f"{row.name}: {row.inexact}")
        if row.target not in (None, "portable"):
            lines.append(f"{row.name} was lowered for {row.target}; it may be slow elsewhere.")
    lines += about.report.notes
    return list(dict.fromkeys(line.replace("..", ".") for line in lines))


def _snippets(about: About) -> Sequence[Snippet]:
    return snippets(about.layout.repository, about.push.revision, about.layout.places)


def _longest_fence(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)
