"""The scan that every corpus passes before it is used: which files there are, and what they hold.

A file is decoded once. What cannot be used is left out with a counted line, or stops the corpus
where that is asked for. Duration and the ends of the speech are kept in the cache by the whole
path, size and times of the file, so that the next load decodes nothing, and one that adds files
decodes these alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import datasets
import filelock
import numpy as np
import soundfile
from datasets.arrow_writer import ArrowWriter
from datasets.utils import tqdm

from data_builders.audio import find_speech, resample, write_audio
from data_builders.corpora.mpeg import is_part
from data_builders.files import whole_file
from data_builders.schema import SAMPLING_RATE, CorpusError

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
SCAN_VERSION = 4

MIN_DURATION_SECONDS = 0.1
MAX_REPORTED_FILES = 10
# Files that are handed to the threads at a time.
BATCH_FILES = 512

_STORE_FEATURES = datasets.Features(
    {
        "key": datasets.Value("string"),
        # Name of the 16 kHz mono copy below audio/, "" where the original is read.
        "copy": datasets.Value("string"),
        "duration_seconds": datasets.Value("float64"),
        "speech_start_seconds": datasets.Value("float64"),
        "speech_end_seconds": datasets.Value("float64"),
    }
)


Scanned = TypeVar("Scanned")


class FoundFile(NamedTuple):
    """A file of a corpus, as the folder lists it.

    Attributes:
        path (`str`): path relative to the folder of the corpus, or absolute; "/" between the parts.
        size_bytes (`int`): its size; -1 for a link to nowhere.
        modified_ns (`int`): time of its last change, which whoever unpacks or copies it may set.
        changed_ns (`int`): time of the last change of its entry, which nobody can set.
    """

    path: str
    size_bytes: int
    modified_ns: int
    changed_ns: int

    @property
    def key(self) -> str:
        """Changes when the file does; it says nothing of the folder that `path` is relative to."""
        return f"{self.path}|{self.size_bytes}|{self.modified_ns}|{self.changed_ns}"


class ScannedFile(NamedTuple):
    """What the scan found out about one usable file.

    Attributes:
        copy (`str`): name of its 16 kHz mono copy in the cache, "" where the original is one.
        duration_seconds (`float`): length.
        speech_start_seconds (`float`): first active time.
        speech_end_seconds (`float`): last active time.
    """

    copy: str
    duration_seconds: float
    speech_start_seconds: float
    speech_end_seconds: float


def list_files(root: Path, suffixes: tuple[str, ...], folder: str = "") -> list[FoundFile]:
    """Lists files below a folder, sorted by path; hidden ones, as macOS leaves them, are none.

    Args:
        root (`Path`): folder of the corpus, to which the paths are relative.
        suffixes (`tuple[str, ...]`): ends of the names, in lower case.
        folder (`str`): only what lies below this folder of it.

    Returns:
        `list[FoundFile]`: the files; links are followed.

    Raises:
        CorpusError: a folder cannot be listed.
    """
    found = []
    pending, seen = [folder], set()
    while pending:
        above = pending.pop()
        try:
            status = os.stat(root / above)
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder above itself
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / above) as entries:
                for entry in entries:
                    name = f"{above}/{entry.name}" if above else entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        pending.append(name)
                    elif entry.name.lower().endswith(suffixes):
                        found.append(_found_file(name, entry))
        except OSError as error:
            raise CorpusError(f"{root / above}: cannot be listed ({error})") from error
    # Part by part, as paths are compared.
    return sorted(found, key=lambda file: file.path.replace("/", "\0"))


def list_folders(root: Path, folder: str, depth: int) -> list[FoundFile]:
    """Lists folders, whose times tell whether files were added, removed or replaced in them.

    Looking at them takes a fraction of the time of looking at several hundred thousand files.

    Args:
        root (`Path`): folder of the corpus, to which the paths are relative.
        folder (`str`): where to begin, in it.
        depth (`int`): how many levels below that.

    Returns:
        `list[FoundFile]`: the folder itself and those below it, level by level.

    Raises:
        CorpusError: a folder cannot be listed.
    """
    level, found = [folder], [find_file(root, folder)]
    for _ in range(depth):
        below: list[str] = []
        for above in level:
            try:
                with os.scandir(root / above) as entries:
                    names = sorted(entry.name for entry in entries if entry.is_dir())
            except OSError as error:
                raise CorpusError(f"{root / above}: cannot be listed ({error})") from error
            below += [f"{above}/{name}" for name in names if not name.startswith(".")]
        found += [find_file(root, name) for name in below]
        level = below
    return found


def find_file(root: Path, path: str) -> FoundFile:
    """The size and time of a file that something else has named.

    Args:
        root (`Path`): folder of the corpus.
        path (`str`): relative to it, or absolute.

    Returns:
        `FoundFile`: the file; its size is -1 if there is none.
    """
    return _found_file(path, root / path)


def copies_folder(cache_dir: Path, corpus: str) -> Path:
    """Folder of the 16 kHz mono copies of a corpus.

    Args:
        cache_dir (`Path`): the cache.
        corpus (`str`): name of the corpus.

    Returns:
        `Path`: the folder, which need not exist.
    """
    return cache_dir / "corpora" / corpus / "audio"


def scan_audio_files(
    root: Path,
    files: Sequence[FoundFile],
    cache_dir: Path,
    corpus: str,
    *,
    measure_speech: bool = True,
) -> list[ScannedFile | CorpusError]:
    """Checks and measures the files of a corpus, or recalls that from the cache.

    Args:
        root (`Path`): folder of the corpus.
        files (`Sequence[FoundFile]`): its audio files.
        cache_dir (`Path`): where scans and resampled copies are kept.
        corpus (`str`): name of the corpus, a folder of the cache.
        measure_speech (`bool`): decode the whole file and find the ends of the speech. Otherwise
            only the header and the last 0.1 s of a 16 kHz mono file are read, which is enough to
            notice a truncated one, and the speech lasts from the first to the last sample.

    Returns:
        `list[ScannedFile | CorpusError]`: one for each file, in the same order; the error says why
        a file cannot be used. `keep_usable` tells the two apart.
    """
    folder = cache_dir / "corpora" / corpus
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / f"scan_{SCAN_VERSION}.arrow"
    kind = "speech" if measure_speech else "header"
    # The folder itself, wherever a link leads: another root is another corpus.
    place = root.resolve()
    keys = [f"{kind}|{place / file.path}|{file.key}" for file in files]
    # One process scans, others wait and find its results.
    with filelock.FileLock(folder / "scan.lock"):
        known = _read_store(store, copies_folder(cache_dir, corpus))
        missing = [position for position, key in enumerate(keys) if key not in known]
        bad: dict[str, CorpusError] = {}

        def scan(position: int) -> ScannedFile | CorpusError:
            path, key = root / files[position].path, keys[position]
            try:
                if not measure_speech:
                    return _scan_header(path, key, copies_folder(cache_dir, corpus))
                return _scan_file(path, key, copies_folder(cache_dir, corpus))
            except CorpusError as error:
                return error

        try:
            for position, result in _in_threads(scan, missing, f"Scanning {corpus}"):
                if isinstance(result, CorpusError):
                    bad[keys[position]] = result
                else:
                    known[keys[position]] = result
        finally:  # what was scanned before a bad file or an interruption is not scanned again
            if missing:
                _write_store(store, known)
    return [bad[key] if key in bad else known[key] for key in keys]


def keep_usable(
    corpus: str,
    root: Path,
    files: Sequence[FoundFile],
    scanned: Sequence[Scanned | CorpusError],
    report: list[str],
    *,
    strict: bool,
) -> list[tuple[int, Scanned]]:
    """Leaves out the files that cannot be used, with a line in the report that counts them.

    Args:
        corpus (`str`): name of the corpus.
        root (`Path`): its folder.
        files (`Sequence[FoundFile]`): the files that were scanned.
        scanned (`Sequence`): what `scan_audio_files`, or a scan like it, found out about each, or
            the `CorpusError` that says why it cannot be used.
        report (`list[str]`): the line is added.
        strict (`bool`): stop at such files.

    Returns:
        `list[tuple[int, Scanned]]`: position and measures of each file that can be used.

    Raises:
        CorpusError: no file can be used, or `strict` and some cannot; up to ten are named.
    """
    bad = [
        f"{file.path}: {result}"
        for file, result in zip(files, scanned, strict=True)
        if isinstance(result, CorpusError)
    ]
    usable = [
        (position, result)
        for position, result in enumerate(scanned)
        if not isinstance(result, CorpusError)
    ]
    if not bad:
        return usable
    shown = bad[:MAX_REPORTED_FILES]
    if len(bad) > MAX_REPORTED_FILES:
        shown.append(f"and {len(bad) - MAX_REPORTED_FILES} more")
    counted = f"{len(bad)} of {len(files)} audio files below {root} cannot be used"
    if strict or not usable:
        lines = "\n".join(f"  {line}" for line in shown)
        raise CorpusError(
            f"{corpus}: {counted}:\n{lines}\n"
            f"Replace or delete them, then load the corpus again"
            + ("." if not usable else "; without strict_corpora they are left out.")
        )
    report.append(f"{counted} and are left out: {'; '.join(shown)}")
    return usable


def _found_file(name: str, entry: os.DirEntry[str] | Path) -> FoundFile:
    try:
        status = entry.stat()
    except OSError:
        # A dangling link: the scan reports it as unreadable, with all other bad files.
        return FoundFile(name, -1, 0, 0)
    return FoundFile(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _in_threads(
    work: Callable[[int], ScannedFile | CorpusError], positions: Sequence[int], title: str
) -> Iterator[tuple[int, ScannedFile | CorpusError]]:
    """Decoding leaves the interpreter to other threads."""
    if not positions:
        return
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        tqdm(total=len(positions), desc=title, unit="file") as progress,
    ):
        for first in range(0, len(positions), BATCH_FILES):
            batch = positions[first : first + BATCH_FILES]
            yield from zip(batch, pool.map(work, batch), strict=True)
            progress.update(len(batch))


def _scan_header(path: Path, key: str, copies: Path) -> ScannedFile:
    """Trusts what the header says, if the last samples can be decoded."""
    try:
        _refuse_no_bytes(path)
        with soundfile.SoundFile(path) as file:
            frames = file.frames
            if _needs_copy(file):
                return _scan_file(path, key, copies)
            _refuse_short(frames, SAMPLING_RATE)
            tail = round(MIN_DURATION_SECONDS * SAMPLING_RATE)
            file.seek(frames - tail)
            if len(file.read(tail, dtype="float32")) != tail:
                raise CorpusError(f"truncated: the last of {frames} samples cannot be decoded")
    except (soundfile.LibsndfileError, OSError) as error:
        raise CorpusError(f"unreadable ({error})") from error
    return ScannedFile("", frames / SAMPLING_RATE, 0.0, frames / SAMPLING_RATE)


def _scan_file(path: Path, key: str, copies: Path) -> ScannedFile:
    channels, rate, needs_copy = _decode(path)
    samples = channels[:, 0]
    is_mono = channels.shape[1] == 1
    if not is_mono and np.abs(channels - channels[:, :1]).max() > NOTHING_AMPLITUDE:
        raise CorpusError(
            f"{channels.shape[1]} channels that differ; convert it to mono, or keep one channel"
        )
    copy = ""
    if needs_copy:
        samples = resample(samples, rate)
        copy = f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.wav"
        write_audio(copies / copy, samples)
    start, end = find_speech(samples)
    return ScannedFile(copy, len(samples) / SAMPLING_RATE, start, end)


def can_be_rendered_from(file: soundfile.SoundFile) -> bool:
    """Whether rendering may read a file itself: at 16 kHz, and quick and exact to begin anywhere.

    Args:
        file (`soundfile.SoundFile`): the opened file.

    Returns:
        `bool`: False for files that have to be copied first.
    """
    return file.samplerate == SAMPLING_RATE and file.subtype.startswith(SEEKABLE_SUBTYPES)


def _needs_copy(file: soundfile.SoundFile) -> bool:
    return file.channels != 1 or not can_be_rendered_from(file)


def _decode(path: Path) -> tuple[np.ndarray, int, bool]:
    """Decodes all channels of a file and refuses what no mixture can be made of; the last value
    tells whether rendering needs a copy."""
    try:
        _refuse_no_bytes(path)
        with soundfile.SoundFile(path) as file:
            announced, rate, needs_copy = file.frames, file.samplerate, _needs_copy(file)
            channels = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise CorpusError(f"unreadable ({error})") from error
    _refuse_short(announced, rate)
    refuse_truncated(path, announced, len(channels))
    if not np.isfinite(channels).all():
        raise CorpusError("NaN or infinite samples")
    if is_silent(channels):
        raise CorpusError("silent: every sample is zero, or as good as the same")
    return channels, rate, needs_copy


def refuse_truncated(path: Path, announced: int, decoded: int) -> None:
    """Raises where less was decoded of a file than it holds.

    Args:
        path (`Path`): the file.
        announced (`int`): samples that it has by its header.
        decoded (`int`): samples that were decoded.

    Raises:
        CorpusError: some are missing.
    """
    is_mp3 = path.suffix.lower() == ".mp3"
    # The header of an mp3 need not tell its length, which is guessed then.
    if announced - decoded > (GUESSED_SAMPLES if is_mp3 else 0):
        raise CorpusError(f"truncated: {decoded} of {announced} samples can be decoded")
    if is_mp3 and is_part(path, decoded):
        raise CorpusError(
            f"an mp3 that does not tell its length: only its first {decoded} samples can be "
            f"decoded; convert it to wav or flac"
        )


def is_silent(samples: np.ndarray) -> bool:
    """Whether a recording holds nothing: zeros, a constant, or what a codec makes of them.

    Args:
        samples (`np.ndarray` of shape `(num_samples,)` or `(num_samples, num_channels)`): finite
            samples.

    Returns:
        `bool`: no sample is `NOTHING_AMPLITUDE` away from the mean of its channel.
    """
    mean = samples.mean(axis=0, dtype=np.float64)
    return bool(np.abs(samples - mean).max() < NOTHING_AMPLITUDE)


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


def _read_store(store: Path, copies: Path) -> dict[str, ScannedFile]:
    """The results by key, all but those whose copy is gone."""
    if not store.is_file():
        return {}
    columns = datasets.Dataset.from_file(str(store))[:]
    present = {"", *(os.listdir(copies) if copies.is_dir() else ())}
    rows = zip(*(columns[name] for name in _STORE_FEATURES), strict=True)
    return {key: ScannedFile(*values) for key, *values in rows if values[0] in present}


def _write_store(store: Path, known: Mapping[str, ScannedFile]) -> None:
    values = zip(*known.values(), strict=True) if known else ((), (), (), ())
    columns = {name: list(column) for name, column in zip(ScannedFile._fields, values, strict=True)}
    write_arrow(store, {"key": list(known), **columns}, _STORE_FEATURES)


def write_arrow(path: Path, columns: Mapping[str, list[Any]], features: datasets.Features) -> None:
    """Writes a table for `datasets.Dataset.from_file`, which maps it into memory.

    Other processes see the whole file or none.

    Args:
        path (`Path`): file to write.
        columns (`Mapping[str, list]`): values by column, equally many.
        features (`datasets.Features`): their types.
    """
    with (
        whole_file(path) as unfinished,
        ArrowWriter(path=str(unfinished), features=features) as writer,
    ):
        writer.write_batch(dict(columns))
        writer.finalize()
