"""Audio: reading and writing 16 kHz mono files, resampling, and where the speech lies in them."""

from __future__ import annotations

import os
import tempfile
from math import gcd
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile

from data_builders.files import whole_file
from data_builders.schema import SAMPLING_RATE, CorpusError

GATE_DB = -35.0
GATE_FRAME_SECONDS = 0.025
GATE_HOP_SECONDS = 0.010
GATE_MARGIN_SECONDS = 0.1

# Low-pass of the resampler: a sinc of 64 zero crossings under a Kaiser window, about 90 dB down.
RESAMPLE_ZERO_CROSSINGS = 64
RESAMPLE_ROLLOFF = 0.945
RESAMPLE_KAISER_BETA = 9.0


def _default_cache_dir() -> Path:
    configured = os.environ.get("TSE_SER_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "tse_ser"


def cache_folder(cache_dir: str | Path | None) -> Path:
    """The folder of everything that is computed once, absolute and made where it is not there.

    Without `cache_dir` it is `TSE_SER_CACHE`, else `~/.cache/tse_ser`. Raises `CorpusError` where
    it cannot be made or written.
    """
    folder = (_default_cache_dir() if cache_dir is None else Path(cache_dir)).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise CorpusError(
            f"{folder}: prepared speech cannot be kept there ({error.strerror}): set TSE_SER_CACHE "
            "to a folder that can be written, or pass cache_dir"
        ) from error
    return folder


def read_audio(
    path: str | Path, start: int = 0, stop: int | None = None, *, first_channel: bool = False
) -> np.ndarray:
    """Reads samples `start` to before `stop`, float32, of a 16 kHz mono file that passed the scan.

    There may be other channels only where the first one is asked for. Raises `CorpusError` where
    the file cannot be read, or holds fewer samples than asked for.
    """
    try:
        with soundfile.SoundFile(path) as file:
            is_mono = first_channel or file.channels == 1
            if file.samplerate != SAMPLING_RATE or not is_mono:
                raise CorpusError(
                    f"{path}: expected {SAMPLING_RATE} Hz mono, got {file.samplerate} Hz and "
                    f"{file.channels} channels; load the corpus again, so that it is converted"
                )
            stop = file.frames if stop is None else stop
            file.seek(start)
            samples = file.read(stop - start, dtype="float32", always_2d=True)[:, 0]
    except (soundfile.LibsndfileError, OSError) as error:
        raise CorpusError(f"{path}: cannot be read ({error}); was it moved or deleted?") from error
    if len(samples) != stop - start:
        raise CorpusError(
            f"{path}: holds fewer samples than when it was scanned; load the corpus again, or "
            f"delete the folder corpora in {_default_cache_dir()} first where that does not help"
        )
    return np.ascontiguousarray(samples)


def resample(samples: np.ndarray, source_rate: int, target_rate: int = SAMPLING_RATE) -> np.ndarray:
    """Changes the sampling rate of a waveform with a windowed-sinc polyphase filter.

    Of `(num_samples,)` samples at `source_rate` Hz it makes `ceil(num_samples * target_rate /
    source_rate)` float32 samples.
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
    """Finds the first and last active time, in seconds, of a waveform at 16 kHz that is not silent.

    A frame of 25 ms is active when its power is at most 35 dB below that of the loudest frame: a
    relative gate, since the quiet emotions of RAVDESS lie 30 dB below the loud ones. A margin of
    0.1 s is left at both ends, inside the file.
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


def write_audio(path: Path, samples: np.ndarray) -> None:
    """Writes a 16 kHz mono wav of 32-bit floats, of samples of shape `(num_samples,)`.

    Its folder is made; other processes see the whole file or none.
    """
    with whole_file(path) as unfinished:
        soundfile.write(unfinished, samples, SAMPLING_RATE, format="WAV", subtype="FLOAT")
