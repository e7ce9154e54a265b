"""Streams: chunks of any size give the offline result, and as early as they can."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import PROJECTION_FIELDS, joint_batch, relative_error, tiny_extractor
from torch import Tensor

from modeling import ExtractionStream, TdSpeakerBeamForSpeechExtraction

FORMS: list[dict[str, Any]] = [
    {"norm_type": "cln"},
    {"norm_type": "bn"},
    {"norm_type": "cgln"},
    {"norm_type": "bn", "skip_channels": 0},
    {"norm_type": "cln", "kernel_size": 10, "stride": 7, "conv_kernel_size": 5},
    {"norm_type": "cln", "stride": 16, "conv_kernel_size": 1},
    {"norm_type": "cgln", "adaptation_type": "concat", "mask_activation": "sigmoid"},
    {"norm_type": "bn", "adaptation_type": "muladd", "speaker_embedding_dim": 16},
    {
        "norm_type": "cgln",
        "input_norm_type": "cln",
        "encoder_activation": "relu",
        "share_encoder": True,
        "conv_bias": False,
        "norm_eps": 1e-3,
        "pre_mask_activation": "swish",
    },
    {"norm_type": "cln", **PROJECTION_FIELDS},
]
CHUNK_SIZES = [1, 7, 0, 300, 16, 3, 500, 2, 64]


def name_of(fields: dict[str, Any]) -> str:
    return "-".join(str(value) for value in fields.values())


def streamed(
    stream: ExtractionStream, mixture: Tensor, chunk_sizes: list[int]
) -> tuple[Tensor, list[int]]:
    """All outputs one after the other, and how far they trailed the input after each chunk."""
    outputs: list[Tensor] = []
    lags: list[int] = []
    received = 0
    while received < mixture.shape[1]:
        size = chunk_sizes[len(lags) % len(chunk_sizes)]
        outputs.append(stream(mixture[:, received : received + size]))
        received = min(received + size, mixture.shape[1])
        lags.append(received - sum(output.shape[1] for output in outputs))
    return torch.cat([*outputs, stream.flush()], dim=1), lags


def offline(model: TdSpeakerBeamForSpeechExtraction, **arguments: Tensor) -> Tensor:
    with torch.no_grad():
        return model(**arguments).extracted_values


@pytest.mark.parametrize("fields", FORMS, ids=name_of)
def test_chunks_of_any_size_give_the_offline_result(fields: dict[str, Any]) -> None:
    model = tiny_extractor(causal=True, **fields)
    batch = joint_batch()
    mixture, enrollment = batch["input_values"][:, :1003], batch["enrollment_values"]
    expected = offline(model, input_values=mixture, enrollment_values=enrollment)
    assert expected.abs().max() > 0
    stream = model.open_stream(enrollment)
    for sizes in (CHUNK_SIZES, [1003], [model.config.stride]):
        actual, _ = streamed(stream, mixture, sizes)
        assert actual.shape == expected.shape
        assert relative_error(actual, expected) < 1e-5


def test_single_samples_are_chunks_too() -> None:
    model = tiny_extractor(causal=True, norm_type="cgln")
    mixture, embedding = torch.randn(1, 203), torch.randn(1, 16)
    expected = offline(model, input_values=mixture, speaker_embeddings=embedding)
    actual, lags = streamed(model.open_stream(speaker_embeddings=embedding), mixture, [1])
    assert relative_error(actual, expected) < 1e-5
    # Output comes as soon as a filter is full, and is never a filter late.
    assert lags[:20] == [*range(1, 16), 8, 9, 10, 11, 12]
    assert max(lags) == model.config.kernel_size - 1


def test_the_latency_is_that_of_chunks_of_whole_hops() -> None:
    model = tiny_extractor(causal=True, norm_type="cln")
    stream = model.open_stream(speaker_embeddings=torch.randn(16))
    _, lags = streamed(stream, torch.randn(2, 4000), [40])
    assert stream.latency_samples == 8
    assert stream.latency_seconds == 8 / 16000
    assert set(lags) == {stream.latency_samples}


def test_streams_on_one_model_do_not_disturb_each_other() -> None:
    model = tiny_extractor(causal=True, norm_type="cgln")
    embedding = torch.randn(1, 16)
    mixtures = [torch.randn(1, 800), torch.randn(1, 800)]
    streams = [model.open_stream(speaker_embeddings=embedding) for _ in mixtures]
    outputs: list[list[Tensor]] = [[], []]
    for start in range(0, 800, 100):
        for index, (stream, mixture) in enumerate(zip(streams, mixtures, strict=True)):
            outputs[index].append(stream(mixture[:, start : start + 100]))
    for stream, mixture, parts in zip(streams, mixtures, outputs, strict=True):
        expected = offline(model, input_values=mixture, speaker_embeddings=embedding)
        assert relative_error(torch.cat([*parts, stream.flush()], dim=1), expected) < 1e-5


def test_a_stream_shares_the_parameters_of_its_model() -> None:
    model = tiny_extractor(causal=True, norm_type="bn")
    stream = model.open_stream(speaker_embeddings=torch.randn(1, 16))
    own = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in stream.model.parameters()} == own


@pytest.mark.parametrize("norm_type", ["cln", "cgln", "bn"])
def test_what_a_stream_remembers_does_not_grow(norm_type: str) -> None:
    model = tiny_extractor(causal=True, norm_type=norm_type)
    stream = model.open_stream(speaker_embeddings=torch.randn(1, 16))

    def remembered_bytes() -> int:
        kept = [stream.pending, stream.tail]
        for module in stream.model.modules():
            kept += [getattr(module, "past_frames", None), getattr(module, "past_sums", None)]
        return sum(tensor.untyped_storage().nbytes() for tensor in kept if tensor is not None)

    sizes = []
    for num_samples in (800, 8000, 80):
        stream(torch.randn(1, num_samples))
        sizes.append(remembered_bytes())
    assert sizes[0] > 0
    assert len(set(sizes)) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"causal": False, "norm_type": "cln"}, "`causal=True`"),
        ({"causal": True, "norm_type": "gln"}, "`norm_type` 'cln'"),
        ({"causal": True, "norm_type": "cln", "input_norm_type": "gln"}, "`input_norm_type`"),
    ],
)
def test_a_model_that_needs_the_future_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_extractor(**fields).open_stream(speaker_embeddings=torch.randn(1, 16))


def test_bad_use_names_the_fix() -> None:
    model = tiny_extractor(causal=True, norm_type="bn")
    with pytest.raises(ValueError, match="enrollment_values"):
        model.open_stream()
    stream = model.open_stream(speaker_embeddings=torch.randn(2, 16))
    with pytest.raises(ValueError, match="at least 16 samples"):
        stream.flush()
    with pytest.raises(ValueError, match=r"`chunk` must have shape.*\(100,\)"):
        stream(torch.randn(100))
    with pytest.raises(ValueError, match="`chunk` must be finite"):
        stream(torch.full((2, 100), torch.nan))
    stream(torch.randn(2, 100))
    with pytest.raises(ValueError, match=r"`chunk` must have shape.*\(3, 100\)"):
        stream(torch.randn(3, 100))
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        model.train().open_stream(speaker_embeddings=torch.randn(2, 16))
