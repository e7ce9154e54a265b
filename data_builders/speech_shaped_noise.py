"""Writes noise that is like no voice and has the spectrum of many: tests without recordings.

    python -m data_builders.speech_shaped_noise --targets librispeech --corpus_dir DIR \\
        --output noise/speech_shaped.wav

Stationary noise with the long-term spectrum of a corpus covers speech evenly at all frequencies. It
is easier than a street or a café, which come and go: say which noise a number belongs to.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.signal

from data_builders.audio import read_audio, write_audio
from data_builders.files import check_output
from data_builders.load import read_corpora
from data_builders.mixtures.mixing import mean_power
from data_builders.option_reader import OptionError, OptionParser, build_options, option
from data_builders.options import DataOptions
from data_builders.schema import SAMPLING_RATE, CorpusError

FRAME_SECONDS = 0.064
LEVEL_DB = -26.0  # of full scale


@dataclass(kw_only=True)
class NoiseOptions(DataOptions):
    """Whose spectrum the noise has, as `targets`, and how much of it is written."""

    output: Path = field(metadata={"help": "WAV file to write."})
    seconds: float = option(120.0, "Length of the recording.", at_least=1)
    seed: int = option(0, "Another one gives other noise of the same spectrum.", at_least=0)


def speech_shaped_noise(
    spectrum: np.ndarray, num_samples: int, rng: np.random.Generator
) -> np.ndarray:
    """Gaussian noise of a given spectrum, at -26 dB of full scale.

    Args:
        spectrum (`np.ndarray` of shape `(num_bins,)`): power from 0 Hz to half the sampling rate,
            both included; its scale does not count.
        num_samples (`int`): length.
        rng (`np.random.Generator`): what it is drawn from.

    Returns:
        `np.ndarray` of shape `(num_samples,)`, float32.
    """
    white = np.fft.rfft(rng.standard_normal(num_samples))
    places = np.linspace(0, len(spectrum) - 1, len(white))
    gains = np.sqrt(np.interp(places, np.arange(len(spectrum)), spectrum))
    noise = np.fft.irfft(white * gains, num_samples)
    level = 10 ** (LEVEL_DB / 20)
    return (noise * level / np.sqrt(mean_power(noise))).astype(np.float32)


def mean_spectrum(paths: Sequence[str | Path]) -> np.ndarray:
    """Mean power spectrum of recordings, each as loud as the others, `(num_bins,)`; 16 kHz mono."""
    frame = round(FRAME_SECONDS * SAMPLING_RATE)
    total = np.zeros(frame // 2 + 1)
    for path in paths:
        samples = read_audio(path)
        if len(samples) >= frame and (power := mean_power(samples)) > 0:
            total += scipy.signal.welch(samples, SAMPLING_RATE, nperseg=frame)[1] / power
    if not total.any():
        raise CorpusError(f"no recording lasts {FRAME_SECONDS:g} s: name a corpus with longer ones")
    return total / total.sum()


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the recording; returns the exit code, 2 where an option or a corpus cannot be used."""
    parser = OptionParser(
        [NoiseOptions],
        prog="python -m data_builders.speech_shaped_noise",
        description=__doc__.partition("\n")[0],
    )
    try:
        options: NoiseOptions = build_options(NoiseOptions, parser.flags(argv))
        check_output(options.output)
        corpora = read_corpora(options.targets, options, options.cache_dir)
        spectrum = mean_spectrum([path for corpus in corpora for path in corpus["path"]])
    except (OptionError, CorpusError) as error:
        print(f"speech_shaped_noise: error: {error}", file=sys.stderr)
        return 2
    rng = np.random.default_rng(options.seed)
    num_samples = round(options.seconds * SAMPLING_RATE)
    write_audio(options.output, speech_shaped_noise(spectrum, num_samples, rng))
    voices = ", ".join(options.targets)
    print(f"{options.output}: {options.seconds:g} s with the spectrum of {voices}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
