"""Audio as users have it -> one mono waveform at the model's rate."""

import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torchaudio.functional import resample
from transformers.utils import logging

logger = logging.get_logger(__name__)

# Two letters at least: a single one is a drive.
URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
FORMS = (
    "a file name, the bytes of an audio file, a waveform at the model's rate, or "
    '{"array": waveform, "sampling_rate": rate}'
)


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
        ValueError: a URL, an unreadable or missing file, bytes that are no audio, or another type.
    """
    samples, rate = _decode(audio, sampling_rate)
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"The waveform has {samples.dtype} samples: convert them to float in -1..1 (divide "
            "16-bit PCM by 32768)."
        )
    if samples.ndim == 2:
        logger.warning_once("Stereo audio is averaged over its channels.")
        samples = samples.mean(axis=int(samples.shape[0] > samples.shape[1]))
    if samples.ndim != 1:
        raise ValueError(f"Expected a waveform of one or two dimensions, got {samples.shape}.")
    if rate != sampling_rate:
        if rate <= 0:
            raise ValueError(f"A sampling rate must be a positive number of Hz, got {rate}.")
        logger.warning_once(f"Audio of another rate is resampled to {sampling_rate} Hz.")
        waveform = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        samples = resample(waveform, rate, sampling_rate).numpy()
    return samples.astype(np.float32, copy=False)


def _decode(audio: Any, sampling_rate: int) -> tuple[np.ndarray, int]:
    if isinstance(audio, (str, os.PathLike)):
        return _decode_file(os.fspath(audio))
    if isinstance(audio, (bytes, bytearray)):
        return _decode_bytes(bytes(audio))
    if isinstance(audio, dict):
        return _decode_row(audio)
    if hasattr(audio, "get_all_samples"):  # what an audio column of `datasets` decodes to
        decoded = audio.get_all_samples()
        return decoded.data.numpy(), int(decoded.sample_rate)
    if isinstance(audio, torch.Tensor):
        audio = audio.detach().cpu().numpy()
    if isinstance(audio, np.ndarray):
        return audio, sampling_rate
    raise ValueError(f"Cannot read audio from {type(audio).__name__}: pass {FORMS}.")


def _decode_row(row: dict[str, Any]) -> tuple[np.ndarray, int]:
    samples = row.get("array", row.get("raw"))
    if samples is not None:
        if not row.get("sampling_rate"):
            raise ValueError("A waveform in a dict needs its `sampling_rate` in Hz.")
        return np.asarray(samples), int(row["sampling_rate"])
    if row.get("bytes") is not None:
        return _decode_bytes(row["bytes"])
    if row.get("path") is not None:
        return _decode_file(row["path"])
    raise ValueError(f"Cannot read audio from a dict of {sorted(row)}: pass {FORMS}.")


def _decode_file(path: str) -> tuple[np.ndarray, int]:
    if URL.match(path):
        raise ValueError(f"{path} is a URL: download it first, and pass the file.")
    if not Path(path).is_file():
        raise ValueError(f"{path} is no file: pass {FORMS}.")
    try:
        samples, rate = soundfile.read(path, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be read as audio: {error}") from error
    return samples, rate


def _decode_bytes(content: bytes) -> tuple[np.ndarray, int]:
    try:
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{len(content)} bytes that are no audio file: pass wav, flac, ogg or mp3 ({error})"
        ) from error
    return samples, rate


__all__ = ["read_waveform"]
