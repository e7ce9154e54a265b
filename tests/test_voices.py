"""Voices: several enrollments in one embedding, kept in a file for the model that made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_models import (
    PROJECTION_FIELDS,
    STATISTICS_FIELDS,
    joint_batch,
    ragged_waveforms,
    relative_error,
    scatter_parameters,
    tiny_extractor,
    tiny_tse_ser,
)

from modeling import (
    TdSpeakerBeamConfig,
    TdSpeakerBeamForSpeechExtraction,
    enroll,
    load_voice,
    save_voice,
)

SHARED_FIELDS: dict[str, Any] = {"share_encoder": True, "encoder_activation": "relu"}


@pytest.mark.parametrize("fields", [{}, STATISTICS_FIELDS])
def test_one_enrollment_gives_its_own_embedding(fields: dict[str, Any]) -> None:
    model = tiny_extractor(**fields)
    enrollment = ragged_waveforms((8000,), seed=1)[0]
    with torch.no_grad():
        expected = model.get_speaker_embeddings(enrollment[None])
    for recording in (enrollment, enrollment.numpy(), enrollment.numpy().astype(np.float64)):
        assert relative_error(enroll(model, [recording]), expected) < 1e-6


def test_several_enrollments_are_averaged_by_frames() -> None:
    # Batch norm in evaluation lets each frame alone, so that the mean over the frames of the
    # recordings can be had from the recordings one after the other, with a gap that no frame spans.
    model = tiny_extractor(norm_type="bn", conv_kernel_size=1, kernel_size=8)
    enrollments = ragged_waveforms((800, 2400, 1608), seed=2)
    with torch.no_grad():
        expected = model.get_speaker_embeddings(torch.cat(enrollments)[None])
    assert relative_error(enroll(model, enrollments), expected) < 1e-5
    unweighted = torch.stack([enroll(model, [enrollment]) for enrollment in enrollments]).mean(0)
    assert relative_error(unweighted, expected) > 1e-3


@pytest.mark.parametrize("fields", [STATISTICS_FIELDS, PROJECTION_FIELDS])
def test_a_speaker_encoders_mean_has_unit_length(fields: dict[str, Any]) -> None:
    model = tiny_extractor(**fields)
    enrollments = ragged_waveforms((6000, 24000), seed=3)
    first, second = (enroll(model, [enrollment]) for enrollment in enrollments)
    mean = enroll(model, enrollments)
    assert mean.norm().item() == pytest.approx(1, abs=1e-5)
    # The longer recording counts more.
    assert (mean * second).sum() > (mean * first).sum()


@pytest.mark.parametrize("fields", [{}, SHARED_FIELDS, {"norm_type": "bn"}, PROJECTION_FIELDS])
def test_a_saved_voice_comes_back_for_its_model(fields: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_extractor(**fields)
    voice = enroll(model, ragged_waveforms((26000, 9000), seed=4))
    save_voice(tmp_path / "voice.safetensors", voice, model, name="Anna")
    loaded = load_voice(tmp_path / "voice.safetensors", model)
    assert loaded.equal(voice)
    mixture = joint_batch()["input_values"]
    with torch.no_grad():
        assert model(mixture, speaker_embeddings=loaded).extracted_values.abs().max() > 0
    with safe_open(tmp_path / "voice.safetensors", framework="pt") as file:
        assert file.metadata() == {"name": "Anna"}


def test_a_voice_is_known_to_the_whole_and_to_a_reloaded_model(tmp_path: Path) -> None:
    whole = tiny_tse_ser()
    voice = enroll(whole, ragged_waveforms((8000,), seed=5))
    save_voice(tmp_path / "voice.safetensors", voice, whole)
    assert load_voice(tmp_path / "voice.safetensors", whole.extractor).equal(voice)
    whole.extractor.save_pretrained(tmp_path / "extractor")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        reloaded = TdSpeakerBeamForSpeechExtraction.from_pretrained(
            tmp_path / "extractor", dtype=dtype
        )
        assert load_voice(tmp_path / "voice.safetensors", reloaded).equal(voice.to(dtype))


@pytest.mark.parametrize(
    ("fields", "other_fields"),
    [
        ({}, {"norm_type": "cln"}),
        ({}, {"stride": 4}),
        ({"norm_type": "cln"}, {"norm_type": "cln", "norm_eps": 1.0}),
        (SHARED_FIELDS, {**SHARED_FIELDS, "encoder_activation": "swish"}),
        (PROJECTION_FIELDS, {}),
    ],
)
def test_a_model_of_another_form_refuses_a_voice(
    fields: dict[str, Any], other_fields: dict[str, Any], tmp_path: Path
) -> None:
    # The parameters are the same where the forms allow it: the form alone makes another embedding.
    model, other = tiny_extractor(**fields), tiny_extractor(**other_fields)
    size = 256 if fields is PROJECTION_FIELDS else 16
    save_voice(tmp_path / "voice.safetensors", torch.randn(size), model, name="Anna")
    with pytest.raises(ValueError, match=r"\('Anna'\) that another model made.*Enroll"):
        load_voice(tmp_path / "voice.safetensors", other)


@pytest.mark.parametrize("fields", [{}, SHARED_FIELDS, {"norm_type": "bn"}, PROJECTION_FIELDS])
def test_what_determines_the_embedding_decides(fields: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_extractor(**fields)
    path = tmp_path / "voice.safetensors"
    save_voice(path, enroll(model, ragged_waveforms((26000,), seed=6)), model)
    # A training behind the embedding leaves voices valid.
    scatter_parameters(model.mask_estimator, seed=1)
    scatter_parameters(model.decoder, seed=1)
    load_voice(path, model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if "auxiliary_type" in fields:
        changing = ["speaker_encoder.linear.bias"]
    else:
        changing = ["auxiliary_network.network.output_conv.bias"]
        changing += ["encoder.weight"] if "share_encoder" in fields else []
        if "norm_type" in fields:
            changing += ["auxiliary_network.network.input_norm.running_mean"]
    for name in changing:
        model.load_state_dict({**state, name: state[name] * 1.5 + 0.5})
        with pytest.raises(ValueError, match="another model"):
            load_voice(path, model)
    model.load_state_dict(state)
    load_voice(path, model)


def test_bad_use_names_the_fix(tmp_path: Path) -> None:
    model = tiny_extractor()
    with pytest.raises(ValueError, match="`enrollments` is empty"):
        enroll(model, [])
    with pytest.raises(ValueError, match=r"`enrollments\[1\]` must have shape"):
        enroll(model, [torch.randn(800), torch.randn(1, 800)])
    with pytest.raises(ValueError, match="at least 16 samples"):
        enroll(model, [torch.randn(15)])
    with pytest.raises(ValueError, match=r"one voice of shape \(1, 16\)"):
        save_voice(tmp_path / "voice.safetensors", torch.randn(2, 16), model)
    with pytest.raises(ValueError, match="does not exist"):
        load_voice(tmp_path / "voice.safetensors", model)
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(ValueError, match="holds no voice"):
        load_voice(tmp_path / "text.safetensors", model)
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="holds no voice"):
        load_voice(tmp_path / "weights.safetensors", model)


def test_a_model_without_speaker_encoder_cannot_vouch_for_a_voice(tmp_path: Path) -> None:
    model = TdSpeakerBeamForSpeechExtraction(
        TdSpeakerBeamConfig(auxiliary_type="projection", num_filters=8)
    )
    with pytest.raises(ValueError, match="outside speaker encoder"):
        enroll(model, [torch.randn(800)])
    with pytest.raises(ValueError, match="outside speaker encoder"):
        save_voice(tmp_path / "voice.safetensors", torch.randn(256), model)
