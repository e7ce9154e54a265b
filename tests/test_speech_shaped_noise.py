"""Noise with the spectrum of voices: what is written, from what, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile

from data_builders import load_mixtures
from data_builders.mixtures.mixing import mean_power
from data_builders.speech_shaped_noise import main, mean_spectrum, speech_shaped_noise


def test_the_noise_has_the_level_and_the_spectrum_asked_for() -> None:
    wanted = np.geomspace(1.0, 1e-4, 513)
    noise = speech_shaped_noise(wanted, 160_000, np.random.default_rng(0))
    assert noise.shape == (160_000,) and noise.dtype == np.float32
    assert 10 * np.log10(mean_power(noise)) == pytest.approx(-26.0, abs=0.01)
    found = scipy.signal.welch(noise, 16_000, nperseg=1024)[1]
    ratio_db = 10 * np.log10(found[5:-5] / wanted[5:-5])
    assert np.ptp(ratio_db - ratio_db.mean()) < 4  # of 40, over 300 frames a bin
    again = speech_shaped_noise(wanted, 160_000, np.random.default_rng(0))
    np.testing.assert_array_equal(noise, again)
    other = speech_shaped_noise(wanted, 160_000, np.random.default_rng(1))
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.1


def test_each_recording_counts_alike_however_loud_it_is(tmp_path: Path) -> None:
    time = np.arange(16_000) / 16_000
    for name, pitch, level in (("low", 1000, 0.001), ("high", 4000, 0.5)):
        tone = level * np.sin(2 * np.pi * pitch * time)
        soundfile.write(tmp_path / f"{name}.wav", tone, 16_000, subtype="FLOAT")
    spectrum = mean_spectrum([tmp_path / "low.wav", tmp_path / "high.wav"])
    hertz = np.fft.rfftfreq(1024, 1 / 16_000)
    low = spectrum[(hertz > 900) & (hertz < 1100)].sum()
    high = spectrum[(hertz > 3900) & (hertz < 4100)].sum()
    assert low == pytest.approx(0.5, abs=0.01) and high == pytest.approx(0.5, abs=0.01)


@pytest.mark.usefixtures("generated_corpus")
def test_mixtures_take_what_the_program_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "noise" / "speech_shaped.wav"
    assert main(["--targets", "generated", "--seconds", "5", "--output", str(output)]) == 0
    assert "5 s with the spectrum of generated" in capsys.readouterr().out
    assert soundfile.info(output).frames == 5 * 16_000
    settings: dict[str, Any] = {
        "interferers": ["generated_pool"],
        "max_examples": 4,
        "split": "test",
    }
    quiet = load_mixtures(**settings)[0]
    noisy = load_mixtures(
        **settings, noise_dir=str(output.parent), noise_snr_range_db=(10.0, 10.0)
    )[0]
    added = noisy["mixture"] - quiet["mixture"]
    target_power = mean_power(noisy["target"])
    assert 10 * np.log10(target_power / mean_power(added)) == pytest.approx(10, abs=1)


@pytest.mark.usefixtures("generated_corpus")
def test_what_cannot_be_used_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--targets", "nobody", "--output", str(tmp_path / "noise.wav")]) == 2
    assert "nobody" in capsys.readouterr().err
    assert main(["--targets", "generated"]) == 2
    assert "output is needed" in capsys.readouterr().err
    short = tmp_path / "short.wav"
    soundfile.write(short, np.full(100, 0.1), 16_000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"no recording lasts 0\.064 s"):
        mean_spectrum([short])
