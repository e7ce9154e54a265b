"""
ShiftCNN: emotion recognition on a speech encoder's frames, some channels shifted in time.

The head of Shen et al. 2023, "Mingling or Misalignment? Temporal Shift for Speech Emotion
Recognition with Pre-trained Representations".
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from .configuration_shift_cnn import ShiftCnnConfig
from .input_checks import check_batch_size, check_waveform
from .log_mel import LogMelSpectrogram
from .signal_losses import masked_center
from .speech_encoders import (
    PretrainedSpeechEncoder,
    build_speech_encoder,
    load_speech_encoder_config,
    load_speech_encoder_weights,
)

IGNORED_LABEL = -100
VARIANCE_EPSILON = 1e-10
MIN_SAMPLES = 400  # one analysis window of every encoder at 16 kHz


@dataclass
class ShiftCnnOutput(ModelOutput):
    """
    Output of [`ShiftCnnForEmotionClassification`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*): cross entropy, mean over the
            labelled examples.
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`): scores before the softmax.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


def temporal_shift(
    hidden_states: Tensor,
    stride: int = 1,
    divisor: int = 16,
    bidirectional: bool = False,
    padding: str = "zero",
) -> Tensor:
    """
    Shift the first of `divisor` parts of the channels forward in time, and the second back where
    `bidirectional`.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch_size, num_frames, num_channels)`): frames.
        stride: frames to shift by.
        divisor: one of this many channels is shifted in each direction.
        bidirectional: shift a second part the other way.
        padding: what enters at the ends: `zero`, or `repeat` for the frames that stood there.

    Returns:
        `torch.Tensor` of the same shape; the input is left as it is.
    """
    num_frames, num_channels = hidden_states.shape[1:]
    fold = num_channels // divisor
    stride = min(stride, num_frames)
    shifted = hidden_states.clone()
    if padding == "zero":
        shifted[:, :stride, :fold] = 0
    shifted[:, stride:, :fold] = hidden_states[:, : num_frames - stride, :fold]
    if bidirectional:
        back = slice(fold, 2 * fold)
        if padding == "zero":
            shifted[:, num_frames - stride :, back] = 0
        shifted[:, : num_frames - stride, back] = hidden_states[:, stride:, back]
        if padding == "zero" and divisor == 2:
            # Halves of an odd number of channels leave one over: zeros, as published.
            shifted[:, :, 2 * fold :] = 0
    return shifted


class ShiftCnnBlock(nn.Module):
    """Depthwise convolution, layer norm, two 1x1 convolutions; added to the shifted input."""

    def __init__(self, config: ShiftCnnConfig, num_channels: int, shift_placement: str):
        super().__init__()
        self.config = config
        self.shift_placement = shift_placement
        self.depthwise_conv = nn.Conv1d(
            num_channels,
            num_channels,
            config.conv_kernel_size,
            padding=config.conv_kernel_size // 2,
            groups=num_channels,
        )
        self.norm = nn.LayerNorm(num_channels)
        self.expand_conv = nn.Conv1d(num_channels, 4 * num_channels, 1)
        self.project_conv = nn.Conv1d(4 * num_channels, num_channels, 1)

    def forward(self, hidden_states: Tensor, frame_mask: Tensor) -> Tensor:
        """Frames `(batch_size, num_frames, num_channels)`, mask `(batch_size, num_frames, 1)`."""
        hidden_states = hidden_states * frame_mask
        identity = hidden_states
        if self.shift_placement != "none":
            identity = temporal_shift(
                hidden_states,
                self.config.shift_stride,
                self.config.shift_divisor,
                self.config.bidirectional_shift,
            )
            # The last valid frames move into the padding, where the convolution would see them.
            identity = identity * frame_mask
        if self.shift_placement == "inplace":
            hidden_states = identity
        update = self.depthwise_conv(hidden_states.transpose(1, 2)).transpose(1, 2)
        update = self.expand_conv(self.norm(update).transpose(1, 2))
        return identity + self.project_conv(F.gelu(update)).transpose(1, 2)


class ShiftCnnHead(nn.Module):
    """
    The classifier on a speech encoder's frames.

    Args:
        config: sizes and forms.
        hidden_size: channels of the encoder's frames.
    """

    def __init__(self, config: ShiftCnnConfig, hidden_size: int):
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(
            # The second block alone shifts, as published.
            ShiftCnnBlock(config, hidden_size, config.shift_placement if index == 1 else "none")
            for index in range(config.num_blocks)
        )
        self.norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(hidden_size, cast(int, config.num_labels))
        if config.apply_spec_augment and config.mask_time_prob > 0:
            self.masked_spec_embed = nn.Parameter(torch.empty(hidden_size).uniform_())

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, num_frames, hidden_size)`): the
                encoder's frames.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*): 1 for
                valid frames.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_labels)`: logits.
        """
        if attention_mask is None:
            attention_mask = hidden_states.new_ones(hidden_states.shape[:2])
        frame_mask = attention_mask.to(hidden_states.dtype)[..., None]
        if not self.config.mask_padding:
            frame_mask = torch.ones_like(frame_mask)
        if self.training and self.config.apply_spec_augment:
            hidden_states = self._spec_augment(hidden_states)
        for block in self.blocks:
            hidden_states = block(hidden_states, frame_mask)
        hidden_states = self.norm(hidden_states) * frame_mask
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        num_frames = frame_mask.sum(dim=1, dtype=dtype).clamp(min=1)
        pooled = (hidden_states.sum(dim=1, dtype=dtype) / num_frames).to(hidden_states.dtype)
        return self.classifier(self.dropout(pooled))

    def _spec_augment(self, hidden_states: Tensor) -> Tensor:
        """Replace random spans of frames by a learned vector, and of channels by zero."""
        config = self.config
        batch_size, num_frames, num_channels = hidden_states.shape
        device = hidden_states.device
        if config.mask_time_prob > 0:
            spans = random_spans(
                batch_size, num_frames, config.mask_time_prob, config.mask_time_length, device
            )
            hidden_states = torch.where(spans[..., None], self.masked_spec_embed, hidden_states)
        if config.mask_feature_prob > 0:
            spans = random_spans(
                batch_size,
                num_channels,
                config.mask_feature_prob,
                config.mask_feature_length,
                device,
            )
            hidden_states = hidden_states.masked_fill(spans[:, None], 0.0)
        return hidden_states


