"""Audio as users have it -> one mono waveform at the model's rate, and what is odd about it."""

import contextlib
import importlib
import io
import math
import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import numpy as np
import soundfile
import torch
from torch.nn import functional as F

from .input_checks import AudioError

# Two letters at least: a single one is a drive.
URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
FORMS = (
    "a file name, the bytes of an audio file, an open file, a waveform at the model's rate, "
    '(sampling rate, waveform), or {"array": waveform, "sampling_rate": rate}'
)
CHANNELS = 'a number of 0 or more, "mean" or "louder"'
MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 4000, 768000
# The resampler's filters take the memory of the product of both terms of the ratio of the rates:
# 6 GB from 44101 Hz to 16000 Hz. Common rates have denominators up to 441 and stay exact; for
# others the ratio is rounded, by 0.1 % at most.
MAX_RATIO_DENOMINATOR = 500
BLOCK_FRAMES, RESCUE_FRAMES = 2**18, 2**10
# Zero crossings of the sinc function on either side, and the cut-off as a part of the lower one of
# the two Nyquist frequencies; as torchaudio has them.
ZERO_CROSSINGS = 6
CUTOFF = 0.99
# Full scale of the integers that audio is kept in; unsigned ones have their zero in the middle.
INTEGER_SCALES = {"int8": 2**7, "uint8": 2**7, "int16": 2**15, "int32": 2**31}
# A mean over channels this much below them has lost what they carry.
CANCELLING_DB = -20.0
DIFFERENT_LEVELS_DB = 10.0
UNRELATED_CORRELATION = 0.5
CLIPPED_LEVEL = 0.999
CLIPPED_SHARE = 1e-3
CUT_SHARE = 0.98
# Chunks that may follow an empty "data": other bytes there are sound that a killed recorder wrote.
WAV_CHUNKS = (b"LIST", b"id3 ", b"ID3 ", b"fact", b"bext", b"JUNK", b"PEAK", b"cue ", b"smpl")
# Lengths of "data" that a recorder writes into a pipe, where it does not know them: the largest
# signed number less a header (SoX, arecord), or all ones.
UNKNOWN_LENGTHS = (range(0x7FFFF000, 0x80000000), range(0xFFFFF000, 0x100000000))
# Containers that libsndfile does not open, by their first bytes: phones, browsers, video.
FOREIGN = {
    "m4a or mp4": lambda start: start[4:8] == b"ftyp",
    "webm": lambda start: start[:4] == b"\x1aE\xdf\xa3",
    "aac": lambda start: start[:1] == b"\xff" and start[1:2] in (b"\xf1", b"\xf9"),
    "amr": lambda start: start[:5] == b"#!AMR",
    "wma": lambda start: start[:4] == b"0&\xb2u",
}

# Starts over with each call: pairs of rate in Hz and samples `(num_frames, num_channels)`.
Blocks = Callable[[], Iterator[tuple[int, np.ndarray]]]


@dataclass
class Recording:
    """
    One recording, decoded.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): float32, mono, at the rate asked for.
        warnings: what a user should know, each `{"code", "message"}`, and numbers of its own.
    """

    waveform: np.ndarray
    warnings: list[dict[str, Any]] = field(default_factory=list)


def name_of(audio: Any) -> str:
    """How a message names a recording: by its file, quoted and cut; empty where it has none."""
    if isinstance(audio, dict):
        audio = audio.get("path")
    if not isinstance(audio, (str, os.PathLike)):
        audio = getattr(audio, "name", None)
    # This may be anything, even a whole recording in base64.
    return f"{os.fspath(audio)!r:.200}" if isinstance(audio, (str, os.PathLike)) else ""


def read_waveform(audio: Any, sampling_rate: int, channel: int | str = "mean") -> np.ndarray:
    """`read_recording` without the warnings: float32 of shape `(num_samples,)`."""
    return read_recording(audio, sampling_rate, channel).waveform


