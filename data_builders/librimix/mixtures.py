"""LibriMix without its files: mixtures of the public metadata, rendered from LibriSpeech on access.

Libri2Mix and Libri3Mix (Cosentino et al., 2020) are published as CSV files of LibriSpeech and WHAM
paths with gains, and scripts that write them out, some 430 GB. Here a row is rendered when it is
asked for, sample for sample what the scripts write: sources and noise times their gain, resampled
where 8 kHz is wanted, cut to the shortest source ("min") or padded to the longest ("max"), summed
in float32 in the order source 1, 2, 3, noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import scipy.signal
import soundfile
from torch.utils.data import Dataset

from data_builders.librimix.metadata import read_librimix_metadata
from data_builders.schema import SAMPLING_RATE, CorpusError, some_of

Mode = Literal["min", "max"]
MixtureType = Literal["mix_clean", "mix_single", "mix_both"]

SAMPLING_RATES = (8_000, SAMPLING_RATE)
CROSS_FADE_SECONDS = 0.5


class LibriMixDataset(Dataset[dict[str, Any]]):
    """The mixtures of one metadata file, as the public scripts would have written them.

    Args:
        metadata_csv (`str` or `Path`): a metadata file, such as `libri2mix_test-clean.csv`.
        librispeech_dir (`str` or `Path`): folder that holds `test-clean` and the other subsets.
        noise_dir (`str` or `Path`, *optional*): WHAM noise, the folder that holds `tr`, `cv` and
            `tt`; "mix_single" and "mix_both" need it.
        sampling_rate (`int`): 8000 or 16000 Hz.
        mode (`str`): "min" cuts everything to the shortest source, "max" pads to the longest.
        mixture_type (`str`): "mix_clean" is all sources, "mix_both" the same with noise,
            "mix_single" the first source with noise.

    Raises:
        CorpusError: the metadata are none of LibriMix, or audio that they name is missing.
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        metadata_csv: str | Path,
        librispeech_dir: str | Path,
        noise_dir: str | Path | None = None,
        sampling_rate: int = SAMPLING_RATE,
        mode: Mode = "min",
        mixture_type: MixtureType = "mix_clean",
    ) -> None:
        if sampling_rate not in SAMPLING_RATES:
            raise ValueError(f"sampling_rate: expected 8000 or 16000 Hz, got {sampling_rate}")
        for name, value, known in (
            ("mode", mode, get_args(Mode)),
            ("mixture_type", mixture_type, get_args(MixtureType)),
        ):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        if noise_dir is None and mixture_type != "mix_clean":
            raise ValueError(
                f"noise_dir: mixture_type {mixture_type!r} needs the folder of the WHAM noise, the "
                f"one that holds tr, cv and tt; pass it, or use 'mix_clean'"
            )
        self.metadata_csv = Path(metadata_csv)
        self.rows = read_librimix_metadata(metadata_csv)
        self.librispeech_dir = Path(librispeech_dir)
        self.noise_dir = None if noise_dir is None else Path(noise_dir)
        self.sampling_rate = sampling_rate
        self.mode = mode
        self.mixture_type = mixture_type
        _check_files(
            self.librispeech_dir,
            [source.path for row in self.rows for source in row.sources],
            "LibriSpeech: extract the whole subset, or pass the folder that holds it",
        )
        if self.noise_dir is not None:
            _check_files(
                self.noise_dir,
                [row.noise.path for row in self.rows],
                "the WHAM noise: pass the folder that holds tr, cv and tt (files named sp08 and "
                "sp12 are made by LibriMix's own augment_train_noise.py)",
            )

    @property
    def num_sources(self) -> int:
        """Number of speakers of each mixture, 2 or 3."""
        return len(self.rows[0].sources)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Renders a mixture.

        Args:
            index (`int`): row of the metadata, from 0.

        Returns:
            `dict[str, Any]`: "mixture_id"; "mixture" of shape `(num_samples,)`, "sources" of shape
            `(num_sources, num_samples)` (all of them, whatever the mixture holds) and "noise" of
            shape `(num_samples,)`, silent without a `noise_dir`: float32 before quantisation.

        Raises:
            CorpusError: a file cannot be read, or is not what the metadata are about.
        """
        row = self.rows[index]
        # A product with a Python float stays in float32, as that of the scripts does.
        sources = [
            _read(self.librispeech_dir / source.path)[:, 0] * source.gain for source in row.sources
        ]
        longest = max(len(source) for source in sources)
        noise: np.ndarray = np.zeros(longest, dtype=np.float32)
        if self.noise_dir is not None:
            noise = _fit_noise(self.noise_dir / row.noise.path, longest) * row.noise.gain
        *sources, noise = self._fit([*sources, noise])
        mixture = sources[0].copy()
        for other in sources[1:] if self.mixture_type != "mix_single" else []:
            mixture += other
        if self.mixture_type != "mix_clean":
            mixture += noise
        return {
            "mixture_id": row.mixture_id,
            "mixture": mixture,
            "sources": np.stack(sources),
            "noise": _as_float32(noise),
        }

    def _fit(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Brings waveforms to the sampling rate, then to one length."""
        if self.sampling_rate != SAMPLING_RATE:
            waveforms = [_resample(one, self.sampling_rate) for one in waveforms]
        lengths = [len(waveform) for waveform in waveforms]
        if self.mode == "min":
            return [waveform[: min(lengths)] for waveform in waveforms]
        return [np.pad(waveform, (0, max(lengths) - len(waveform))) for waveform in waveforms]


