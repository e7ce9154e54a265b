"""Long recordings: windows give the whole-signal result, in the memory of one of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from memory_meter import PeakTensorBytes
from tiny_models import (
    LSTM_FIELDS,
    PROJECTION_FIELDS,
    joint_batch,
    padded_batch,
    ragged_waveforms,
    relative_error,
    tiny_extractor,
)
from torch import Tensor

from modeling import TdSpeakerBeamForSpeechExtraction, si_snr
from modeling.long_recordings import pooled_copy

EXACT_FORMS: list[dict[str, Any]] = [
    {"causal": True, "norm_type": "cln"},
    {"causal": True, "norm_type": "cgln"},
    {"causal": True, "norm_type": "bn"},
    {"causal": False, "norm_type": "cln"},
    {"causal": False, "norm_type": "bn"},
    {"norm_type": "bn", "conv_kernel_size": 5, "kernel_size": 10, "stride": 7},
    {"norm_type": "cln", "conv_kernel_size": 1, "stride": 16, "skip_channels": 0},
    {
        "norm_type": "bn",
        "input_norm_type": "cln",
        "encoder_activation": "relu",
        "share_encoder": True,
        "conv_bias": False,
    },
    {"norm_type": "cln", "adaptation_type": "concat", **PROJECTION_FIELDS},
]
# A form for each way through a recording.
WAYS: list[dict[str, Any]] = [
    {"causal": True, "norm_type": "cgln"},
    {"norm_type": "bn"},
    {"norm_type": "gln"},
]


def name_of(fields: dict[str, Any]) -> str:
    return "-".join(str(value) for value in fields.values())


def whole(model: TdSpeakerBeamForSpeechExtraction, **arguments: Any) -> Tensor:
    with torch.no_grad():
        return model(**arguments).extracted_values


@pytest.mark.parametrize("fields", EXACT_FORMS, ids=name_of)
def test_windows_give_the_whole_signal_result(fields: dict[str, Any]) -> None:
    model = tiny_extractor(**fields)
    batch = joint_batch()
    mixture, enrollment = batch["input_values"], batch["enrollment_values"]
    expected = whole(model, input_values=mixture, enrollment_values=enrollment)
    assert expected.abs().max() > 0
    for window_seconds in (0.001, 0.0313, 0.1, 1.0):
        actual = model.extract(mixture, enrollment_values=enrollment, window_seconds=window_seconds)
        assert actual.shape == expected.shape
        assert relative_error(actual, expected) < 1e-5


@pytest.mark.parametrize("num_samples", [16, 17, 24, 799, 800, 801, 807, 808])
@pytest.mark.parametrize("fields", WAYS, ids=name_of)
def test_every_length_is_covered(fields: dict[str, Any], num_samples: int) -> None:
    model = tiny_extractor(**fields)
    mixture, embedding = torch.randn(1, num_samples), torch.randn(1, 16)
    expected = whole(model, input_values=mixture, speaker_embeddings=embedding)
    one_window = model.extract(mixture, speaker_embeddings=embedding, window_seconds=1)
    assert relative_error(one_window, expected) < 1e-5
    windows = model.extract(mixture, speaker_embeddings=embedding, window_seconds=0.005)
    # Filters leave out a remainder shorter than a hop; all else is filled.
    assert windows.ne(0).equal(expected.ne(0))


@pytest.mark.parametrize("fields", [{"norm_type": "gln"}, {"norm_type": "cgln"}], ids=name_of)
def test_a_norm_of_the_window_comes_close(fields: dict[str, Any]) -> None:
    # 30 dB are 3 % of the amplitude, on a signal that stays as it is.
    model = tiny_extractor(**fields)
    mixture, embedding = torch.randn(1, 64003), torch.randn(1, 16)
    expected = whole(model, input_values=mixture, speaker_embeddings=embedding)
    closeness = [
        si_snr(
            model.extract(mixture, speaker_embeddings=embedding, window_seconds=seconds), expected
        ).item()
        for seconds in (0.1, 1.0)
    ]
    assert closeness[0] > 20
    assert closeness[1] > max(30, closeness[0])


def test_the_windows_of_recurrent_layers_share_what_is_around_them() -> None:
    # What an LSTM remembers beyond the two seconds around a window is lost, and it is little.
    model = tiny_extractor(**LSTM_FIELDS | {"num_filters": 256, "kernel_size": 256, "stride": 128})
    mixture, embedding = torch.randn(1, 80_003), torch.randn(1, 80)
    expected = whole(model, input_values=mixture, speaker_embeddings=embedding)
    parts = model.extract(mixture, speaker_embeddings=embedding, window_seconds=0.5)
    assert si_snr(parts, expected).item() > 50


def test_the_level_does_not_jump_between_windows_of_a_global_norm() -> None:
    # Where the level of the signal changes, windows that are normalised by themselves jump.
    model = tiny_extractor(norm_type="gln", mask_activation="sigmoid")
    mixture, embedding = torch.randn(1, 64000), torch.randn(1, 16)
    for quiet in range(0, 64000, 16000):
        mixture[:, quiet : quiet + 8000] *= 0.03
    expected = whole(model, input_values=mixture, speaker_embeddings=embedding)

    def jump_db(extracted: Tensor) -> float:
        ratios = [
            10 * torch.log10(part.square().mean() / same.square().mean())
            for part, same in zip(extracted.split(4000, -1), expected.split(4000, -1), strict=True)
        ]
        return (max(ratios) - min(ratios)).item()

    shared = model.extract(mixture, speaker_embeddings=embedding, window_seconds=0.25)
    alone = torch.cat(
        [
            whole(model, input_values=part, speaker_embeddings=embedding)
            for part in mixture.split(4000, -1)
        ],
        dim=1,
    )
    assert jump_db(alone) > 3 * jump_db(shared)
    assert jump_db(shared) < 1.5


@pytest.mark.parametrize("causal", [True, False])
def test_windows_of_a_global_norm_see_all_that_their_frames_depend_on(causal: bool) -> None:
    # A causal filter looks back twice as far as one that looks to both sides.
    model = tiny_extractor(norm_type="gln", causal=causal)
    mixture, embedding = torch.randn(1, 8000), torch.randn(1, 16)
    shared = pooled_copy(model, mixture, embedding, window=800)
    expected = whole(shared, input_values=mixture, speaker_embeddings=embedding)
    actual = model.extract(mixture, speaker_embeddings=embedding, window_seconds=0.05)
    assert relative_error(actual, expected) < 1e-5


@pytest.mark.parametrize("fields", WAYS, ids=name_of)
def test_padding_changes_nothing(fields: dict[str, Any]) -> None:
    model = tiny_extractor(**fields)
    waveforms = ragged_waveforms((2003, 3000, 17), seed=1)
    values, mask = padded_batch(waveforms)
    embeddings = torch.randn(3, 16)
    extracted = model.extract(values, mask, speaker_embeddings=embeddings, window_seconds=0.05)
    for row, waveform in enumerate(waveforms):
        alone = model.extract(
            waveform[None], speaker_embeddings=embeddings[row], window_seconds=0.05
        )
        assert extracted[row, : len(waveform)].equal(alone[0])
        assert not extracted[row, len(waveform) :].any()


@pytest.mark.parametrize("fields", WAYS, ids=name_of)
def test_memory_does_not_grow_with_the_recording(fields: dict[str, Any]) -> None:
    model = tiny_extractor(**fields)
    embedding = torch.randn(1, 16)

    def peak_beyond_output(num_samples: int) -> int:
        mixture = torch.randn(1, num_samples)
        with PeakTensorBytes() as meter:
            extracted = model.extract(mixture, speaker_embeddings=embedding, window_seconds=0.25)
        assert meter.peak > extracted.nbytes
        return meter.peak - extracted.nbytes

    assert peak_beyond_output(160_000) < 1.01 * peak_beyond_output(16_000)


@pytest.mark.parametrize("window_seconds", [0.001, 0.0313, 1.0])
@pytest.mark.parametrize("fields", [*EXACT_FORMS, *WAYS, {"norm_type": "cgln"}], ids=name_of)
def test_parts_may_be_written_over_their_mixture(
    fields: dict[str, Any], window_seconds: float
) -> None:
    model = tiny_extractor(**fields)
    mixture = torch.randn(1, 1607)
    embedding = model.get_speaker_embeddings(torch.randn(1, 16000)).detach()
    expected = model.extract(
        mixture, speaker_embeddings=embedding, window_seconds=window_seconds, overlap=0.5
    )
    position = 0
    for part in model.extract_in_parts(mixture, embedding, window_seconds, overlap=0.5):
        mixture[:, position : position + part.shape[-1]] = part
        position += part.shape[-1]
    assert position == mixture.shape[-1]
    assert mixture.equal(expected)


MEASURE_PEAK = """
import resource, sys
sys.path[:0] = {paths!r}
import torch
from tiny_models import tiny_extractor
model = tiny_extractor(**{fields!r}, num_filters=64, kernel_size=32, stride=16)
mixture = torch.randn(1, {minutes} * 60 * 16000)
extracted = model.extract(mixture, speaker_embeddings=torch.randn(1, 16))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - 2 * mixture.nbytes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("fields", WAYS, ids=name_of)
def test_an_hour_takes_the_memory_of_a_minute(fields: dict[str, Any], repository: Path) -> None:
    def peak_bytes(minutes: int) -> int:
        paths = [str(repository), str(repository / "tests")]
        code = MEASURE_PEAK.format(paths=paths, fields=fields, minutes=minutes)
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return int(run.stdout)

    # The process and a window take some 800 MB, give or take 50; an hour of samples is 230 MB.
    assert peak_bytes(60) - peak_bytes(1) < 50e6


