"""The scan that every corpus passes before it is used: which files there are, and what they hold.

A file is decoded once. What cannot be used is left out with a counted line, or stops the corpus
where that is asked for. Duration and the ends of the speech are kept in the cache by the whole
path, size and times of the file, so that the next load decodes nothing, and one that adds files
decodes these alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import filelock
import numpy as np
import pandas as pd
import soundfile
from datasets.utils import tqdm

from data_builders.audio import find_speech, resample, write_audio
from data_builders.corpora.mpeg import is_part
from data_builders.files import short_digest, whole_file
from data_builders.schema import SAMPLING_RATE, CorpusError, some_of

# What libsndfile reads: first the formats that keep every sample, then those that do not.
LOSSLESS_SUFFIXES = (
    *(".wav", ".flac", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64"),
    *(".sph", ".nist", ".voc", ".avr"),
)
LOSSY_SUFFIXES = (".ogg", ".oga", ".opus", ".mp3")
AUDIO_SUFFIXES = LOSSLESS_SUFFIXES + LOSSY_SUFFIXES
# Samples that a reader can begin at anywhere, quickly and exactly; everything else is copied.
SEEKABLE_SUBTYPES = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
# What an mp3 may lack at its end, two frames of it.
GUESSED_SAMPLES = 2 * 1152
# 120 dB below full scale, less than any microphone adds: a difference as small comes from codecs.
NOTHING_AMPLITUDE = 1e-6
# Raise it whenever the scan measures or refuses something else: older results are then not reused.
SCAN_VERSION = 5

MIN_DURATION_SECONDS = 0.1
MAX_REPORTED_FILES = 10
# Files that are handed to the threads at a time.
BATCH_FILES = 512

# What a scan finds out about a file: a `NamedTuple` of plain values, the first of which is `copy`,
# the name of a copy of the file in the cache, or "" where the original is read.
Scanned = TypeVar("Scanned", bound=tuple)


class FoundFile(NamedTuple):
    """A file of a corpus, as the folder lists it."""

    path: str  # relative to the folder of the corpus, or absolute; "/" between the parts
    size_bytes: int  # -1 for a link to nowhere
    modified_ns: int  # time of its last change, which whoever unpacks or copies it may set
    changed_ns: int  # time of the last change of its entry, which nobody can set

    @property
    def key(self) -> str:
        """Changes when the file does; it says nothing of the folder that `path` is relative to."""
        return f"{self.path}|{self.size_bytes}|{self.modified_ns}|{self.changed_ns}"


class ScannedFile(NamedTuple):
    """What the scan found out about one usable file."""

    copy: str  # name of its 16 kHz mono copy in the cache, "" where the original is one
    duration_seconds: float
    speech_start_seconds: float  # first active time
    speech_end_seconds: float  # last active time


def list_files(root: Path, suffixes: tuple[str, ...], folder: str = "") -> list[FoundFile]:
    """Lists files below a folder, or below one in it, sorted by path.

    They are told by the ends of their names, in lower case; hidden ones, as macOS leaves them, are
    none. Paths are relative to `root`, and links are followed. Raises `CorpusError` where a folder
    cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise CorpusError(f"{error.filename}: cannot be listed ({error})") from error

    found, seen = [], set()
    for above, folders, names in os.walk(root / folder, onerror=refuse, followlinks=True):
        status = os.stat(above)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above itself
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        place = Path(above).relative_to(root).as_posix()
        found += [
            find_file(root, name if place == "." else f"{place}/{name}")
            for name in names
            if name.lower().endswith(suffixes) and not name.startswith(".")
        ]
    # Part by part, as paths are compared.
    return sorted(found, key=lambda file: file.path.replace("/", "\0"))


