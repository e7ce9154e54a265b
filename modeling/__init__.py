"""The models of TSE-SER, registered with transformers' Auto classes on import."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
)

from .configuration_shift_cnn import LogMelConfig, ShiftCnnConfig
from .configuration_td_speakerbeam import TdSpeakerBeamConfig
from .configuration_tse_ser import EXTRACTOR_CONFIGS, TseSerConfig
from .feature_extraction_tse_ser import TseSerFeatureExtractor
from .modeling_shift_cnn import ShiftCnnForEmotionClassification, ShiftCnnHead, ShiftCnnOutput
from .modeling_td_speakerbeam import TdSpeakerBeamForSpeechExtraction, TdSpeakerBeamOutput
from .modeling_tse_ser import EXTRACTORS, TseSerForEmotionClassification, TseSerOutput
from .pipeline_tse_ser import TargetSpeakerEmotionPipeline
from .signal_losses import negative_si_snr, si_snr
from .streaming import ExtractionStream
from .voices import enroll, load_voice, save_voice, speaker_similarity

for _config, _model, _auto_model in (
    (TdSpeakerBeamConfig, TdSpeakerBeamForSpeechExtraction, AutoModel),
    (ShiftCnnConfig, ShiftCnnForEmotionClassification, AutoModelForAudioClassification),
    (TseSerConfig, TseSerForEmotionClassification, AutoModelForAudioClassification),
):
    AutoConfig.register(_config.model_type, _config)
    AutoFeatureExtractor.register(_config, TseSerFeatureExtractor)
    _auto_model.register(_config, _model)
    # Saved with their code, so that `trust_remote_code=True` loads them where this package is not
    # installed.
    _config.register_for_auto_class()
    _model.register_for_auto_class(_auto_model.__name__)
TseSerFeatureExtractor.register_for_auto_class()

__all__ = [
    "EXTRACTORS",
    "EXTRACTOR_CONFIGS",
    "ExtractionStream",
    "LogMelConfig",
    "ShiftCnnConfig",
    "ShiftCnnForEmotionClassification",
    "ShiftCnnHead",
    "ShiftCnnOutput",
    "TargetSpeakerEmotionPipeline",
    "TdSpeakerBeamConfig",
    "TdSpeakerBeamForSpeechExtraction",
    "TdSpeakerBeamOutput",
    "TseSerConfig",
    "TseSerFeatureExtractor",
    "TseSerForEmotionClassification",
    "TseSerOutput",
    "enroll",
    "load_voice",
    "negative_si_snr",
    "save_voice",
    "si_snr",
    "speaker_similarity",
]
