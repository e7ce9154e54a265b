"""The CAM++ speaker encoder: the published network on the same signal, and its own invariances."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchaudio
from campplus_vectors import LENGTHS, VECTORS, formula_weights, generated_speech
from safetensors.torch import load_file
from tiny_models import padded_batch, ragged_waveforms
from torch import Tensor

from modeling import modeling_campplus
from modeling.modeling_campplus import FRAME_SAMPLES, CamPlusPlusSpeakerEncoder


@pytest.fixture(scope="module")
def formula_encoder() -> CamPlusPlusSpeakerEncoder:
    return encoder_of_formula_weights()


def encoder_of_formula_weights() -> CamPlusPlusSpeakerEncoder:
    encoder = CamPlusPlusSpeakerEncoder()
    shapes = {name: value.shape for name, value in encoder.state_dict().items()}
    encoder.load_state_dict(formula_weights(shapes))
    return encoder


@pytest.fixture(scope="module")
def published_encoder(pretrained_dir: Path) -> CamPlusPlusSpeakerEncoder:
    folder = pretrained_dir / "campplus-speaker-encoder"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    encoder = CamPlusPlusSpeakerEncoder()
    encoder.load_pretrained(folder)
    return encoder


def embed(encoder: CamPlusPlusSpeakerEncoder, waveform: Tensor) -> Tensor:
    return encoder(waveform[None], torch.tensor([len(waveform)]))[0]


@pytest.mark.parametrize("weights", ["formula", "published"])
def test_embeddings_equal_the_published_network(
    weights: str, request: pytest.FixtureRequest
) -> None:
    encoder = request.getfixturevalue(f"{weights}_encoder")
    for length, expected in zip(LENGTHS, load_file(VECTORS)[weights], strict=True):
        embedding = embed(encoder, generated_speech(length))
        assert embedding.shape == (192,)
        assert (embedding - expected).norm() < 1e-5, length  # of a vector of unit length


@pytest.mark.parametrize("gain", [1.0, 1e-3, 0.0], ids=["loud", "soft", "silent"])
def test_the_filterbank_equals_kaldis(gain: float) -> None:
    """At full scale 1, so that the floor under the logarithm lies where it lay in training."""
    encoder = CamPlusPlusSpeakerEncoder()
    speech = gain * generated_speech(43210)[None]
    expected = torchaudio.compliance.kaldi.fbank(speech, num_mel_bins=80, dither=0.0)
    (filterbank,) = encoder.log_mel_filterbank(speech)
    torch.testing.assert_close(filterbank, expected, rtol=0, atol=1e-4)
    # In double precision, in which the weakest bins of noise have no rounding errors either.
    for waveform in ragged_waveforms((400, 559, 560, 32001), 1):
        offset = (gain * waveform + 0.01)[None].double()
        expected = torchaudio.compliance.kaldi.fbank(offset, num_mel_bins=80, dither=0.0)
        (filterbank,) = encoder.double().log_mel_filterbank(offset)
        torch.testing.assert_close(filterbank, expected, rtol=0, atol=1e-4)


def test_a_row_of_a_batch_gives_what_it_gives_alone(
    formula_encoder: CamPlusPlusSpeakerEncoder,
) -> None:
    """Rows of one frame, of one frame count and of two segments; the padding is noise."""
    waveforms = ragged_waveforms((400, 40000, 9000, 9039, 719, 20000), 1)
    values, mask = padded_batch(waveforms)
    embeddings = formula_encoder(values, mask.sum(dim=-1))
    for row, waveform in enumerate(waveforms):
        assert (embeddings[row] - embed(formula_encoder, waveform)).norm() < 1e-5, row
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(6))


@pytest.mark.parametrize("num_frames", [95, 100, 101, 399])
def test_spans_of_the_head_give_what_the_whole_gives(
    num_frames: int, formula_encoder: CamPlusPlusSpeakerEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    filterbank = torch.randn(2, 80, num_frames)
    whole = formula_encoder.head(filterbank)
    monkeypatch.setattr(modeling_campplus, "HEAD_SPAN_FRAMES", 50)
    torch.testing.assert_close(formula_encoder.head(filterbank), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_the_weights_alone(dtype: torch.dtype) -> None:
    """Features, activations and statistics stay in single precision, under autocast too."""
    encoder, rounded = encoder_of_formula_weights(), encoder_of_formula_weights()
    encoder.load_state_dict({k: v.to(dtype).float() for k, v in encoder.state_dict().items()})
    rounded.to(dtype)
    assert {value.dtype for value in rounded.state_dict().values()} == {dtype}
    waveform = generated_speech(9000)
    expected = embed(encoder, waveform)
    assert (embed(rounded, waveform) - expected).norm() < 1e-5
    with torch.autocast("cpu", dtype=dtype):
        assert (embed(encoder, waveform) - expected).norm() < 1e-5
    assert embed(rounded, waveform.to(dtype)).dtype == dtype


def test_the_gradient_reaches_the_waveform() -> None:
    """Parameters are frozen, the graph is not: an embedding can be part of a loss."""
    encoder = encoder_of_formula_weights().double()
    start, direction = generated_speech(2000).double(), torch.cos(torch.arange(2000.0).double())
    goal = torch.cos(torch.arange(192.0).double() ** 2)
    waveform = start.clone().requires_grad_()
    (embed(encoder, waveform) @ goal).backward()
    assert waveform.grad is not None
    step = 1e-9  # not across a kink of a ReLU
    ahead, behind = (embed(encoder, start + sign * step * direction) @ goal for sign in (1, -1))
    slope = ((ahead - behind) / (2 * step)).item()
    assert (waveform.grad @ direction).item() == pytest.approx(slope, rel=1e-4)


def test_less_than_a_frame_is_refused(formula_encoder: CamPlusPlusSpeakerEncoder) -> None:
    lengths = torch.tensor([FRAME_SAMPLES, FRAME_SAMPLES - 1])
    with pytest.raises(ValueError, match=r"at least 400 valid samples .* got 399"):
        formula_encoder(torch.zeros(2, FRAME_SAMPLES), lengths)
