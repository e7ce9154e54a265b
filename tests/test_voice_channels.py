"""Training voices through channels of their own: what changes, what does not, and for whom."""

from __future__ import annotations

import numpy as np
import pytest

from data_builders import MixtureDataset
from data_builders.option_reader import OptionError
from data_builders.options import RecipeOptions
from tse_ser.options import TseSerTrainingArguments
from tse_ser.training.load_datasets import load_datasets
from tse_ser.training.voice_channels import FADERS_HZ, VoiceChannels, through_channel

SETTINGS = {"targets": ("generated",), "interferers": ("generated_pool",), "segment_seconds": 1.0}


def loaded(**options: object) -> tuple[MixtureDataset, MixtureDataset]:
    return load_datasets(  # type: ignore[return-value]
        RecipeOptions(**SETTINGS, **options),  # type: ignore[arg-type]
        TseSerTrainingArguments(output_dir="none", use_cpu=True, report_to="none"),
    )


def snr_db(example: dict[str, np.ndarray]) -> float:
    powers = [
        np.square(x).mean() for x in (example["target"], example["mixture"] - example["target"])
    ]
    return float(10 * np.log10(powers[0] / powers[1]))


def test_an_equalizer_changes_each_band_by_its_fader_and_no_power() -> None:
    times = np.arange(16_000) / 16_000
    tones = [np.sin(2 * np.pi * hz * times) for hz in (300, 1200, 4800)]
    faders_db = np.zeros(len(FADERS_HZ))
    faders_db[[FADERS_HZ.index(300), FADERS_HZ.index(4800)]] = 6.0, -12.0
    before = np.sum(tones, axis=0).astype(np.float32)
    after = through_channel(before, faders_db)
    assert after.dtype == np.float32 and len(after) == len(before)
    amplitudes = np.array([2 * np.mean(after * tone) for tone in tones])
    assert 20 * np.log10(amplitudes / amplitudes[1]) == pytest.approx([6.0, 0.0, -12.0], abs=0.1)
    assert np.square(after).sum() == pytest.approx(np.square(before).sum(), rel=1e-4)
    flat = through_channel(before, np.zeros(len(FADERS_HZ)))
    assert np.abs(flat - before).max() < 1e-5
    low = through_channel(before, np.zeros(len(FADERS_HZ)), cutoff_hz=3400.0)
    assert abs(np.mean(low * tones[2])) < 0.01
    assert not through_channel(np.zeros(100, np.float32), faders_db).any()


def test_training_voices_get_channels_at_their_snr_and_validation_is_left_alone() -> None:
    plain, plain_validation = loaded()
    trained, validation = loaded(equalizer_db=6.0, random_lowpass_share=0.5)
    assert isinstance(trained, VoiceChannels) and not isinstance(validation, VoiceChannels)
    assert np.array_equal(validation[0]["mixture"], plain_validation[0]["mixture"])
    before, after = plain[3], trained[3]
    assert after["spec"] == before["spec"] and after["label"] == before["label"]
    assert np.array_equal(after["enrollment"], before["enrollment"])
    assert not np.allclose(after["target"], before["target"], atol=1e-3)
    assert snr_db(after) == pytest.approx(snr_db(before), abs=0.01)
    assert np.array_equal(trained[3]["mixture"], after["mixture"]), "one plan has one channel"
    of_clean_speech, _ = loaded(equalizer_db=6.0, condition="clean")
    assert np.array_equal(of_clean_speech[3]["target"], loaded(condition="clean")[0][3]["target"])
    trained.set_epoch(1)
    assert not np.array_equal(trained[3]["mixture"], after["mixture"])


def test_where_a_target_has_no_waveform_of_its_own_channels_are_refused() -> None:
    for other in ({"reverberation": "direct"}, {"librimix_subset": "train-clean-100"}):
        with pytest.raises(OptionError, match="without rooms"):
            RecipeOptions(equalizer_db=3.0, **other)  # type: ignore[arg-type]
