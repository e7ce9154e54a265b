"""Speech encoders behind one interface: waveform and mask in, frames and frame mask out."""

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, WhisperConfig
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .configuration_shift_cnn import LogMelConfig
from .log_mel import LogMelSpectrogram

WHISPER_DYNAMIC_RANGE = 8.0  # log10 units below an utterance's peak
WHISPER_WINDOW_LENGTH = 400
WHISPER_HOP_LENGTH = 160
WHISPER_SAMPLING_RATE = 16000
MIN_SAMPLES = 400  # one analysis window of the published encoders at 16 kHz


def positions_mask(lengths: Tensor, max_length: int) -> Tensor:
    """Boolean `(batch_size, max_length)`, true for the first `lengths` positions of each row."""
    return torch.arange(max_length, device=lengths.device) < lengths[:, None]


class LogMelSpeechEncoder(nn.Module):
    """The front-end without pretraining: log-mel spectrogram, then convolutions over time."""

    def __init__(self, config: LogMelConfig):
        super().__init__()
        self.log_mel = LogMelSpectrogram(
            config.num_mel_bins,
            config.window_length,
            config.hop_length,
            config.sampling_rate,
            pad_mode="constant",
        )
        self.convs = nn.ModuleList(
            nn.Conv1d(
                config.num_mel_bins if index == 0 else config.hidden_size,
                config.hidden_size,
                kernel_size=3,
                stride=2 if index == 0 else 1,
                padding=1,
            )
            for index in range(config.num_layers)
        )
        self.hidden_size = config.hidden_size
        self.min_samples = max(MIN_SAMPLES, config.hop_length)

    def fixed_parts(self, freeze_feature_encoder: bool) -> list[nn.Module | nn.Parameter]:
        """What fine-tuning leaves as it is: nothing."""
        return []

    def forward(self, waveform: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """See [`build_speech_encoder`]."""
        # About unit range for speech of unit variance.
        hidden_states = (self.log_mel(waveform) + 2) / 2
        hidden_states = hidden_states.to(self.convs[0].weight.dtype)
        lengths = self.log_mel.num_frames(attention_mask.sum(dim=-1))
        for index, conv in enumerate(self.convs):
            frame_mask = positions_mask(lengths, hidden_states.shape[-1])
            hidden_states = F.gelu(conv(hidden_states * frame_mask[:, None]))
            if index == 0:
                lengths = (lengths + 1) // 2
        frame_mask = positions_mask(lengths, hidden_states.shape[-1])
        return hidden_states.transpose(1, 2), frame_mask


class WhisperSpeechEncoder(nn.Module):
    """A Whisper encoder over a window of its positions' length, filled up with silence."""

    def __init__(self, config: WhisperConfig, encoder_layer: int | None, all_layers: bool = False):
        super().__init__()
        self.all_layers = all_layers
        self.log_mel = LogMelSpectrogram(
            config.num_mel_bins,
            WHISPER_WINDOW_LENGTH,
            WHISPER_HOP_LENGTH,
            WHISPER_SAMPLING_RATE,
            pad_mode="reflect",
        )
        self.model = WhisperEncoder(config)
        self.num_window_samples = 2 * config.max_source_positions * WHISPER_HOP_LENGTH
        self.hidden_size = config.d_model
        self.num_layers = config.encoder_layers
        self.min_samples = MIN_SAMPLES
        if encoder_layer is not None:
            self.model.register_module("layer_norm", nn.Identity())

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers, the lowest first."""
        return self.model.layers

    def fixed_parts(self, freeze_feature_encoder: bool) -> list[nn.Module | nn.Parameter]:
        """What fine-tuning leaves as it is: the positions, which are sinusoids."""
        return [self.model.embed_positions]

    def input_features(self, waveform: Tensor) -> Tensor:
        """Whisper's log-mel features `(batch_size, num_mel_bins, 2 * max_source_positions)`."""
        missing = self.num_window_samples - waveform.shape[-1]
        log_spectrum = self.log_mel(F.pad(waveform, (0, missing)))
        peak = log_spectrum.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(log_spectrum, peak - WHISPER_DYNAMIC_RANGE) + 4) / 4

    def forward(self, waveform: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """See [`build_speech_encoder`]. Samples beyond the window are left out."""
        features = self.input_features(waveform[:, : self.num_window_samples])
        output = self.model(features.to(self.model.dtype), output_hidden_states=self.all_layers)
        hidden_states = _frames(output, self.all_layers)
        lengths = attention_mask[:, : self.num_window_samples].sum(dim=-1)
        lengths = (lengths // WHISPER_HOP_LENGTH + 1) // 2
        return hidden_states, positions_mask(lengths, hidden_states.shape[-2])


class WaveformSpeechEncoder(nn.Module):
    """
    HuBERT, wav2vec 2.0, WavLM or another `AutoModel` that takes waveforms.

    Where the feature encoder has a group norm (the base models, `feat_extract_norm="group"`), that
    norm runs over the padding of a batch too and changes the frames, mask or not: a property of
    those encoders, as of Data2Vec and the Conformer, whose convolutions see the padding. With layer
    norm (the large models) HuBERT, wav2vec 2.0, WavLM, UniSpeech and SEW are exact.
    """

    def __init__(
        self, config: PreTrainedConfig, encoder_layer: int | None, all_layers: bool = False
    ):
        super().__init__()
        self.all_layers = all_layers
        self.model = AutoModel.from_config(config)
        if not hasattr(self.model, "feature_extractor"):
            raise ValueError(
                f"`encoder_config`: {config.model_type} takes no waveforms. Use HuBERT, wav2vec "
                "2.0, WavLM, Whisper or log_mel."
            )
        self._check_frames(config)
        self.hidden_size = config.hidden_size
        self.num_layers = config.num_hidden_layers
        self.min_samples = max(MIN_SAMPLES, receptive_field(config.conv_kernel, config.conv_stride))
        # Asks for leaf tensors in training, which an extracted waveform is not; only gradient
        # checkpointing of the convolutions needs it.
        self.model.feature_extractor._requires_grad = False
        uses_final_norm = encoder_layer is None and not all_layers
        if getattr(config, "do_stable_layer_norm", False) and not uses_final_norm:
            self.model.encoder.layer_norm = nn.Identity()

    def _check_frames(self, config: PreTrainedConfig) -> None:
        if getattr(config, "add_adapter", False):
            raise ValueError(
                "`encoder_config`: `add_adapter` must be False, as an adapter changes the frames "
                "that the head is made for."
            )
        if self.all_layers and hasattr(config, "squeeze_factor"):
            raise ValueError(
                f"`use_weighted_layer_sum` must be False for {config.model_type}, whose layers "
                "have another frame rate than its output."
            )

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers, the lowest first."""
        return cast(nn.ModuleList, self.model.encoder.layers)

    def fixed_parts(self, freeze_feature_encoder: bool) -> list[nn.Module | nn.Parameter]:
        """What fine-tuning leaves as it is: the convolutions, on request, and what is unused."""
        parts: list[nn.Module | nn.Parameter] = []
        if freeze_feature_encoder:
            parts.append(self.model.feature_extractor)
        if hasattr(self.model, "masked_spec_embed"):
            parts.append(self.model.masked_spec_embed)
        if getattr(self.model.config, "position_embeddings_type", None) is not None:
            # A Conformer builds convolutional positions too, and leaves them out.
            parts.append(self.model.encoder.pos_conv_embed)
        return parts

    def forward(self, waveform: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """See [`build_speech_encoder`]."""
        output = self.model(
            waveform.to(self.model.dtype),
            attention_mask=attention_mask,
            output_hidden_states=self.all_layers,
        )
        hidden_states = _frames(output, self.all_layers)
        lengths = self.model._get_feat_extract_output_lengths(attention_mask.sum(dim=-1))
        return hidden_states, positions_mask(lengths, hidden_states.shape[-2])


def _frames(output: BaseModelOutput, all_layers: bool) -> Tensor:
    if not all_layers:
        return cast(Tensor, output.last_hidden_state)
    return torch.stack(list(cast(tuple[Tensor, ...], output.hidden_states)), dim=1)


def receptive_field(kernel_sizes: Sequence[int], strides: Sequence[int]) -> int:
    """Samples behind one frame of a chain of convolutions."""
    samples = 1
    for kernel_size, stride in zip(reversed(kernel_sizes), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel_size
    return samples


PretrainedSpeechEncoder: TypeAlias = WhisperSpeechEncoder | WaveformSpeechEncoder
SpeechEncoder: TypeAlias = LogMelSpeechEncoder | PretrainedSpeechEncoder


def truncate_encoder_config(
    config: PreTrainedConfig, encoder_layer: int | None
) -> PreTrainedConfig:
    """
    Leave out the transformer layers above `encoder_layer`.

    Raises:
        ValueError: the encoder has fewer layers.
    """
    if encoder_layer is None:
        return config
    field = "encoder_layers" if config.model_type == "whisper" else "num_hidden_layers"
    num_layers = getattr(config, field)
    if not 0 <= encoder_layer <= num_layers:
        raise ValueError(
            f"`encoder_layer` must lie between 0 and {num_layers}, the layers of this "
            f"{config.model_type} encoder, got {encoder_layer}."
        )
    setattr(config, field, encoder_layer)
    return config


def build_speech_encoder(
    config: PreTrainedConfig, encoder_layer: int | None, all_layers: bool = False
) -> SpeechEncoder:
    """
    Build the encoder of a config with random weights.

    Its forward takes `waveform` `(batch_size, num_samples)`, zero where `attention_mask` of the
    same shape is zero, and returns hidden states `(batch_size, num_frames, hidden_size)` and a
    boolean frame mask `(batch_size, num_frames)`. `min_samples` is the shortest waveform.

    Args:
        config: `log_mel`, `whisper`, or any model of `AutoModel` over waveforms.
        encoder_layer: as in [`ShiftCnnConfig`].
        all_layers: return hidden states `(batch_size, num_layers + 1, num_frames, hidden_size)`:
            the input of the first layer, and what comes out of each.

    Raises:
        ValueError: the model takes no waveforms, or its frames are not for the head.
    """
    if config.model_type == "log_mel":
        return LogMelSpeechEncoder(cast(LogMelConfig, config))
    config = truncate_encoder_config(config, encoder_layer)
    if config.model_type == "whisper":
        return WhisperSpeechEncoder(cast(WhisperConfig, config), encoder_layer, all_layers)
    return WaveformSpeechEncoder(config, encoder_layer, all_layers)


def load_speech_encoder_config(name_or_path: str, max_duration_seconds: float) -> PreTrainedConfig:
    """
    Config of a pretrained encoder; Whisper's window is cut to `max_duration_seconds`.
    """
    config = AutoConfig.from_pretrained(name_or_path)
    if config.model_type == "whisper":
        positions_per_second = WHISPER_SAMPLING_RATE // (2 * WHISPER_HOP_LENGTH)
        config.max_source_positions = min(
            config.max_source_positions, round(positions_per_second * max_duration_seconds)
        )
    return config


def load_speech_encoder_weights(encoder: PretrainedSpeechEncoder, name_or_path: str) -> None:
    """
    Fill an encoder with pretrained weights; layers that it was built without are passed over.

    Whisper comes as a whole checkpoint or as the encoder alone; its positions are cut as needed.

    Raises:
        ValueError: the checkpoint lacks weights that the encoder needs.
    """
    if isinstance(encoder, WhisperSpeechEncoder):
        loaded: Any = WhisperEncoder.from_pretrained(
            name_or_path,
            dtype=torch.float32,
            key_mapping={r"^(model\.)?encoder\.": ""},
            output_loading_info=True,
        )
    else:
        loaded = AutoModel.from_pretrained(
            name_or_path, dtype=torch.float32, output_loading_info=True
        )
    source, report = loaded
    # What a checkpoint lacks, `from_pretrained` fills with random weights.
    absent = set(report["missing_keys"]) - {"masked_spec_embed"}
    state = {name: value for name, value in source.state_dict().items() if name not in absent}
    positions = "embed_positions.weight"
    if positions in state:
        state[positions] = state[positions][: encoder.model.max_source_positions]
    missing = encoder.model.load_state_dict(state, strict=False).missing_keys
    if missing:
        raise ValueError(
            f"{name_or_path} lacks weights of the speech encoder, {missing[0]} among "
            f"{len(missing)}: name a checkpoint of the encoder that the config describes."
        )