def read_recording(
    audio: Any,
    sampling_rate: int,
    channel: int | str = "mean",
    max_seconds: float | None = None,
) -> Recording:
    """
    Decode, choose the channel and resample, whatever form the audio comes in.

    Files are decoded block by block. Those of two recordings joined end to end are read whole, and
    a WAV that its recorder never finished is read to its last sample.

    Args:
        audio: a file name (`~` and local `file://` too); `bytes` of an audio file, or a file that
            is open for reading; a waveform `(num_samples,)`, `(num_channels, num_samples)` or
            `(num_samples, num_channels)` at `sampling_rate`, as array or tensor of floats or of
            8-, 16- or 32-bit integers; a pair of rate and waveform in either order; a dict of
            `array` (or `raw`) and `sampling_rate`; a row of a `datasets` audio column, decoded or
            not. wav, flac, ogg, mp3 and all else that libsndfile knows; m4a, mp4, webm and the
            like where PyAV is installed.
        sampling_rate (`int`): wanted rate in Hz.
        channel (`int` or `str`): number of the channel, `"mean"` of all, or `"louder"`; mono is
            taken as it is. Channels that cancel each other in the mean give the louder one, and a
            warning.
        max_seconds (`float`, *optional*): longer recordings are refused, when so much is decoded.

    Returns:
        [`Recording`].

    Raises:
        AudioError: a URL, an unreadable or missing file, bytes that are no audio, no samples, a
            rate below 4 or above 768 kHz, a channel that is not there, or another type.
    """
    check_channel(channel)
    with contextlib.ExitStack() as opened:
        source = _open(audio, sampling_rate, opened)
        if max_seconds is not None:
            source.blocks = _limited(source.blocks, max_seconds)
        weights, warnings = _channel_weights(source, channel)
        waveform = _collect(source, weights, sampling_rate)
    peak = max(float(waveform.max()), -float(waveform.min())) if waveform.size else 0.0
    if waveform.size == 0:
        raise AudioError("The recording is empty: pass one with speech.", "too_short")
    if peak > 0 and source.is_full_scale:
        # By blocks: the booleans of an hour take 115 MB.
        clipped = sum(
            int((np.abs(waveform[start : start + BLOCK_FRAMES]) >= CLIPPED_LEVEL).sum())
            for start in range(0, waveform.size, BLOCK_FRAMES)
        )
        if clipped > CLIPPED_SHARE * waveform.size:
            share = clipped / waveform.size
            warnings.append(
                {
                    "code": "clipped",
                    "message": f"{share:.1%} of the samples are at full scale: the recording was "
                    "too loud for its device. Record it again with less gain.",
                    "share": share,
                }
            )
    return Recording(waveform, [*source.warnings, *warnings])


def check_channel(channel: Any) -> None:
    """
    Refuse what names no channel.

    Raises:
        AudioError: it is neither a number of 0 or more, "mean" nor "louder".
    """
    is_number = isinstance(channel, (int, np.integer)) and not isinstance(channel, bool)
    if not (channel in ("mean", "louder") if isinstance(channel, str) else is_number):
        raise AudioError(f"`channel` must be {CHANNELS}, got {channel!r:.40}.")
    if is_number and channel < 0:
        raise AudioError(f"`channel` must be {CHANNELS}, got {channel}.")


@dataclass
class Source:
    """
    Samples that can be gone through more than once.

    Args:
        num_channels: of all blocks.
        blocks: starts over with each call: pairs of rate in Hz and samples `(num_frames,
            num_channels)` in float32.
        warnings: what came up, filled while blocks are read to the end.
        is_full_scale: whether 1.0 is the largest value that was recorded.
    """

    num_channels: int
    blocks: Blocks
    warnings: list[dict[str, Any]] = field(default_factory=list)
    is_full_scale: bool = True


def _channel_weights(source: Source, channel: int | str) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """What each channel counts in the result, `(num_channels,)`, and what is odd about them."""
    count = source.num_channels
    if count == 1:
        return np.ones(1, np.float32), []
    if isinstance(channel, (int, np.integer)):
        if channel >= count:
            raise AudioError(
                f"`channel` must be below {count}, as the recording has {count} channels, got "
                f"{channel}: the first one is 0."
            )
        return np.eye(count, dtype=np.float32)[channel], []
    products = np.zeros((count, count))
    for _, block in source.blocks():
        with np.errstate(over="ignore", invalid="ignore"):
            block = block.astype(np.float64)
            products += block.T @ block
    source.warnings.clear()  # they come up again when the blocks are read for their samples
    louder = np.eye(count, dtype=np.float32)[int(np.argmax(np.diag(products)))]
    if channel == "louder":
        return louder, []
    warnings = _channel_warnings(products)
    cancels = any(warning["code"] == "channels_cancel" for warning in warnings)
    return (louder if cancels else np.full(count, 1 / count, np.float32)), warnings


