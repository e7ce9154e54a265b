"""
Extraction from a live signal: chunks of any size go in, and what is final comes out at once.

A causal network needs nothing of the future, and of the past only what each of its layers
remembers: the frames that a dilated convolution reaches back to, and the sums of a cumulative norm.
"""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_td_speakerbeam import TdSpeakerBeamConfig
from .frame_layers import DilatedDepthwiseConv, frame_major
from .frame_norms import CumulativeLayerNorm, FrameBatchNorm, GlobalLayerNorm
from .input_checks import check_finite


class StreamingDepthwiseConv(nn.Module):
    """A causal [`DilatedDepthwiseConv`] that keeps the frames it reaches back to."""

    def __init__(self, conv: DilatedDepthwiseConv):
        super().__init__()
        self.conv = conv
        self.num_past_frames = (conv.kernel_size[0] - 1) * conv.dilation[0]
        self.past_frames: Tensor | None = None

    def forward(self, hidden_states: Tensor) -> Tensor:
        frames = frame_major(hidden_states)
        num_frames = frames.shape[1]
        if self.past_frames is None:
            # Zeros before the first chunk, as the offline convolution pads it.
            self.past_frames = frames.new_zeros(len(frames), self.num_past_frames, frames.shape[2])
        frames = torch.cat([self.past_frames, frames], dim=1)
        # A copy: a view would keep the whole chunk in memory.
        self.past_frames = frames[:, num_frames:].clone()
        output = torch.zeros_like(frames[:, :num_frames])
        for tap, weight in enumerate(self.conv.weight[:, 0].T):
            first = tap * self.conv.dilation[0]
            output.addcmul_(frames[:, first : first + num_frames], weight)
        if self.conv.bias is not None:
            output += self.conv.bias
        return output.transpose(1, 2)


class StreamingCumulativeNorm(nn.Module):
    """A [`CumulativeLayerNorm`] that keeps its sums over all earlier chunks."""

    def __init__(self, norm: CumulativeLayerNorm):
        super().__init__()
        self.norm = norm
        self.past_sums: Tensor | None = None

    def forward(self, hidden_states: Tensor, frame_mask: None = None) -> Tensor:
        sums = self.norm.cumulative_sums(hidden_states)
        if self.past_sums is not None:
            sums = sums + self.past_sums
        self.past_sums = sums[..., -1:].clone()
        return self.norm.normalize(hidden_states, sums)


def streaming_copy(model: Any) -> Any:
    """The same model with a mask estimator that has a memory; all parameters are `model`'s own."""
    shared: dict[int, Any] = {
        id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())
    }
    copied = copy.deepcopy(model, memo=shared)
    for parent in list(copied.mask_estimator.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, DilatedDepthwiseConv):
                setattr(parent, name, StreamingDepthwiseConv(child))
            elif isinstance(child, CumulativeLayerNorm):
                setattr(parent, name, StreamingCumulativeNorm(child))
    return copied


def has_norm(model: Any, norm: type[nn.Module]) -> bool:
    """Whether the mask estimator holds a norm of this class."""
    return any(isinstance(module, norm) for module in model.mask_estimator.modules())


def check_fixed_statistics(model: Any) -> None:
    """
    Refuse batch norms that take their statistics from whatever part of a signal they see.

    Raises:
        ValueError: there are such, as the model is in training mode.
    """
    if model.training and has_norm(model, FrameBatchNorm):
        raise ValueError(
            "`norm_type='bn'` needs evaluation mode here, as its statistics would change with "
            "each part of the signal: call `model.eval()` first."
        )


def check_streamable(model: Any) -> None:
    """
    Refuse a model that needs the future.

    Raises:
        ValueError: not causal, a norm over the whole signal, or batch norm in training mode.
    """
    if not model.config.causal:
        raise ValueError(
            "A stream needs `causal=True`: this model's convolutions look ahead. Train a causal "
            "one, or use `extract` for long recordings."
        )
    if model.config.output_choice == "similarity":
        raise ValueError(
            "A stream needs `output_choice='order'`: two voices can be compared with an enrollment "
            "only when they have been heard. Use `extract` for long recordings."
        )
    if has_norm(model, GlobalLayerNorm):
        raise ValueError(
            "A stream needs `norm_type` 'cln', 'cgln' or 'bn', and `input_norm_type` too: 'gln' "
            "runs over the whole signal. Train another model, or use `extract` for long recordings."
        )
    check_fixed_statistics(model)


