"""What a push would upload, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from quantship.publishing.repository import Repository
from quantship.publishing.upload import Pushed
from quantship.recipe.language import Push


def listing(repositories: Sequence[Repository], options: Push) -> Group:
    """Every repository with its files and their bytes, and the terms."""
    return Group(*(_one(repository, options) for repository in repositories))


def _one(repository: Repository, options: Push) -> Group:
    kind = "private" if options.private else "public"
    branch = f", branch {options.revision}" + (f", tag {options.tag}" if options.tag else "")
    head = Text.assemble((repository.name, "bold"), f" ({kind} where it is new{branch})")
    table = Table(box=None, pad_edge=False)
    table.add_column("Bytes", justify="right")
    table.add_column("File")
    for upload in repository.uploads:
        table.add_row(f"{upload.size_bytes:,}", Text(upload.path))
    total = f"{len(repository.uploads)} files, {repository.size_bytes:,} bytes"
    license = f"license: {repository.license.name or 'none is stated'}"
    remarks = [Text(f"! {remark}", "yellow") for remark in repository.license.remarks]
    return Group(head, table, Text(f"{total}; {license}"), *remarks)


def done(pushed: Pushed) -> Text:
    """A repository that was pushed, and what to know of it."""
    remarks = [Text(f"\n  ! {remark}", "yellow") for remark in pushed.remarks]
    return Text.assemble(("✓ ", "green"), str(pushed), *remarks)
