"""The parameter-free speaker embedding: what it ignores, and what it tells apart."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import soundfile
import torch
from tiny_models import STATISTICS_FIELDS, tiny_extractor

from modeling import TdSpeakerBeamConfig
from modeling.speaker_encoders import STATISTICS_DIM, LogMelStatisticsEncoder

ENCODER = LogMelStatisticsEncoder()


def embed(waveform: torch.Tensor, *lengths: int) -> torch.Tensor:
    return ENCODER(waveform, torch.tensor(lengths))


def test_the_embedding_has_unit_length_and_ignores_level_and_padding() -> None:
    waveform = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    alone = embed(waveform, 8000)
    assert alone.shape == (1, STATISTICS_DIM)
    torch.testing.assert_close(alone.norm(dim=-1), torch.ones(1))
    torch.testing.assert_close(embed(1e-2 * waveform, 8000), alone, rtol=1e-4, atol=1e-5)
    padded = torch.nn.functional.pad(waveform, (0, 5000))
    torch.testing.assert_close(embed(padded, 8000), alone)


def test_a_voice_is_closer_to_itself_than_to_others(generated_corpus: datasets.Dataset) -> None:
    rows = [row for row in generated_corpus if row["emotion"] == "neutral"]
    speakers = sorted({row["speaker_id"] for row in rows})
    pairs = [[r for r in rows if r["speaker_id"] == speaker][:2] for speaker in speakers]
    first, second = (
        torch.cat([_embed_file(pair[place]["path"]) for pair in pairs]) for place in (0, 1)
    )
    centered = [part - torch.cat([first, second]).mean(dim=0) for part in (first, second)]
    nearest = (centered[0] @ centered[1].T).argmax(dim=-1)
    right = (nearest == torch.arange(len(speakers))).float().mean().item()
    assert right >= 0.5  # by chance 0.1


def _embed_file(path: str) -> torch.Tensor:
    samples, _ = soundfile.read(path, dtype="float32")
    return embed(torch.from_numpy(np.ascontiguousarray(samples))[None], len(samples))


def test_an_extractor_builds_it_in_and_saves_nothing_of_it() -> None:
    with pytest.raises(ValueError, match="`external_embedding_dim` must be 80"):
        TdSpeakerBeamConfig(auxiliary_type="projection", speaker_encoder="log_mel_statistics")
    model = tiny_extractor(**STATISTICS_FIELDS)
    assert not any(name.startswith("speaker_encoder") for name in model.state_dict())
    values = torch.randn(2, 4000, generator=torch.Generator().manual_seed(1))
    assert model.get_speaker_embeddings(values).shape == (2, STATISTICS_DIM)
    assert model(values, enrollment_values=values).extracted_values.shape == values.shape