def read_librispeech(path: Path, sampling_rate: int) -> np.ndarray:
    """Reads a LibriSpeech file of 16 kHz at a sampling rate in Hz: float32 `(num_samples,)`.

    Raises `CorpusError` where the file cannot be read, or is empty or of another rate.
    """
    return _resample(_read(path)[:, 0], sampling_rate)


def _resample(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
    """As the public scripts do: polyphase, under a Kaiser window with beta 5.0."""
    if sampling_rate == SAMPLING_RATE:
        return samples
    return scipy.signal.resample_poly(samples, sampling_rate, SAMPLING_RATE, window=("kaiser", 5.0))


def _read(path: Path) -> np.ndarray:
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise CorpusError(f"{path}: cannot be read ({error}); fetch the file again") from error
    if rate != SAMPLING_RATE or len(samples) == 0:
        raise CorpusError(
            f"{path}: expected a recording of {SAMPLING_RATE} Hz, got {len(samples)} samples of "
            f"{rate} Hz; use the original LibriSpeech and WHAM files"
        )
    return samples


def _fit_noise(path: Path, num_samples: int) -> np.ndarray:
    """First channel of a noise, cut, or continued with itself over a Hann cross-fade.

    A noise that was continued is float64 from here to its quantisation, as in the scripts.
    """
    noise = _read(path)[:, 0]
    if len(noise) >= num_samples:
        return noise[:num_samples]
    fade = round(CROSS_FADE_SECONDS * SAMPLING_RATE) + 1
    if len(noise) < 2 * fade:
        raise CorpusError(
            f"{path}: {len(noise) / SAMPLING_RATE:.2f} s are too short for noise that is repeated; "
            f"use the original WHAM noise"
        )
    rise = np.hanning(2 * fade - 1)[:fade]
    extended: np.ndarray = noise
    while len(extended) < num_samples:
        crossed = extended[-fade:] * rise[::-1] + noise[:fade] * rise
        extended = np.concatenate([extended[:-fade], crossed, noise[fade:]])
    return extended[:num_samples]


def _as_float32(noise: np.ndarray) -> np.ndarray:
    """float32 noise that quantises to what the float64 one would.

    The quantiser floors, so that the nearest float32 may lie one step higher: take the one below.
    """
    if noise.dtype == np.float32:
        return noise
    exact = np.rint(noise * 2.0**31) / 2.0**31
    nearest = exact.astype(np.float32)
    return np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _check_files(root: Path, paths: list[str], fix: str) -> None:
    missing = [path for path in dict.fromkeys(paths) if not (root / path).is_file()]
    if missing:
        raise CorpusError(
            f"{root} lacks {len(missing)} of the {len(set(paths))} files that the metadata name: "
            f"{some_of(missing)}. It must hold {fix}"
        )
