"""The GE2E speaker encoder: its invariances, and the published one on the same audio."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import (
    PROJECTION_FIELDS,
    padded_batch,
    ragged_waveforms,
    relative_error,
    scatter_parameters,
    tiny_extractor,
)
from torch import Tensor

from modeling.speaker_encoders import Ge2eSpeakerEncoder

# None, one or several whole windows, and rests on both sides of three quarters of a window.
LENGTHS = (9000, 25600, 25601, 37000, 39000, 64123)


@pytest.fixture(scope="module")
def random_encoder() -> Ge2eSpeakerEncoder:
    torch.manual_seed(0)
    encoder = Ge2eSpeakerEncoder()
    scatter_parameters(encoder)
    return encoder


@pytest.fixture(scope="module")
def pretrained_encoder(pretrained_dir: Path) -> Ge2eSpeakerEncoder:
    folder = pretrained_dir / "ge2e-speaker-encoder"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    encoder = Ge2eSpeakerEncoder()
    encoder.load_pretrained(folder)
    return encoder


def embed(encoder: Ge2eSpeakerEncoder, waveform: Tensor) -> Tensor:
    return encoder(waveform[None], torch.tensor([len(waveform)]))[0]


def test_an_embedding_has_unit_length_at_any_gain(random_encoder: Ge2eSpeakerEncoder) -> None:
    for waveform in ragged_waveforms(LENGTHS, 1):
        embedding = embed(random_encoder, waveform)
        assert embedding.shape == (256,)
        assert embedding.norm().item() == pytest.approx(1, abs=1e-5)
        assert relative_error(embed(random_encoder, 1e-3 * waveform), embedding) < 1e-4


def test_padding_changes_nothing(random_encoder: Ge2eSpeakerEncoder) -> None:
    waveforms = ragged_waveforms(LENGTHS, 1)
    values, mask = padded_batch(waveforms)
    embeddings = random_encoder(values * mask, mask.sum(dim=-1))
    for row, waveform in enumerate(waveforms):
        assert relative_error(embeddings[row], embed(random_encoder, waveform)) < 1e-5


def test_a_rest_counts_from_three_quarters_of_a_window(random_encoder: Ge2eSpeakerEncoder) -> None:
    """The second window starts at 77 frames and needs 120 of its own 160."""
    waveform = ragged_waveforms((31600,), 1)[0]
    first_window = embed(random_encoder, waveform[: 77 * 160 + 120 * 160 - 1])
    both_windows = embed(random_encoder, waveform[: 77 * 160 + 120 * 160])
    assert relative_error(both_windows, first_window) > 1e-3


def test_an_enrollment_without_mask_is_valid_throughout() -> None:
    model = tiny_extractor(**PROJECTION_FIELDS)
    enrollment = ragged_waveforms((40001,), 1)[0][None]
    embedding = model.get_speaker_embeddings(enrollment)
    encoder = cast(Ge2eSpeakerEncoder, model.speaker_encoder)
    assert torch.equal(embedding[0], embed(encoder, enrollment[0]))
    assert embedding.shape == (1, model.config.external_embedding_dim)


def neutral_speech(data_dir: Path, actor: int, count: int) -> list[np.ndarray]:
    folder = data_dir / "ravdess" / "Audio_Speech_Actors_01-24" / f"Actor_{actor:02d}"
    paths = sorted(folder.glob("03-01-01-*.*"))[:count]
    if len(paths) < count:
        pytest.skip(f"{folder} holds no neutral speech")
    waveforms = []
    for path in paths:
        waveform, sampling_rate = soundfile.read(path, dtype="float32")
        if sampling_rate != 16000:
            pytest.skip(f"{path} is not resampled to 16 kHz")
        waveforms.append(waveform)
    return waveforms


def test_a_voice_is_closer_to_itself_than_to_others(
    pretrained_encoder: Ge2eSpeakerEncoder, data_dir: Path
) -> None:
    embeddings = torch.stack(
        [
            embed(pretrained_encoder, torch.from_numpy(waveform))
            for actor in (1, 2, 3, 4, 5)
            for waveform in neutral_speech(data_dir, actor, 3)
        ]
    )
    similarity = embeddings @ embeddings.T
    speakers = torch.arange(5).repeat_interleave(3)
    same = speakers[:, None] == speakers
    others = similarity[~same]
    itself = similarity[same & ~torch.eye(15, dtype=torch.bool)]
    assert itself.mean() > others.mean() + 0.1
    nearest = (similarity - 2 * torch.eye(15)).argmax(dim=1)
    assert (speakers[nearest] == speakers).float().mean() >= 0.9


@pytest.mark.slow
def test_embeddings_equal_the_published_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyPI `Resemblyzer` 0.1.4, which is no dependency, on audio at the level it asks for."""
    # Its voice activity detection plays no part here, but is imported all the same.
    for name in ("webrtcvad", "scipy.ndimage.morphology"):
        stub = types.ModuleType(name)
        stub.__dict__["binary_dilation"] = None
        monkeypatch.setitem(sys.modules, name, stub)
    resemblyzer: Any = pytest.importorskip("resemblyzer", exc_type=ImportError)
    published = resemblyzer.VoiceEncoder("cpu", verbose=False)
    ours = Ge2eSpeakerEncoder()
    ours.load_state_dict(published.state_dict())
    rng = np.random.default_rng(0)
    for num_samples in (*LENGTHS, *rng.integers(5000, 160000, 20)):
        (waveform,) = ragged_waveforms((int(num_samples),), int(num_samples))
        level = 10 ** (-30 / 20) / waveform.square().mean().sqrt()
        expected = published.embed_utterance((level * waveform).numpy())
        assert (embed(ours, waveform) - torch.from_numpy(expected)).abs().max() < 1e-5
