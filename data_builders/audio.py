"""Audio files: reading, resampling once, and the scan that every corpus passes before it is used.

The scan decodes each file once, refuses what cannot be used, measures duration and where the speech
lies, and keeps the result in the cache, so that the next load only looks at names, sizes and times.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from math import gcd
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile
from datasets.utils import tqdm

from data_builders.schema import SAMPLING_RATE, CorpusError

AUDIO_SUFFIXES = (".wav", ".flac")
# Raise it whenever the scan measures or refuses something else: older results are then not reused.
SCAN_VERSION = 1

MIN_DURATION_SECONDS = 0.1
GATE_DB = -35.0
GATE_FRAME_SECONDS = 0.025
GATE_HOP_SECONDS = 0.010
GATE_MARGIN_SECONDS = 0.1
MAX_REPORTED_FILES = 10

# Low-pass of the resampler: a sinc of 64 zero crossings under a Kaiser window, about 90 dB down.
RESAMPLE_ZERO_CROSSINGS = 64
RESAMPLE_ROLLOFF = 0.945
RESAMPLE_KAISER_BETA = 9.0


@dataclass(frozen=True)
class ScannedFile:
    """What the scan found out about one usable file.

    Attributes:
        path (`str`): absolute path of a 16 kHz mono file: the original, or its copy in the cache.
        duration_seconds (`float`): length.
        speech_start_seconds (`float`): first active time.
        speech_end_seconds (`float`): last active time.
    """

    path: str
    duration_seconds: float
    speech_start_seconds: float
    speech_end_seconds: float


def default_cache_dir() -> Path:
    """Folder of everything that is computed once: `TSE_SER_CACHE`, else `~/.cache/tse_ser`.

    Returns:
        `Path`: the folder, which need not exist yet.
    """
    configured = os.environ.get("TSE_SER_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "tse_ser"


def read_audio(path: str | Path, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Reads samples `start` to `stop` of a 16 kHz mono file.

    Args:
        path (`str` or `Path`): file that passed the scan.
        start (`int`): first sample.
        stop (`int`, *optional*): sample after the last one; the end of the file if not given.

    Returns:
        `np.ndarray` of shape `(num_samples,)`: float32 samples.

    Raises:
        CorpusError: the file cannot be read, or holds fewer samples than asked for.
    """
    try:
        with soundfile.SoundFile(path) as file:
            if file.samplerate != SAMPLING_RATE or file.channels != 1:
                raise CorpusError(
                    f"{path}: expected {SAMPLING_RATE} Hz mono, got {file.samplerate} Hz and "
                    f"{file.channels} channels; load the corpus again, so that it is converted"
                )
            stop = file.frames if stop is None else stop
            file.seek(start)
            samples = file.read(stop - start, dtype="float32")
    except (soundfile.LibsndfileError, OSError) as error:
        raise CorpusError(f"{path}: cannot be read ({error}); was it moved or deleted?") from error
    if len(samples) != stop - start:
        raise CorpusError(
            f"{path}: holds fewer samples than when it was scanned; load the corpus again"
        )
    return samples


def resample(samples: np.ndarray, source_rate: int, target_rate: int = SAMPLING_RATE) -> np.ndarray:
    """Changes the sampling rate with a windowed-sinc polyphase filter.

    Args:
        samples (`np.ndarray` of shape `(num_samples,)`): waveform at `source_rate`.
        source_rate (`int`): rate in Hz.
        target_rate (`int`): rate in Hz.

    Returns:
        `np.ndarray` of shape `(ceil(num_samples * target_rate / source_rate),)`: float32 waveform.
    """
    if source_rate == target_rate:
        return samples.astype(np.float32, copy=False)
    divisor = gcd(source_rate, target_rate)
    up, down = target_rate // divisor, source_rate // divisor
    steps = max(up, down)
    taps = scipy.signal.firwin(
        2 * RESAMPLE_ZERO_CROSSINGS * steps + 1,
        RESAMPLE_ROLLOFF / steps,
        window=("kaiser", RESAMPLE_KAISER_BETA),
    )
    resampled = scipy.signal.resample_poly(samples.astype(np.float64), up, down, window=taps)
    return resampled.astype(np.float32)


