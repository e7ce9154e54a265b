"""
Recordings of any length through the models, a window at a time, in the memory of one window.

Where a frame depends on a bounded stretch of the signal (`cln`, `bn`), or on the past alone
(causal), the result is that of the whole signal. Global norms, and cumulative ones with look-ahead,
see the window in place of the signal: there, windows overlap and fade into each other.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from .frame_layers import DilatedDepthwiseConv
from .frame_norms import CumulativeLayerNorm, GlobalLayerNorm
from .input_checks import check_finite, check_waveform
from .streaming import ExtractionStream, check_fixed_statistics, has_norm

MIN_WINDOW_SAMPLES = 400  # what the classifier hears at least


@dataclass
class EmotionAlongTimeOutput(ModelOutput):
    """
    Output of `emotion_along_time`.

    Args:
        start_seconds (`torch.FloatTensor` of shape `(num_windows,)`): where each window begins.
        end_seconds (`torch.FloatTensor` of shape `(num_windows,)`): where it ends.
        probabilities (`torch.FloatTensor` of shape `(batch_size, num_windows, num_labels)`): of
            the emotions in each window.
        extracted_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`): the target
            speaker's waveform.
    """

    start_seconds: Tensor | None = None
    end_seconds: Tensor | None = None
    probabilities: Tensor | None = None
    extracted_values: Tensor | None = None


def window_starts(num_samples: int, window: int, hop: int) -> list[int]:
    """Where windows begin that cover a signal: every `hop` samples, the last one at its end."""
    last = max(num_samples - window, 0)
    return [*range(0, last, hop), last]


def seconds_to_samples(name: str, seconds: float, sampling_rate: int, minimum: int) -> int:
    """
    A duration in samples.

    Raises:
        ValueError: it is shorter than `minimum` samples.
    """
    num_samples = round(seconds * sampling_rate)
    if num_samples < minimum:
        raise ValueError(
            f"`{name}` must be at least {minimum / sampling_rate:.4g} s ({minimum} samples), got "
            f"{seconds}."
        )
    return num_samples


def valid_lengths(values: Tensor, mask: Tensor | None) -> list[int]:
    """Samples of each row up to its padding, from `(batch_size, num_samples)` both."""
    if mask is None:
        return [values.shape[1]] * values.shape[0]
    return [int(length) for length in mask.sum(dim=-1)]


def check_recording(values: Tensor, mask: Tensor | None, min_samples: int, window: int) -> None:
    """
    `check_waveform` window by window: it takes the memory of what it looks at.

    Raises:
        ValueError: wrong rank, a mask of another shape, a row that is too short, NaN.
    """
    has_layout = values.dim() == 2 and (mask is None or mask.shape == values.shape)
    if not has_layout or min(valid_lengths(values, mask), default=0) < min_samples:
        check_waveform("input_values", values, mask, min_samples)
    for part in values.split(window, dim=-1):
        check_finite("input_values", part)


def context_frames(model: Any) -> int:
    """Frames on either side of a frame that a mask estimator with look-ahead takes into account."""
    return sum(
        (module.kernel_size[0] // 2) * module.dilation[0]
        for module in model.mask_estimator.modules()
        if isinstance(module, DilatedDepthwiseConv)
    )


def extract_by_stream(
    model: Any, values: Tensor, embedding: Tensor, window: int, extracted: Tensor
) -> None:
    """Fill `extracted` `(1, num_samples)` by a causal model: exactly the whole-signal result."""
    stream = ExtractionStream(model, embedding)
    position = 0
    for chunk in values.split(window, dim=-1):
        final = stream(chunk)
        extracted[:, position : position + final.shape[-1]] = final
        position += final.shape[-1]
    extracted[:, position:] = stream.flush()


def extract_with_context(
    model: Any, values: Tensor, embedding: Tensor, window: int, extracted: Tensor
) -> None:
    """
    Fill `extracted` `(1, num_samples)` by a model of bounded context: exactly the whole-signal
    result, as each window comes with the frames around it that its own depend on.
    """
    kernel_size, stride = model.config.kernel_size, model.config.stride
    num_frames = (values.shape[-1] - kernel_size) // stride + 1
    context, span = context_frames(model), window // stride
    extracted.zero_()
    for first in range(0, num_frames, span):
        stop = min(first + span, num_frames)
        left, right = max(first - context, 0), min(stop + context, num_frames)
        part = values[:, left * stride : (right - 1) * stride + kernel_size]
        masked = model.masked_frames(part.to(model.encoder.weight), None, embedding)[0]
        decoded = model.decoder(masked[..., first - left : stop - left])[:, 0]
        start = first * stride
        # Filters reach from one window into the next, where both add up as in the decoder.
        extracted[:, start : start + decoded.shape[-1]] += decoded.to(extracted)


def extract_with_overlap(
    model: Any, values: Tensor, embedding: Tensor, window: int, overlap: int, extracted: Tensor
) -> None:
    """Fill `extracted` `(1, num_samples)` by any model: windows that fade into each other."""
    num_samples, stride = values.shape[-1], model.config.stride
    fade = torch.arange(1, overlap + 1, device=extracted.device) / (overlap + 1)
    # All windows begin on the frames of the whole signal; the last one takes what is left over.
    starts = window_starts(num_samples // stride * stride, window, window - overlap)
    for start in starts:
        stop = num_samples if start == starts[-1] else start + window
        part = values[:, start:stop].to(model.encoder.weight)
        output = model(part, speaker_embeddings=embedding, return_dict=True)
        estimate = output.extracted_values.to(extracted)
        if start > 0:
            before = extracted[:, start : start + overlap]
            estimate[:, :overlap] = torch.lerp(before, estimate[:, :overlap], fade.to(before))
        extracted[:, start:stop] = estimate


def extract_recording(
    model: Any, values: Tensor, embedding: Tensor, window: int, overlap: int, extracted: Tensor
) -> None:
    """Fill `extracted` `(1, num_samples)` in the way that the model's norms allow."""
    has_global_norm = has_norm(model, GlobalLayerNorm)
    if model.config.causal and not has_global_norm:
        extract_by_stream(model, values, embedding, window, extracted)
    elif has_global_norm or has_norm(model, CumulativeLayerNorm):
        extract_with_overlap(model, values, embedding, window, overlap, extracted)
    else:
        extract_with_context(model, values, embedding, window, extracted)


class LongRecordingMixin:
    """Extraction from recordings of any length, for an extractor."""

    @torch.no_grad()
    def extract(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        enrollment_values: Tensor | None = None,
        enrollment_attention_mask: Tensor | None = None,
        speaker_embeddings: Tensor | None = None,
        window_seconds: float = 10.0,
        overlap: float = 0.25,
    ) -> Tensor:
        """
        Extract from a recording of any length, window by window, with one embedding.

        Peak memory beyond input and output is that of one window of one row; the input may stay on
        the CPU while the model is on another device. The result is the whole-signal one (1e-5 in
        float32) for causal models with `cln`, `cgln` or `bn` and for others with `cln` or `bn`.
        Models with `gln` or with non-causal `cgln` normalise each window by itself, as they would a
        recording of that length, and neighbouring windows fade into each other.

        Args:
            input_values (`torch.Tensor` of shape `(batch_size, num_samples)`): mixture waveform.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 for
                valid samples.
            enrollment_values (`torch.Tensor` of shape `(batch_size, num_enrollment_samples)`,
                *optional*): speech of the target speaker alone.
            enrollment_attention_mask (`torch.Tensor` of shape `(batch_size,
                num_enrollment_samples)`, *optional*): 1 for valid samples.
            speaker_embeddings (`torch.Tensor`, *optional*): from `get_speaker_embeddings`; skips
                the auxiliary network.
            window_seconds (`float`): length of a window.
            overlap (`float`): part of a window, 0 to 0.5, that the next one overlaps where windows
                fade into each other.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_samples)`: the target speaker's waveform, zero
            where `attention_mask` is.

        Raises:
            ValueError: wrong rank, a row shorter than a filter, batch sizes that differ, no
                enrollment, NaN, a window shorter than a filter, `overlap` out of range, or batch
                norm in training mode.
        """
        model = cast(Any, self)
        config = model.config
        window = seconds_to_samples(
            "window_seconds", window_seconds, config.sampling_rate, config.kernel_size
        )
        if not 0 <= overlap <= 0.5:
            raise ValueError(f"`overlap` must lie between 0 and 0.5 of a window, got {overlap}.")
        window = -(-window // config.stride) * config.stride
        overlap_samples = int(overlap * window) // config.stride * config.stride
        check_recording(input_values, attention_mask, config.kernel_size, window)
        check_fixed_statistics(model)
        if speaker_embeddings is None:
            speaker_embeddings = model.get_speaker_embeddings(
                enrollment_values, enrollment_attention_mask
            )
        embeddings = model._one_embedding_each(speaker_embeddings, input_values.shape[0])
        extracted = torch.zeros_like(input_values)
        for row, length in enumerate(valid_lengths(input_values, attention_mask)):
            recording = slice(row, row + 1), slice(0, length)
            extract_recording(
                model,
                input_values[recording],
                embeddings[row : row + 1],
                window,
                overlap_samples,
                extracted[recording],
            )
        return extracted


class EmotionAlongTimeMixin:
    """Emotions along a recording of any length, for the combined model."""

    def extract(self, *args: Any, **kwargs: Any) -> Tensor:
        """See [`TdSpeakerBeamForSpeechExtraction.extract`]."""
        return cast(Any, self).extractor.extract(*args, **kwargs)

    @torch.no_grad()
    def emotion_along_time(
        self,
        input_values: Tensor,
        enrollment_values: Tensor | None = None,
        enrollment_attention_mask: Tensor | None = None,
        speaker_embeddings: Tensor | None = None,
        window_seconds: float = 4.0,
        hop_seconds: float = 1.0,
    ) -> EmotionAlongTimeOutput:
        """
        The target speaker's emotion in each stretch of a recording of any length.

        The speech is extracted first, as by `extract` with its defaults; the classifier then hears
        one window of it after the other. The last window ends with the recording.

        Args:
            input_values (`torch.Tensor` of shape `(batch_size, num_samples)`): mixture waveforms of
                one length, without padding.
            enrollment_values (`torch.Tensor` of shape `(batch_size, num_enrollment_samples)`,
                *optional*): speech of the target speaker alone.
            enrollment_attention_mask (`torch.Tensor` of shape `(batch_size,
                num_enrollment_samples)`, *optional*): 1 for valid samples.
            speaker_embeddings (`torch.Tensor`, *optional*): from `get_speaker_embeddings`; skips
                the auxiliary network.
            window_seconds (`float`): what the classifier hears at once.
            hop_seconds (`float`): time from one window to the next.

        Returns:
            [`EmotionAlongTimeOutput`].

        Raises:
            ValueError: as for `extract`; a window that the classifier would cut, or a hop of zero.
        """
        model = cast(Any, self)
        rate = model.config.sampling_rate
        longest = model.classifier.config.max_duration_seconds
        if window_seconds > longest:
            raise ValueError(
                f"`window_seconds` must be at most {longest} s, `max_duration_seconds` of the "
                f"classifier, got {window_seconds}."
            )
        window = seconds_to_samples("window_seconds", window_seconds, rate, MIN_WINDOW_SAMPLES)
        hop = seconds_to_samples("hop_seconds", hop_seconds, rate, 1)
        extracted = model.extract(
            input_values,
            enrollment_values=enrollment_values,
            enrollment_attention_mask=enrollment_attention_mask,
            speaker_embeddings=speaker_embeddings,
        )
        starts = window_starts(extracted.shape[-1], window, hop)
        probabilities = [
            model.classifier(
                extracted[:, start : start + window].to(model.device), return_dict=True
            )
            .logits.float()
            .softmax(dim=-1)
            for start in starts
        ]
        start_seconds = torch.tensor(starts) / rate
        end_seconds = (start_seconds + window / rate).clamp(max=extracted.shape[-1] / rate)
        return EmotionAlongTimeOutput(
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            probabilities=torch.stack(probabilities, dim=1),
            extracted_values=extracted,
        )


__all__ = ["EmotionAlongTimeMixin", "EmotionAlongTimeOutput", "LongRecordingMixin"]
