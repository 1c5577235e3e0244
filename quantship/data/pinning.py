"""Sources tied down to what they hold now, so that a run can be reused and repeated."""

from __future__ import annotations

from quantship import hub
from quantship.data import Source, hub_dataset


def pinned(source: Source) -> Source:
    """The source with its revision on the Hub resolved to a commit, where it has one."""
    remote = hub_dataset(source)
    if remote is None:
        return source
    return source.model_copy(update={"revision": hub.commit(*remote, "dataset")})
