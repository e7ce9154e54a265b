"""Speech encoders: loaded from checkpoints, truncated, and equal to transformers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import (
    encoder_config,
    padding_errors,
    ragged_waveforms,
    relative_error,
    save_encoder,
    tiny_classifier,
)
from torch import Tensor, nn
from transformers import (
    AutoModel,
    BertConfig,
    HubertConfig,
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
@pytest.mark.parametrize("encoder_layer", [None, 0, 1, 2])
def test_a_pretrained_encoder_is_the_one_that_was_saved_up_to_a_layer(
    name: str, encoder_layer: int | None, tmp_path: Path
) -> None:
    folder = saved_encoder(name, tmp_path)
    model = ShiftCnnForEmotionClassification.from_encoder_pretrained(
        folder, encoder_layer=encoder_layer
    ).eval()
    waveform = torch.randn(2, 4000)
    whole = AutoModel.from_pretrained(folder).eval()
    output = whole(waveform, output_hidden_states=True)
    if encoder_layer is None:
        expected = output.last_hidden_state
    else:
        expected = output.hidden_states[encoder_layer]
        assert len(model.encoder.model.encoder.layers) == encoder_layer
    assert relative_error(encode(model, waveform), expected) < 1e-6
    # The head augments; the encoder does not do it a second time, nor drop layers.
    assert model.config.encoder_config.apply_spec_augment is False
    assert not any(p.requires_grad for p in model.encoder.parameters())


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
    if name != "whisper":
        assert alone_mask.all()
        return
    # It always fills its window of a second; frames of 20 ms hold the utterance, and no more count.
    assert alone_mask.shape[1] == 50
    for valid, num_samples in zip(frame_mask, (6000, 3210), strict=True):
        assert abs(valid.sum() - num_samples / 320) < 1
        assert valid[: valid.sum()].all()


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


EXACT = ["unispeech_layer", "sew_layer", "wavlm_layer"]


@pytest.mark.parametrize("name", [*EXACT, "conformer_layer", "hubert_group"])
def test_any_encoder_over_waveforms_is_fine_tuned_without_dead_parameters(name: str) -> None:
    model = tiny_classifier(name, freeze_encoder=False, mask_time_length=2)
    labels = torch.tensor([0, 3])
    waveforms = {"input_values": ragged_waveforms((4003, 2501), 1)}
    errors = padding_errors(model.double(), waveforms, labels)
    assert (max(errors.values()) < 1e-10) == (name in EXACT), errors
    model.train()(torch.randn(2, 4003).double(), labels=labels).loss.backward()
    encoder = model.encoder.named_parameters()
    trained = {key: value for key, value in encoder if value.requires_grad}
    assert trained
    assert not [key for key, value in trained.items() if value.grad is None]


@pytest.mark.parametrize("name", ["hubert_group", "wav2vec2_layer", "wavlm_layer", "whisper"])
def test_a_weighted_layer_sum_averages_what_transformers_gives(name: str, tmp_path: Path) -> None:
    config = cast(PreTrainedConfig, encoder_config(name))
    model_class: Any = WhisperEncoder if name == "whisper" else AutoModel.from_config
    folder = save_encoder(model_class(config), tmp_path)
    model = ShiftCnnForEmotionClassification.from_encoder_pretrained(
        folder, use_weighted_layer_sum=True, max_duration_seconds=1.0
    ).eval()
    assert torch.equal(model.layer_weights, torch.ones(4))
    torch.nn.init.normal_(model.layer_weights)
    waveform = torch.randn(2, 9000)
    source: Any = (WhisperEncoder if name == "whisper" else AutoModel).from_pretrained(folder)
    encoder: Any = model.encoder
    features = encoder.input_features(waveform) if name == "whisper" else waveform
    layers = source.eval()(features, output_hidden_states=True).hidden_states
    weights = model.layer_weights.softmax(dim=0)
    expected = sum(weight * layer for weight, layer in zip(weights, layers, strict=True))
    frames, _ = model.encode(waveform, torch.ones(2, 9000, dtype=torch.long))
    assert relative_error(frames, cast(Tensor, expected)) < 1e-6


@pytest.mark.parametrize("is_frozen", [True, False])
def test_a_weighted_layer_sum_learns_its_weights(is_frozen: bool, tmp_path: Path) -> None:
    model = tiny_classifier("hubert_layer", use_weighted_layer_sum=True, freeze_encoder=is_frozen)
    model.train()(torch.randn(2, 4003), labels=torch.tensor([0, 3])).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
    assert model.layer_weights.grad is not None and model.layer_weights.grad.all()
    model.save_pretrained(tmp_path)
    loaded = ShiftCnnForEmotionClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.layer_weights, model.layer_weights)


def test_a_config_keeps_a_copy_without_augmentation_inside_the_encoder() -> None:
    given = HubertConfig(apply_spec_augment=True, layerdrop=0.3)
    kept: Any = ShiftCnnConfig(encoder_config=given).encoder_config
    assert (kept.apply_spec_augment, kept.layerdrop) == (False, 0.0)
    assert (given.apply_spec_augment, given.layerdrop) == (True, 0.3)
    whisper: Any = ShiftCnnConfig(encoder_config=WhisperConfig(encoder_layerdrop=0.2))
    assert whisper.encoder_config.encoder_layerdrop == 0.0


@pytest.mark.parametrize(
    ("name", "encoder_fields", "fields", "message"),
    [
        ("wav2vec2_layer", {"add_adapter": True}, {}, "`add_adapter` must be False"),
        ("sew_layer", {}, {"use_weighted_layer_sum": True}, "must be False for sew, whose layers"),
    ],
)
def test_frames_that_are_not_for_the_head_are_refused(
    name: str, encoder_fields: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    config = cast(PreTrainedConfig, encoder_config(name))
    config.update(encoder_fields)
    with pytest.raises(ValueError, match=message):
        ShiftCnnForEmotionClassification(ShiftCnnConfig(encoder_config=config, **fields))


def test_cut_positions_equal_a_whisper_of_that_window(pretrained_dir: Path) -> None:
    """Transformers' own encoder, built for 7.5 s, on the features of its own extractor."""
    folder = pretrained_dir / "whisper-tiny.en-encoder"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    (waveform,) = ragged_waveforms((5 * 16000,), 1)
    features = WhisperFeatureExtractor.from_pretrained(folder, chunk_length=7.5)(
        0.1 * waveform.numpy(),
        sampling_rate=16000,
        return_tensors="pt",
        padding="max_length",
        max_length=120000,
    ).input_features
    whole = WhisperEncoder.from_pretrained(folder, dtype=torch.float32)
    state = whole.state_dict()
    state["embed_positions.weight"] = state["embed_positions.weight"][:375]
    whole.config.max_source_positions = 375
    reference = WhisperEncoder(whole.config).eval()
    reference.load_state_dict(state)
    model = ShiftCnnForEmotionClassification.from_encoder_pretrained(str(folder)).eval()
    with torch.no_grad():
        expected = reference(features).last_hidden_state
        assert relative_error(encode(model, 0.1 * waveform[None]), expected) < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_spectrograms_stay_in_single_precision(dtype: torch.dtype) -> None:
    model = tiny_classifier("whisper")
    waveform = torch.randn(2, 9000)
    encoder: Any = model.encoder
    expected = encoder.input_features(waveform)
    half: Any = nn.Module.to(model, dtype).encoder
    assert half.log_mel.window.dtype == half.log_mel.mel_filters.dtype == torch.float32
    assert torch.equal(half.input_features(waveform), expected)
    assert encode(model, waveform).dtype == dtype
