"""Configurations of the ShiftCNN emotion classifier and of its log-mel front-end."""

import copy
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .input_checks import check_at_least, check_choice, check_probability

DEFAULT_LABELS = ("neutral", "happy", "sad", "angry")
# What transformers' encoders do in training, under the names of their configs.
ENCODER_FIELDS_OFF = {"apply_spec_augment": False, "layerdrop": 0.0, "encoder_layerdrop": 0.0}


@strict
class LogMelConfig(PreTrainedConfig):
    r"""
    A small speech encoder without pretraining: log-mel spectrogram and strided convolutions.

    Args:
        num_mel_bins (`int`): mel bands.
        window_length (`int`): analysis window and FFT length in samples.
        hop_length (`int`): hop in samples.
        hidden_size (`int`): channels of the convolutions and of the output.
        num_layers (`int`): convolutions over time; the first halves the frame rate.
        sampling_rate (`int`): in Hz.

    Raises:
        ValueError: a field is out of range; the message names it and what would be right.
    """

    model_type = "log_mel"

    num_mel_bins: int = 64
    window_length: int = 400
    hop_length: int = 160
    hidden_size: int = 128
    num_layers: int = 2
    sampling_rate: int = 16000

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        check_at_least(self, 1, "num_mel_bins", "window_length", "hop_length", "hidden_size")
        check_at_least(self, 1, "num_layers", "sampling_rate")