def find_speech(samples: np.ndarray) -> tuple[float, float]:
    """Finds the first and last active time of a recording.

    A frame of 25 ms is active when its power is at most 35 dB below that of the loudest frame: a
    relative gate, since the quiet emotions of RAVDESS lie 30 dB below the loud ones.

    Args:
        samples (`np.ndarray` of shape `(num_samples,)`): waveform at 16 kHz, not silent.

    Returns:
        `tuple[float, float]`: start and end in seconds, with a margin of 0.1 s inside the file.
    """
    frame = round(GATE_FRAME_SECONDS * SAMPLING_RATE)
    hop = round(GATE_HOP_SECONDS * SAMPLING_RATE)
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    starts = np.arange(0, max(len(samples) - frame, 0) + 1, hop)
    power = energy[np.minimum(starts + frame, len(samples))] - energy[starts]
    active = np.flatnonzero(power >= power.max() * 10 ** (GATE_DB / 10))
    margin = round(GATE_MARGIN_SECONDS * SAMPLING_RATE)
    first = max(int(starts[active[0]]) - margin, 0)
    last = min(int(starts[active[-1]]) + frame + margin, len(samples))
    return first / SAMPLING_RATE, last / SAMPLING_RATE


def find_audio_files(root: Path) -> list[Path]:
    """Lists the audio files below a folder, sorted; hidden files, as macOS leaves them, are none.

    Args:
        root (`Path`): folder.

    Returns:
        `list[Path]`: the wav and flac files.
    """
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")
    )


def scan_audio_files(
    root: Path, files: Sequence[Path], cache_dir: Path, corpus: str
) -> list[ScannedFile]:
    """Checks and measures the files of a corpus, or recalls that from the cache.

    Args:
        root (`Path`): folder of the corpus.
        files (`Sequence[Path]`): its audio files, all below `root`.
        cache_dir (`Path`): where scans and resampled copies are kept.
        corpus (`str`): name of the corpus, a folder of the cache.

    Returns:
        `list[ScannedFile]`: one for each file, in the same order.

    Raises:
        CorpusError: some files cannot be used; the message names up to ten of them.
    """
    folder = cache_dir / "corpora" / corpus
    keys = [_file_key(root, path) for path in files]
    fingerprint = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:24]
    cached = folder / f"scan_{fingerprint}.json"
    if cached.is_file():
        scanned = _read_scan(cached, root, folder)
        if all(os.path.exists(entry.path) for entry in scanned):
            return scanned
    folder.mkdir(parents=True, exist_ok=True)

    def scan(position: int) -> ScannedFile | CorpusError:
        try:
            return _scan_file(files[position], keys[position], folder)
        except CorpusError as error:
            return error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        progress = tqdm(total=len(files), desc=f"Scanning {corpus}", unit="file")
        results = []
        for result in pool.map(scan, range(len(files))):
            results.append(result)
            progress.update()
        progress.close()
    bad = [
        f"  {path.relative_to(root)}: {result}"
        for path, result in zip(files, results, strict=True)
        if isinstance(result, CorpusError)
    ]
    if bad:
        raise CorpusError(_bad_files_message(corpus, root, bad))
    scanned = [result for result in results if isinstance(result, ScannedFile)]
    _write_scan(cached, scanned, root, folder)
    return scanned


def _file_key(root: Path, path: Path) -> str:
    relative = path.relative_to(root).as_posix()
    try:
        status = path.stat()
    except OSError:
        # A dangling link: the scan reports it as unreadable, with all other bad files.
        return f"{SCAN_VERSION}|{relative}|missing"
    return f"{SCAN_VERSION}|{relative}|{status.st_size}|{status.st_mtime_ns}"