def random_spans(
    batch_size: int, length: int, probability: float, span: int, device: torch.device
) -> Tensor:
    """
    Boolean `(batch_size, length)`: spans of `span` positions that start at random, `probability *
    length / span` of them in each row on average, from torch's generator as dropout draws from it.
    """
    span = min(span, length)
    num_starts = length - span + 1
    starts = torch.rand(batch_size, num_starts, device=device) < probability * length / (
        span * num_starts
    )
    padded = F.pad(starts.float(), (span - 1, span - 1))
    return F.max_pool1d(padded[:, None], span, stride=1)[:, 0] > 0


def classification_loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """
    Cross entropy, eq. (8), mean over the examples whose label is not -100; zero where there is
    none.
    """
    losses = F.cross_entropy(
        logits.to(torch.promote_types(logits.dtype, torch.float32)),
        labels,
        ignore_index=IGNORED_LABEL,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return losses / (labels != IGNORED_LABEL).sum().clamp(min=1)


class ShiftCnnPreTrainedModel(PreTrainedModel):
    """Weight initialisation and loading."""

    config: ShiftCnnConfig
    config_class = ShiftCnnConfig
    base_model_prefix = "shift_cnn"
    main_input_name = "input_values"
    input_modalities = "audio"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, LogMelSpectrogram):
            module.fill_buffers()
        elif isinstance(module, (nn.Conv1d, nn.Linear)):
            init.trunc_normal_(module.weight, std=0.02)
            init.zeros_(cast(Tensor, module.bias))
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, ShiftCnnHead) and hasattr(module, "masked_spec_embed"):
            init.uniform_(module.masked_spec_embed)


