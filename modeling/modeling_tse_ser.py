"""
TSE-SER: extract the target speaker, then recognise the emotion; trained jointly this is TSE-SER-ft.

Equations (8) and (9) of Mi et al., "Two-stage Framework for Robust Speech Emotion Recognition Using
Target Speaker Extraction in Human Speech Noise Conditions".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from .configuration_shift_cnn import ShiftCnnConfig
from .configuration_td_speakerbeam import TdSpeakerBeamConfig
from .configuration_tse_ser import TseSerConfig
from .input_checks import check_waveform
from .modeling_shift_cnn import (
    ShiftCnnForEmotionClassification,
    check_checkpointing,
    check_labels,
    classification_loss,
)
from .modeling_td_speakerbeam import TdSpeakerBeamForSpeechExtraction
from .pipeline_tse_ser import TASK, TargetSpeakerEmotionPipeline
from .readable_weights import ReadableWeightsMixin
from .voices import speaker_similarity

# model type -> an extractor: what has the methods and the output of TD-SpeakerBeam.
EXTRACTORS: dict[str, type[PreTrainedModel]] = {
    TdSpeakerBeamConfig.model_type: TdSpeakerBeamForSpeechExtraction,
}


@dataclass
class TseSerOutput(ModelOutput):
    """
    Output of [`TseSerForEmotionClassification`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*): weighted sum of the losses below.
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`): scores before the softmax.
        extracted_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`): the target
            speaker's waveform.
        speaker_embeddings (`torch.FloatTensor` of shape `(batch_size, embedding_size)`): of the
            enrollment.
        extraction_loss (`torch.FloatTensor` of shape `(1,)`, *optional*): negative SI-SNR in dB,
            mean over the batch.
        classification_loss (`torch.FloatTensor` of shape `(1,)`, *optional*): cross entropy.
        si_snr (`torch.FloatTensor` of shape `(batch_size,)`, *optional*): SI-SNR of each extracted
            signal in dB.
        speaker_similarity (`torch.FloatTensor` of shape `(batch_size,)`, *optional*): cosine
            between the embeddings of the enrollment and of the extracted speech; with
            `output_speaker_similarity=True`, or in evaluation mode with a `presence_threshold`.
        target_present (`torch.BoolTensor` of shape `(batch_size,)`, *optional*): whether that
            cosine reaches `config.presence_threshold`; where it is false the model abstains: the
            enrolled speaker is not heard, and the logits, as they stand, are of somebody else.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    extracted_values: Tensor | None = None
    speaker_embeddings: Tensor | None = None
    extraction_loss: Tensor | None = None
    classification_loss: Tensor | None = None
    si_snr: Tensor | None = None
    speaker_similarity: Tensor | None = None
    target_present: Tensor | None = None


