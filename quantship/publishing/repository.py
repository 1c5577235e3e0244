"""Everything that goes to a repository: models, card, report, terms, and the sums of all."""

from __future__ import annotations

from dataclasses import dataclass

from quantship.publishing import base as bases
from quantship.publishing.base import Base
from quantship.publishing.card import About, card
from quantship.publishing.finished import Finished
from quantship.publishing.layout import Layout, lay_out, repositories
from quantship.publishing.licenses import License, license_of
from quantship.publishing.uploads import Upload, with_sums
from quantship.recipe.language import Push
from quantship.reporting import facts

REPORT_FILES = ("report.json", "report.md", "report.html")
PROVENANCE = ("recipe.yaml", "lock.json", "bom.cdx.json")
NOTICE = "NOTICE"


@dataclass(frozen=True)
class Repository:
    """What one repository is to hold.

    Args:
        name: As ``me/my-model``.
        models: Names of its models.
        uploads: Its files, SHA256SUMS last.
        license: Their terms.
    """

    name: str
    models: tuple[str, ...]
    uploads: tuple[Upload, ...]
    license: License

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(upload.size_bytes for upload in self.uploads)


def prepare(run: Finished, options: Push) -> list[Repository]:
    """What a run uploads, with nothing uploaded yet and no network used.

    Raises:
        UsageError: A model is missing or has no place, or the license forbids it.
    """
    base = bases.base_of(run.model, run.base_directory(), options.base_model)
    license = license_of(base, options.license, list(repositories(options)))
    return [_repository(run, options, base, license, one) for one in lay_out(run, options)]


def _repository(
    run: Finished, options: Push, base: Base, license: License, layout: Layout
) -> Repository:
    taken = {upload.path for upload in layout.uploads}
    around = [one for one in _around(run, base, license) if one.path not in taken]
    files = frozenset(upload.path for upload in around)
    text = card(About(run, layout, base, license, options, files))
    readme = Upload(bases.CARD, text.encode())
    models = [upload for upload in layout.uploads if upload.path != bases.CARD]
    return Repository(
        layout.repository,
        tuple(place.row.name for place in layout.places),
        with_sums([*models, *around, readme]),
        license,
    )


def _around(run: Finished, base: Base, license: License) -> list[Upload]:
    """What goes beside the models: report, provenance, terms."""
    found = [
        Upload(name, run.directory / name)
        for name in (*REPORT_FILES, *PROVENANCE)
        if (run.directory / name).is_file()
    ]
    if not (run.directory / "recipe.yaml").is_file():
        found.append(Upload("recipe.yaml", facts.recipe_yaml(run.report).encode()))
    notices = []
    for file in base.texts:
        if license.notice is not None and file.name.upper().startswith(NOTICE):
            notices.append(file)
        else:
            found.append(Upload(file.name, file))
    if license.notice is not None:
        texts = [file.read_text(encoding="utf-8", errors="replace").rstrip() for file in notices]
        said = [text for text in texts if license.notice not in text]
        kept = [text for text in texts if license.notice in text] or [license.notice]
        found.append(Upload(NOTICE, ("\n\n".join([*kept, *said]) + "\n").encode()))
    return found