def _channel_warnings(products: np.ndarray) -> list[dict[str, Any]]:
    """What the channels' sums of products tell: cancelling, unlike, or of unlike level."""
    powers = np.diag(products)
    loudest = powers.max()
    if not (np.isfinite(products).all() and loudest > 0):
        return []
    levels_db = [round(_decibel(power / loudest), 1) for power in powers]
    if _decibel(products.mean() / powers.mean()) < CANCELLING_DB:
        return [
            {
                "code": "channels_cancel",
                "message": "The channels cancel each other in their mean, as where one is the "
                "other turned over: the louder one was taken. `channel=` chooses another.",
                "levels_db": levels_db,
            }
        ]
    scale = np.sqrt(np.outer(powers, powers))
    correlation = float((products / np.maximum(scale, 1e-300)).min())
    if correlation < UNRELATED_CORRELATION or min(levels_db) < -DIFFERENT_LEVELS_DB:
        return [
            {
                "code": "channels_differ",
                "message": "The channels hold different sound, as where each has a microphone of "
                'its own, and their mean was taken: `channel=` (a number, or "louder") takes one '
                "of them.",
                "levels_db": levels_db,
                "correlation": round(correlation, 3),
            }
        ]
    return []


def _decibel(ratio: float) -> float:
    return 10 * math.log10(max(ratio, 1e-12))


def _limited(blocks: Blocks, max_seconds: float) -> Blocks:
    """The same blocks, until there are more than `max_seconds` of them."""

    def limited() -> Iterator[tuple[int, np.ndarray]]:
        num_frames: dict[int, int] = {}
        for rate, block in blocks():
            # Whole numbers: seconds added up in floats end beyond a limit that is just kept to.
            num_frames[rate] = num_frames.get(rate, 0) + len(block)
            if sum(count / rate for rate, count in num_frames.items()) > max_seconds:
                raise AudioError(
                    f"The recording is longer than {max_seconds:g} s: pass a shorter stretch of "
                    "it, as a file that is complete.",
                    "too_long",
                )
            yield rate, block

    return limited


def _collect(source: Source, weights: np.ndarray, sampling_rate: int) -> np.ndarray:
    """The weighted channels at one rate, in little more memory than they take in the end."""
    waveform = GrowingWaveform()
    resampler: Resampler | None = None
    rate_of_resampler = 0
    for rate, block in source.blocks():
        if rate != rate_of_resampler:  # a file joined to one of another rate
            if resampler is not None:
                waveform.append(resampler.flush())
            resampler = None if rate == sampling_rate else Resampler(rate, sampling_rate)
            rate_of_resampler = rate
        # What float32 cannot hold becomes infinite, which the feature extractor refuses.
        with np.errstate(over="ignore", invalid="ignore"):
            mono = (block @ weights).astype(np.float32)
        waveform.append(mono if resampler is None else resampler(mono))
    if resampler is not None:
        waveform.append(resampler.flush())
    return waveform.values


class GrowingWaveform:
    """
    A waveform that blocks are appended to.

    Its buffer doubles. A list of blocks, joined at the end, would leave as much memory behind as
    the waveform takes: the C library keeps what it freed in pieces.
    """

    def __init__(self) -> None:
        self._buffer = np.empty(2**20, np.float32)
        self._filled = 0

    @property
    def values(self) -> np.ndarray:
        """All that was appended, `(num_samples,)`."""
        return self._buffer[: self._filled]

    def append(self, block: np.ndarray) -> None:
        """Add `block` `(num_samples,)` at the end."""
        stop = self._filled + len(block)
        if stop > len(self._buffer):
            grown = np.empty(max(2 * len(self._buffer), stop), np.float32)
            grown[: self._filled] = self.values
            self._buffer = grown
        self._buffer[self._filled : stop] = block
        self._filled = stop


