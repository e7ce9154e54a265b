"""The upload: one commit, or none."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import httpx, validate_repo_id

from tse_ser.publishing.checks import FILES, check_repository, list_files
from tse_ser.publishing.errors import PublishingError


def check_destination(repo_id: str, revision: str | None, create_pr: bool) -> None:
    """Refuses a destination that cannot be, before anything is built.

    Args:
        repo_id (`str`): `namespace/name`.
        revision (`str`, *optional*): a branch.
        create_pr (`bool`): as a pull request.

    Raises:
        PublishingError: the name is none of the Hub, or both a branch and a pull request.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PublishingError(f"--repo_id {repo_id!r}: {error}") from error
    if "/" not in repo_id:
        raise PublishingError(f"--repo_id {repo_id!r}: expected owner/name, such as lab/tse-ser-ft")
    if revision is not None and create_pr:
        raise PublishingError("--revision and --create_pr exclude each other: give one")


def upload(
    folder: Path,
    repo_id: str,
    *,
    repo_type: str = "model",
    private: bool = True,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload by push_to_hub.py",
) -> CommitInfo:
    """Uploads a repository's folder in a single commit.

    Args:
        folder (`Path`): what `build_repository` or `build_plan_repository` built.
        repo_id (`str`): where it goes; made if it is not there.
        repo_type (`str`): "model" or "dataset".
        private (`bool`): whether a new repository is private; a public one is then refused.
        revision (`str`, *optional*): branch to commit to, made if it is not there; `main` if unset.
        create_pr (`bool`): open a pull request instead.
        commit_message (`str`): first line of the commit.

    Returns:
        `CommitInfo`: with the address of the commit.

    Raises:
        PublishingError: the folder must not be published, the repository is public where a private
            one was asked for, or the Hub did not take the commit: it is then as it was before.
    """
    check_destination(repo_id, revision, create_pr)
    check_repository(folder, repo_type)
    api = HfApi(library_name="tse-ser")
    try:
        api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
        if private and not api.repo_info(repo_id, repo_type=repo_type).private:
            raise PublishingError(
                f"--repo_id {repo_id}: that repository is public. Say --public, or name another"
            )
        if revision is not None:
            api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo_id, repo_type=repo_type, revision=revision)
        # Not `upload_folder`, which may commit in several parts.
        return api.create_commit(
            repo_id,
            operations=_operations(folder, there, repo_type),
            commit_message=commit_message,
            repo_type=repo_type,
            revision=revision,
            create_pr=create_pr,
        )
    except PublishingError:
        raise
    except LocalTokenNotFoundError as error:
        raise PublishingError("You are not logged in: run `hf auth login` first") from error
    # RuntimeError: how the library wraps the failed upload of a large file.
    except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        raise PublishingError(
            f"{repo_id}: the Hub did not take the upload, and no file there has changed. "
            f"{_advice(error)}({type(error).__name__}: {error})"
        ) from error


def _operations(
    folder: Path, there: list[str], repo_type: str
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """All files of the folder, and the end of those that an earlier upload left there."""
    names = list_files(folder)
    # What the owner put there by hand stays, programs among it.
    gone = [
        name
        for name in there
        if name not in names and FILES[repo_type].fullmatch(name) and not name.endswith(".py")
    ]
    return [
        *(CommitOperationAdd(name, folder / name) for name in names),
        *(CommitOperationDelete(name) for name in gone),
    ]


def _advice(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None and response.status_code in (401, 403):
        return "Log in with `hf auth login` by a token that may write there. "
    return "The same command starts over. "