class ExtractionStream:
    """
    The target speaker's speech out of a mixture that is still being recorded.

    All outputs one after the other, that of `flush` included, are the offline result. Where chunks
    are whole hops, the output trails the input by `latency_samples`; it never does by a filter.

    Args:
        model: a causal extractor without global norm. Its parameters are shared, not copied;
            several streams may run on one model.
        speaker_embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): from
            `get_speaker_embeddings`, a row for each of the mixtures that run side by side or one
            for all.

    Raises:
        ValueError: the model is not causal, has a global norm, or batch norm in training mode.
    """

    def __init__(self, model: Any, speaker_embeddings: Tensor):
        check_streamable(model)
        self.config = cast(TdSpeakerBeamConfig, model.config)
        self.speaker_embeddings = speaker_embeddings
        self.model = streaming_copy(model)
        self.reset()

    @property
    def latency_samples(self) -> int:
        """How far the output trails the input: a filter's length less a hop, in samples."""
        return self.config.kernel_size - self.config.stride

    @property
    def latency_seconds(self) -> float:
        """`latency_samples` in seconds."""
        return self.latency_samples / self.config.sampling_rate

    def reset(self) -> None:
        """Forget the signal so far, for another one of the same speakers."""
        for module in self.model.mask_estimator.modules():
            if isinstance(module, StreamingDepthwiseConv):
                module.past_frames = None
            elif isinstance(module, StreamingCumulativeNorm):
                module.past_sums = None
        # Samples that no frame has started from, and what the decoder has of the samples to come.
        self.pending: Tensor | None = None
        self.tail: Tensor | None = None

    @torch.no_grad()
    def __call__(self, chunk: Tensor) -> Tensor:
        """
        Args:
            chunk (`torch.Tensor` of shape `(batch_size, num_samples)`): the next samples of the
                mixtures, any number of them.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_final_samples)`: the next samples of the
            extracted speech, whole hops of them (none, while a filter is not full).

        Raises:
            ValueError: wrong rank, another number of rows than before, NaN.
        """
        num_rows = chunk.shape[0] if self.pending is None else self.pending.shape[0]
        if chunk.dim() != 2 or chunk.shape[0] != num_rows:
            raise ValueError(
                f"`chunk` must have shape (batch_size, num_samples), batch_size as in the first "
                f"chunk, got {tuple(chunk.shape)}."
            )
        check_finite("chunk", chunk)
        chunk = chunk.to(self.model.encoder.weight)
        pending = chunk if self.pending is None else torch.cat([self.pending, chunk], dim=-1)
        kernel_size, stride = self.config.kernel_size, self.config.stride
        num_final = max((pending.shape[-1] - kernel_size) // stride + 1, 0) * stride
        # A copy: a view would keep the whole chunk in memory.
        self.pending = pending[:, num_final:].clone()
        if num_final == 0:
            return pending[:, :0]
        whole_filters = pending[:, : num_final + self.latency_samples]
        masked = self.model.masked_frames(whole_filters, None, self.speaker_embeddings)[0]
        decoded = self.model.decoder(masked)[:, 0]
        if self.tail is not None:
            decoded[:, : self.latency_samples] += self.tail
        self.tail = decoded[:, num_final:].clone()
        return decoded[:, :num_final]

    def flush(self) -> Tensor:
        """
        End the signal: what was still held back, so that as many samples went out as in.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_pending_samples)`. The stream is reset.

        Raises:
            ValueError: the whole signal was shorter than a filter.
        """
        if self.pending is None or self.tail is None:
            raise ValueError(
                f"The signal of a stream must hold at least {self.config.kernel_size} samples "
                "(`kernel_size`) before it is flushed."
            )
        last = F.pad(self.tail, (0, self.pending.shape[-1] - self.latency_samples))
        self.reset()
        return last


class StreamingMixin:
    """Streams for an extractor."""

    def open_stream(
        self,
        enrollment_values: Tensor | None = None,
        enrollment_attention_mask: Tensor | None = None,
        speaker_embeddings: Tensor | None = None,
    ) -> ExtractionStream:
        """
        Start to extract from a live signal.

        Args:
            enrollment_values (`torch.Tensor` of shape `(batch_size, num_enrollment_samples)`,
                *optional*): speech of the target speaker alone.
            enrollment_attention_mask (`torch.Tensor` of shape `(batch_size,
                num_enrollment_samples)`, *optional*): 1 for valid samples.
            speaker_embeddings (`torch.Tensor`, *optional*): from `get_speaker_embeddings`; skips
                the auxiliary network.

        Returns:
            [`ExtractionStream`]: call it with each chunk, then `flush` it.

        Raises:
            ValueError: `causal` is not set, `norm_type` is 'gln', the model is in training mode,
                or no enrollment is given.
        """
        model = cast(Any, self)
        check_streamable(model)
        if speaker_embeddings is None:
            with torch.no_grad():
                speaker_embeddings = model.get_speaker_embeddings(
                    enrollment_values, enrollment_attention_mask
                )
        return ExtractionStream(model, speaker_embeddings)


__all__ = ["ExtractionStream", "StreamingMixin"]
