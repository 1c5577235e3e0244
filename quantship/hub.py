"""Pin what comes from the Hugging Face Hub to a commit, so that it can be reused and repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from quantship.errors import UsageError


def commit(repo: str, revision: str, kind: Literal["model", "dataset"]) -> str:
    """The commit that a branch or tag stands for, from the Hub or, offline, from its cache.

    Raises:
        UsageError: There is no such repository, no access, or no network and no cached copy.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return HfApi().repo_info(repo, revision=revision, repo_type=kind).sha or revision
    except HfHubHTTPError as error:
        raise UsageError(
            f"{kind} '{repo}' (revision {revision}) is not to be had: {error}"
        ) from error
    except PermissionError as error:  # which is no reason to take the Hub to be out of reach
        raise UsageError(
            f"{error.filename} cannot be read, and the Hub's token may be in it: {error.strerror}\n"
            "    Give the file to the user that runs this (chown, or docker run --user)."
        ) from error
    except (OSError, RuntimeError):
        pass  # offline: the cache may know it
    try:
        path = snapshot_download(repo, revision=revision, repo_type=kind, local_files_only=True)
    except LocalEntryNotFoundError as error:
        key = "model" if kind == "model" else "the source's path"
        raise UsageError(
            f"{kind} '{repo}' (revision {revision}) is not in the local cache and the Hub cannot "
            f"be reached; check the network, or give {key} a place on this machine, with --set"
        ) from error
    return Path(path).name
