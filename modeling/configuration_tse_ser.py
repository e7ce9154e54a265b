"""Configuration of the combined model: target speaker extraction, then emotion recognition."""

from typing import Any, ClassVar, cast

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_shift_cnn import ShiftCnnConfig
from .configuration_td_speakerbeam import TdSpeakerBeamConfig
from .input_checks import check_at_least


@strict
class TseSerConfig(PreTrainedConfig):
    r"""
    The two models of TSE-SER and the weights of their losses, eq. (9).

    Args:
        extractor_config (`TdSpeakerBeamConfig` or `dict`): the extractor.
        classifier_config (`ShiftCnnConfig` or `dict`): the classifier; its labels are the model's
            labels.
        extraction_loss_weight (`float`): factor of the negative SI-SNR.
        classification_loss_weight (`float`): factor of the cross entropy.

    Raises:
        ValueError: the two models expect different sampling rates, or a weight is negative.
    """

    model_type = "tse_ser"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "extractor_config": SubConfigSpec(TdSpeakerBeamConfig),
        "classifier_config": SubConfigSpec(ShiftCnnConfig),
    }

    extractor_config: dict | PreTrainedConfig | None = None
    classifier_config: dict | PreTrainedConfig | None = None
    extraction_loss_weight: float | int = 1.0
    classification_loss_weight: float | int = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        num_labels = kwargs.pop("num_labels", None)
        super().__post_init__(**kwargs)
        classifier_config = cast(ShiftCnnConfig, self.classifier_config)
        if num_labels is not None:
            classifier_config.num_labels = num_labels
        # One source of truth: the classifier's labels, mirrored for pipelines that read them here.
        self.id2label = classifier_config.id2label
        self.label2id = classifier_config.label2id
        rates = (self.sampling_rate, classifier_config.sampling_rate)
        if rates[0] != rates[1]:
            raise ValueError(
                f"Extractor ({rates[0]} Hz) and classifier ({rates[1]} Hz) must share one "
                "`sampling_rate`."
            )
        check_at_least(self, 0, "extraction_loss_weight", "classification_loss_weight")

    @property
    def sampling_rate(self) -> int:
        """Rate of all waveforms in Hz."""
        return cast(TdSpeakerBeamConfig, self.extractor_config).sampling_rate


__all__ = ["TseSerConfig"]
