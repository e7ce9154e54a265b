"""Extractors with two outputs, losses without an order, and embeddings for several blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from modeling import TdSpeakerBeamConfig, TdSpeakerBeamForSpeechExtraction
from modeling.signal_losses import extraction_losses
from tse_ser.training.speaker_embeddings import SpeakerEmbeddingCache, can_be_kept

FIELDS: dict[str, Any] = {
    "num_filters": 32,
    "bottleneck_channels": 8,
    "hidden_channels": 16,
    "skip_channels": 8,
    "num_blocks": 2,
    "num_repeats": 2,
    "adaptation_layer": [1, 3],
    "adaptation_type": "muladd",
    "speaker_embedding_dim": 16,
    "auxiliary_type": "projection",
    "external_embedding_dim": 5,
    "num_outputs": 2,
    "loss_type": "snr",
    "max_snr_db": 30.0,
}


def make_model(**fields: Any) -> TdSpeakerBeamForSpeechExtraction:
    torch.manual_seed(0)
    return TdSpeakerBeamForSpeechExtraction(TdSpeakerBeamConfig(**{**FIELDS, **fields})).eval()


def bias_of(model: TdSpeakerBeamForSpeechExtraction) -> torch.Tensor:
    bias: torch.Tensor = model.auxiliary_network.get_parameter("bias")
    return bias


def signals(batch_size: int = 3, num_samples: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mixture, target = torch.randn(2, batch_size, num_samples, generator=generator)
    return mixture, target


def test_both_outputs_are_scored_and_the_first_is_the_targets() -> None:
    model = make_model()
    mixture, target = signals()
    embeddings = torch.randn(3, 5)
    output = model(mixture, speaker_embeddings=embeddings, target_values=target)
    first, second = model._separate(mixture, None, embeddings)
    torch.testing.assert_close(output.extracted_values, first)
    expected = [
        extraction_losses(estimate, source, mixture, None, "snr", 30.0).mean()
        for estimate, source in ((first, target), (second, mixture - target))
    ]
    torch.testing.assert_close(output.loss, sum(expected) / 2)


def test_without_an_order_the_better_output_counts_and_nobody_is_heard() -> None:
    model = make_model()
    mixture, target = signals()
    output = model(mixture, target_values=target, permutation_invariant=True)
    swapped = model(mixture, target_values=mixture - target, permutation_invariant=True)
    torch.testing.assert_close(output.loss, swapped.loss)
    # The extraction of the target is the other output than that of the rest, example by example.
    pair = model._separate(mixture, None, torch.zeros(1, 5))
    for one, other in zip(output.extracted_values, swapped.extracted_values, strict=True):
        assert not torch.equal(one, other)
    kept = torch.stack(pair)
    assert all((kept == one).all(dim=-1).any() for one in output.extracted_values)
    ignored = model(mixture, speaker_embeddings=torch.randn(3, 5), permutation_invariant=True)
    torch.testing.assert_close(ignored.extracted_values, pair[0])


@pytest.mark.parametrize("fields", [{"num_outputs": 1}, {"auxiliary_type": "tcn"}])
def test_a_loss_without_an_order_needs_two_outputs_and_a_projection(fields: dict[str, Any]) -> None:
    mixture, target = signals()
    with pytest.raises(ValueError, match="num_outputs=2"):
        make_model(**fields)(mixture, target_values=target, permutation_invariant=True)


def test_every_adapted_block_gets_its_own_part_and_begins_unchanged() -> None:
    model = make_model()
    assert model.config.embedding_size == 2 * 2 * 16
    bias = bias_of(model).detach().clone()
    torch.testing.assert_close(bias, torch.tensor(([1.0] * 8 + [0.0] * 8) * 4))
    mixture, _ = signals()
    nobody = torch.zeros(3, 5)
    before = model(mixture, speaker_embeddings=nobody).extracted_values
    for part in range(4):
        # An offset of each adapted branch of each adapted block reaches the output, but the last
        # block's residual branch, which nothing reads.
        changed = bias.clone()
        changed[part * 16 + 8 : (part + 1) * 16] = 1.0
        with torch.no_grad():
            bias_of(model).copy_(changed)
        after = model(mixture, speaker_embeddings=nobody).extracted_values
        assert torch.equal(before, after) == (part == 2)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [([], "between"), ([1, 4], "between"), ([3, 1], "rising"), ([1, 1], "rising")],
)
def test_blocks_that_cannot_be_adapted_are_refused(layers: list[int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make_model(adaptation_layer=layers)
    with pytest.raises(ValueError, match="one block"):
        make_model(adaptation_layer=[1, 3], adaptation_type="concat", speaker_embedding_dim=8)


def test_an_enrollment_is_embedded_once() -> None:
    heard: list[int] = []

    def embed(waveforms: torch.Tensor) -> torch.Tensor:
        heard.append(waveforms.shape[-1])
        return waveforms.mean(dim=-1, keepdim=True)

    def example(start: int, speed: float = 1.0) -> dict[str, Any]:
        spec = {
            "enrollment_id": "a",
            "enrollment_start": start,
            "enrollment_num_samples": 10,
            "target_speed": speed,
        }
        return {"spec": spec, "enrollment": torch.full((10,), float(start)).numpy()}

    cache = SpeakerEmbeddingCache(embed, lambda waveform: waveform / 2)
    rows = cache([example(0), example(4), example(0), example(4, speed=0.9)])
    assert rows[:, 0].tolist() == [0, 2, 0, 2] and len(heard) == len(cache) == 3
    assert cache([example(4)]).item() == 2 and len(heard) == 3
    assert can_be_kept(example(0))
    assert not can_be_kept({"spec": {"mixture_id": "a"}}) and not can_be_kept({})