def _scan_file(path: Path, key: str, folder: Path) -> ScannedFile:
    channels, rate = _decode(path)
    samples = channels[:, 0]
    if channels.shape[1] > 1 and not np.array_equal(
        channels, np.repeat(channels[:, :1], channels.shape[1], axis=1)
    ):
        raise CorpusError(
            f"{channels.shape[1]} channels that differ; convert it to mono, or keep one channel"
        )
    readable = path.absolute()
    if rate != SAMPLING_RATE or channels.shape[1] > 1:
        samples = resample(samples, rate)
        name = hashlib.sha256(f"{path.absolute()}|{key}".encode()).hexdigest()[:24]
        readable = folder / "audio" / f"{name}.wav"
        write_audio(readable, samples)
    start, end = find_speech(samples)
    return ScannedFile(str(readable), len(samples) / SAMPLING_RATE, start, end)


def _decode(path: Path) -> tuple[np.ndarray, int]:
    """Decodes all channels of a file and refuses what no mixture can be made of."""
    try:
        if path.stat().st_size == 0:
            raise CorpusError("empty: the file has no bytes")
        with soundfile.SoundFile(path) as file:
            announced, rate = file.frames, file.samplerate
            channels = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise CorpusError(f"unreadable ({error})") from error
    if announced == 0:
        raise CorpusError("empty: it holds no samples")
    if len(channels) != announced:
        raise CorpusError(f"truncated: {len(channels)} of {announced} samples can be decoded")
    if not np.isfinite(channels).all():
        raise CorpusError("NaN or infinite samples")
    if len(channels) / rate < MIN_DURATION_SECONDS:
        raise CorpusError(
            f"too short: {len(channels) / rate:.3f} s, at least {MIN_DURATION_SECONDS} s needed"
        )
    if not channels.any():
        raise CorpusError("silent: every sample is zero")
    return channels, rate


def _bad_files_message(corpus: str, root: Path, bad: list[str]) -> str:
    shown = bad[:MAX_REPORTED_FILES]
    if len(bad) > MAX_REPORTED_FILES:
        shown.append(f"  and {len(bad) - MAX_REPORTED_FILES} more")
    lines = "\n".join(shown)
    return (
        f"{corpus}: {len(bad)} audio file{'s' if len(bad) > 1 else ''} below {root} cannot be "
        f"used:\n{lines}\nReplace or delete them, then load the corpus again."
    )


def write_audio(path: Path, samples: np.ndarray) -> None:
    """Writes a 16 kHz mono wav of 32-bit floats; other processes see the whole file or none.

    Args:
        path (`Path`): file to write; its folder is made.
        samples (`np.ndarray` of shape `(num_samples,)`): waveform at 16 kHz.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(descriptor, "wb") as file:
        soundfile.write(file, samples, SAMPLING_RATE, format="WAV", subtype="FLOAT")
    os.replace(temporary, path)


def _write_scan(cached: Path, scanned: list[ScannedFile], root: Path, folder: Path) -> None:
    """Keeps paths relative, so that neither moving the corpus nor the cache asks for a new scan."""
    entries = []
    for entry in scanned:
        path = Path(entry.path)
        in_cache = path.is_relative_to(folder)
        relative = path.relative_to(folder if in_cache else root.absolute()).as_posix()
        entries.append({**asdict(entry), "path": relative, "in_cache": in_cache})
    descriptor, temporary = tempfile.mkstemp(dir=cached.parent, suffix=".part")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(entries, file)
    os.replace(temporary, cached)


def _read_scan(cached: Path, root: Path, folder: Path) -> list[ScannedFile]:
    scanned = []
    for entry in json.loads(cached.read_text(encoding="utf-8")):
        base = folder if entry.pop("in_cache") else root.absolute()
        scanned.append(ScannedFile(**{**entry, "path": str(base / entry["path"])}))
    return scanned