class Resampler:
    """
    Change the rate of a signal that comes in blocks, with windowed sinc functions.

    With torch alone, as torchaudio does it: torchaudio has to be built for the very CUDA release of
    torch, and transformers does not start beside one that is not.

    Args:
        source_rate (`int`): rate in Hz, or any multiple of it, as only the ratio counts.
        target_rate (`int`): wanted rate in Hz, or the same multiple of it.
    """

    def __init__(self, source_rate: int, target_rate: int):
        ratio = Fraction(target_rate, source_rate).limit_denominator(MAX_RATIO_DENOMINATOR)
        self.source, self.target = ratio.denominator, ratio.numerator
        # Every `source` samples in, `target` samples out: each of these has a filter of its own.
        cutoff = CUTOFF * min(1, self.target / self.source)
        self.reach = math.ceil(ZERO_CROSSINGS / cutoff)
        taps = torch.arange(-self.reach, self.reach + self.source, dtype=torch.float64)
        phases = torch.arange(self.target, dtype=torch.float64)[:, None] * self.source / self.target
        crossings = (cutoff * (taps - phases)).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
        window = torch.cos(crossings * math.pi / ZERO_CROSSINGS / 2) ** 2
        self.filters = (cutoff * torch.sinc(crossings) * window).float()[:, None]
        self.pending = np.zeros(self.reach, np.float32)
        self.num_in = self.num_out = 0

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """The next samples, `(num_samples,)` both; what they lack of the future is held back."""
        self.num_in += len(block)
        signal = np.concatenate([self.pending, block])
        width = 2 * self.reach + self.source
        steps = max((len(signal) - width) // self.source + 1, 0)
        self.pending = signal[steps * self.source :].copy()
        if steps == 0:
            return signal[:0]
        values = torch.from_numpy(signal[: (steps - 1) * self.source + width])
        out = F.conv1d(values[None, None], self.filters, stride=self.source)[0].T.reshape(-1)
        self.num_out += len(out)
        return out.numpy()

    def flush(self) -> np.ndarray:
        """The samples that were held back, silence behind them."""
        total = math.ceil(self.num_in * self.target / self.source)
        num_in, num_out = self.num_in, self.num_out
        rest = self(np.zeros(self.reach + 2 * self.source, np.float32))
        self.num_in = num_in
        return rest[: total - num_out]


def resample(waveform: torch.Tensor, source_rate: int, target_rate: int) -> torch.Tensor:
    """
    Bring a waveform to another rate at once.

    Args:
        waveform (`torch.Tensor` of shape `(num_samples,)`): floating point samples.
        source_rate (`int`): its rate in Hz.
        target_rate (`int`): wanted rate in Hz.

    Returns:
        `torch.Tensor` of shape `(ceil(num_samples * target_rate / source_rate),)`: float32.
    """
    resampler = Resampler(source_rate, target_rate)
    samples = waveform.detach().cpu().float().numpy()
    return torch.from_numpy(np.concatenate([resampler(samples), resampler.flush()]))


# ---- what users pass -> a source


def _open(audio: Any, sampling_rate: int, opened: contextlib.ExitStack) -> Source:
    if isinstance(audio, (str, os.PathLike)):
        return _open_path(os.fspath(audio), opened)
    if isinstance(audio, (bytes, bytearray)):
        return _open_file(io.BytesIO(audio), f"{len(audio)} bytes that are no audio file")
    if isinstance(audio, dict):
        return _open_row(audio, opened)
    if hasattr(audio, "get_all_samples"):  # what an audio column of `datasets` decodes to
        try:
            decoded = audio.get_all_samples()
        except RuntimeError as error:
            raise _no_audio("The recording cannot be decoded", error) from error
        return _array_source(decoded.data, decoded.sample_rate)
    if isinstance(audio, (np.ndarray, torch.Tensor)):
        return _array_source(audio, sampling_rate)
    if is_rate_and_waveform(audio):  # as Gradio and scipy give them, and torchaudio turned round
        rate, samples = audio if np.ndim(audio[0]) == 0 else reversed(audio)
        return _array_source(samples, rate)
    if callable(getattr(audio, "read", None)):
        content = audio.read()
        if isinstance(content, bytes):
            return _open_file(io.BytesIO(content), f"{len(content)} bytes that are no audio file")
        raise AudioError("The open file gives text: open it for reading bytes, with mode 'rb'.")
    raise AudioError(f"Cannot read audio from {type(audio).__name__}: pass {FORMS}.")


def is_rate_and_waveform(audio: Any) -> bool:
    """Whether this is a pair of a rate and a waveform, in either order."""
    if not (isinstance(audio, tuple) and len(audio) == 2):
        return False
    kinds = [isinstance(part, (np.ndarray, torch.Tensor)) and np.ndim(part) > 0 for part in audio]
    return sum(kinds) == 1


def _open_row(row: dict[str, Any], opened: contextlib.ExitStack) -> Source:
    samples = row.get("array", row.get("raw"))
    if samples is not None:
        if row.get("sampling_rate") is None:
            raise AudioError("A waveform in a dict needs its `sampling_rate` in Hz: add it.")
        return _array_source(samples, row["sampling_rate"])
    if isinstance(row.get("bytes"), (bytes, bytearray)):
        return _open(row["bytes"], 0, opened)
    if isinstance(row.get("path"), (str, os.PathLike)):
        return _open_path(os.fspath(row["path"]), opened)
    raise AudioError(f"Cannot read audio from a dict of {list(row)[:9]}: pass {FORMS}.")


def _array_source(samples: Any, rate: Any) -> Source:
    rate = _checked_rate(rate)
    if isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu()
        # numpy has no bfloat16
        samples = (samples.float() if samples.is_floating_point() else samples).numpy()
    try:
        samples = np.asarray(samples)
    except (TypeError, ValueError) as error:
        raise AudioError(
            "A waveform must be an array of numbers, of shape (num_samples,) or (num_channels, "
            f"num_samples), got {type(samples).__name__} ({error})."
        ) from error
    is_integer = samples.dtype.name in INTEGER_SCALES
    if not (is_integer or np.issubdtype(samples.dtype, np.floating)):
        raise AudioError(
            f"The waveform has {samples.dtype} samples, whose full scale is not known: convert "
            "them to float in -1..1, or to int16."
        )
    if samples.ndim not in (1, 2):
        raise AudioError(
            f"A waveform must be of one or two dimensions, got shape {samples.shape}: pass one "
            "recording at a time."
        )
    if samples.size == 0:
        raise AudioError("The recording is empty: pass one with speech.", "too_short")
    frames = samples[:, None] if samples.ndim == 1 else samples
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        frames = samples.T

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(frames), BLOCK_FRAMES):
            block = frames[start : start + BLOCK_FRAMES]
            with np.errstate(over="ignore"):
                block = block.astype(np.float32)
            if is_integer:
                scale = INTEGER_SCALES[samples.dtype.name]
                block = (block - (scale if samples.dtype == np.uint8 else 0)) / np.float32(scale)
            yield rate, block

    # Floats beyond 1 were scaled otherwise: nothing is known of their full scale.
    with np.errstate(invalid="ignore"):
        is_full_scale = is_integer or bool(np.abs(samples).max() <= 1)
    return Source(frames.shape[1], blocks, is_full_scale=is_full_scale)


