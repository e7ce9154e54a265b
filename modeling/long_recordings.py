"""
Recordings of any length through the models, a window at a time, in the memory of one window.

Where a frame depends on a bounded stretch of the signal (`cln`, `bn`), or on the past alone
(causal), the result is that of the whole signal. The windows of a global norm (`gln`) share their
statistics, so that no level jumps from one to the next. Cumulative norms with look-ahead see the
window in place of the signal: there, windows overlap and fade into each other.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from .frame_layers import DilatedDepthwiseConv
from .frame_norms import CumulativeLayerNorm, GlobalLayerNorm, PooledGlobalNorm
from .input_checks import check_finite, check_waveform
from .recurrent_network import RecurrentNetwork
from .streaming import ExtractionStream, check_fixed_statistics, has_norm

# The statistics of a global norm come from this many windows, spread evenly over the recording.
MAX_POOLED_WINDOWS = 12
RECURRENT_CONTEXT_SECONDS = 2.0


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
    """Frames on the wider side of a frame that a mask estimator takes into account."""
    if isinstance(model.mask_estimator, RecurrentNetwork):
        # What a recurrent layer remembers has no end; beyond this it changes next to nothing.
        return round(RECURRENT_CONTEXT_SECONDS / model.config.hop_seconds)
    return sum(
        max(-module.offsets[0], module.offsets[-1])
        for module in model.mask_estimator.modules()
        if isinstance(module, DilatedDepthwiseConv)
    )


def extract_by_stream(
    model: Any, values: Tensor, embedding: Tensor, window: int
) -> Iterator[Tensor]:
    """By a causal model: exactly the whole-signal result."""
    stream = ExtractionStream(model, embedding)
    for chunk in values.split(window, dim=-1):
        yield stream(chunk)
    yield stream.flush()


def extract_with_context(
    model: Any, values: Tensor, embedding: Tensor, window: int
) -> Iterator[Tensor]:
    """
    By a model of bounded context: exactly the whole-signal result, as each window comes with the
    frames around it that its own depend on.
    """
    kernel_size, stride = model.config.kernel_size, model.config.stride
    num_samples = values.shape[-1]
    num_frames = (num_samples - kernel_size) // stride + 1
    context, span = context_frames(model), window // stride
    past = values[:, :0]  # a copy: what has been extracted may be written over it
    # Filters reach from one window into the next, where both add up as in the decoder.
    tail = torch.zeros(1, kernel_size - stride).to(model.encoder.weight)
    for first in range(0, num_frames, span):
        stop = min(first + span, num_frames)
        left, right = max(first - context, 0), min(stop + context, num_frames)
        next_left = max(stop - context, 0)
        here = values[:, first * stride : (right - 1) * stride + kernel_size]
        part = torch.cat([past, here], dim=-1)
        past = part[:, (next_left - left) * stride : (stop - left) * stride].clone()
        masked = model.target_frames(part.to(model.encoder.weight), embedding)
        decoded = model.decoder(masked[..., first - left : stop - left])[:, 0]
        decoded[:, : kernel_size - stride] += tail
        tail = decoded[:, (stop - first) * stride :].clone()
        yield decoded[:, : (stop - first) * stride]
    # The filters leave out a remainder shorter than a hop: zeros there keep the length.
    yield F.pad(tail, (0, num_samples - num_frames * stride - tail.shape[-1]))


def pooled_copy(model: Any, values: Tensor, embedding: Tensor, window: int) -> Any:
    """
    The same model with global norms whose statistics are those of a whole recording.

    The windows are heard once to take the statistics. All parameters are `model`'s own.
    """
    shared: dict[int, Any] = {
        id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())
    }
    copied = copy.deepcopy(model, memo=shared)
    pooled = []
    for parent in list(copied.mask_estimator.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, GlobalLayerNorm):
                pooled.append(PooledGlobalNorm(child))
                setattr(parent, name, pooled[-1])
    starts = window_starts(values.shape[-1], window, window)
    step = -(-len(starts) // MAX_POOLED_WINDOWS)
    for start in starts[::step]:
        part = values[:, start : start + window].to(model.encoder.weight)
        copied.masked_frames(part, None, embedding)
    for norm in pooled:
        norm.is_pooling = False
    return copied


def extract_with_overlap(
    model: Any, values: Tensor, embedding: Tensor, window: int, overlap: int
) -> Iterator[Tensor]:
    """By any model: windows that fade into each other."""
    num_samples, stride = values.shape[-1], model.config.stride
    # All windows begin on the frames of the whole signal; the last one takes what is left over.
    starts = window_starts(num_samples // stride * stride, window, window - overlap)
    before: Tensor | None = None
    for start, following in pairwise([*starts, num_samples]):
        stop = num_samples if following == num_samples else start + window
        part = values[:, start:stop].to(model.encoder.weight)
        output = model(part, speaker_embeddings=embedding, return_dict=True)
        estimate = output.extracted_values
        if before is not None:
            fade = torch.arange(1, overlap + 1, device=estimate.device) / (overlap + 1)
            estimate[:, :overlap] = torch.lerp(
                before[:, :overlap], estimate[:, :overlap], fade.to(before)
            )
        before = estimate[:, following - start :].clone()
        yield estimate[:, : following - start]


def extract_recording(
    model: Any, values: Tensor, embedding: Tensor, window: int, overlap: int
) -> Iterator[Tensor]:
    """
    The extracted speech of `values` `(1, num_samples)`, in the way that the model's norms allow.

    Yields:
        Parts `(1, num_part_samples)`, one after the other as many samples as `values`. What they
        extract is read no more, so that they may be written over it.
    """
    if values.shape[-1] <= window:
        values = values.to(model.encoder.weight)
        yield model(values, speaker_embeddings=embedding, return_dict=True).extracted_values
    elif model.config.causal and not has_norm(model, GlobalLayerNorm):
        yield from extract_by_stream(model, values, embedding, window)
    elif has_norm(model, CumulativeLayerNorm):
        yield from extract_with_overlap(model, values, embedding, window, overlap)
    else:
        if has_norm(model, GlobalLayerNorm):
            model = pooled_copy(model, values, embedding, window)
        yield from extract_with_context(model, values, embedding, window)


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
        The windows of models with `gln` share statistics, those of the windows (of twelve, where
        there are more), so that the level stays that of the whole signal; a recording of one window
        gives what `forward` gives. Models with non-causal `cgln` normalise each window by itself,
        and neighbouring windows fade into each other.

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
        window, overlap_samples = self._check_recording(
            input_values, attention_mask, window_seconds, overlap
        )
        if speaker_embeddings is None:
            speaker_embeddings = model.get_speaker_embeddings(
                enrollment_values, enrollment_attention_mask
            )
        embeddings = model._one_embedding_each(speaker_embeddings, input_values.shape[0])
        extracted = torch.zeros_like(input_values)
        for row, length in enumerate(valid_lengths(input_values, attention_mask)):
            position = 0
            for part in extract_recording(
                model,
                input_values[row : row + 1, :length],
                embeddings[row : row + 1],
                window,
                overlap_samples,
            ):
                stop = position + part.shape[-1]
                extracted[row, position:stop] = part[0]
                position = stop
        return extracted

    @torch.no_grad()
    def extract_in_parts(
        self,
        input_values: Tensor,
        speaker_embeddings: Tensor,
        window_seconds: float = 10.0,
        overlap: float = 0.25,
    ) -> Iterator[Tensor]:
        """
        `extract` for who has no memory for a second recording: part by part.

        What a part extracts is read no more when the part comes, so that it may be written over
        the mixture.

        Args:
            input_values (`torch.Tensor` of shape `(1, num_samples)`): mixture waveform.
            speaker_embeddings (`torch.Tensor`): from `get_speaker_embeddings`.
            window_seconds (`float`): length of a window.
            overlap (`float`): as in `extract`.

        Yields:
            `torch.Tensor` of shape `(1, num_part_samples)`, on the model's device: parts of the
            target speaker's waveform, one after the other, as long as the mixture in all.

        Raises:
            ValueError: as `extract`, or more than one mixture; when the first part is asked for.
        """
        model = cast(Any, self)
        window, overlap_samples = self._check_recording(input_values, None, window_seconds, overlap)
        if input_values.shape[0] != 1:
            raise ValueError(
                "`input_values` must hold one mixture, of shape (1, num_samples), got "
                f"{tuple(input_values.shape)}: call this once for each."
            )
        embedding = model._one_embedding_each(speaker_embeddings, 1)
        yield from extract_recording(model, input_values, embedding, window, overlap_samples)

    def _check_recording(
        self, values: Tensor, mask: Tensor | None, window_seconds: float, overlap: float
    ) -> tuple[int, int]:
        """Samples of a window and of its overlap, whole hops; see `extract` for what is refused."""
        model = cast(Any, self)
        config = model.config
        window = seconds_to_samples(
            "window_seconds", window_seconds, config.sampling_rate, config.kernel_size
        )
        if not 0 <= overlap <= 0.5:
            raise ValueError(f"`overlap` must lie between 0 and 0.5 of a window, got {overlap}.")
        window = -(-window // config.stride) * config.stride
        check_recording(values, mask, config.kernel_size, window)
        check_fixed_statistics(model)
        return window, int(overlap * window) // config.stride * config.stride


__all__ = ["LongRecordingMixin"]
