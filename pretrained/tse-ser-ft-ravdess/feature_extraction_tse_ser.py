"""Mixture, enrollment and target waveforms -> padded tensors under the names of `forward`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin

Waveforms = np.ndarray | Sequence[np.ndarray] | Sequence[float]
# -600 dB: below it, float32 runs out of digits for the level that a waveform is divided by.
SILENT_PEAK = 1e-30


class TseSerFeatureExtractor(FeatureExtractionMixin):
    r"""
    Check waveforms, bring them to unit level and pad them.

    Levels of recordings differ by 60 dB, and the extractor's norms have an absolute floor: each
    mixture is divided by its root mean square, the target by its mixture's (so that it stays the
    same part of it), each enrollment by its own.

    Args:
        sampling_rate (`int`): rate in Hz that the models expect.
        do_normalize (`bool`): bring waveforms to unit level.
        min_duration_seconds (`float`): shorter audio is refused.
    """

    model_input_names: ClassVar[list[str]] = [
        "input_values",
        "attention_mask",
        "enrollment_values",
        "enrollment_attention_mask",
    ]
    # How pipelines pad the batches that they put together.
    padding_value: ClassVar[float] = 0.0
    padding_side: ClassVar[str] = "right"

    def __init__(
        self,
        sampling_rate: int = 16000,
        do_normalize: bool = True,
        min_duration_seconds: float = 0.1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.sampling_rate = sampling_rate
        self.do_normalize = do_normalize
        self.min_duration_seconds = min_duration_seconds

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
            `target_values`, each of shape `(batch_size, num_samples)` and padded with zeros;
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
        scales = [self._scale(waveform) for waveform in checked]
        features = _padded("input_values", "attention_mask", _divided(checked, scales))
        if enrollments is not None:
            own = self._check_all("enrollment", enrollments, len(checked))
            features |= _padded(
                "enrollment_values",
                "enrollment_attention_mask",
                _divided(own, [self._scale(waveform) for waveform in own]),
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
            features["target_values"] = _padded("values", "mask", _divided(clean, scales))["values"]
        return BatchFeature(features, tensor_type=return_tensors)

    def _scale(self, waveform: np.ndarray) -> float:
        return (
            float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
            if self.do_normalize
            else 1.0
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
            raise ValueError(
                f"The {name} must be mono, of shape (num_samples,), got {waveform.shape}: average "
                "its channels first."
            )
        if waveform.size == 0:
            raise ValueError(f"The {name} is empty: pass a recording with speech.")
        if waveform.size < self._min_samples:
            raise ValueError(
                f"The {name} has {waveform.size} samples, fewer than {self._min_samples} "
                f"({self.min_duration_seconds} s): pass a longer recording."
            )
        if not np.issubdtype(waveform.dtype, np.floating):
            raise ValueError(
                f"The {name} has {waveform.dtype} samples: convert them to float in -1..1 (divide "
                "16-bit PCM by 32768)."
            )
        with np.errstate(over="ignore"):
            waveform = waveform.astype(np.float32)
        if not np.isfinite(waveform).all():
            raise ValueError(
                f"The {name} holds NaN or infinite samples: repair or leave out the recording."
            )
        if not allow_silence and np.abs(waveform).max() < SILENT_PEAK:
            raise ValueError(f"The {name} is silent: pass a recording with speech.")
        return waveform


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


__all__ = ["TseSerFeatureExtractor"]
