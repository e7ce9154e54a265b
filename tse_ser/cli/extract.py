"""`tse-ser extract`: a folder of recordings, with a table of results that a killed run resumes."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from tse_ser.cli.errors import CommandError
from tse_ser.cli.recognition import Recognizer, write_speech
from tse_ser.cli.results_table import ResultsTable

RESULTS_NAME = "results.csv"
SETTINGS_NAME = "settings.json"
# What recordings are called, readable or not: a file that cannot be read is to be recorded.
AUDIO_SUFFIXES = {
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64"),
    *(".m4a", ".aac", ".wma", ".amr", ".webm", ".mp4", ".mov", ".mkv"),
}


def extract(arguments: argparse.Namespace) -> int:
    """Extracts from every recording of a folder that has no row in the table yet.

    Args:
        arguments (`argparse.Namespace`): of `tse-ser extract`.

    Returns:
        `int`: how many files could not be used, those of earlier runs included.

    Raises:
        CommandError: a folder is missing, empty or in use, or holds results of other settings.
        ValueError: the enrollment cannot be used.
    """
    input_dir, output_dir = arguments.input, arguments.output
    if not input_dir.is_dir():
        raise CommandError(f"--input {input_dir} is no folder: name the folder of the recordings")
    if output_dir.resolve() == input_dir.resolve():
        raise CommandError("--output must not be --input: its recordings would be overwritten")
    files = find_recordings(input_dir, output_dir)
    recognizer = Recognizer(arguments.model, arguments.device)
    embedding = recognizer.voice(arguments.enrollment, arguments.voice)
    settings = {
        "model": model_digest(recognizer.model),
        "voice": files_digest([arguments.voice] if arguments.voice else arguments.enrollment),
    }
    output_dir.mkdir(parents=True, exist_ok=True)
    with only_run_in(output_dir):
        check_settings(output_dir, settings)
        with ResultsTable(
            output_dir / RESULTS_NAME, recognizer.labels, recognizer.judges_presence
        ) as table:
            if arguments.retry_failed:
                table.forget_failed()
            missing = [name for name in files if name not in table]
            bar = tqdm(missing, desc="extracting", unit="file", disable=None)
            for name in bar:
                extract_file(name, input_dir, output_dir, recognizer, embedding, table)
            num_failed = len(table.failed & set(files))
    print(
        f"{len(files) - num_failed} of {len(files)} recordings are extracted, {len(missing)} of "
        f"them looked at now; {num_failed} could not be used: {output_dir / RESULTS_NAME}"
    )
    return num_failed


def find_recordings(input_dir: Path, output_dir: Path) -> list[str]:
    """The recordings below a folder, hidden files and what this command writes left out.

    Args:
        input_dir (`Path`): where to look.
        output_dir (`Path`): skipped, as it may lie inside.

    Returns:
        `list[str]`: paths relative to the folder, sorted.

    Raises:
        CommandError: there are none, or two would be written to one file.
    """
    found = []
    for folder, folders, names in os.walk(input_dir):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and (Path(folder) / name).resolve() != output_dir.resolve()
        ]
        found += [
            (Path(folder) / name).relative_to(input_dir).as_posix()
            for name in names
            if Path(name).suffix.lower() in AUDIO_SUFFIXES and not name.startswith(".")
        ]
    if not found:
        raise CommandError(f"--input {input_dir} holds no recordings (wav, flac, ogg, mp3)")
    outputs: dict[str, str] = {}
    for name in sorted(found):
        other = outputs.setdefault(output_name(name), name)
        if other != name:
            raise CommandError(
                f"{other} and {name} would both become {output_name(name)}: rename one of them"
            )
    return sorted(found)


def output_name(name: str) -> str:
    """The name of the extracted speech: that of the recording, ending in .wav."""
    return name if name.lower().endswith(".wav") else f"{name}.wav"


def extract_file(
    name: str,
    input_dir: Path,
    output_dir: Path,
    recognizer: Recognizer,
    embedding: Tensor,
    table: ResultsTable,
) -> None:
    """Extracts from one recording: its speech, then its row.

    Args:
        name (`str`): path relative to `input_dir`.
        input_dir (`Path`): folder of the recordings.
        output_dir (`Path`): folder of the results.
        recognizer (`Recognizer`): the model.
        embedding (`torch.Tensor` of shape `(1, embedding_size)`): the target speaker's.
        table (`ResultsTable`): gets the row.
    """
    try:
        mixture = recognizer.read(input_dir / name)
        found = recognizer.recognize(mixture, embedding)
    # Whatever one recording does to the model, memory that does not suffice included, is its own.
    except (ValueError, RuntimeError, MemoryError) as error:
        table.add_failed(name, str(error) or type(error).__name__)
        return
    # A disk that is full, though, is everybody's.
    write_speech(output_dir / output_name(name), found.extracted, recognizer.sampling_rate)
    duration_seconds = len(mixture) / recognizer.sampling_rate
    table.add_done(
        name, duration_seconds, output_name(name), found.probabilities, found.target_present
    )


def check_settings(output_dir: Path, settings: dict[str, str]) -> None:
    """Records model and voice in the folder, or checks that they are those of the earlier run.

    Args:
        output_dir (`Path`): folder of the results.
        settings (`dict[str, str]`): what the results depend on, and its digest.

    Raises:
        CommandError: the folder holds results of another model or voice.
    """
    path = output_dir / SETTINGS_NAME
    if not path.is_file():
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(settings) + "\n", encoding="utf-8")
        partial.replace(path)
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    for what, digest in settings.items():
        if found.get(what) != digest:
            raise CommandError(
                f"--output {output_dir} holds results of another {what}: name another folder, or "
                "delete this one"
            )


def model_digest(model: torch.nn.Module) -> str:
    """What tells models apart wherever they lie: a digest of their parameters."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def files_digest(paths: Sequence[Path]) -> str:
    """A digest of the recordings of a speaker, or of the voice that was made from them."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


@contextlib.contextmanager
def only_run_in(output_dir: Path) -> Iterator[None]:
    """Holds a folder for this run.

    Raises:
        CommandError: another run holds it.
    """
    with (output_dir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandError(
                f"--output {output_dir}: another run works there, wait for its end"
            ) from error
        yield