def _checked_rate(rate: Any) -> int:
    try:
        whole = int(rate)
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if not MIN_SAMPLING_RATE <= whole <= MAX_SAMPLING_RATE:
        raise AudioError(
            f"`sampling_rate` must be a positive number of Hz, {MIN_SAMPLING_RATE} to "
            f"{MAX_SAMPLING_RATE}, got {rate!r:.40}: pass the rate that the audio was recorded at."
        )
    return whole


def _open_path(path: str, opened: contextlib.ExitStack) -> Source:
    name = f"{path!r:.200}"
    path = _local(path, name)
    try:
        exists = Path(path).is_file()
    except OSError:  # a name that is too long for one
        exists = False
    if not exists:
        raise AudioError(f"{name} is no file: pass {FORMS}.")
    try:
        file = Path(path).open("rb")  # noqa: SIM115  (closed with what is opened)
        opened.push(file)
    except OSError as error:
        raise AudioError(
            f"{name} cannot be opened ({error.strerror}): check that you may read it, or pass "
            "another file."
        ) from error
    return _open_file(file, f"{name} cannot be read as audio")


def _local(path: str, name: str) -> str:
    """The path that a name stands for; a `file://` of this machine is one."""
    if path.startswith("file://"):
        parts = urlsplit(path)
        if parts.netloc in ("", "localhost"):
            return unquote(parts.path)
    if URL.match(path):
        raise AudioError(f"{name} is a URL: download it first, and pass the file.")
    try:
        return os.path.expanduser(path)
    except RuntimeError:  # no such user
        return path


