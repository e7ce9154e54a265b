"""HuBERT and wav2vec 2.0 behind our interface equal torchaudio's, numbers and gradients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import relative_error
from torch import Tensor, nn
from torchaudio.models import wav2vec2_model
from transformers import HubertConfig, PreTrainedConfig, Wav2Vec2Config

from modeling import ShiftCnnConfig, ShiftCnnForEmotionClassification

CASES = {"hubert_tiny": HubertConfig, "wav2vec2_tiny": Wav2Vec2Config}
DTYPES = [(torch.float32, 1e-5, 1e-3), (torch.float64, 1e-10, 1e-10)]
DTYPE_IDS = ["float32", "float64"]


class Vectors:
    """One case: its tensors, and both implementations with its weights."""

    def __init__(self, folder: Path, name: str) -> None:
        self.tensors = load_file(folder / f"{name}.safetensors")
        self.fields = json.loads((folder / f"{name}.json").read_text())["config"]
        self.config_class = CASES[name]

    def part(self, prefix: str) -> dict[str, Tensor]:
        names = (name for name in self.tensors if name.startswith(prefix))
        return {name.removeprefix(prefix): self.tensors[name] for name in names}

    def waveform(self, is_masked: bool) -> Tensor:
        return self.tensors["input_padded" if is_masked else "input"]

    def mask(self, is_masked: bool) -> Tensor:
        waveform = self.waveform(is_masked)
        lengths = self.tensors["lengths"] if is_masked else torch.full((3,), waveform.shape[1])
        return (torch.arange(waveform.shape[1]) < lengths[:, None]).long()

    def ours(self, **fields: Any) -> ShiftCnnForEmotionClassification:
        config: PreTrainedConfig = self.config_class(**(self.fields | fields))
        model = ShiftCnnForEmotionClassification(
            ShiftCnnConfig(encoder_config=config, freeze_encoder=False)
        )
        encoder: Any = model.encoder
        encoder.model.load_state_dict(self.part("state."))
        return model.eval()

    def torchaudio(self) -> nn.Module:
        fields = self.fields
        convs = zip(fields["conv_dim"], fields["conv_kernel"], fields["conv_stride"], strict=True)
        model = wav2vec2_model(
            extractor_mode="group_norm",
            extractor_conv_layer_config=list(convs),
            extractor_conv_bias=fields["conv_bias"],
            encoder_embed_dim=fields["hidden_size"],
            encoder_projection_dropout=0.0,
            encoder_pos_conv_kernel=fields["num_conv_pos_embeddings"],
            encoder_pos_conv_groups=fields["num_conv_pos_embedding_groups"],
            encoder_num_layers=fields["num_hidden_layers"],
            encoder_num_heads=fields["num_attention_heads"],
            encoder_attention_dropout=0.0,
            encoder_ff_interm_features=fields["intermediate_size"],
            encoder_ff_interm_dropout=0.0,
            encoder_dropout=0.0,
            encoder_layer_norm_first=False,
            encoder_layer_drop=0.0,
            aux_num_out=None,
        )
        model.load_state_dict(self.part("ta_state."))
        return model.eval()


@pytest.fixture(params=list(CASES))
def vectors(request: pytest.FixtureRequest, vectors_dir: Path) -> Vectors:
    folder = vectors_dir / "speech_encoder"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: the vectors of the speech encoders are not there")
    return Vectors(folder, request.param)


def names_in_torchaudio(name: str) -> str:
    """A parameter of transformers under its name in torchaudio."""
    if name.startswith("encoder."):
        return name.replace("encoder.", "encoder.transformer.", 1)
    return f"encoder.{name}" if name.startswith("feature_projection.") else name


@pytest.mark.parametrize("is_masked", [False, True], ids=["whole", "masked"])
def test_frames_are_those_of_the_vectors(vectors: Vectors, is_masked: bool) -> None:
    model = vectors.ours()
    frames, frame_mask = model.encoder(vectors.waveform(is_masked), vectors.mask(is_masked))
    suffix = "_masked" if is_masked else ""
    assert relative_error(frames, vectors.tensors[f"hf_last_hidden{suffix}"]) < 1e-5
    assert relative_error(frames, vectors.tensors[f"ta_last_hidden{suffix}"]) < 1e-5
    if is_masked:
        assert torch.equal(frame_mask.sum(dim=1), vectors.tensors["ta_frame_lengths"])
    else:
        assert frame_mask.all()


@pytest.mark.parametrize(("dtype", "tolerance", "gradient_tolerance"), DTYPES, ids=DTYPE_IDS)
@pytest.mark.parametrize("is_masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("is_frozen", [False, True], ids=["trained", "convolutions frozen"])
def test_frames_and_gradients_equal_torchaudio(
    vectors: Vectors,
    is_frozen: bool,
    is_masked: bool,
    dtype: torch.dtype,
    tolerance: float,
    gradient_tolerance: float,
) -> None:
    model, reference = nn.Module.to(vectors.ours(), dtype), vectors.torchaudio().to(dtype)
    model.config.freeze_feature_encoder = is_frozen
    model.eval()
    encoder: Any = model.encoder
    encoder.model.feature_extractor.requires_grad_(not is_frozen)
    reference.get_submodule("feature_extractor").requires_grad_(not is_frozen)
    waveform, mask = vectors.waveform(is_masked).to(dtype), vectors.mask(is_masked)
    ours, theirs = waveform.clone().requires_grad_(), waveform.clone().requires_grad_()

    frames, frame_mask = model.encoder(ours, mask)
    expected, _ = reference(theirs, mask.sum(dim=1) if is_masked else None)
    weights = torch.randn(frames.shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    weights = weights * frame_mask[..., None]
    (frames * weights).sum().backward()
    (expected * weights).sum().backward()

    assert relative_error(frames * frame_mask[..., None], expected * frame_mask[..., None]) < (
        tolerance
    )
    assert ours.grad is not None and theirs.grad is not None
    assert relative_error(ours.grad, theirs.grad) < gradient_tolerance
    compared = set(gradients(encoder.model))
    theirs_by_name = gradients(reference)
    floor = 1e-3 * max(value.abs().max().item() for value in theirs_by_name.values())
    for name, gradient in gradients(encoder.model).items():
        error = relative_error(gradient, theirs_by_name[names_in_torchaudio(name)], floor)
        assert error < gradient_tolerance, name
    assert {names_in_torchaudio(name) for name in compared} == theirs_by_name.keys()
    assert any("feature_extractor" in name for name in compared) != is_frozen


def gradients(module: nn.Module) -> dict[str, Tensor]:
    found: Iterator[tuple[str, nn.Parameter]] = module.named_parameters()
    return {name: parameter.grad for name, parameter in found if parameter.grad is not None}


def test_training_is_the_evaluation_with_dropout(vectors: Vectors) -> None:
    """Neither SpecAugment nor layer drop acts inside the encoder, whose config has both."""
    dropouts = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
    model = vectors.ours(layerdrop=0.9, **dict.fromkeys(dropouts, 0.0))
    waveform, mask = vectors.waveform(False), vectors.mask(False)
    expected, _ = model.encoder(waveform, mask)
    frames, _ = model.train().encoder(waveform, mask)
    assert relative_error(frames, expected) < 1e-6
    assert model.encoder.training


def test_the_longest_input_has_the_published_number_of_frames() -> None:
    fields: dict[str, Any] = {"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
    convs: dict[str, Any] = {"conv_dim": (4,) * 7, "num_conv_pos_embeddings": 4}
    config = HubertConfig(intermediate_size=8, num_conv_pos_embedding_groups=1, **fields, **convs)
    model = ShiftCnnForEmotionClassification(ShiftCnnConfig(encoder_config=config)).eval()
    waveform = torch.randn(1, 160000)
    frames, frame_mask = model.encode(*model.prepare_waveform(waveform, torch.ones(1, 160000)))
    assert frames.shape[1] == frame_mask.sum() == 374
    with pytest.raises(ValueError, match="at least 400 samples"):
        model(waveform[:, :399])
    assert model(waveform[:, :400]).logits.isfinite().all()
