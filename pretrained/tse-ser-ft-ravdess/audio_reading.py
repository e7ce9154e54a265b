"""Audio as users have it -> one mono waveform at the model's rate."""

import io
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from transformers.utils import logging

from .resampling import resample

logger = logging.get_logger(__name__)

# Two letters at least: a single one is a drive.
URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
FORMS = (
    "a file name, the bytes of an audio file, a waveform at the model's rate, or "
    '{"array": waveform, "sampling_rate": rate}'
)
MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 4000, 768000
# The resampler's filters take the memory of the product of both terms of the ratio of the rates:
# 6 GB from 44101 Hz to 16000 Hz. Common rates have denominators up to 441 and stay exact; for
# others the ratio is rounded, by 0.1 % at most.
MAX_RATIO_DENOMINATOR = 500
BLOCK_FRAMES = 2**20


def read_waveform(audio: Any, sampling_rate: int) -> np.ndarray:
    """
    Decode, mix down to mono and resample, whatever form the audio comes in.

    Args:
        audio: a file name; `bytes` of an audio file (wav, flac, ogg, mp3; no ffmpeg is needed); a
            waveform `(num_samples,)` or `(num_channels, num_samples)` at `sampling_rate`, as numpy
            array or tensor; a dict of `array` (or `raw`) and `sampling_rate`; a row of a `datasets`
            audio column, decoded or not.
        sampling_rate (`int`): wanted rate in Hz.

    Returns:
        `np.ndarray` of shape `(num_samples,)`: float32 mono waveform.

    Raises:
        ValueError: a URL, an unreadable or missing file, bytes that are no audio, no samples, a
            rate below 4 or above 768 kHz, or another type.
    """
    samples, rate = _decode(audio, sampling_rate)
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"The waveform has {samples.dtype} samples: convert them to float in -1..1 (divide "
            "16-bit PCM by 32768)."
        )
    if samples.ndim not in (1, 2):
        raise ValueError(
            f"A waveform must be of one or two dimensions, got shape {samples.shape}: pass one "
            "recording at a time."
        )
    if samples.size == 0:
        raise ValueError("The recording is empty: pass one with speech.")
    # What float32 cannot hold becomes infinite, which the feature extractor refuses.
    with np.errstate(over="ignore"):
        samples = samples.astype(np.float32, copy=False)
        if samples.ndim == 2:
            logger.warning_once("Stereo audio is averaged over its channels.")
            samples = samples.mean(axis=int(samples.shape[0] > samples.shape[1]))
    if rate == sampling_rate:
        return samples
    logger.warning_once(f"Audio of another rate is resampled to {sampling_rate} Hz.")
    ratio = Fraction(sampling_rate, rate).limit_denominator(MAX_RATIO_DENOMINATOR)
    waveform = torch.from_numpy(np.ascontiguousarray(samples))
    return resample(waveform, ratio.denominator, ratio.numerator).numpy()


def _decode(audio: Any, sampling_rate: int) -> tuple[np.ndarray, int]:
    if isinstance(audio, (str, os.PathLike)):
        return _decode_path(os.fspath(audio))
    if isinstance(audio, (bytes, bytearray)):
        return _decode_bytes(audio)
    if isinstance(audio, dict):
        return _decode_row(audio)
    if hasattr(audio, "get_all_samples"):  # what an audio column of `datasets` decodes to
        decoded = audio.get_all_samples()
        return _as_array(decoded.data), _checked_rate(decoded.sample_rate)
    if isinstance(audio, (np.ndarray, torch.Tensor)):
        return _as_array(audio), sampling_rate
    raise ValueError(f"Cannot read audio from {type(audio).__name__}: pass {FORMS}.")


def _decode_row(row: dict[str, Any]) -> tuple[np.ndarray, int]:
    samples = row.get("array", row.get("raw"))
    if samples is not None:
        if row.get("sampling_rate") is None:
            raise ValueError("A waveform in a dict needs its `sampling_rate` in Hz: add it.")
        return _as_array(samples), _checked_rate(row["sampling_rate"])
    if isinstance(row.get("bytes"), (bytes, bytearray)):
        return _decode_bytes(row["bytes"])
    if isinstance(row.get("path"), (str, os.PathLike)):
        return _decode_path(os.fspath(row["path"]))
    raise ValueError(f"Cannot read audio from a dict of {list(row)[:9]}: pass {FORMS}.")


def _as_array(samples: Any) -> np.ndarray:
    if isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu()
        # numpy has no bfloat16
        return (samples.float() if samples.is_floating_point() else samples).numpy()
    try:
        return np.asarray(samples)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "A waveform must be an array of numbers, of shape (num_samples,) or (num_channels, "
            f"num_samples), got {type(samples).__name__} ({error})."
        ) from error


def _checked_rate(rate: Any) -> int:
    try:
        whole = int(rate)
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if not MIN_SAMPLING_RATE <= whole <= MAX_SAMPLING_RATE:
        raise ValueError(
            f"`sampling_rate` must be a positive number of Hz, {MIN_SAMPLING_RATE} to "
            f"{MAX_SAMPLING_RATE}, got {rate!r:.40}: pass the rate that the audio was recorded at."
        )
    return whole


def _decode_path(path: str) -> tuple[np.ndarray, int]:
    # Quoted and cut: this may be anything, even a whole recording in base64.
    name = f"{path!r:.200}"
    if URL.match(path):
        raise ValueError(f"{name} is a URL: download it first, and pass the file.")
    try:
        exists = Path(path).is_file()
    except OSError:  # a name that is too long for one
        exists = False
    if not exists:
        raise ValueError(f"{name} is no file: pass {FORMS}.")
    return _decode_sound(path, f"{name} cannot be read as audio")


def _decode_bytes(content: bytes | bytearray) -> tuple[np.ndarray, int]:
    return _decode_sound(io.BytesIO(content), f"{len(content)} bytes that are no audio file")


def _decode_sound(file: str | io.BytesIO, complaint: str) -> tuple[np.ndarray, int]:
    """Samples `(num_channels, num_samples)`, or `(num_samples,)` of mono, and their rate in Hz."""
    try:
        with soundfile.SoundFile(file) as sound:
            rate = _checked_rate(sound.samplerate)
            # Block by block: headers may claim terabytes.
            blocks = [np.zeros((0, sound.channels), np.float32)]
            while len(block := sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                blocks.append(block)
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{complaint}: pass wav, flac, ogg or mp3, and the whole file ({error.error_string})"
        ) from error
    samples = np.concatenate(blocks).T
    return (samples[0] if len(samples) == 1 else samples), rate


__all__ = ["read_waveform"]
