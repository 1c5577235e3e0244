"""Everything that a finished run leaves so that it can be checked and made again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quantship.artifact import Artifact
from quantship.job import Plan
from quantship.provenance.bom import write_bom
from quantship.provenance.lock import read_lock, write_lock
from quantship.provenance.sums import write_sums
from quantship.publishing import base as bases
from quantship.recipe.language import MODEL, Recipe
from quantship.reporting.schema import Report


def record(
    recipe: Recipe, plan: Plan, made: Mapping[str, Artifact], report: Report, directory: Path
) -> None:
    """Write the lock, the bill of materials and, last, the sums of all files of a run.

    Args:
        recipe: What ran.
        plan: Its jobs.
        made: Finished artifacts by the name of the job.
        report: Its report.
        directory: The run's, with the report and links to the models in it.
    """
    lock = read_lock(write_lock(recipe, plan, made, directory))
    start = next((name for name in (MODEL, *plan.outside) if name in plan.outside), None)
    base = bases.base_of(recipe.model, plan.outside[start].path if start else None)
    write_bom(report, lock, directory, tuple(base.listed("license")))
    known = {
        f"models/{name}/{file}": digest
        for name, artifact in made.items()
        for file, digest in artifact.files.items()
    }
    write_sums(directory, known)
