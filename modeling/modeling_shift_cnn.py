"""
ShiftCNN: emotion recognition on a speech encoder's frames, some channels shifted in time.

The head of Shen et al. 2023, "Mingling or Misalignment? Temporal Shift for Speech Emotion
Recognition with Pre-trained Representations".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.generic import ModelOutput

from .configuration_shift_cnn import ShiftCnnConfig
from .input_checks import check_batch_size, check_waveform
from .log_mel import LogMelSpectrogram
from .readable_weights import ReadableWeightsMixin
from .signal_losses import masked_center
from .speech_encoders import (
    PretrainedSpeechEncoder,
    build_speech_encoder,
    load_speech_encoder_config,
    load_speech_encoder_weights,
)

IGNORED_LABEL = -100
VARIANCE_EPSILON = 1e-10
MIN_DEVIATION = 1e-5


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


class ShiftCnnBlock(GradientCheckpointingLayer):
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

    frame_mean: Tensor
    frame_deviation: Tensor

    def __init__(self, config: ShiftCnnConfig, hidden_size: int):
        super().__init__()
        self.config = config
        if config.standardize_frames:
            self.register_buffer("frame_mean", torch.zeros(hidden_size))
            self.register_buffer("frame_deviation", torch.ones(hidden_size))
        if config.head_hidden_size is not None:
            self.projection = nn.Linear(hidden_size, config.head_hidden_size)
            hidden_size = config.head_hidden_size
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
        if self.config.standardize_frames:
            hidden_states = (hidden_states - self.frame_mean) / self.frame_deviation
        if self.config.head_hidden_size is not None:
            hidden_states = self.projection(hidden_states)
        if self.training and self.config.apply_spec_augment:
            lengths = attention_mask.sum(dim=-1, dtype=torch.long)
            hidden_states = self._spec_augment(hidden_states, lengths)
        for block in self.blocks:
            if block.gradient_checkpointing and not hidden_states.requires_grad:
                # A reentrant checkpoint has a gradient only where its input asks for one, which
                # frames of a frozen encoder do not.
                hidden_states = hidden_states.detach().requires_grad_(torch.is_grad_enabled())
            hidden_states = block(hidden_states, frame_mask)
        hidden_states = self.norm(hidden_states) * frame_mask
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        num_frames = frame_mask.sum(dim=1, dtype=dtype).clamp(min=1)
        pooled = (hidden_states.sum(dim=1, dtype=dtype) / num_frames).to(hidden_states.dtype)
        return self.classifier(self.dropout(pooled))

    def _spec_augment(self, hidden_states: Tensor, lengths: Tensor) -> Tensor:
        """Replace random spans of valid frames by a learned vector, and of channels by zero."""
        config = self.config
        batch_size, num_frames, num_channels = hidden_states.shape
        if config.mask_time_prob > 0:
            spans = random_spans(
                lengths,
                num_frames,
                config.mask_time_prob,
                config.mask_time_length,
                config.mask_time_min_masks,
            )
            vector = self.masked_spec_embed.to(hidden_states.dtype)
            hidden_states = torch.where(spans[..., None], vector, hidden_states)
        if config.mask_feature_prob > 0:
            spans = random_spans(
                lengths.new_full((batch_size,), num_channels),
                num_channels,
                config.mask_feature_prob,
                config.mask_feature_length,
                config.mask_feature_min_masks,
            )
            hidden_states = hidden_states.masked_fill(spans[:, None], 0.0)
        return hidden_states


def random_spans(
    lengths: Tensor, max_length: int, probability: float, span: int, min_spans: int
) -> Tensor:
    """
    Draw the spans of SpecAugment as wav2vec 2.0 does (Baevski et al. 2020, appendix A): a number of
    starts without replacement; spans may overlap.

    Args:
        lengths (`torch.Tensor` of shape `(batch_size,)`): valid positions of each row.
        max_length: positions of a row.
        probability: `probability * length / span` spans a row, rounded up or down at random.
        span: positions of a span; a row shorter than that has none.
        min_spans: spans of a row at least, as far as they fit in side by side.

    Returns:
        Boolean `torch.Tensor` of shape `(batch_size, max_length)`, drawn from torch's generator, as
        dropout draws from it.
    """
    draws = torch.rand(lengths.shape[0], max_length + 1, device=lengths.device)
    counts = (probability * lengths / span + draws[:, -1]).floor().clamp(min=min_spans)
    counts = counts.minimum(lengths // span)
    positions = torch.arange(max_length, device=lengths.device)
    scores = draws[:, :-1].masked_fill(positions > (lengths - span)[:, None], 2.0)
    starts = scores.argsort(dim=1).argsort(dim=1) < counts[:, None]
    covered = F.max_pool1d(F.pad(starts.float(), (span - 1, 0))[:, None], span, stride=1)
    return covered[:, 0] > 0


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


def check_labels(labels: Tensor, batch_size: int, num_labels: int) -> None:
    """
    Refuse labels that are no classes of the model.

    Args:
        labels: should have shape `(batch_size,)`, integers from 0 to `num_labels - 1` or -100.
        batch_size: rows of the batch.
        num_labels: classes of the model.

    Raises:
        ValueError: another shape or type, or a class that the model has not.
    """
    check_batch_size("labels", labels, batch_size)
    if labels.dim() != 1 or labels.is_floating_point():
        raise ValueError(
            f"`labels` must be integers of shape ({batch_size},), got {labels.dtype} of shape "
            f"{tuple(labels.shape)}: pass one class a row."
        )
    # A compiled graph cannot branch on values.
    if torch.compiler.is_compiling():
        return
    outside = (labels != IGNORED_LABEL) & ((labels < 0) | (labels >= num_labels))
    if outside.any():
        raise ValueError(
            f"`labels` must lie between 0 and {num_labels - 1}, or be {IGNORED_LABEL} where there "
            f"is none, got {int(labels[outside][0])}: the model has {num_labels} classes "
            "(`num_labels`)."
        )


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    label_smoothing: float,
    class_weights: Sequence[float] | None = None,
) -> Tensor:
    """
    Cross entropy, eq. (8), mean over the examples whose label is not -100; zero where there is
    none. With `class_weights` the mean is weighted by those of the examples' classes.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    valid = labels != IGNORED_LABEL
    weights = None
    total = valid.sum().clamp(min=1)
    if class_weights is not None:
        weights = logits.new_tensor(class_weights)
        total = (weights[labels.clamp(min=0)] * valid).sum().clamp(min=min(class_weights))
    losses = F.cross_entropy(
        logits,
        labels.long(),
        weight=weights,
        ignore_index=IGNORED_LABEL,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return losses / total


def check_checkpointing(config: ShiftCnnConfig, checkpoint: Callable[..., Any]) -> None:
    """
    Refuse reentrant checkpoints under a weighted sum of layers.

    Raises:
        ValueError: they run the layers without gradient, and the sum would be trained on constants.
    """
    options = getattr(checkpoint, "keywords", {})
    if config.use_weighted_layer_sum and options.get("use_reentrant"):
        raise ValueError(
            "`use_reentrant=True` loses the gradient of the layers that `use_weighted_layer_sum` "
            "adds up: checkpoint with `use_reentrant=False`, the default."
        )


class ShiftCnnPreTrainedModel(ReadableWeightsMixin, PreTrainedModel):
    """Weight initialisation and loading."""

    config: ShiftCnnConfig
    config_class = ShiftCnnConfig
    base_model_prefix = "shift_cnn"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = [  # noqa: RUF012  (an instance variable of the base class)
        "LogMelSpeechEncoder",
        "ShiftCnnHead",
        "WaveformSpeechEncoder",
        "WhisperSpeechEncoder",
    ]

    def get_input_embeddings(self) -> Any:
        """None, as audio has no tokens: FSDP asks every model for them."""

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
        elif isinstance(module, ShiftCnnHead):
            if hasattr(module, "masked_spec_embed"):
                init.uniform_(module.masked_spec_embed)
            if self.config.standardize_frames:
                init.zeros_(module.frame_mean)
                init.ones_(module.frame_deviation)
        elif isinstance(module, ShiftCnnForEmotionClassification) and hasattr(
            module, "layer_weights"
        ):
            init.ones_(module.layer_weights)

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] = checkpoint,
        *more: Any,
        **options: Any,
    ) -> None:
        if enable:
            check_checkpointing(self.config, gradient_checkpointing_func)
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, *more, **options)


