"""Where the parts of a new model come from: the speaker encoder that an extractor builds on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import tiny_tse_ser
from tiny_training import EXTRACTOR_FIELDS, write_model_configs

from data_builders.option_reader import OptionError
from modeling import (
    TdSpeakerBeamConfig,
    TdSpeakerBeamForSpeechExtraction,
    TseSerForEmotionClassification,
)
from modeling.configuration_td_speakerbeam import SPEAKER_ENCODER_DIMS
from modeling.modeling_td_speakerbeam import SPEAKER_ENCODERS
from tse_ser.options import ModelOptions
from tse_ser.training.build_model import build_model


@pytest.fixture(params=["ge2e", "campplus"])
def encoder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def extractor_config(encoder: str, tmp_path: Path) -> str:
    path = tmp_path / "extractor.json"
    form = {
        "auxiliary_type": "projection",
        "speaker_encoder": encoder,
        "external_embedding_dim": SPEAKER_ENCODER_DIMS[encoder],
    }
    path.write_text(json.dumps(EXTRACTOR_FIELDS | form))
    return str(path)


def test_a_new_extractor_takes_the_weights_of_its_speaker_encoder(
    encoder: str, extractor_config: str, tmp_path: Path
) -> None:
    untrained = SPEAKER_ENCODERS[encoder]().state_dict()
    weights = {name: torch.randn_like(value) for name, value in untrained.items()}
    save_file(weights, tmp_path / "model.safetensors")
    arguments = ModelOptions(extractor_config=extractor_config, speaker_encoder_dir=str(tmp_path))
    model = build_model(arguments, "extraction")
    for name, value in weights.items():
        assert torch.equal(model.state_dict()[f"speaker_encoder.{name}"], value)
    assert not any(p.requires_grad for p in model.get_submodule("speaker_encoder").parameters())


def test_an_untrained_speaker_encoder_is_refused(extractor_config: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="pass its weights by --speaker_encoder_dir"):
        build_model(ModelOptions(extractor_config=extractor_config), "extraction")
    wrong = ModelOptions(
        extractor_config=extractor_config, speaker_encoder_dir=str(tmp_path / "nothing")
    )
    with pytest.raises(OptionError, match=r"--speaker_encoder_dir: .*does not exist"):
        build_model(wrong, "extraction")


def _choosing_extractor(encoder: str, tmp_path: Path) -> str:
    """The folder of an extractor that chooses among two outputs by similarity."""
    form: dict[str, Any] = {
        "auxiliary_type": "projection",
        "speaker_encoder": encoder,
        "external_embedding_dim": SPEAKER_ENCODER_DIMS[encoder],
        "num_outputs": 2,
        "output_choice": "similarity",
    }
    folder = tmp_path / "extractor"
    TdSpeakerBeamForSpeechExtraction(
        TdSpeakerBeamConfig(**(EXTRACTOR_FIELDS | form))
    ).save_pretrained(folder)
    return str(folder)


def test_how_outputs_are_chosen_can_be_learned_anew(encoder: str, tmp_path: Path) -> None:
    folder = _choosing_extractor(encoder, tmp_path)
    arguments = ModelOptions(
        extractor_name_or_path=folder,
        classifier_config=write_model_configs(tmp_path)[3],
        extractor_output_choice="order",
    )
    joint: Any = build_model(arguments, "joint")
    joint.save_pretrained(tmp_path / "joint")
    loaded = TseSerForEmotionClassification.from_pretrained(tmp_path / "joint")
    assert loaded.extractor.config.output_choice == "order"
    inputs = {"input_values": torch.randn(2, 8000), "enrollment_values": torch.randn(2, 8000)}
    extracted = loaded.eval()(**inputs).extracted_values
    torch.testing.assert_close(extracted, joint.eval()(**inputs).extracted_values)


def test_the_comparison_of_voices_is_trained_alone(encoder: str, tmp_path: Path) -> None:
    folder = _choosing_extractor(encoder, tmp_path)
    arguments = ModelOptions(
        extractor_name_or_path=folder,
        classifier_config=write_model_configs(tmp_path)[3],
        train_similarity_projection=True,
    )
    joint: Any = build_model(arguments, "joint")
    names = {name for name, one in joint.named_parameters() if one.requires_grad}
    projection = "extractor.similarity_projection"
    assert names == {f"{projection}.weight", f"{projection}.bias"}
    with torch.no_grad():
        joint.get_parameter(f"{projection}.bias").fill_(0.5)
    joint.save_pretrained(tmp_path / "joint")
    again: Any = build_model(
        ModelOptions(model_name_or_path=str(tmp_path / "joint"), train_similarity_projection=True),
        "joint",
    )
    assert (again.get_parameter(f"{projection}.bias") == 0.5).all()


def test_outputs_that_cannot_be_chosen_so_are_refused(tmp_path: Path) -> None:
    flags = write_model_configs(tmp_path)
    arguments = ModelOptions(extractor_config=flags[1], extractor_output_choice="similarity")
    with pytest.raises(OptionError, match=r"extractor_output_choice: .*num_outputs"):
        build_model(arguments, "extraction")
    arguments = ModelOptions(classifier_config=flags[3], extractor_output_choice="order")
    with pytest.raises(OptionError, match="is for a TD-SpeakerBeam extractor"):
        build_model(arguments, "classification")
    wanted: dict[str, Any] = {"train_similarity_projection": True}
    arguments = ModelOptions(extractor_config=flags[1], **wanted)
    with pytest.raises(OptionError, match="train_similarity_projection: `output_choice` must be"):
        build_model(arguments, "extraction")
    arguments = ModelOptions(classifier_config=flags[3], **wanted)
    with pytest.raises(OptionError, match="train_similarity_projection is for a TD-SpeakerBeam"):
        build_model(arguments, "classification")


def test_a_training_forgets_how_the_answers_before_it_were_calibrated(tmp_path: Path) -> None:
    model = tiny_tse_ser()
    model.config.temperature, model.config.presence_threshold = 1.4, 0.2
    model.save_pretrained(tmp_path)
    again = build_model(ModelOptions(model_name_or_path=str(tmp_path)), "joint")
    assert again.config.temperature == 1.0
    assert again.config.presence_threshold is None