class TseSerPreTrainedModel(ReadableWeightsMixin, PreTrainedModel):
    """Loading; each of the two models inside initialises its own weights."""

    config: TseSerConfig
    config_class = TseSerConfig
    base_model_prefix = "tse_ser"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = [  # noqa: RUF012  (an instance variable of the base class)
        "TdSpeakerBeamForSpeechExtraction"
    ]

    def get_input_embeddings(self) -> Any:
        """None, as audio has no tokens: FSDP asks every model for them."""

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing of its own to initialise."""

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] = checkpoint,
        *more: Any,
        **options: Any,
    ) -> None:
        if enable:
            config = cast(ShiftCnnConfig, self.config.classifier_config)
            check_checkpointing(config, gradient_checkpointing_func)
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, *more, **options)


class TseSerForEmotionClassification(TseSerPreTrainedModel):
    """The emotion of one known speaker in a mixture."""

    extractor: Any  # of a type in `EXTRACTORS`

    def __init__(self, config: TseSerConfig):
        super().__init__(config)
        extractor_config = cast(PreTrainedConfig, config.extractor_config)
        self.extractor = EXTRACTORS[extractor_config.model_type](extractor_config)
        self.classifier = ShiftCnnForEmotionClassification(
            cast(ShiftCnnConfig, config.classifier_config)
        )
        # What `pipeline(model=...)` looks for; its file goes along, as this module imports it.
        config.custom_pipelines = {
            TASK: {
                "impl": f"pipeline_tse_ser.{TargetSpeakerEmotionPipeline.__name__}",
                "pt": ["AutoModelForAudioClassification"],
                "type": "audio",
            }
        }
        self.post_init()

    @classmethod
    def from_sub_models_pretrained(
        cls,
        extractor: str | PreTrainedModel,
        classifier: str | ShiftCnnForEmotionClassification,
        **config_fields: Any,
    ) -> "TseSerForEmotionClassification":
        """
        Put a trained extractor in front of a classifier.

        Args:
            extractor: a model of `EXTRACTORS`, or the hub id or folder of one.
            classifier: a model, or the hub id or folder of one, or of a speech encoder (HuBERT,
                wav2vec 2.0, WavLM, Whisper, ...), which is frozen and gets a new head.
            config_fields: fields of [`TseSerConfig`], as the loss weights.

        Returns:
            A combined model that holds the two given.
        """
        if not isinstance(extractor, nn.Module):
            fields, _ = PreTrainedConfig.get_config_dict(extractor)
            extractor = EXTRACTORS[fields["model_type"]].from_pretrained(extractor)
        if not isinstance(classifier, nn.Module):
            fields, _ = PreTrainedConfig.get_config_dict(classifier)
            is_classifier = fields.get("model_type") == ShiftCnnConfig.model_type
            load = (
                ShiftCnnForEmotionClassification.from_pretrained
                if is_classifier
                else ShiftCnnForEmotionClassification.from_encoder_pretrained
            )
            classifier = load(classifier)
        config = TseSerConfig(
            extractor_config=extractor.config,
            classifier_config=classifier.config,
            **config_fields,
        )
        model = cls(config)
        model.extractor = extractor
        model.classifier = classifier
        return model

    def get_speaker_embeddings(
        self, enrollment_values: Tensor | None, enrollment_attention_mask: Tensor | None = None
    ) -> Tensor:
        """See [`TdSpeakerBeamForSpeechExtraction.get_speaker_embeddings`]."""
        return self.extractor.get_speaker_embeddings(enrollment_values, enrollment_attention_mask)

    def extract(self, *args: Any, **kwargs: Any) -> Tensor:
        """See [`TdSpeakerBeamForSpeechExtraction.extract`]."""
        return self.extractor.extract(*args, **kwargs)

    def get_speaker_similarity(
        self,
        extracted_values: Tensor,
        speaker_embeddings: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """See [`voices.speaker_similarity`]."""
        return speaker_similarity(
            self.extractor, extracted_values, speaker_embeddings, attention_mask
        )

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        enrollment_values: Tensor | None = None,
        enrollment_attention_mask: Tensor | None = None,
        speaker_embeddings: Tensor | None = None,
        target_values: Tensor | None = None,
        labels: Tensor | None = None,
        output_speaker_similarity: bool | None = None,
        return_dict: bool | None = None,
    ) -> TseSerOutput | tuple:
        """
        Args:
            input_values (`torch.Tensor` of shape `(batch_size, num_samples)`): mixture waveform.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 for
                valid samples.
            enrollment_values (`torch.Tensor` of shape `(batch_size, num_enrollment_samples)`,
                *optional*): speech of the target speaker alone, neutral in the paper.
            enrollment_attention_mask (`torch.Tensor` of shape `(batch_size,
                num_enrollment_samples)`, *optional*): 1 for valid samples.
            speaker_embeddings (`torch.Tensor`, *optional*): from `get_speaker_embeddings`; skips
                the auxiliary network.
            target_values (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): the
                target speaker's clean waveform; gives the extraction loss.
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*): emotion classes; give
                the cross entropy.
            output_speaker_similarity (`bool`, *optional*): compare the extracted speech with the
                enrollment; by default in evaluation mode, where `config.presence_threshold` is set.
            return_dict (`bool`, *optional*): a tuple instead of an output object where `False`.

        Returns:
            [`TseSerOutput`]. With neither target nor labels there is no loss; with one of them,
            that loss alone.

        Raises:
            ValueError: wrong rank, too short, batch sizes that differ, NaN, no enrollment, a label
                that is no class.
        """
        # Before the extraction, so that the messages name this model's arguments.
        min_samples = self.classifier.encoder.min_samples
        check_waveform("input_values", input_values, attention_mask, min_samples)
        if labels is not None:
            check_labels(labels, input_values.shape[0], cast(int, self.config.num_labels))
        extraction = self.extractor(
            input_values,
            attention_mask=attention_mask,
            enrollment_values=enrollment_values,
            enrollment_attention_mask=enrollment_attention_mask,
            speaker_embeddings=speaker_embeddings,
            target_values=target_values,
            return_dict=True,
        )
        logits = self.classifier.classify(extraction.extracted_values, attention_mask)
        cross_entropy = None
        if labels is not None:
            config = self.classifier.config
            cross_entropy = classification_loss(
                logits, labels, config.label_smoothing, config.class_weights
            )
        output = TseSerOutput(
            loss=self._total_loss(extraction.loss, cross_entropy),
            logits=logits,
            extracted_values=extraction.extracted_values,
            speaker_embeddings=extraction.speaker_embeddings,
            extraction_loss=extraction.loss,
            classification_loss=cross_entropy,
            si_snr=extraction.si_snr,
        )
        if output_speaker_similarity is None:
            output_speaker_similarity = (
                self.config.presence_threshold is not None and not self.training
            )
        if output_speaker_similarity:
            self._judge_presence(output, attention_mask)
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()

    def _judge_presence(self, output: TseSerOutput, attention_mask: Tensor | None) -> None:
        similarity = self.get_speaker_similarity(
            cast(Tensor, output.extracted_values),
            cast(Tensor, output.speaker_embeddings),
            attention_mask,
        )
        output.speaker_similarity = similarity
        if self.config.presence_threshold is not None:
            output.target_present = similarity >= self.config.presence_threshold

    def _total_loss(
        self, extraction_loss: Tensor | None, classification_loss: Tensor | None
    ) -> Tensor | None:
        """L_ft of eq. (9), weighted; L_base of eq. (8) where there is no target."""
        parts = []
        if extraction_loss is not None:
            parts.append(self.config.extraction_loss_weight * extraction_loss)
        if classification_loss is not None:
            parts.append(self.config.classification_loss_weight * classification_loss)
        return torch.stack(parts).sum() if parts else None


__all__ = ["EXTRACTORS", "TseSerForEmotionClassification", "TseSerOutput"]