def test_the_embedding_is_computed_once() -> None:
    model = tiny_extractor()
    batch = joint_batch()
    with patch.object(
        model, "get_speaker_embeddings", wraps=model.get_speaker_embeddings
    ) as computed:
        extracted = model.extract(
            batch["input_values"],
            enrollment_values=batch["enrollment_values"],
            window_seconds=0.05,
        )
    assert computed.call_count == 1
    assert not extracted.requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window_seconds": 0.0005}, "`window_seconds` must be at least 0.001 s"),
        ({"overlap": 0.6}, "`overlap` must lie between 0 and 0.5"),
        ({"speaker_embeddings": None}, "enrollment_values"),
        ({"speaker_embeddings": torch.randn(3, 16)}, "`speaker_embeddings` must have shape"),
        ({"input_values": torch.randn(800)}, "`input_values` must have shape"),
        ({"input_values": torch.randn(2, 15)}, "at least 16 samples"),
        ({"input_values": torch.full((2, 800), torch.nan)}, "`input_values` must be finite"),
        ({"attention_mask": torch.ones(2, 799)}, "attention mask of `input_values`"),
        ({"attention_mask": torch.zeros(2, 800)}, "at least 16 valid samples"),
    ],
)
@pytest.mark.parametrize("fields", WAYS, ids=name_of)
def test_bad_input_names_the_argument(
    fields: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    given = {"input_values": torch.randn(2, 800), "speaker_embeddings": torch.randn(2, 16)}
    with pytest.raises(ValueError, match=message):
        tiny_extractor(**fields).extract(**{**given, **arguments})


def test_parts_are_those_of_one_mixture() -> None:
    parts = tiny_extractor().extract_in_parts(torch.randn(2, 800), torch.randn(1, 16))
    with pytest.raises(ValueError, match="must hold one mixture"):
        next(parts)


def test_batch_norm_in_training_is_refused() -> None:
    model = tiny_extractor(norm_type="bn").train()
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        model.extract(torch.randn(1, 800), speaker_embeddings=torch.randn(1, 16))
