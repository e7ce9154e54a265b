"""Configuration of the combined model: target speaker extraction, then emotion recognition."""

from typing import Any

from transformers import PreTrainedConfig

from .configuration_shift_cnn import ShiftCnnConfig
from .configuration_td_speakerbeam import TdSpeakerBeamConfig


class TseSerConfig(PreTrainedConfig):
    r"""
    The two models of TSE-SER and the weights of their losses, eq. (9).

    Args:
        extractor_config (`TdSpeakerBeamConfig` or `dict`): the extractor.
        classifier_config (`ShiftCnnConfig` or `dict`): the classifier; its labels are the model's labels.
        extraction_loss_weight (`float`): factor of the negative SI-SNR.
        classification_loss_weight (`float`): factor of the cross entropy.

    Raises:
        ValueError: the two models expect different sampling rates, or a weight is negative.
    """

    model_type = "tse_ser"
    sub_configs_defaults = {
        "extractor_config": TdSpeakerBeamConfig,
        "classifier_config": ShiftCnnConfig,
    }

    extractor_config: dict | PreTrainedConfig | None = None
    classifier_config: dict | PreTrainedConfig | None = None
    extraction_loss_weight: float | int = 1.0
    classification_loss_weight: float | int = 1.0

    def __post_init__(self, **kwargs: Any):
        labels = {key: kwargs.pop(key) for key in ("num_labels",) if key in kwargs}
        super().__post_init__(**kwargs)
        if labels:
            self.classifier_config.num_labels = labels["num_labels"]
        # One source of truth: the classifier's labels, mirrored for the pipelines that read them here.
        self.id2label = dict(self.classifier_config.id2label)
        self.label2id = dict(self.classifier_config.label2id)
        rates = (self.extractor_config.sampling_rate, self.classifier_config.sampling_rate)
        if rates[0] != rates[1]:
            raise ValueError(
                f"Extractor ({rates[0]} Hz) and classifier ({rates[1]} Hz) must share one `sampling_rate`."
            )
        for name in ("extraction_loss_weight", "classification_loss_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")

    @property
    def sampling_rate(self) -> int:
        """Rate of all waveforms in Hz."""
        return self.extractor_config.sampling_rate


__all__ = ["TseSerConfig"]
