"""Speech encoders: loaded from checkpoints, truncated, and equal to transformers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import encoder_config, ragged_waveforms, relative_error, save_encoder
from torch import Tensor
from transformers import (
    AutoModel,
    BertConfig,
    PreTrainedConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from modeling import ShiftCnnConfig, ShiftCnnForEmotionClassification
from modeling.speech_encoders import WhisperSpeechEncoder

FAMILIES = ["hubert_group", "wav2vec2_group", "wavlm_group", "hubert_layer", "wavlm_layer"]


def saved_encoder(name: str, folder: Path) -> str:
    torch.manual_seed(0)
    config = cast(PreTrainedConfig, encoder_config(name))
    config.apply_spec_augment = True
    return save_encoder(AutoModel.from_config(config), folder)


def encode(model: ShiftCnnForEmotionClassification, waveform: Tensor) -> Tensor:
    mask = torch.ones_like(waveform, dtype=torch.long)
    return model.encoder(waveform, mask)[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pretrained_encoder_is_the_one_that_was_saved(name: str, tmp_path: Path) -> None:
    folder = saved_encoder(name, tmp_path)
    model = ShiftCnnForEmotionClassification.from_encoder_pretrained(folder).eval()
    waveform = torch.randn(2, 4000)
    expected = AutoModel.from_pretrained(folder).eval()(waveform).last_hidden_state
    assert relative_error(encode(model, waveform), expected) < 1e-6
    # The head augments; the encoder does not do it a second time.
    assert model.config.encoder_config.apply_spec_augment is False
    assert not any(p.requires_grad for p in model.encoder.parameters())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("encoder_layer", [0, 1, 2])
def test_a_truncated_encoder_gives_that_layer(
    name: str, encoder_layer: int, tmp_path: Path
) -> None:
    folder = saved_encoder(name, tmp_path)
    model = ShiftCnnForEmotionClassification.from_encoder_pretrained(
        folder, encoder_layer=encoder_layer
    ).eval()
    waveform = torch.randn(1, 4000)
    whole = AutoModel.from_pretrained(folder).eval()
    expected = whole(waveform, output_hidden_states=True).hidden_states[encoder_layer]
    assert relative_error(encode(model, waveform), expected) < 1e-6
    assert len(model.encoder.model.encoder.layers) == encoder_layer


@pytest.mark.parametrize("part", ["generation", "model", "encoder"])
@pytest.mark.parametrize("encoder_layer", [None, 0, 2])
def test_whisper_loads_whole_or_as_an_encoder(
    part: str, encoder_layer: int | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = cast(WhisperConfig, encoder_config("whisper"))
    whole = WhisperForConditionalGeneration(config)
    source = {"generation": whole, "model": whole.model, "encoder": whole.model.encoder}[part]
    folder = save_encoder(source, tmp_path)
    model = ShiftCnnForEmotionClassification.from_encoder_pretrained(
        folder, encoder_layer=encoder_layer, max_duration_seconds=1.0
    ).eval()
    waveform = torch.randn(2, 9000)
    features = model.encoder.input_features(waveform)
    output = whole.model.encoder.eval()(features, output_hidden_states=True)
    expected = (
        output.last_hidden_state if encoder_layer is None else output.hidden_states[encoder_layer]
    )
    assert relative_error(encode(model, waveform), expected) < 1e-6


def test_whisper_positions_are_cut_to_the_window(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = cast(WhisperConfig, encoder_config("whisper"))
    source = WhisperEncoder(config)
    folder = save_encoder(source, tmp_path)
    model = ShiftCnnForEmotionClassification.from_encoder_pretrained(
        folder, max_duration_seconds=0.5
    )
    encoder: Any = model.encoder
    positions = encoder.model.embed_positions.weight
    assert positions.shape == (25, 16)
    assert torch.equal(positions, source.get_parameter("embed_positions.weight")[:25])
    assert encoder.model.config.max_source_positions == 25
    waveform = torch.randn(1, 16000)
    hidden_states, mask = model.encoder(waveform, torch.ones(1, 16000, dtype=torch.long))
    assert hidden_states.shape == (1, 25, 16)
    assert mask.all()


@pytest.mark.parametrize("num_mel_bins", [80, 128])
@pytest.mark.parametrize("seconds", [0.7, 5.0])
def test_log_mel_equals_the_whisper_feature_extractor(num_mel_bins: int, seconds: float) -> None:
    config = cast(WhisperConfig, encoder_config("whisper"))
    config.num_mel_bins = num_mel_bins
    config.max_source_positions = 250
    encoder = WhisperSpeechEncoder(config, encoder_layer=None)
    waveform = 0.1 * ragged_waveforms((round(16000 * seconds),), 1)[0]
    features = WhisperFeatureExtractor(feature_size=num_mel_bins)(
        waveform.numpy(),
        sampling_rate=16000,
        return_tensors="pt",
        padding="max_length",
        max_length=80000,
    ).input_features
    ours = encoder.input_features(waveform[None])
    assert ours.shape == (1, num_mel_bins, 500)
    assert (ours - features).abs().max() < 1e-4


def test_thirty_seconds_equal_the_pretrained_whisper(pretrained_dir: Path) -> None:
    folder = pretrained_dir / "whisper-tiny.en-encoder"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    waveform = 0.1 * ragged_waveforms((30 * 16000,), 1)[0]
    features = WhisperFeatureExtractor.from_pretrained(folder)(
        waveform.numpy(), sampling_rate=16000, return_tensors="pt"
    ).input_features
    model = ShiftCnnForEmotionClassification.from_encoder_pretrained(
        str(folder), max_duration_seconds=30
    ).eval()
    reference = WhisperEncoder.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        assert (model.encoder.input_features(waveform[None]) - features).abs().max() < 1e-4
        expected = reference(features).last_hidden_state
        assert relative_error(encode(model, waveform[None]), expected) < 1e-4


def test_log_mel_frames_are_decibels_of_bands() -> None:
    """A tone lies in the band around its frequency, ten times the amplitude two units higher."""
    model = ShiftCnnForEmotionClassification(
        ShiftCnnConfig(encoder_config=encoder_config("log_mel"))
    )
    tone = torch.sin(2 * np.pi * 1000 * torch.arange(8000) / 16000)[None]
    log_mel: Any = model.encoder.log_mel
    spectrum, louder = log_mel(tone)[0, :, 10:40], log_mel(10 * tone)[0, :, 10:40]
    band = spectrum.mean(dim=-1).argmax()
    assert spectrum.shape == (16, 30)
    centre = (log_mel.mel_filters[:, band].argmax() * 40).item()
    assert abs(centre - 1000) < 200
    assert (louder[band] - spectrum[band] - 2).abs().max() < 1e-3


@pytest.mark.parametrize("name", ["log_mel", "whisper", "wav2vec2_layer"])
def test_frame_mask_covers_the_frames_of_the_utterance_alone(name: str) -> None:
    model = ShiftCnnForEmotionClassification(ShiftCnnConfig(encoder_config=encoder_config(name)))
    waveform, mask = torch.randn(2, 6000), torch.ones(2, 6000, dtype=torch.long)
    mask[1, 3210:] = 0
    hidden_states, frame_mask = model.eval().encoder(waveform * mask, mask)
    assert frame_mask.shape == hidden_states.shape[:2]
    assert frame_mask.dtype == torch.bool
    _, alone_mask = model.encoder(waveform[1:, :3210], mask[1:, :3210])
    assert frame_mask[1].sum() == alone_mask.sum()
    if name != "whisper":  # which always fills its window
        assert alone_mask.all()


@pytest.mark.parametrize("encoder_layer", [-1, 4])
@pytest.mark.parametrize("name", ["whisper", "hubert_group"])
def test_a_layer_out_of_range_is_refused(name: str, encoder_layer: int) -> None:
    with pytest.raises(ValueError, match=r"`encoder_layer` must lie between 0 and 3, the layers"):
        ShiftCnnForEmotionClassification(
            ShiftCnnConfig(encoder_config=encoder_config(name), encoder_layer=encoder_layer)
        )


def test_a_text_model_is_refused() -> None:
    config = BertConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        vocab_size=8,
    )
    with pytest.raises(ValueError, match=r"`encoder_config`: bert takes no waveforms"):
        ShiftCnnForEmotionClassification(ShiftCnnConfig(encoder_config=config))


def without_weights(folder: Path, part: str) -> None:
    """Take every weight that has `part` in its name out of a saved model."""
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if part not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "part"), [("whisper", "encoder.conv2"), ("hubert_group", "feature_projection")]
)
def test_a_checkpoint_that_lacks_weights_is_refused(name: str, part: str, tmp_path: Path) -> None:
    folder = saved_encoder(name, tmp_path)
    without_weights(tmp_path, part)
    with pytest.raises(ValueError, match=rf"{folder} lacks weights .* name a checkpoint"):
        ShiftCnnForEmotionClassification.from_encoder_pretrained(folder)


def test_a_checkpoint_may_lack_the_layers_that_are_left_out(tmp_path: Path) -> None:
    folder = saved_encoder("hubert_group", tmp_path)
    without_weights(tmp_path, ".layers.2.")
    ShiftCnnForEmotionClassification.from_encoder_pretrained(folder, encoder_layer=2)
    with pytest.raises(ValueError, match=r"lacks weights of .*, encoder\.layers\.2"):
        ShiftCnnForEmotionClassification.from_encoder_pretrained(folder)