def _open_file(file: BinaryIO, complaint: str) -> Source:
    """A source of the recordings, one or several joined, in a file that can be sought in."""
    file.seek(0)
    start = file.read(16)
    foreign = next((name for name, is_it in FOREIGN.items() if is_it(start)), None)
    if foreign is not None:
        return _open_foreign(file, foreign, complaint)
    parts, cut = _find_parts(file, start)
    source = Source(0, lambda: iter(()))
    headers = []
    for part in parts:
        try:
            with soundfile.SoundFile(part.rewound()) as sound:
                headers.append((_checked_rate(sound.samplerate), sound.channels, sound.frames))
        except (soundfile.LibsndfileError, RuntimeError) as error:
            if not headers:
                raise _no_audio(complaint, error) from error
            cut = True
            break
    parts = parts[: len(headers)]
    source.num_channels = headers[0][1]

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        is_cut, total = cut, 0
        for index, (part, (rate, channels, frames)) in enumerate(zip(parts, headers, strict=True)):
            count = 0
            # Block by block: headers may claim terabytes. What comes before damage is read in small
            # blocks, as a large one is lost as a whole.
            for block_frames in (BLOCK_FRAMES, RESCUE_FRAMES):
                try:
                    for block in _read_blocks(part, block_frames // channels or 1, count):
                        count += len(block)
                        yield rate, _with_channels(block, source.num_channels)
                    break
                except (soundfile.LibsndfileError, RuntimeError) as error:
                    is_cut = True
                    if total + count == 0 and block_frames == RESCUE_FRAMES:
                        raise _no_audio(complaint, error) from error
            # The last of many claimed samples is a header without its length.
            is_cut |= 0 < count < CUT_SHARE * frames and frames < 2**40 and index < len(parts)
            total += count
        if is_cut:
            source.warnings.append(
                {
                    "code": "cut_file",
                    "message": "The file ends before its recording does: it was cut off, in "
                    "copying or by a recorder that stopped. What is there was used; pass the whole "
                    "file if there is one.",
                }
            )

    source.blocks = blocks
    return source


def _read_blocks(part: "FilePart", block_frames: int, skipped: int) -> Iterator[np.ndarray]:
    """Samples `(num_frames, num_channels)` of a file, but for the first ones."""
    with soundfile.SoundFile(part.rewound()) as sound:
        while len(block := sound.read(block_frames, "float32", always_2d=True)):
            if skipped < len(block):
                yield block[skipped:]
            skipped = max(skipped - len(block), 0)


def _no_audio(complaint: str, error: Exception) -> AudioError:
    reason = getattr(error, "error_string", str(error))
    return AudioError(
        f"{complaint}: pass wav, flac, ogg or mp3, and the whole file ({reason:.200})",
        "unreadable",
    )


def _with_channels(block: np.ndarray, num_channels: int) -> np.ndarray:
    """A block of a joined file with the channels of the first one."""
    if block.shape[1] == num_channels:
        return block
    return np.repeat(block.mean(axis=1, keepdims=True), num_channels, axis=1)


class FilePart:
    """
    A stretch of a file as a file of its own, some bytes of it replaced.

    Args:
        file: open for reading, and to be sought in.
        start: its first byte.
        stop: the byte after its last one.
        patches: bytes by their position in the stretch.
    """

    def __init__(
        self, file: BinaryIO, start: int, stop: int, patches: dict[int, bytes] | None = None
    ):
        self.file, self.start, self.stop = file, start, stop
        self.patches = patches or {}
        self.position = 0

    def rewound(self) -> "FilePart":
        """The same, to be read from its beginning."""
        self.position = 0
        return self

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.stop - self.start}
        self.position = max(base[whence] + offset, 0)
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:
        left = max(self.stop - self.start - self.position, 0)
        size = left if size < 0 else min(size, left)
        self.file.seek(self.start + self.position)
        content = bytearray(self.file.read(size))
        for at, patch in self.patches.items():
            first, last = max(at, self.position), min(at + len(patch), self.position + size)
            if first < last:
                content[first - self.position : last - self.position] = patch[
                    first - at : last - at
                ]
        self.position += len(content)
        return bytes(content)

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def write(self, content: bytes) -> int:
        """What soundfile looks for in a file."""
        raise io.UnsupportedOperation("not writable")


