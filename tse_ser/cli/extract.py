"""`tse-ser extract`: a folder of recordings, with a table of results that a killed run resumes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import torch
from tqdm import tqdm

from modeling import TargetSpeakerEmotionPipeline
from modeling.pipeline_tse_ser import INPUT_ERRORS
from tse_ser.cli.errors import CommandError
from tse_ser.cli.recognition import labels_of, load_pipeline, speaker_of, write_partial_speech
from tse_ser.cli.results_table import ResultsTable

RESULTS_NAME = "results.csv"
SETTINGS_NAME = "settings.json"
LOCK_NAME = ".lock"
# What disks of a network say that know no locks.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
# What recordings are called, readable or not: a file that cannot be read is to be recorded.
AUDIO_SUFFIXES = {
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64"),
    *(".caf", ".m4a", ".aac", ".wma", ".amr", ".webm", ".mp4", ".mov", ".mkv"),
}


def extract(arguments: argparse.Namespace) -> int:
    """Extracts from every recording of a folder that has no row in the table yet; returns how
    many could not be used, those of earlier runs included. Raises `CommandError` where a folder
    is missing, empty or in use, holds results of other settings, or recordings would be
    overwritten; `ValueError` where the enrollment cannot be used; `OSError` where the output
    cannot be written."""
    input_dir, output_dir = arguments.input.expanduser(), arguments.output.expanduser()
    if not input_dir.is_dir():
        raise CommandError(f"--input {input_dir} is no folder: name the folder of the recordings")
    files = _find_recordings(input_dir, output_dir)
    _check_outputs(files, input_dir, output_dir, arguments.enrollment or [])
    recognize = load_pipeline(arguments.model, arguments.device)
    speaker = speaker_of(recognize, arguments.enrollment, arguments.voice, arguments.channel)
    settings = {
        "model": _model_digest(recognize),
        "voice": _files_digest([arguments.voice] if arguments.voice else arguments.enrollment),
        "channel": str(arguments.channel),
    }
    output_dir.mkdir(parents=True, exist_ok=True)
    with only_run_in(output_dir):
        _check_settings(output_dir, settings)
        with ResultsTable(output_dir / RESULTS_NAME, labels_of(recognize)) as table:
            _forget_changed(table, files, input_dir, output_dir)
            if arguments.retry_failed:
                table.forget(table.failed)
            missing = [name for name in files if name not in table]
            bar = tqdm(missing, desc="extracting", unit="file", disable=None)
            for name in bar:
                recording = {"mixture": input_dir / name, **speaker}
                extract_file(name, recording, output_dir, recognize, arguments.channel, table)
            num_failed = len(table.failed & set(files))
    print(
        f"{len(files) - num_failed} of {len(files)} recordings are extracted, {len(missing)} of "
        f"them looked at now; {num_failed} could not be used: {output_dir / RESULTS_NAME}"
    )
    return num_failed


def _find_recordings(input_dir: Path, output_dir: Path) -> list[str]:
    """The recordings below a folder, relative and sorted, without hidden files and what this
    command writes."""
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
        other = outputs.setdefault(_output_name(name), name)
        if other != name:
            raise CommandError(
                f"{other} and {name} would both become {_output_name(name)}: rename one of them"
            )
    return sorted(found)


def _check_outputs(
    files: Sequence[str], input_dir: Path, output_dir: Path, more_inputs: Sequence[Path]
) -> None:
    """Refuses to write over a recording or an enrollment that is read."""
    if output_dir.resolve() == input_dir.resolve():
        raise CommandError(
            f"--output {output_dir} is --input: name another folder, or what was extracted would "
            "pass for a recording the next time"
        )
    is_below = input_dir.resolve() in output_dir.resolve().parents
    if is_below and not (output_dir / RESULTS_NAME).is_file() and _holds_audio(output_dir):
        raise CommandError(
            f"--output {output_dir} lies below --input and holds recordings, which would be passed "
            "over: name another folder"
        )
    inputs = {(input_dir / name).resolve() for name in files}
    inputs |= {path.expanduser().resolve() for path in more_inputs}
    for name in files:
        if (output_dir / _output_name(name)).resolve() in inputs:
            raise CommandError(
                f"--output {output_dir}: {_output_name(name)} there is a recording that would be "
                "overwritten: name another folder"
            )


def _holds_audio(folder: Path) -> bool:
    return any(path.suffix.lower() in AUDIO_SUFFIXES for path in folder.rglob("*"))


def _output_name(name: str) -> str:
    """The name of the extracted speech: that of the recording, ending in .wav."""
    return name if name.lower().endswith(".wav") else f"{name}.wav"


def file_stamp(path: Path) -> str:
    """Size in bytes and time of the last change, by which a replaced recording is noticed; empty
    where there is no file, as behind a link to one that is gone."""
    try:
        state = path.stat()
    except OSError:
        return ""
    return f"{state.st_size}:{state.st_mtime_ns}"


def _forget_changed(
    table: ResultsTable, files: Sequence[str], input_dir: Path, output_dir: Path
) -> None:
    """Takes rows away whose recording was replaced, or whose speech is gone."""

    def is_replaced(name: str) -> bool:
        # One that cannot be found now, as on a disk that is away, was not replaced.
        return file_stamp(input_dir / name) not in ("", table.value(name, "stamp"))

    def is_lost(name: str) -> bool:
        return name not in table.failed and not (output_dir / _output_name(name)).is_file()

    changed = {name for name in files if name in table and (is_replaced(name) or is_lost(name))}
    for name in changed - table.failed:
        # Ours, and first of all: what lies there without a row is somebody else's.
        (output_dir / _output_name(name)).unlink(missing_ok=True)
    table.forget(changed)


def extract_file(
    name: str,
    recording: dict[str, Any],
    output_dir: Path,
    recognize: TargetSpeakerEmotionPipeline,
    channel: int | str,
    table: ResultsTable,
) -> None:
    """Extracts from one recording: its row, then its speech under its name. In this order, a
    run that is cut off leaves a row without speech, which is done again, and no speech without
    a row, which would pass for a file of somebody else. Raises `OSError` where the output
    cannot be written, which concerns all recordings."""
    output = output_dir / _output_name(name)
    stamp = file_stamp(recording["mixture"])
    if output.exists():
        table.add_failed(
            name, f"{output} is there already, and not of this command: move it away", stamp
        )
        return
    try:
        result: dict[str, Any] = recognize(recording, channel=channel, return_extracted=True)
    # Whatever one recording does to the model, memory that does not suffice included, is its own.
    except INPUT_ERRORS as error:
        table.add_failed(name, str(error) or type(error).__name__, stamp)
        return
    extracted = result.pop("extracted")
    partial = write_partial_speech(output, extracted["array"], extracted["sampling_rate"])
    table.add_done(name, _output_name(name), result, stamp)
    partial.replace(output)


def _check_settings(output_dir: Path, settings: dict[str, str]) -> None:
    """Records what results depend on in the folder, or refuses those of another model, voice or
    channel."""
    path = output_dir / SETTINGS_NAME
    if not path.is_file():
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(settings) + "\n", encoding="utf-8")
        partial.replace(path)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CommandError(f"{path} is no file of this command: name another --output") from error
    for what, digest in settings.items():
        if not isinstance(found, dict) or found.get(what) != digest:
            raise CommandError(
                f"--output {output_dir} holds results of another {what}: name another folder, or "
                "delete this one"
            )


def _model_digest(recognize: TargetSpeakerEmotionPipeline) -> str:
    """What tells models apart wherever they lie: a digest of their parameters, and of the settings
    that turn what they say into answers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(recognize.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    # Keys may be numbers beside words, which cannot be sorted: JSON makes words of all first.
    settings = json.loads(json.dumps(recognize.answer_settings, default=str))
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


def _files_digest(paths: Sequence[Path]) -> str:
    """A digest of the recordings of a speaker, or of the voice that was made from them."""
    digests = [hashlib.sha256(path.expanduser().read_bytes()).hexdigest() for path in paths]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


@contextlib.contextmanager
def only_run_in(output_dir: Path) -> Iterator[None]:
    """Holds a folder for this run; by a file that is there or not where the disk knows no locks.

    Raises:
        CommandError: another run holds it.
    """
    path = output_dir / LOCK_NAME
    locks = (filelock.FileLock(path), filelock.SoftFileLock(path.with_suffix(".soft")))
    for lock in locks:
        try:
            held = lock.acquire(timeout=0)
            break
        except filelock.Timeout as error:
            raise CommandError(
                f"--output {output_dir}: another run works there, wait for its end (after a crash, "
                f"delete {error.lock_file})"
            ) from error
        except (OSError, NotImplementedError) as error:
            knows_locks = isinstance(error, OSError) and error.errno not in NO_LOCKS
            if knows_locks or lock is locks[-1]:
                raise
    with held:
        yield
