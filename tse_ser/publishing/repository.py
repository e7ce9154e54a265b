"""The folder of a repository: built whole or not at all, uploaded in one commit or none."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import soundfile
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import LocalTokenNotFoundError
from huggingface_hub.utils import httpx
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.options import PushOptions

CARD_NAME = "README.md"
# What each kind of repository may hold, by name; nothing else is published.
FILES = {
    "model": re.compile(
        r"README\.md|requirements\.txt|\w+\.py"
        r"|(config|preprocessor_config|training_facts|conversion_facts|results)\.json"
        r"|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
        r"|sample/(mixture|enrollment)\.wav"
    ),
    "dataset": re.compile(r"README\.md|data/(train|validation|test)\.parquet"),
}
# Of a file that does not belong there: what it is, and what to do instead.
ADVICE = {
    ".wav .flac .mp3 .ogg .opus .m4a .aac .aif .aiff .wma .sph": "is audio: recordings of a corpus "
    "are not for you to share. A sample goes by --sample_mixture and --sample_enrollment, mixtures "
    "as a plan by --plan",
    ".parquet .arrow .csv .tsv .jsonl .xlsx .feather": "is a table: a plan of mixtures has a "
    "repository of its own, see --plan",
    ".bin .pt .pth .ckpt .pkl .pickle .joblib .npy .npz": "is a pickle or an archive, which runs "
    "code where it is loaded: save weights as safetensors",
}


def build_folder(output_dir: Path, repo_type: str, fill: Callable[[Path], None]) -> Path:
    """Builds the folder of a repository, which is there whole and checked or not at all.

    Args:
        output_dir (`Path`): folder to build; missing or empty.
        repo_type (`str`): "model" or "dataset".
        fill (`Callable[[Path], None]`): writes its files into a given folder.

    Returns:
        `Path`: the folder.

    Raises:
        PublishingError: there is something in the folder already, or it must not be published.
    """
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise PublishingError(
            f"--output_dir {output_dir} is there and not empty: name another folder, or delete it"
        )
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=output_dir.parent) as partial:
        folder = Path(partial) / "repository"
        folder.mkdir()
        fill(folder)
        check_repository(folder, repo_type)
        if output_dir.exists():
            output_dir.rmdir()
        shutil.move(folder, output_dir)
    return output_dir


def list_files(folder: Path) -> list[str]:
    """Every file below a folder: paths from there with slashes, sorted."""
    files = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def describe_tree(folder: Path) -> str:
    """The files of a repository and their sizes, a line a file, and the sum."""
    sizes = {name: (folder / name).stat().st_size for name in list_files(folder)}
    lines = [f"{tqdm.format_sizeof(size, 'B'):>8}  {name}" for name, size in sizes.items()]
    total = tqdm.format_sizeof(sum(sizes.values()), "B")
    return "\n".join([*lines, f"{total:>8}  in {len(sizes)} files"])


def check_repository(folder: Path, repo_type: str = "model") -> None:
    """Refuses a folder that must not go to the Hub: a file has a name that does not belong
    there, is a link, or is not what its name says (a pickle as weights, audio as text), or
    there is no card."""
    for name in list_files(folder):
        path = folder / name
        if path.is_symlink():
            raise PublishingError(f"{name} is a link: put the file itself there")
        if not FILES[repo_type].fullmatch(name):
            suffix = path.suffix.lower()
            known = (words for kinds, words in ADVICE.items() if suffix in kinds.split())
            otherwise = f"does not belong into a {repo_type} repository: move it"
            raise PublishingError(f"{name} {next(known, otherwise)}")
        _check_content(name, path)
    if not (folder / CARD_NAME).is_file():
        raise PublishingError(f"{folder} holds no README.md: nothing is published without its card")


def _check_content(name: str, path: Path) -> None:
    """Whether a file is what its name says."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np") as tensors:
                tensors.keys()
        elif path.suffix == ".wav":
            soundfile.info(path)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix != ".parquet" and "\0" in path.read_text(encoding="utf-8"):
            raise ValueError("a text holds no zero bytes")
    except (SafetensorError, soundfile.LibsndfileError, ValueError) as error:
        kind = path.suffix.removeprefix(".") or "text"
        raise PublishingError(f"{name} is no {kind} file ({error}): save it again") from error


def upload(folder: Path, options: PushOptions) -> CommitInfo:
    """Uploads a repository's folder in a single commit.

    Args:
        folder (`Path`): what `build_folder` built.
        options (`PushOptions`): where it goes. Repository and branch are made where they are not
            there; one that is there has to be as public as was asked for.

    Returns:
        `CommitInfo`: with the address of the commit.

    Raises:
        PublishingError: the folder must not be published, the repository is public where a private
            one was asked for or the other way round, or the Hub did not take the commit: it is then
            as it was before.
    """
    repo_id, repo_type, revision = options.repo_id, options.repo_type, options.revision
    check_repository(folder, repo_type)
    api = HfApi(library_name="tse-ser")
    try:
        api.create_repo(repo_id, repo_type=repo_type, private=not options.public, exist_ok=True)
        if bool(api.repo_info(repo_id, repo_type=repo_type).private) == options.public:
            seen, flag = ("private", "Leave out") if options.public else ("public", "Say")
            raise PublishingError(
                f"--repo_id {repo_id}: that repository is {seen}. {flag} --public, or name another"
            )
        if revision is not None:
            api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo_id, repo_type=repo_type, revision=revision)
        # Not `upload_folder`, which may commit in several parts.
        return api.create_commit(
            repo_id,
            operations=_operations_for(folder, there, repo_type),
            commit_message=options.commit_message,
            repo_type=repo_type,
            revision=revision,
            create_pr=options.create_pr,
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


def _operations_for(
    folder: Path, there: list[str], repo_type: str
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """What a commit does: it adds the folder's files and deletes those of an earlier upload."""
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