class ShiftCnnForEmotionClassification(ShiftCnnPreTrainedModel):
    """A speech encoder, frozen or fine-tuned, and the ShiftCNN head."""

    def __init__(self, config: ShiftCnnConfig):
        super().__init__(config)
        self.encoder = build_speech_encoder(
            cast(PreTrainedConfig, config.encoder_config), config.encoder_layer
        )
        self.head = ShiftCnnHead(config, self.encoder.hidden_size)
        self.post_init()
        self._freeze()

    @classmethod
    def from_encoder_pretrained(
        cls, encoder_name_or_path: str, **config_fields: Any
    ) -> "ShiftCnnForEmotionClassification":
        """
        Put a new head on a pretrained speech encoder.

        Args:
            encoder_name_or_path: hub id or folder of HuBERT, wav2vec 2.0, WavLM, Whisper (whole or
                its encoder), ...
            config_fields: fields of [`ShiftCnnConfig`]. `encoder_layer` leaves out the layers
                above; `max_duration_seconds` cuts a Whisper encoder's positions.

        Returns:
            A model whose head has random weights.
        """
        config = ShiftCnnConfig(**config_fields)
        config.encoder_config = load_speech_encoder_config(
            encoder_name_or_path, config.max_duration_seconds
        )
        model = cls(config)
        load_speech_encoder_weights(
            cast(PretrainedSpeechEncoder, model.encoder), encoder_name_or_path
        )
        return model

    def _freeze(self) -> None:
        # Parameters only: the graph stays open, so that a loss here can train what made the
        # waveform.
        if self.config.freeze_encoder:
            self.encoder.requires_grad_(False)
        else:
            for part in self.encoder.fixed_parts(self.config.freeze_feature_encoder):
                part.requires_grad_(False)

    def train(self, mode: bool = True) -> "ShiftCnnForEmotionClassification":
        """Set training mode; a frozen encoder stays frozen and in evaluation mode."""
        super().train(mode)
        # Again here, as `from_pretrained` makes all parameters trainable before it calls `eval`.
        self._freeze()
        if self.config.freeze_encoder:
            self.encoder.eval()
        return self

    def prepare_waveform(
        self, input_values: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """
        Cut to the longest duration, then bring each row to zero mean and unit variance over its
        valid samples.
        """
        max_samples = round(self.config.max_duration_seconds * self.config.sampling_rate)
        # Half precision cannot hold the energy of seconds of audio.
        dtype = torch.promote_types(input_values.dtype, torch.float32)
        input_values = input_values[:, :max_samples].to(dtype)
        attention_mask = attention_mask[:, :max_samples]
        if not self.config.normalize_input:
            return input_values * attention_mask, attention_mask
        centered = masked_center(input_values, attention_mask)
        variance = centered.square().sum(dim=-1, keepdim=True) / attention_mask.sum(
            dim=-1, keepdim=True
        ).clamp(min=1)
        return centered * torch.rsqrt(variance + VARIANCE_EPSILON), attention_mask

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> ShiftCnnOutput | tuple:
        """
        Args:
            input_values (`torch.Tensor` of shape `(batch_size, num_samples)`): waveform.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 for
                valid samples.
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*): emotion classes; -100
                is left out.
            return_dict (`bool`, *optional*): a tuple instead of an output object where `False`.

        Returns:
            [`ShiftCnnOutput`].

        Raises:
            ValueError: wrong rank, or shorter than an analysis window.
        """
        check_waveform("input_values", input_values, attention_mask, MIN_SAMPLES)
        if labels is not None:
            check_batch_size("labels", labels, input_values.shape[0])
        if attention_mask is None:
            attention_mask = torch.ones_like(input_values, dtype=torch.long)
        waveform, attention_mask = self.prepare_waveform(input_values, attention_mask)
        hidden_states, frame_mask = self.encoder(waveform, attention_mask)
        logits = self.head(hidden_states, frame_mask)
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config.label_smoothing)
        output = ShiftCnnOutput(loss=loss, logits=logits)
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()


__all__ = ["ShiftCnnForEmotionClassification", "ShiftCnnHead", "ShiftCnnOutput", "temporal_shift"]
