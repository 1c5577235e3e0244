"""Upload finished models to the Hugging Face Hub, as one commit a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quantship.artifact import MANIFEST, Artifact
from quantship.errors import StageError
from quantship.recipe.language import Push

REPORT_FILES = ("report.json", "report.md", "report.html")


def upload(options: Push, made: Mapping[str, Artifact], report_dir: Path) -> str:
    """Create the repository where it is missing and upload models and report.

    The token comes from HF_TOKEN or from huggingface_hub's own login, and from nowhere else.
    Files that the repository has already are not uploaded again.

    Returns:
        The repository's address.

    Raises:
        StageError: No token, no permission, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        address = api.create_repo(options.repo, private=options.private, exist_ok=True)
        for name in options.models:
            api.upload_folder(
                repo_id=options.repo,
                folder_path=made[name].path,
                path_in_repo=name,
                ignore_patterns=[MANIFEST, "*.log"],
                commit_message=f"Upload {name}",
            )
        api.upload_folder(
            repo_id=options.repo,
            folder_path=report_dir,
            allow_patterns=list(REPORT_FILES),
            commit_message="Upload the report",
        )
    except (HfHubHTTPError, OSError) as error:
        raise StageError("push", f"{options.repo}: {error}") from error
    return str(address)