class ShiftCnnForEmotionClassification(ShiftCnnPreTrainedModel):
    """
    A speech encoder, frozen or fine-tuned, and the ShiftCNN head.

    Published in two modes: a frozen HuBERT (`freeze_encoder=True`, the default), and wav2vec 2.0
    fine-tuned but for its convolutional encoder (`freeze_encoder=False`,
    `freeze_feature_encoder=True`).
    """

    def __init__(self, config: ShiftCnnConfig):
        super().__init__(config)
        self.encoder = build_speech_encoder(
            cast(PreTrainedConfig, config.encoder_config),
            config.encoder_layer,
            config.use_weighted_layer_sum,
        )
        self.head = ShiftCnnHead(config, self.encoder.hidden_size)
        if config.use_weighted_layer_sum:
            num_layers = cast(PretrainedSpeechEncoder, self.encoder).num_layers
            self.layer_weights = nn.Parameter(torch.ones(num_layers + 1))
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
        seconds = config_fields.get("max_duration_seconds", ShiftCnnConfig.max_duration_seconds)
        encoder_config = load_speech_encoder_config(encoder_name_or_path, seconds)
        model = cls(ShiftCnnConfig(encoder_config=encoder_config, **config_fields))
        load_speech_encoder_weights(
            cast(PretrainedSpeechEncoder, model.encoder), encoder_name_or_path
        )
        return model

    def _freeze(self) -> None:
        # Parameters only: the graph stays open, so that a loss here can train what made the
        # waveform.
        if self.config.freeze_encoder:
            self.encoder.requires_grad_(False)
        elif self.config.trainable_encoder_layers is not None:
            self.encoder.requires_grad_(False)
            self._upper_layers(self.config.trainable_encoder_layers).requires_grad_(True)
        else:
            for part in self.encoder.fixed_parts(self.config.freeze_feature_encoder):
                part.requires_grad_(False)

    def _upper_layers(self, num_layers: int) -> nn.ModuleList:
        layers = cast(PretrainedSpeechEncoder, self.encoder).layers
        if num_layers > len(layers):
            raise ValueError(
                f"`trainable_encoder_layers` must be at most {len(layers)}, the layers that this "
                f"encoder is built with, got {num_layers}."
            )
        return layers[-num_layers:]

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

    def encode(self, waveform: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """
        What the head sees of a prepared waveform.

        Args:
            waveform (`torch.Tensor` of shape `(batch_size, num_samples)`): see `prepare_waveform`.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`): 1 for valid
                samples.

        Returns:
            Frames `(batch_size, num_frames, hidden_size)`, averaged over layers where the config
            says so, and a boolean frame mask `(batch_size, num_frames)`.
        """
        hidden_states, frame_mask = self.encoder(waveform, attention_mask)
        if self.config.use_weighted_layer_sum:
            weights = self.layer_weights.softmax(dim=0).to(hidden_states.dtype)
            hidden_states = (hidden_states * weights[:, None, None]).sum(dim=1)
        return hidden_states, frame_mask

    @torch.no_grad()
    def fit_frame_statistics(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """
        Take mean and deviation of each channel over the valid frames of training speech, for
        `standardize_frames`; before training, which leaves them as they are.

        Args:
            batches: each with `input_values` `(batch_size, num_samples)` and, optional,
                `attention_mask`.

        Raises:
            ValueError: the config does not standardize frames, or there are fewer than two.
        """
        if not self.config.standardize_frames:
            raise ValueError("Set `standardize_frames=True`: this head uses no statistics.")
        count, total, total_of_squares = 0, torch.zeros(()), torch.zeros(())
        for batch in batches:
            values = batch["input_values"].to(self.device)
            mask = batch.get("attention_mask")
            mask = torch.ones_like(values) if mask is None else mask.to(self.device)
            frames, frame_mask = self.encode(*self.prepare_waveform(values, mask.long()))
            # Double precision, so that a large mean does not drown a small deviation.
            valid = frames[frame_mask.bool()].double().cpu()
            count += len(valid)
            total = total + valid.sum(dim=0)
            total_of_squares = total_of_squares + valid.square().sum(dim=0)
        if count < 2:
            raise ValueError("The statistics of frames need two valid frames at least.")
        mean = total / count
        variance = (total_of_squares / count - mean.square()).clamp(min=0)
        self.head.frame_mean.copy_(mean)
        self.head.frame_deviation.copy_(variance.sqrt().clamp(min=MIN_DEVIATION))

    def classify(self, input_values: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """
        Logits of waveforms that have been checked; see `forward` for the arguments.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_labels)`.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_values, dtype=torch.long)
        waveform, attention_mask = self.prepare_waveform(input_values, attention_mask.long())
        return self.head(*self.encode(waveform, attention_mask))

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
            ValueError: wrong rank, shorter than an analysis window, or a label that is no class.
        """
        check_waveform("input_values", input_values, attention_mask, self.encoder.min_samples)
        if labels is not None:
            check_labels(labels, input_values.shape[0], cast(int, self.config.num_labels))
        logits = self.classify(input_values, attention_mask)
        loss = None
        if labels is not None:
            loss = classification_loss(
                logits, labels, self.config.label_smoothing, self.config.class_weights
            )
        output = ShiftCnnOutput(loss=loss, logits=logits)
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()


__all__ = [
    "ShiftCnnForEmotionClassification",
    "ShiftCnnHead",
    "ShiftCnnOutput",
    "random_spans",
    "temporal_shift",
]
