"""Put a repository's files on the Hub: large ones first and each once, then one commit of all.

Large files are kept by their content as soon as they have arrived, before any commit, so that a
push that was cut goes on where it stopped; and files that are there already are neither sent nor
committed again, so that a push that has succeeded changes nothing when it is repeated.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from quantship.publishing import hub_errors
from quantship.publishing.repository import Repository
from quantship.publishing.uploads import SUMS, Upload, summed
from quantship.recipe.language import Push

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

MAIN = "main"
TRIES = 3
"""Attempts at a push; the client itself repeats most requests, but a commit."""
LONGEST_WAIT_S = 30.0
_FLEETING = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Pushed:
    """A repository that holds what it shall.

    Args:
        repository: Its name.
        url: Its address.
        commit: The commit that holds it.
        changed: Whether there was anything to commit.
        remarks: What whoever pushed should know, in sentences.
    """

    repository: str
    url: str
    commit: str
    changed: bool
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.url} {'at' if self.changed else 'unchanged at'} {self.commit[:8]}"


def upload(repository: Repository, options: Push) -> Pushed:
    """Create the repository where it is missing and bring it up to date.

    The token comes from HF_TOKEN or from huggingface_hub's own login, and from nowhere else.

    Raises:
        StageError: No token, no permission, or the Hub cannot be reached or does not do its part.
    """
    for attempt in range(TRIES):
        try:
            return _upload(repository, options)
        except Exception as error:
            wait_s = _wait_s(error, attempt)
            if wait_s is None:
                raise hub_errors.failure(error, repository.name) from error
            time.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def _upload(repository: Repository, options: Push) -> Pushed:
    """One attempt, which does what is left to do.

    Everything is made anew: operations note what the Hub has, and of a commit that has arrived the
    answer may have been lost.
    """
    from huggingface_hub import HfApi

    hub_errors.token()
    api = HfApi(token=True)  # not only where the user lets huggingface_hub send it unasked
    name = repository.name
    url = api.create_repo(name, private=options.private, exist_ok=True)
    remarks = [*repository.license.remarks, *_visibility(api, name, options)]
    if options.revision != MAIN:
        api.create_branch(name, branch=options.revision, exist_ok=True)
    before = api.repo_info(name, revision=options.revision).sha
    made = api.create_commit(
        name,
        [*_additions(repository.uploads), *_deletions(api, repository, options)],
        commit_message=f"Upload {', '.join(repository.models)} with quantship",
        revision=options.revision,
    )
    if options.tag is not None:
        _tag(api, name, options.tag, made.oid)
    return Pushed(name, str(url), made.oid, made.oid != before, tuple(remarks))


def _visibility(api: HfApi, name: str, options: Push) -> list[str]:
    """What to say where a repository that was there is not as the recipe would create it."""
    is_private = bool(api.repo_info(name).private)
    if is_private == options.private:
        return []
    there, asked = ("private", "public") if is_private else ("public", "private")
    return [
        f"{name} was there before and is {there}, and the recipe asks for {asked}: it stays "
        f"{there}; change that in its settings on the Hub."
    ]


def _additions(uploads: Sequence[Upload]) -> list[CommitOperationAdd]:
    from huggingface_hub import CommitOperationAdd

    found = []
    for upload in uploads:
        operation = CommitOperationAdd(upload.path, upload.source)
        operation.upload_info.sha256 = bytes.fromhex(upload.sha256)  # or it reads the file again
        found.append(operation)
    return found


def _deletions(api: HfApi, repository: Repository, options: Push) -> list[CommitOperationDelete]:
    """Files of an earlier push that are not of this one; what others put there stays."""
    from huggingface_hub import CommitOperationDelete

    name, revision = repository.name, options.revision
    there = set(api.list_repo_files(name, revision=revision))
    if SUMS not in there:
        return []
    with TemporaryDirectory() as folder:
        file = api.hf_hub_download(name, SUMS, revision=revision, local_dir=folder)
        before = summed(Path(file).read_text(encoding="utf-8"))
    gone = set(before) & there - {upload.path for upload in repository.uploads}
    return [CommitOperationDelete(path) for path in sorted(gone)]


def _wait_s(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before another attempt; None: it would not help, or it was the last."""
    from huggingface_hub.errors import HfHubHTTPError

    if attempt == TRIES - 1:
        return None
    if not isinstance(error, HfHubHTTPError):
        return float(2**attempt) if hub_errors.is_of_the_network(error) else None
    if error.response.status_code not in _FLEETING:
        return None
    asked = error.response.headers.get("Retry-After", "")
    wait_s = float(asked) if asked.isdigit() else float(2**attempt)
    return wait_s if wait_s <= LONGEST_WAIT_S else None


def _tag(api: HfApi, name: str, tag: str, commit: str) -> None:
    """Tag a commit; a tag that is there must be on it.

    Raises:
        ValueError: The tag is on another commit.
    """
    tags = {one.name: one.target_commit for one in api.list_repo_refs(name).tags}
    if tag not in tags:
        api.create_tag(name, tag=tag, revision=commit)
    elif tags[tag] != commit:
        raise ValueError(
            f"the tag {tag} is on another commit ({tags[tag][:8]}); choose another tag"
        )