def _find_parts(file: BinaryIO, start: bytes) -> tuple[list[FilePart], bool]:
    """The recordings in a file, and whether the last of them is cut off as far as bytes tell."""
    size = file.seek(0, io.SEEK_END)
    if start[:4] == b"RIFF":
        return _wav_parts(file, size)
    if start[:4] == b"OggS":
        starts, whole_size = _ogg_starts(file, size)
        cut, size = whole_size != size, abs(whole_size)
    elif start[:4] == b"FORM":
        starts, cut = _aiff_starts(file, size), False
    elif start[:4] == b"fLaC":
        starts, cut = [0, *_positions(file, b"fLaC\x00\x00\x00\x22", 1)], False
    elif start[:3] == b"ID3" or (start[:1] == b"\xff" and len(start) > 1 and start[1] >= 0xE0):
        starts, cut = _mp3_starts(file, size)
    else:
        starts, cut = [0], False
    return [
        FilePart(file, first, last) for first, last in zip(starts, [*starts[1:], size], strict=True)
    ], cut


def _positions(file: BinaryIO, pattern: bytes, start: int) -> list[int]:
    """Where bytes occur in a file."""
    found, kept, position = [], b"", start
    file.seek(start)
    while chunk := file.read(2**20):
        window = kept + chunk
        first = position - len(kept)
        at = window.find(pattern)
        while at >= 0:
            found.append(first + at)
            at = window.find(pattern, at + 1)
        kept = window[-(len(pattern) - 1) :]
        position += len(chunk)
    return found


def _wav_parts(file: BinaryIO, size: int) -> tuple[list[FilePart], bool]:
    """WAV files end to end; lengths that a killed recorder left open are filled in."""
    parts, cut, start = [], False, 0
    while start < size:
        file.seek(start)
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            break
        stop, data_at, data_size = start + 8 + struct.unpack("<I", head[4:8])[0], None, 0
        position = start + 12
        while position + 8 <= size:
            file.seek(position)
            name, length = struct.unpack("<4sI", file.read(8))
            if name == b"data":
                data_at, data_size = position + 8, length
                break
            position += 8 + length + length % 2
        patches: dict[int, bytes] = {}
        if data_at is not None:
            left = size - data_at
            file.seek(data_at)
            unfinished = data_size == 0 and left > 0 and file.read(4) not in WAV_CHUNKS
            if unfinished or data_size > left:
                cut |= unfinished or not any(data_size in lengths for lengths in UNKNOWN_LENGTHS)
                stop = size
                patches = {
                    4: struct.pack("<I", min(size - start - 8, 2**32 - 1)),
                    data_at - start - 4: struct.pack("<I", min(left, 2**32 - 1)),
                }
        stop = min(stop, size)
        file.seek(stop)
        is_joined = file.read(4) == b"RIFF"
        parts.append(FilePart(file, start, stop if is_joined else size, patches))
        start = stop if is_joined else size
    return parts or [FilePart(file, 0, size)], cut


def _aiff_starts(file: BinaryIO, size: int) -> list[int]:
    """Where AIFF files begin that follow each other."""
    starts, position = [], 0
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack(">4sI", file.read(8))
        if name != b"FORM":
            break
        starts.append(position)
        position += 8 + length + length % 2
    return starts


