"""The mask estimator of recurrent layers over log magnitudes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import LSTM_FIELDS, tiny_extractor

from modeling import TdSpeakerBeamConfig, speaker_similarity
from modeling.frame_layers import fourier_filters
from modeling.recurrent_network import RecurrentLayer, for_each_pair, pair_magnitudes, turned_frames


def test_magnitudes_are_those_of_the_spectrum_whatever_the_phase() -> None:
    time = torch.arange(64, dtype=torch.float64)
    filters = fourier_filters(64)[:64]
    tone = [torch.cos(2 * torch.pi * 5 * time / 64 + phase) for phase in (0.0, 1.0, 2.5)]
    frames = (filters @ torch.stack(tone, dim=1))[None]
    magnitudes = pair_magnitudes(frames)
    assert magnitudes.shape == (1, 33, 3)
    assert magnitudes.argmax(dim=1).unique().tolist() == [5]
    torch.testing.assert_close(magnitudes[:, 5, 0], magnitudes[:, 5, 1], rtol=5e-3, atol=0)
    torch.testing.assert_close(magnitudes[:, 5, 0], magnitudes[:, 5, 2], rtol=5e-3, atol=0)


def test_the_cosine_and_the_sine_of_a_frequency_have_one_mask() -> None:
    masks = torch.arange(5.0)[None, :, None]  # zero to half the sampling rate
    assert for_each_pair(masks)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 1, 2, 3]


def test_open_masks_give_the_mixture_back() -> None:
    model = tiny_extractor(**LSTM_FIELDS)
    with torch.no_grad():
        output_conv = model.mask_estimator.output_conv
        output_conv.weight.zero_()
        output_conv.bias = torch.nn.Parameter(torch.full_like(output_conv.weight[:, 0, 0], 40.0))
        mixture = torch.randn(2, 800)
        extracted = model(mixture, speaker_embeddings=torch.randn(2, 80)).extracted_values
    inside = slice(16, -16)  # the windows do not add up at the ends
    torch.testing.assert_close(extracted[:, inside], mixture[:, inside], rtol=0, atol=1e-5)


def test_the_layer_is_a_bidirectional_lstm() -> None:
    layer = RecurrentLayer(6, 4)
    both = torch.nn.LSTM(6, 4, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for name, parameter in layer.lstm.named_parameters():
            getattr(both, name).copy_(parameter)
            backward = dict(layer.backward_lstm.named_parameters())[name]
            getattr(both, f"{name}_reverse").copy_(backward)
    frames = torch.randn(2, 6, 9)
    expected = layer.output(both(layer.norm(frames.transpose(1, 2)))[0]).transpose(1, 2)
    torch.testing.assert_close(layer(frames, turned_frames(frames, None)), expected)


@pytest.mark.parametrize("scale", [0.1, 1e3])
def test_the_level_of_a_mixture_changes_no_mask(scale: float) -> None:
    model = tiny_extractor(**LSTM_FIELDS)
    mixture, embedding = torch.randn(1, 800), torch.randn(1, 80)
    with torch.no_grad():
        expected = model(mixture, speaker_embeddings=embedding).extracted_values
        scaled = model(mixture * scale, speaker_embeddings=embedding).extracted_values
    torch.testing.assert_close(scaled / scale, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"causal": True}, "`causal` must be False for `mask_estimator='lstm'`"),
        ({"skip_channels": 8}, "`skip_channels` must be 0 for"),
        ({"initial_filters": "random"}, "`initial_filters` must be 'fourier' for"),
        ({"encoder_activation": "relu"}, "`encoder_activation` must be None for"),
        ({"num_filters": 32}, "`num_filters` must be 16 for"),
        ({"mask_estimator": "gru"}, "`mask_estimator` must be one of 'tcn', 'lstm'"),
    ],
)
def test_what_it_needs_is_said(wrong: dict[str, Any], message: str) -> None:
    sizes = {"num_filters": 16, "kernel_size": 16, "stride": 8, "bottleneck_channels": 8}
    fields = LSTM_FIELDS | sizes | {"speaker_embedding_dim": 8}
    TdSpeakerBeamConfig(**fields)
    with pytest.raises(ValueError, match=message):
        TdSpeakerBeamConfig(**(fields | wrong))


CHOOSING_FIELDS = LSTM_FIELDS | {"num_outputs": 2, "output_choice": "similarity"}


def test_the_output_that_sounds_like_the_enrollment_comes_first() -> None:
    model = tiny_extractor(**CHOOSING_FIELDS)
    mixture, enrollment = torch.randn(4, 4003), torch.randn(4, 4003)
    with torch.no_grad():
        output = model(mixture, enrollment_values=enrollment)
        both = model._separate(mixture, None, output.speaker_embeddings)
        cosines = torch.stack(
            [
                torch.cosine_similarity(
                    model.get_speaker_embeddings(one), output.speaker_embeddings
                )
                for one in both
            ]
        )
        swapped = cosines[1] > cosines[0]
        for row, is_swapped in enumerate(swapped.tolist()):
            assert output.extracted_values[row].equal(both[is_swapped][row])
        # Each output, taken as enrollment, finds itself.
        for one in both:
            assert model(mixture, enrollment_values=one).extracted_values.equal(one)


def test_nothing_but_the_choice_hears_the_enrollment() -> None:
    model = tiny_extractor(**CHOOSING_FIELDS)
    mixture = torch.randn(1, 4003)
    with torch.no_grad():
        outputs = [model._separate(mixture, None, torch.randn(1, 80)) for _ in range(2)]
    assert all(one.equal(other) for one, other in zip(*outputs, strict=True))


def test_each_window_of_a_recording_is_chosen_for_itself() -> None:
    model = tiny_extractor(**CHOOSING_FIELDS)
    mixture, enrollment = torch.randn(1, 32_003), torch.randn(1, 4003)
    voice = model.get_speaker_embeddings(enrollment)
    whole = model(mixture, speaker_embeddings=voice).extracted_values.detach()
    one_window = model.extract(mixture, speaker_embeddings=voice, window_seconds=3.0)
    torch.testing.assert_close(one_window, whole, rtol=0, atol=1e-5)
    windows = model.extract(mixture, speaker_embeddings=voice, window_seconds=0.5)
    both = model._separate(mixture, None, voice)
    parts = zip(*(one.detach().split(8000, dim=-1) for one in (windows, *both)), strict=True)
    for window, *candidates in list(parts)[:4]:
        errors = [(window - one)[:, 16:-16].abs().max() for one in candidates]
        assert min(errors) < 0.05 < max(errors)  # beside what lies beyond two seconds


def test_training_takes_the_output_that_is_nearer_to_the_target() -> None:
    model = tiny_extractor(**CHOOSING_FIELDS).train()
    given = {"input_values": torch.randn(2, 4003), "target_values": torch.randn(2, 4003)}
    voices = torch.randn(2, 80)
    expected = model(**given, permutation_invariant=True)
    output = model(**given, speaker_embeddings=voices)
    torch.testing.assert_close(output.loss, expected.loss)
    assert output.extracted_values.equal(expected.extracted_values)
    assert output.speaker_embeddings.equal(voices)


def test_a_choice_needs_two_outputs_and_an_encoder() -> None:
    for wrong, message in (
        ({"num_outputs": 1}, "`num_outputs` must be 2 for"),
        ({"speaker_encoder": None}, "`speaker_encoder` must be named"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny_extractor(**CHOOSING_FIELDS | wrong)


def test_a_new_projection_of_voices_changes_no_choice_and_another_one_does() -> None:
    plain = tiny_extractor(**CHOOSING_FIELDS)
    model = tiny_extractor(**CHOOSING_FIELDS)
    model.train_similarity_projection()
    mixture, enrollment = torch.randn(4, 4003), torch.randn(4, 4003)
    before = plain(mixture, enrollment_values=enrollment).extracted_values
    assert model(mixture, enrollment_values=enrollment).extracted_values.equal(before)
    voices = model.get_speaker_embeddings(enrollment)
    similarity = speaker_similarity(plain, before, voices)
    torch.testing.assert_close(speaker_similarity(model, before, voices), similarity)
    # Only the first number of an embedding counts: its sign decides.
    with torch.no_grad():
        model.similarity_projection.weight[1:] = 0
    torch.testing.assert_close(speaker_similarity(model, before, voices).abs(), torch.ones(4))
    assert (speaker_similarity(model.half(), before.half(), voices.half()).abs() > 0.99).all()


def test_nothing_but_the_choice_learns_from_wrong_choices() -> None:
    model = tiny_extractor(**CHOOSING_FIELDS, similarity_projection=True).train()
    plain = tiny_extractor(**CHOOSING_FIELDS).train()
    plain.load_state_dict(model.state_dict(), strict=False)
    given = {
        "input_values": torch.randn(2, 4003),
        "target_values": torch.randn(2, 4003),
        "speaker_embeddings": torch.randn(2, 80),
    }
    for one in (model, plain):
        one(**given).loss.backward()
    parameters = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameters[name].grad, parameter.grad, msg=name)
    assert parameters["similarity_projection.weight"].grad.abs().max() > 0
    # Of a target that is absent no output is the right one.
    model.zero_grad()
    model(**given | {"target_values": torch.zeros(2, 4003)}).loss.backward()
    assert parameters["similarity_projection.weight"].grad.abs().max() == 0


def test_the_choice_is_learned() -> None:
    torch.manual_seed(0)
    model = tiny_extractor(**CHOOSING_FIELDS, similarity_projection=True).train()
    model.train_similarity_projection()
    mixture, voices = torch.randn(8, 4003), torch.randn(8, 80)
    with torch.no_grad():
        targets = torch.stack(model._separate(mixture, None, voices))
    # Whose enrollment it is decides which of the outputs is the target.
    target = torch.where(voices[:, :1] > 0, *targets)
    given = {"input_values": mixture, "target_values": target, "speaker_embeddings": voices}
    best = model(**given, permutation_invariant=True).loss.item()
    optimizer = torch.optim.Adam((one for one in model.parameters() if one.requires_grad), 0.01)
    losses = []
    for _ in range(60):
        loss = model(**given).loss
        losses.append(loss.item() - best)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > 5
    assert losses[-1] < losses[0] / 4
    chosen = model.eval()(**given).extracted_values
    assert (chosen - target).square().mean(dim=-1).max() < 1e-6
