"""
The front end: mixture, enrollment and target waveforms -> padded tensors under `forward`'s names.

A model hears in use what it heard in training: both go through this code, with the settings that
are saved beside the weights.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin

from .input_checks import AudioError
from .speech_activity import (
    HOP_SECONDS,
    SpeechActivitySettings,
    active_frames,
    band_powers,
    speech_stretches,
)
from .stretches import join_stretches

Waveforms = np.ndarray | Sequence[np.ndarray] | Sequence[float]
# -600 dB: below it, float32 runs out of digits for the level that a waveform is divided by.
SILENT_PEAK = 1e-30
# What rounding leaves of a constant that was filtered out, as a part of it.
ROUNDING = 1e-5
# Length of the low-pass that is taken off, in periods of its cut-off.
FILTER_PERIODS = 5.12
FILTER_BLOCK = 2**16


@dataclass
class PreparedWaveform:
    """
    A waveform without offset, and where its speech lies.

    Args:
        values (`np.ndarray` of shape `(num_heard_samples,)`): the stretches that hold speech, one
            after the other; the whole waveform where there is none.
        stretches: first sample of each in the waveform, and the one after its last.
        num_samples: of the waveform.
        speech_seconds: how much speech there is, pauses not counted.
    """

    values: np.ndarray
    stretches: list[tuple[int, int]]
    num_samples: int
    speech_seconds: float


class TseSerFeatureExtractor(FeatureExtractionMixin):
    r"""
    Check waveforms, take off offset and rumble, keep the speech, bring it to unit level and pad it.

    Levels of recordings differ by 60 dB, and the extractor's norms have an absolute floor: each
    mixture is divided by its root mean square, the target by its mixture's (so that it stays the
    same part of it), each enrollment by its own. A target is filtered and cut as its mixture.

    Args:
        sampling_rate (`int`): rate in Hz that the models expect.
        do_normalize (`bool`): bring waveforms to unit level.
        min_duration_seconds (`float`): shorter audio is refused.
        highpass_hz (`float`): what lies below is taken off, without a shift in time; 0 keeps it.
        keep_speech_only (`bool`): leave out what is no speech: silence and noise before, after and
            between, where a pause is longer than `max_pause_seconds`.
        speech_range_db (`float`): what is this far below the loud parts around it is no speech.
        max_pause_seconds (`float`): shorter pauses are kept.
        min_speech_seconds (`float`): less speech is too little for an answer.

    Raises:
        ValueError: `highpass_hz` is out of range.
    """

    model_input_names: ClassVar[list[str]] = [
        "input_values",
        "attention_mask",
        "enrollment_values",
        "enrollment_attention_mask",
    ]

    def __init__(
        self,
        sampling_rate: int = 16000,
        do_normalize: bool = True,
        min_duration_seconds: float = 0.1,
        highpass_hz: float = 40.0,
        keep_speech_only: bool = True,
        speech_range_db: float = 35.0,
        max_pause_seconds: float = 1.0,
        min_speech_seconds: float = 0.5,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0 <= highpass_hz < sampling_rate / 2:
            raise ValueError(
                f"`highpass_hz` must be 0 or more, and below half of the sampling rate, got "
                f"{highpass_hz}."
            )
        self.sampling_rate = sampling_rate
        self.do_normalize = do_normalize
        self.min_duration_seconds = min_duration_seconds
        self.highpass_hz = highpass_hz
        self.keep_speech_only = keep_speech_only
        self.speech_range_db = speech_range_db
        self.max_pause_seconds = max_pause_seconds
        self.min_speech_seconds = min_speech_seconds

    def __call__(
        self,
        mixtures: Waveforms,
        enrollments: Waveforms | None = None,
        targets: Waveforms | None = None,
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """
        Args:
            mixtures: one waveform `(num_samples,)` or a list of them.
            enrollments: the target speaker alone, one for each mixture.
            targets: the target speaker's part of each mixture, of its length.
            sampling_rate: rate of all of them in Hz; checked where given.
            return_tensors: `"pt"` for torch, `"np"` for numpy.

        Returns:
            [`BatchFeature`] with `input_values` and, as given, `enrollment_values` and
            `target_values`, each of shape `(batch_size, num_heard_samples)` and padded with zeros;
            `attention_mask` and `enrollment_attention_mask` (1 for valid samples) only where
            something is padded.

        Raises:
            ValueError: a wrong rate, stereo, empty, too short, silent or non-finite audio, or
                counts that differ.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"Expected {self.sampling_rate} Hz, got {sampling_rate}: resample the audio first, "
                "for example with torchaudio.functional.resample."
            )
        checked = self._check_all("mixture", mixtures)
        prepared = [
            self.prepare(waveform, f"mixture {index}") for index, waveform in enumerate(checked)
        ]
        scales = [self.level(each.values) for each in prepared]
        features = _padded(
            "input_values", "attention_mask", _divided([each.values for each in prepared], scales)
        )
        if enrollments is not None:
            own = [
                self.prepare(waveform, f"enrollment {index}").values
                for index, waveform in enumerate(
                    self._check_all("enrollment", enrollments, len(checked))
                )
            ]
            features |= _padded(
                "enrollment_values",
                "enrollment_attention_mask",
                _divided(own, [self.level(waveform) for waveform in own]),
            )
        if targets is not None:
            # A target may be silent, as where the target speaker is absent.
            clean = self._check_all("target", targets, len(checked), allow_silence=True)
            for index, (target, mixture) in enumerate(zip(clean, checked, strict=True)):
                if len(target) != len(mixture):
                    raise ValueError(
                        f"Target {index} has {len(target)} samples and its mixture {len(mixture)}: "
                        "both must have one length."
                    )
            cut = [
                join_stretches(self.filter(target), each.stretches)
                for target, each in zip(clean, prepared, strict=True)
            ]
            features["target_values"] = _padded("values", "mask", _divided(cut, scales))["values"]
        return BatchFeature(features, tensor_type=return_tensors)

    def prepare(
        self, waveform: np.ndarray, name: str = "recording", in_place: bool = False
    ) -> PreparedWaveform:
        """
        Filter one waveform and keep its speech; the level stays.

        Args:
            waveform (`np.ndarray` of shape `(num_samples,)`): mono, at `sampling_rate`.
            name (`str`): how messages call it.
            in_place (`bool`): write over `waveform`, of which an hour takes 230 MB.

        Returns:
            [`PreparedWaveform`].

        Raises:
            AudioError: stereo, empty, too short, silent or non-finite audio.
        """
        waveform = self._check(name, np.asarray(waveform), allow_silence=False)
        peak = max(float(waveform.max()), -float(waveform.min()))
        filtered = self.filter(waveform, waveform if in_place else None)
        if max(float(filtered.max()), -float(filtered.min())) <= ROUNDING * peak:
            raise AudioError(
                f"The {name} is silent but for a constant offset: pass a recording with speech.",
                "silent",
            )
        active = active_frames(band_powers(filtered, self.sampling_rate), self._activity_settings)
        num_samples = len(filtered)
        whole = [(0, num_samples)]
        stretches = (
            speech_stretches(active, num_samples, self.sampling_rate, self._activity_settings)
            if self.keep_speech_only
            else whole
        )
        # Where the speech is shorter than what a model can hear, it comes with what is around it.
        if sum(stop - start for start, stop in stretches) < self._min_samples:
            stretches = whole
        values = join_stretches(filtered, stretches, in_place)
        return PreparedWaveform(values, stretches, num_samples, float(active.sum()) * HOP_SECONDS)

    def filter(self, waveform: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """`waveform` `(num_samples,)` without what lies below `highpass_hz`, in float32."""
        if not self.highpass_hz:
            return waveform
        return high_pass(waveform, self.sampling_rate, self.highpass_hz, out)

    def level(self, waveform: np.ndarray) -> float:
        """What a waveform is divided by: its root mean square, or 1 without `do_normalize`."""
        if not self.do_normalize:
            return 1.0
        # By parts: a copy of an hour in double precision takes half a gigabyte.
        energy = sum(
            float(np.square(part, dtype=np.float64).sum())
            for part in np.array_split(waveform, len(waveform) // FILTER_BLOCK + 1)
        )
        return float(np.sqrt(energy / len(waveform))) or 1.0

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that this was made with."""
        names = inspect.signature(TseSerFeatureExtractor).parameters
        return {name: getattr(self, name) for name in names if name != "kwargs"}

    @property
    def _activity_settings(self) -> SpeechActivitySettings:
        return SpeechActivitySettings(
            range_db=self.speech_range_db, max_pause_seconds=self.max_pause_seconds
        )

    def _check_all(
        self,
        name: str,
        waveforms: Waveforms,
        count: int | None = None,
        allow_silence: bool = False,
    ) -> list[np.ndarray]:
        if hasattr(waveforms, "__array__"):
            waveforms = np.asarray(waveforms)
            self._check_layout(name, waveforms)
        if len(waveforms) and np.isscalar(waveforms[0]):
            waveforms = [np.asarray(waveforms)]
        if len(waveforms) == 0:
            raise ValueError(f"No {name} given: pass at least one waveform.")
        if count is not None and len(waveforms) != count:
            raise ValueError(f"Got {len(waveforms)} {name}s for {count} mixtures: pass one each.")
        return [
            self._check(f"{name} {index}", np.asarray(waveform), allow_silence)
            for index, waveform in enumerate(waveforms)
        ]

    def _check_layout(self, name: str, waveforms: np.ndarray) -> None:
        # Audio readers give channels last, which would pass for a batch of very short waveforms.
        if waveforms.ndim == 2 and waveforms.shape[1] < self._min_samples <= waveforms.shape[0]:
            raise ValueError(
                f"The {name}s have shape {waveforms.shape}, as one recording of "
                f"{waveforms.shape[1]} channels: average its channels first."
            )

    @property
    def _min_samples(self) -> int:
        return round(self.min_duration_seconds * self.sampling_rate)

    def _check(self, name: str, waveform: np.ndarray, allow_silence: bool) -> np.ndarray:
        if waveform.ndim != 1:
            raise AudioError(
                f"The {name} must be mono, of shape (num_samples,), got {waveform.shape}: average "
                "its channels first."
            )
        if waveform.size == 0:
            raise AudioError(f"The {name} is empty: pass a recording with speech.", "too_short")
        if waveform.size < self._min_samples:
            raise AudioError(
                f"The {name} has {waveform.size} samples, fewer than {self._min_samples} "
                f"({self.min_duration_seconds} s): pass a longer recording.",
                "too_short",
            )
        if not np.issubdtype(waveform.dtype, np.floating):
            raise AudioError(
                f"The {name} has {waveform.dtype} samples: convert them to float in -1..1 (divide "
                "16-bit PCM by 32768)."
            )
        with np.errstate(over="ignore"):
            waveform = waveform.astype(np.float32, copy=False)
        lowest, highest = float(waveform.min()), float(waveform.max())
        if not np.isfinite(lowest + highest):
            raise AudioError(
                f"The {name} holds NaN or infinite samples: repair or leave out the recording.",
                "damaged",
            )
        if not allow_silence and max(-lowest, highest) < SILENT_PEAK:
            raise AudioError(f"The {name} is silent: pass a recording with speech.", "silent")
        return waveform


def high_pass(
    waveform: np.ndarray, sampling_rate: int, cutoff_hz: float, out: np.ndarray | None = None
) -> np.ndarray:
    """
    Take off offset and rumble without a shift in time.

    A windowed sinc (Blackman) as low-pass, whose output is subtracted: 6 dB down at the cut-off, 60
    dB at a third of it. The signal goes on turned over beyond its ends, so that an offset leaves no
    step there.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): float32.
        sampling_rate (`int`): in Hz.
        cutoff_hz (`float`): what lies below goes.
        out (`np.ndarray` of shape `(num_samples,)`, *optional*): where to write, `waveform` itself
            perhaps.

    Returns:
        `np.ndarray` of shape `(num_samples,)`: float32.
    """
    reach = round(FILTER_PERIODS * sampling_rate / cutoff_hz / 2)
    times = np.arange(-reach, reach + 1)
    low_pass = np.sinc(2 * cutoff_hz / sampling_rate * times) * np.blackman(2 * reach + 3)[1:-1]
    low_pass /= low_pass.sum()
    # In one block where it suffices: training filters thousands of short waveforms.
    # It holds the filter at least twice, which is long where the cut-off is low.
    block = max(FILTER_BLOCK, 2 ** (4 * reach).bit_length())
    block = min(block, 2 ** (len(waveform) + 4 * reach).bit_length())
    response = np.fft.rfft(low_pass, block)
    step = block - 2 * reach
    offset = float(waveform.mean(dtype=np.float64))
    scale = max(float(waveform.max()), -float(waveform.min())) or 1.0
    filtered = np.empty(len(waveform), np.float32) if out is None else out
    before = waveform[:0]  # as it came: what the last block needed of it may be written over
    for start in range(0, len(waveform), step):
        stop = min(start + step, len(waveform))
        first, last = max(start - reach, 0), min(stop + reach, len(waveform))
        here = np.concatenate([before, waveform[start:last]])
        before = here[: stop - first][-reach:].copy()
        part = (here - offset) / scale
        part = np.pad(
            part.astype(np.float64),
            (first - (start - reach), stop + reach - last),
            mode="reflect",
            reflect_type="odd",
        )
        low = np.fft.irfft(np.fft.rfft(part, block) * response, block)
        filtered[start:stop] = (
            part[reach : len(part) - reach] - low[2 * reach : 2 * reach + stop - start]
        ) * scale
    return filtered


def _divided(waveforms: list[np.ndarray], scales: list[float]) -> list[np.ndarray]:
    return [waveform / np.float32(scale) for waveform, scale in zip(waveforms, scales, strict=True)]


def _padded(values_name: str, mask_name: str, waveforms: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Right-padded values and, where lengths differ, the mask of valid samples."""
    lengths = [len(waveform) for waveform in waveforms]
    longest = max(lengths)
    values = np.stack([np.pad(waveform, (0, longest - len(waveform))) for waveform in waveforms])
    features = {values_name: values}
    if min(lengths) < longest:
        features[mask_name] = (np.arange(longest) < np.array(lengths)[:, None]).astype(np.int64)
    return features


__all__ = [
    "PreparedWaveform",
    "TseSerFeatureExtractor",
    "high_pass",
]