def _ogg_starts(file: BinaryIO, size: int) -> tuple[list[int], int]:
    """Where streams begin that follow each other, and where the last whole page ends: negative
    where the last stream goes on behind it."""
    starts, position, ended = [0], 0, True
    while position + 27 <= size:
        file.seek(position)
        header = file.read(27)
        stop = position + 27 + header[26] + sum(file.read(header[26]))
        if header[:4] != b"OggS" or stop > size:
            break
        begins, ends = header[5] & 2, header[5] & 4
        if begins and ended and position > 0:
            starts.append(position)
        ended = bool(ends)
        position = stop
    return starts, position if ended else -position


# Bit rates in kbit/s of MPEG 1 and of MPEG 2, layer III, and rates in Hz of MPEG 1.
MP3_BIT_RATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
MP3_RATES = (44100, 48000, 32000)


def _mp3_starts(file: BinaryIO, size: int) -> tuple[list[int], bool]:
    """Where mp3 files begin that follow each other: at a tag, or at a frame of information."""
    starts, position, is_cut = [0], 0, False
    num_frames = 0  # of sound, in the file that the position lies in
    while position + 4 <= size:
        file.seek(position)
        head = file.read(64)
        has_tag = head[:3] == b"ID3" and len(head) > 9
        length = _mp3_frame_length(head)
        if not has_tag and length is None:
            break
        if num_frames and (has_tag or b"Xing" in head[:44] or b"Info" in head[:44]):
            starts.append(position)
            num_frames = 0
        if has_tag:
            length = 10 + sum((byte & 127) << 7 * (3 - at) for at, byte in enumerate(head[6:10]))
        else:
            num_frames += 1
        assert length is not None
        is_cut = position + length > size
        position += length
    return starts, is_cut


def _mp3_frame_length(head: bytes) -> int | None:
    """Bytes of a layer III frame, or None where there is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, rate_index, bits_index = head[1] >> 3 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or rate_index == 3 or not 0 < bits_index < 15:
        return None
    is_first = version == 3
    rate = MP3_RATES[rate_index] // {3: 1, 2: 2, 0: 4}[version]
    bits = MP3_BIT_RATES[not is_first][bits_index] * 1000
    return (144 if is_first else 72) * bits // rate + (head[2] >> 1 & 1)


def _open_foreign(file: BinaryIO, kind: str, complaint: str) -> Source:
    """What phones, browsers and video editors write, by PyAV."""
    try:
        av: Any = importlib.import_module("av")
    except ImportError as error:
        raise AudioError(
            f"{complaint}: it is {kind}, which needs PyAV. Install it by pip install 'tse-ser[av]' "
            "(or pip install av), or convert the file: ffmpeg -i recording -ac 1 -ar 16000 "
            "recording.wav",
            "unreadable",
        ) from error

    def frames() -> Iterator[tuple[int, np.ndarray]]:
        file.seek(0)
        with av.open(file) as container:
            if not container.streams.audio:
                raise AudioError(
                    f"{complaint}: it has no sound: pass a recording with speech.", "unreadable"
                )
            resampler = None
            for frame in container.decode(audio=0):
                if resampler is None:
                    resampler = av.AudioResampler("fltp", frame.layout, frame.sample_rate)
                for converted in resampler.resample(frame):
                    yield converted.sample_rate, converted.to_ndarray().T

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        count = 0
        try:
            for rate, block in frames():
                count += len(block)
                yield _checked_rate(rate), _with_channels(block, source.num_channels)
        except av.FFmpegError as error:
            if count == 0:
                raise _no_audio(complaint, error) from error
            source.warnings.append(
                {
                    "code": "cut_file",
                    "message": "The file ends before its recording does: what is there was used; "
                    "pass the whole file if there is one.",
                }
            )

    try:
        first = next(frames(), None)
    except av.FFmpegError as error:
        raise _no_audio(complaint, error) from error
    source = Source(1 if first is None else first[1].shape[1], blocks)
    return source


__all__ = ["Recording", "Resampler", "name_of", "read_recording", "read_waveform", "resample"]