def find_file(root: Path, path: str) -> FoundFile:
    """The size and time of a file; the size is -1 if there is none.

    Its path is relative to the folder of the corpus, or absolute.
    """
    try:
        status = os.stat(root / path)
    except OSError:
        # Such as a dangling link: the scan reports it as missing, with all other bad files.
        return FoundFile(path, -1, 0, 0)
    return FoundFile(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def corpus_cache(cache_dir: Path, corpus: str) -> Path:
    """Folder of the cache for what is known of a corpus. Its 16 kHz mono copies lie in `audio`."""
    return cache_dir / "corpora" / corpus


def scan_audio_files(
    corpus: str,
    root: Path,
    files: Sequence[FoundFile],
    cache_dir: Path,
    report: list[str],
    *,
    measure_speech: bool = True,
    strict: bool = False,
) -> list[ScannedFile | None]:
    """Checks and measures the files of a corpus, or recalls that from the cache, see `scan_files`.

    To measure the speech, the whole file is decoded and the ends of its speech are found. Otherwise
    only the header and the last 0.1 s of a 16 kHz mono file are read, which is enough to notice a
    truncated one, and the speech lasts from the first to the last sample.
    """
    return scan_files(
        corpus,
        root,
        files,
        corpus_cache(cache_dir, corpus),
        _scan_file if measure_speech else _scan_header,
        ScannedFile,
        report,
        kind="speech" if measure_speech else "header",
        strict=strict,
    )


def scan_files(
    name: str,
    root: Path,
    files: Sequence[FoundFile],
    folder: Path,
    scan: Callable[[Path, Path], Scanned],
    record: type[Scanned],
    report: list[str],
    *,
    kind: str,
    strict: bool,
) -> list[Scanned | None]:
    """Scans files in threads, or recalls what an earlier scan of theirs has found out.

    `scan` makes the record of a file of its path and of the place for a copy, and raises
    `CorpusError` where the file cannot be used; `kind` tells its results from those of another.
    Results are kept in `folder`, and copies of files in its folder `audio`. Returns the record of
    each file, in the same order, or None for a file that cannot be used: a line that counts these
    is added to the report. Raises `CorpusError` where no file can be used, or `strict` and some
    cannot; up to ten are named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store, copies = folder / f"scan_{kind}_{SCAN_VERSION}.parquet", folder / "audio"
    # The folder itself, wherever a link leads: another root is another corpus.
    place = root.resolve()
    keys = [f"{place / file.path}|{file.key}" for file in files]
    bad: dict[int, CorpusError] = {}
    # One process scans, others wait and find its results.
    with filelock.FileLock(folder / "scan.lock"):
        known = _read_store(store, copies, record)
        missing = [position for position, key in enumerate(keys) if key not in known]

        def scan_one(position: int) -> None:
            path, key = root / files[position].path, keys[position]
            try:
                known[key] = scan(path, copies / f"{short_digest(kind, key)}.wav")
            except CorpusError as error:
                bad[position] = error

        try:
            # Decoding leaves the interpreter to other threads.
            with (
                ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
                tqdm(
                    total=len(missing), desc=f"Scanning {name}", unit="file", disable=not missing
                ) as progress,
            ):
                for first in range(0, len(missing), BATCH_FILES):
                    for _ in pool.map(scan_one, missing[first : first + BATCH_FILES]):
                        progress.update()
        finally:  # what was scanned before a bad file or an interruption is not scanned again
            if missing:
                _write_store(store, known, record)
    if bad:
        lines = [f"{files[position].path}: {bad[position]}" for position in sorted(bad)]
        _report_unusable(name, root, lines, len(files), report, strict)
    return [None if position in bad else known[key] for position, key in enumerate(keys)]


def _report_unusable(
    name: str, root: Path, bad: Sequence[str], num_files: int, report: list[str], strict: bool
) -> None:
    """Counts files that cannot be used, or stops at them."""
    counted = f"{len(bad)} of {num_files} audio files below {root} cannot be used"
    any_usable = len(bad) < num_files
    if strict or not any_usable:
        lines = some_of(bad, MAX_REPORTED_FILES, "\n  ")
        raise CorpusError(
            f"{name}: {counted}:\n  {lines}\n"
            f"Replace or delete them, then load the corpus again"
            + ("; without strict_corpora they are left out." if any_usable else ".")
        )
    report.append(f"{counted} and are left out: {some_of(bad, MAX_REPORTED_FILES, '; ')}")


def _scan_header(path: Path, copy: Path) -> ScannedFile:
    """Trusts what the header says, if the last samples can be decoded."""
    try:
        _refuse_no_bytes(path)
        with soundfile.SoundFile(path) as file:
            frames = file.frames
            if file.channels != 1 or not _can_be_rendered_from(file):
                return _scan_file(path, copy)
            _refuse_short(frames, SAMPLING_RATE)
            tail = round(MIN_DURATION_SECONDS * SAMPLING_RATE)
            file.seek(frames - tail)
            if len(file.read(tail, dtype="float32")) != tail:
                raise CorpusError(f"truncated: the last of {frames} samples cannot be decoded")
    except (soundfile.LibsndfileError, OSError) as error:
        raise CorpusError(f"unreadable ({error})") from error
    return ScannedFile("", frames / SAMPLING_RATE, 0.0, frames / SAMPLING_RATE)


def _scan_file(path: Path, copy: Path) -> ScannedFile:
    channels, rate, renderable = decode(path)
    _refuse_short(len(channels), rate)
    if is_silent(channels):
        raise CorpusError("silent: every sample is zero, or as good as the same")
    is_mono = channels.shape[1] == 1
    if not is_mono and np.abs(channels - channels[:, :1]).max() > NOTHING_AMPLITUDE:
        raise CorpusError(
            f"{channels.shape[1]} channels that differ; convert it to mono, or keep one channel"
        )
    samples, name = readable(channels[:, 0], rate, is_mono and renderable, copy)
    start, end = find_speech(samples)
    return ScannedFile(name, len(samples) / SAMPLING_RATE, start, end)


def decode(path: Path) -> tuple[np.ndarray, int, bool]:
    """Decodes a file of any format.

    Returns float32 samples of shape `(num_samples, num_channels)`, their rate in Hz, and whether
    rendering may read the file itself: at 16 kHz, and quick and exact to begin anywhere. Raises
    `CorpusError` where it is missing, empty, unreadable or truncated, or not all samples are
    finite.
    """
    try:
        _refuse_no_bytes(path)
        with soundfile.SoundFile(path) as file:
            announced, rate, renderable = file.frames, file.samplerate, _can_be_rendered_from(file)
            channels = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise CorpusError(f"unreadable ({error})") from error
    _refuse_truncated(path, announced, len(channels))
    if not np.isfinite(channels).all():
        raise CorpusError("NaN or infinite samples")
    return channels, rate, renderable


def readable(
    samples: np.ndarray, rate: int, renderable: bool, copy: Path
) -> tuple[np.ndarray, str]:
    """Samples at 16 kHz of a recording of shape `(num_samples,)`, and the name of its copy.

    A copy is written where rendering cannot read the recording itself; without one the name is "".
    """
    if renderable:
        return samples, ""
    samples = resample(samples, rate)
    write_audio(copy, samples)
    return samples, copy.name


def is_silent(samples: np.ndarray) -> bool:
    """Whether a recording holds nothing: zeros, a constant, or what a codec makes of them.

    No sample of `(num_samples,)` or `(num_samples, num_channels)` is then `NOTHING_AMPLITUDE` away
    from the mean of its channel.
    """
    mean = samples.mean(axis=0, dtype=np.float64)
    return bool(np.abs(samples - mean).max() < NOTHING_AMPLITUDE)


def _can_be_rendered_from(file: soundfile.SoundFile) -> bool:
    return file.samplerate == SAMPLING_RATE and file.subtype.startswith(SEEKABLE_SUBTYPES)


def _refuse_truncated(path: Path, announced: int, decoded: int) -> None:
    is_mp3 = path.suffix.lower() == ".mp3"
    # The header of an mp3 need not tell its length, which is guessed then.
    if announced - decoded > (GUESSED_SAMPLES if is_mp3 else 0):
        raise CorpusError(f"truncated: {decoded} of {announced} samples can be decoded")
    if is_mp3 and is_part(path, decoded):
        raise CorpusError(
            f"an mp3 that does not tell its length: only its first {decoded} samples can be "
            f"decoded; convert it to wav or flac"
        )


def _refuse_no_bytes(path: Path) -> None:
    if not path.exists():
        raise CorpusError("missing: there is no such file")
    if path.stat().st_size == 0:
        raise CorpusError("empty: the file has no bytes")


def _refuse_short(num_samples: int, rate: int) -> None:
    if num_samples == 0:
        raise CorpusError("empty: it holds no samples")
    if num_samples / rate < MIN_DURATION_SECONDS:
        raise CorpusError(
            f"too short: {num_samples / rate:.3f} s, at least {MIN_DURATION_SECONDS} s needed"
        )


def _read_store(store: Path, copies: Path, record: type[Scanned]) -> dict[str, Scanned]:
    """The records by key, all but those whose copy is gone."""
    if not store.is_file():
        return {}
    kept = pd.read_parquet(store)
    present = {"", *(os.listdir(copies) if copies.is_dir() else ())}
    rows = kept[kept["copy"].isin(present)].itertuples(index=False, name=None)
    return {key: record(*values) for key, *values in rows}


def _write_store(store: Path, known: Mapping[str, Scanned], record: type[Scanned]) -> None:
    rows = [(key, *values) for key, values in known.items()]
    with whole_file(store) as unfinished:
        pd.DataFrame(rows, columns=["key", *record._fields]).to_parquet(unfinished)  # type: ignore[attr-defined]
