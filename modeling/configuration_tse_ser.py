"""Configuration of the combined model: target speaker extraction, then emotion recognition."""

import copy
from typing import Any, ClassVar, cast

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_shift_cnn import ShiftCnnConfig
from .configuration_td_speakerbeam import TdSpeakerBeamConfig
from .input_checks import check_at_least

# model type -> config of an extractor; `EXTRACTORS` in modeling_tse_ser.py has the models.
EXTRACTOR_CONFIGS: dict[str, type[PreTrainedConfig]] = {
    TdSpeakerBeamConfig.model_type: TdSpeakerBeamConfig,
}
# What calibration finds of the answers of a model, and what is true of these weights alone.
CALIBRATED = ("temperature", "presence_threshold", "one_voice_threshold")


@strict
class TseSerConfig(PreTrainedConfig):
    r"""
    The two models of TSE-SER and the weights of their losses, eq. (9).

    Args:
        extractor_config (`TdSpeakerBeamConfig` or `dict`): the extractor; a dict may name another
            `model_type` of `EXTRACTOR_CONFIGS`.
        classifier_config (`ShiftCnnConfig` or `dict`): the classifier; its labels are the model's
            labels.
        extraction_loss_weight (`float`): factor of the negative SI-SNR.
        classification_loss_weight (`float`): factor of the cross entropy.
        presence_threshold (`float`, *optional*): the cosine between the embeddings of enrollment
            and extracted speech below which the model abstains (`target_present` of the output);
            `None` never compares them unasked.
        one_voice_threshold (`float`, *optional*): the cosine between two parts of an enrollment
            below which the pipeline warns of a second voice in it; `None` never compares them.
        temperature (`float`): what the pipeline divides the logits by, so that a probability of 0.8
            is right in 8 of 10 cases. Found on validation speakers; 1 leaves them as trained.

    Raises:
        ValueError: the two models expect different sampling rates, a weight is negative, a
            threshold is no cosine, or the temperature is not above 0.
    """

    model_type = "tse_ser"
    # What `Trainer.predict` would otherwise keep of every example: whole waveforms among it.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "extracted_values",
        "speaker_embeddings",
        "extraction_loss",
        "classification_loss",
        "si_snr",
        "speaker_similarity",
        "target_present",
    ]
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "extractor_config": SubConfigSpec(TdSpeakerBeamConfig),
        "classifier_config": SubConfigSpec(ShiftCnnConfig),
    }

    extractor_config: dict | PreTrainedConfig | None = None
    classifier_config: dict | PreTrainedConfig | None = None
    extraction_loss_weight: float | int = 1.0
    classification_loss_weight: float | int = 1.0
    presence_threshold: float | int | None = None
    one_voice_threshold: float | int | None = None
    temperature: float | int = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        num_labels = kwargs.pop("num_labels", None)
        is_named_here = self.id2label is not None
        if isinstance(self.extractor_config, dict):
            self.extractor_config = extractor_config(self.extractor_config)
        super().__post_init__(**kwargs)
        classifier_config = cast(ShiftCnnConfig, self.classifier_config)
        if is_named_here or num_labels is not None:
            # The one that was passed stays as it is.
            self.classifier_config = classifier_config = copy.deepcopy(classifier_config)
        if is_named_here:
            names = cast(dict[int, str], self.id2label)
            classifier_config.id2label = names
            classifier_config.label2id = {name: index for index, name in names.items()}
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
        for name in ("presence_threshold", "one_voice_threshold"):
            threshold = getattr(self, name)
            if threshold is not None and not -1 <= threshold <= 1:
                raise ValueError(f"`{name}` must be a cosine, -1 to 1, got {threshold}.")
        if not self.temperature > 0:
            raise ValueError(f"`temperature` must be above 0, got {self.temperature}.")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers; `id2label` given beside the dict reaches the classifier too."""
        kwargs.pop("label2id", None)
        if "id2label" in kwargs:
            config_dict = config_dict | {"id2label": kwargs.pop("id2label")}
        return super().from_dict(config_dict, **kwargs)

    @property
    def sampling_rate(self) -> int:
        """Rate of all waveforms in Hz."""
        return int(cast(Any, self.extractor_config).sampling_rate)


def extractor_config(fields: dict[str, Any]) -> PreTrainedConfig:
    """
    The config of an extractor of any type.

    Args:
        fields (`dict`): its fields; `model_type` names the type, TD-SpeakerBeam by default.

    Returns:
        `PreTrainedConfig`: the config.

    Raises:
        ValueError: the type is unknown, or a field is out of range.
    """
    model_type = fields.get("model_type", TdSpeakerBeamConfig.model_type)
    if model_type not in EXTRACTOR_CONFIGS:
        raise ValueError(
            f"Unknown extractor {model_type!r}: choose one of {', '.join(EXTRACTOR_CONFIGS)}."
        )
    return EXTRACTOR_CONFIGS[model_type](**fields)


__all__ = ["EXTRACTOR_CONFIGS", "TseSerConfig", "extractor_config"]
