"""What a repository may hold: what belongs there, and no audio, tables or pickles among it."""

from __future__ import annotations

import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tse_ser.publishing.errors import PublishingError

MODEL_FILES = (
    r"README\.md",
    r"(config|preprocessor_config|training_facts|conversion_facts|results)\.json",
    r"model(-\d{5}-of-\d{5})?\.safetensors",
    r"model\.safetensors\.index\.json",
    r"\w+\.py",
    r"requirements\.txt",
    r"sample/(mixture|enrollment)\.wav",
)
DATASET_FILES = (r"README\.md", r"data/(train|validation|test)\.parquet")
FILES = {
    "model": re.compile("|".join(MODEL_FILES)),
    "dataset": re.compile("|".join(DATASET_FILES)),
}
AUDIO_SUFFIXES = (
    ".wav",
    ".flac",
    ".mp3",
    ".ogg",
    ".opus",
    ".m4a",
    ".aac",
    ".aif",
    ".aiff",
    ".wma",
    ".sph",
)
TABLE_SUFFIXES = (".parquet", ".arrow", ".csv", ".tsv", ".jsonl", ".xlsx", ".feather")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
# The first bytes tell what a file is, whatever it is called.
AUDIO_STARTS = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"FORM", b"\xff\xfb", b"\xff\xf3", b"\xff\xf1")
TABLE_STARTS = (b"PAR1", b"ARROW1")
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04", b"\x93NUMPY")


def list_files(folder: Path) -> list[str]:
    """Every file below a folder.

    Args:
        folder (`Path`): folder of a repository.

    Returns:
        `list[str]`: paths relative to it, with forward slashes, sorted.
    """
    files = [path for path in folder.rglob("*") if path.is_file() or path.is_symlink()]
    return sorted(path.relative_to(folder).as_posix() for path in files)


def check_repository(folder: Path, repo_type: str = "model") -> None:
    """Refuses a folder that must not go to the Hub.

    Args:
        folder (`Path`): folder of a repository.
        repo_type (`str`): "model" or "dataset".

    Raises:
        PublishingError: it holds audio beyond the sample, a table where only weights belong, a
            pickle, or a file that does not belong there.
    """
    for name in list_files(folder):
        path = folder / name
        if path.is_symlink():
            raise PublishingError(f"{name} is a link: put the file itself there")
        _check_kind(name, path, repo_type)
        if not FILES[repo_type].fullmatch(name):
            raise PublishingError(f"{name} does not belong into a {repo_type} repository: move it")
        if name.endswith(".safetensors"):
            _check_safetensors(name, path)
    if not (folder / "README.md").is_file():
        raise PublishingError(f"{folder} holds no README.md: nothing is published without its card")


def _check_kind(name: str, path: Path, repo_type: str) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return  # they begin with a number, which may be anything
    is_sample = repo_type == "model" and name in ("sample/mixture.wav", "sample/enrollment.wav")
    if (suffix in AUDIO_SUFFIXES or start.startswith(AUDIO_STARTS)) and not is_sample:
        raise PublishingError(
            f"{name} is audio: recordings of a corpus are not for you to share. A sample goes by "
            "--sample_mixture and --sample_enrollment, mixtures as a plan by --plan"
        )
    is_table = suffix in TABLE_SUFFIXES or start.startswith(TABLE_STARTS)
    if is_table and repo_type == "model":
        raise PublishingError(
            f"{name} is a table: a plan of mixtures has a repository of its own, see --plan"
        )
    if suffix in PICKLE_SUFFIXES or start.startswith(PICKLE_STARTS):
        raise PublishingError(
            f"{name} is a pickle or an archive, which runs code where it is loaded: save weights "
            "as safetensors"
        )


def _check_safetensors(name: str, path: Path) -> None:
    try:
        with safe_open(path, framework="np") as tensors:
            tensors.keys()
    except SafetensorError as error:
        raise PublishingError(f"{name} is no safetensors file ({error}): save it again") from error
