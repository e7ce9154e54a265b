"""Background noise: the recordings of a folder, cut or continued to the length of a mixture."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_builders.audio import cache_folder, read_audio
from data_builders.corpora.scan import (
    AUDIO_SUFFIXES,
    decode,
    is_silent,
    list_files,
    readable,
    scan_files,
)
from data_builders.mixtures.lowpass import HALF_LENGTH, lowpass
from data_builders.mixtures.mixing import mean_power
from data_builders.schema import SAMPLING_RATE, CorpusError

logger = logging.getLogger(__name__)

CROSS_FADE_SECONDS = 0.5


class _Recording(NamedTuple):
    """A usable recording: its first channel, at 16 kHz."""

    copy: str  # name of the resampled copy in the cache, "" where the original is read
    num_samples: int
    power: float  # mean square over the whole recording


class NoiseFolder:
    """Recordings of noise below a folder: of any format and rate, the first channel counts.

    The folder is scanned once: levels are kept in the cache, and so are resampled copies of what is
    not at 16 kHz.

    Args:
        noise_dir (`str` or `Path`): the folder.
        cache_dir (`str` or `Path`, *optional*): see `load_corpus`.
        strict (`bool`): stop at recordings that cannot be used; otherwise they are left out, and a
            warning counts them.

    Raises:
        CorpusError: the folder is missing or holds no recordings that can be used, or `strict` and
            some cannot.
    """

    def __init__(
        self, noise_dir: str | Path, cache_dir: str | Path | None = None, *, strict: bool = False
    ) -> None:
        self.root = Path(noise_dir).absolute()
        if not self.root.is_dir():
            raise CorpusError(f"noise_dir: {self.root} is no folder; give one with recordings")
        files = list_files(self.root, AUDIO_SUFFIXES)
        if not files:
            raise CorpusError(f"noise_dir: no audio files in {self.root}")
        self._folder = cache_folder(cache_dir) / "noise"
        report: list[str] = []
        scanned = scan_files(
            "noise_dir",
            self.root,
            files,
            self._folder,
            _scan_file,
            _Recording,
            report,
            kind="noise",
            strict=strict,
        )
        for line in report:
            logger.warning("noise_dir: %s", line)
        self._recordings = {
            file.path: one for file, one in zip(files, scanned, strict=True) if one is not None
        }
        self.paths = list(self._recordings)
        self._lowpassed_powers: dict[tuple[str, float], float] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def draw(self, num_samples: int, rng: np.random.Generator) -> tuple[str, int]:
        """Draws a recording, by its path, and its first sample, both uniformly."""
        path = self.paths[int(rng.integers(len(self.paths)))]
        length = self._recordings[path].num_samples
        spare = length - num_samples
        starts = spare + 1 if spare >= 0 else length - _cross_fade_samples(length)
        return path, int(rng.integers(starts))

    def file_of(self, path: str) -> Path:
        """The file at 16 kHz that is read for a recording: the original, or its copy in the cache.

        Raises `CorpusError` where the folder holds no such recording.
        """
        copy = self._recording(path).copy
        return self._folder / "audio" / copy if copy else self.root / path

    def power(self, path: str, lowpass_hz: float | None = None) -> float:
        """Mean square of a whole recording, or of what is heard of it through a low-pass."""
        recording = self._recording(path)
        if lowpass_hz is None:
            return recording.power
        key = (path, lowpass_hz)
        if key not in self._lowpassed_powers:
            samples = self._read_file(path, 0, recording.num_samples)
            self._lowpassed_powers[key] = mean_power(lowpass(samples, lowpass_hz))
        return self._lowpassed_powers[key]

    def read(
        self, path: str, start: int, num_samples: int, lowpass_hz: float | None = None
    ) -> np.ndarray:
        """Reads a stretch of a recording, which is continued with its own beginning where it ends.

        Returns float32 of shape `(num_samples,)`, heard through a low-pass if one is given. Raises
        `CorpusError` where the folder holds no such recording, or it cannot be read any more.
        """
        if lowpass_hz is not None:
            # What is read besides goes on behind the stretch, as there may be nothing before it.
            longer = self.read(path, start, num_samples + 2 * HALF_LENGTH)
            return lowpass(longer, lowpass_hz)[HALF_LENGTH : HALF_LENGTH + num_samples]
        length = self._recording(path).num_samples
        if start + num_samples <= length:
            return self._read_file(path, start, start + num_samples)
        loop = _make_loop(self._read_file(path, 0, length))
        return np.take(loop, np.arange(start, start + num_samples), mode="wrap")

    def _read_file(self, path: str, start: int, stop: int) -> np.ndarray:
        return read_audio(self.file_of(path), start, stop, first_channel=True)

    def _recording(self, path: str) -> _Recording:
        if path not in self._recordings:
            raise CorpusError(f"noise_dir: {self.root} has no {path}; is it another noise corpus?")
        return self._recordings[path]


def _cross_fade_samples(length: int) -> int:
    return min(round(CROSS_FADE_SECONDS * SAMPLING_RATE), length // 2)


def _make_loop(samples: np.ndarray) -> np.ndarray:
    """One period of a recording that goes on for ever: its end is faded into its beginning."""
    fade = _cross_fade_samples(len(samples))
    period = len(samples) - fade
    loop = samples[:period].copy()
    # Equal power: the two ends are different noise.
    phase = np.pi / 2 * (np.arange(fade, dtype=np.float32) + 0.5) / fade
    loop[:fade] = loop[:fade] * np.sin(phase) + samples[period:] * np.cos(phase)
    return loop


def _scan_file(path: Path, copy: Path) -> _Recording:
    channels, rate, renderable = decode(path)
    samples = channels[:, 0]
    if len(samples) < 2:
        raise CorpusError(f"empty: {len(samples)} samples")
    if is_silent(samples):
        raise CorpusError("silent: every sample of the first channel is zero, or as good as that")
    samples, name = readable(samples, rate, renderable, copy)
    return _Recording(name, len(samples), mean_power(samples))