@strict
class ShiftCnnConfig(PreTrainedConfig):
    r"""
    A speech encoder and the ShiftCNN head on its frames.

    Args:
        encoder_config (`PreTrainedConfig` or `dict`): HuBERT (default, base size), wav2vec 2.0,
            WavLM or another `AutoModel` over waveforms, a Whisper model, or
            `{"model_type": "log_mel"}`. A copy is kept in which SpecAugment inside the encoder is
            off, as the head has it on the encoder's output, and layer drop too, as a layer left out
            has no gradient, which stops DistributedDataParallel.
        encoder_layer (`int`, *optional*): take the frames after this many transformer layers,
            without the final norm, and build no layer above; `None` takes the encoder's own output.
        use_weighted_layer_sum (`bool`): take a learned average of the frames of all layers, the
            input of the first among them, as in `Wav2Vec2Config`; not for `log_mel`.
        freeze_encoder (`bool`): keep the whole encoder as it is. The graph stays open, so the cross
            entropy still reaches an extractor in front of it.
        freeze_feature_encoder (`bool`): where the encoder is fine-tuned, keep its convolutional
            part as it is.
        trainable_encoder_layers (`int`, *optional*): where the encoder is fine-tuned, train this
            many of its upper transformer layers and keep the rest as it is; `None` trains all.
        conv_kernel_size (`int`): odd length of the depthwise convolutions in frames.
        num_blocks (`int`): convolution blocks of the head.
        head_hidden_size (`int`, *optional*): channels of the head, to which a linear layer brings
            the encoder's frames; `None` (as published) keeps the encoder's.
        standardize_frames (`bool`): bring each channel of the encoder's frames to zero mean and
            unit variance over the training set, whose statistics
            `ShiftCnnForEmotionClassification.fit_frame_statistics` takes and the checkpoint keeps.
            For layers inside an encoder, whose channels lie several deviations from zero.
        shift_stride (`int`): frames by which channels are shifted.
        shift_divisor (`int`): one of this many channels is shifted (in each direction).
        bidirectional_shift (`bool`): shift as many channels the other way.
        shift_placement (`str`): `residual` (the published form), `inplace` or `none`; the second
            block only.
        normalize_input (`bool`): bring the waveform to zero mean and unit variance over its valid
            samples.
        max_duration_seconds (`float`): the waveform is cut to this length.
        mask_padding (`bool`): leave padding out of the mean over frames; `False` averages over all
            frames, as the public code does.
        apply_spec_augment, mask_time_prob, mask_time_length, mask_time_min_masks,
            mask_feature_prob, mask_feature_length, mask_feature_min_masks: SpecAugment on the
            encoder's output in training, as in `Wav2Vec2Config`.
        classifier_dropout (`float`): dropout before the last linear layer.
        label_smoothing (`float`): of the cross entropy.
        class_weights (`list` of `float`, *optional*): weights of the classes in the cross entropy;
            one over each class's share, to train for UA where classes differ in number.
        num_labels (`int`): 4 by default: neutral, happy, sad, angry. Where it differs from the
            number of names in `id2label`, new names are given.

    Raises:
        ValueError: a field is out of range; the message names it and what would be right.
    """

    model_type = "shift_cnn"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "encoder_config": SubConfigSpec(config_class=AutoConfig, model_type="hubert")
    }

    encoder_config: dict | PreTrainedConfig | None = None
    encoder_layer: int | None = None
    use_weighted_layer_sum: bool = False
    freeze_encoder: bool = True
    freeze_feature_encoder: bool = True
    trainable_encoder_layers: int | None = None
    conv_kernel_size: int = 7
    num_blocks: int = 2
    head_hidden_size: int | None = None
    standardize_frames: bool = False
    shift_stride: int = 1
    shift_divisor: int = 16
    bidirectional_shift: bool = False
    shift_placement: str = "residual"
    normalize_input: bool = True
    max_duration_seconds: float | int = 7.5
    mask_padding: bool = True
    apply_spec_augment: bool = True
    mask_time_prob: float | int = 0.05
    mask_time_length: int = 10
    mask_time_min_masks: int = 2
    mask_feature_prob: float | int = 0.0
    mask_feature_length: int = 10
    mask_feature_min_masks: int = 0
    classifier_dropout: float | int = 0.0
    label_smoothing: float | int = 0.0
    class_weights: list[float | int] | None = None
    sampling_rate: int = 16000

    def __post_init__(self, **kwargs: Any) -> None:
        if (
            isinstance(self.encoder_config, dict)
            and self.encoder_config.get("model_type") == "log_mel"
        ):
            # Ours is not in transformers' table of model types, and need not be.
            self.encoder_config = LogMelConfig(**self.encoder_config)
        num_labels = kwargs.pop("num_labels", None)
        if self.id2label is None and num_labels in (None, len(DEFAULT_LABELS)):
            self.id2label = dict(enumerate(DEFAULT_LABELS))
            self.label2id = {label: index for index, label in enumerate(DEFAULT_LABELS)}
        super().__post_init__(**kwargs)
        if num_labels is not None:
            self.num_labels = num_labels
        self._adapt_encoder_config()
        self._check_head()
        self._check_training()

    def _adapt_encoder_config(self) -> None:
        self.encoder_config = copy.deepcopy(self.encoder_config)
        for name, value in ENCODER_FIELDS_OFF.items():
            if hasattr(self.encoder_config, name):
                setattr(self.encoder_config, name, value)
        encoder_rate = getattr(self.encoder_config, "sampling_rate", self.sampling_rate)
        if encoder_rate != self.sampling_rate:
            raise ValueError(
                f"`sampling_rate` must be the encoder's, {encoder_rate} Hz, got "
                f"{self.sampling_rate}."
            )
        if self.use_weighted_layer_sum and isinstance(self.encoder_config, LogMelConfig):
            raise ValueError(
                "`use_weighted_layer_sum` needs an encoder of transformer layers, which log_mel is "
                "not: set it to False."
            )

    def _check_training(self) -> None:
        if self.trainable_encoder_layers is not None:
            check_at_least(self, 1, "trainable_encoder_layers")
            if self.freeze_encoder or isinstance(self.encoder_config, LogMelConfig):
                raise ValueError(
                    "`trainable_encoder_layers` needs `freeze_encoder=False` and an encoder of "
                    "transformer layers, which log_mel is not: set it to None."
                )
        check_at_least(self, 1, "mask_time_length", "mask_feature_length", "sampling_rate")
        check_at_least(self, 0, "mask_time_min_masks", "mask_feature_min_masks")
        check_probability(self, "mask_time_prob", "mask_feature_prob")
        check_probability(self, "classifier_dropout", "label_smoothing")
        weights = self.class_weights
        if weights is not None and (len(weights) != self.num_labels or min(weights) <= 0):
            raise ValueError(
                f"`class_weights` must be {self.num_labels} positive numbers, one a class, got "
                f"{weights}."
            )
        if self.max_duration_seconds <= 0:
            raise ValueError(
                f"`max_duration_seconds` must be positive, got {self.max_duration_seconds}."
            )

    def _check_head(self) -> None:
        check_choice(self, "shift_placement", ("residual", "inplace", "none"))
        check_at_least(self, 1, "num_blocks", "shift_stride", "shift_divisor")
        if self.head_hidden_size is not None:
            check_at_least(self, 1, "head_hidden_size")
        if self.conv_kernel_size % 2 == 0 or self.conv_kernel_size < 1:
            raise ValueError(
                "`conv_kernel_size` must be odd so that frames stay aligned, got "
                f"{self.conv_kernel_size}."
            )
        if self.bidirectional_shift and self.shift_divisor < 2:
            raise ValueError("`shift_divisor` must be at least 2 for `bidirectional_shift`, got 1.")


__all__ = ["LogMelConfig", "ShiftCnnConfig"]
