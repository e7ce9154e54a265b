"""Noise folders: scanned once, any rate, continued without a seam."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_builders.mixtures import noise as noise_module
from data_builders.mixtures.mixing import mean_power
from data_builders.mixtures.noise import NoiseFolder
from data_builders.schema import CorpusError


def write_noise(path: Path, seconds: float, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    samples = 0.1 * rng.standard_normal((round(seconds * rate), channels))
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return samples[:, 0].astype(np.float32)


def test_the_first_channel_counts_and_no_copy_is_made_at_16_khz(tmp_path: Path) -> None:
    samples = write_noise(tmp_path / "noise" / "a" / "two.wav", 2.0, channels=2)
    folder = NoiseFolder(tmp_path / "noise", tmp_path / "cache")
    assert folder.paths == ["a/two.wav"]
    assert folder.file_of("a/two.wav") == tmp_path / "noise" / "a" / "two.wav"
    np.testing.assert_array_equal(folder.read("a/two.wav", 500, 1000), samples[500:1500])
    assert folder.power("a/two.wav") == mean_power(samples)


def test_other_rates_are_resampled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_noise(tmp_path / "noise" / "a.wav", 1.5, rate=48_000)
    write_noise(tmp_path / "noise" / "bc.flac.wav", 1.0, rate=8_000)
    first = NoiseFolder(tmp_path / "noise", tmp_path / "cache")
    heard = first.read("a.wav", 0, 24_000)

    def no_scan(*_: object) -> None:
        raise AssertionError("the folder was scanned again")

    monkeypatch.setattr(noise_module, "_scan_file", no_scan)
    second = NoiseFolder(tmp_path / "noise", tmp_path / "cache")
    np.testing.assert_array_equal(second.read("a.wav", 0, 24_000), heard)
    assert second.paths == ["a.wav", "bc.flac.wav"]
    assert second.power("a.wav") == pytest.approx(mean_power(heard))
    # A copy that is gone, or a changed file, is scanned again.
    second.file_of("a.wav").unlink()
    with pytest.raises(AssertionError, match="scanned again"):
        NoiseFolder(tmp_path / "noise", tmp_path / "cache")


def test_a_short_recording_goes_on_without_seam_or_change_of_level(tmp_path: Path) -> None:
    samples = write_noise(tmp_path / "noise" / "short.wav", 2.0)
    folder = NoiseFolder(tmp_path / "noise", tmp_path / "cache")
    period = 32_000 - 8_000
    long = folder.read("short.wav", 0, 5 * period)
    np.testing.assert_array_equal(long[:period], long[period : 2 * period])
    # Beyond the cross-fade it is the recording itself.
    np.testing.assert_array_equal(long[8_000:period], samples[8_000:period])
    powers = [mean_power(part) for part in np.split(long, 5 * period // 2000)]
    assert np.ptp(powers) < 0.25 * np.mean(powers)
    # The seam is a step of the recording: its end goes over into its beginning.
    np.testing.assert_allclose(long[period : period + 10], samples[period : period + 10], atol=0.01)
    tone = np.sin(2 * np.pi * 200 / 16_000 * np.arange(9_600)).astype(np.float32)
    soundfile.write(tmp_path / "noise" / "tone.wav", tone, 16_000, subtype="FLOAT")
    humming = NoiseFolder(tmp_path / "noise", tmp_path / "cache").read("tone.wav", 100, 30_000)
    assert np.abs(np.diff(humming)).max() < 1.5 * np.abs(np.diff(tone)).max()


def test_starts_cover_what_there_is(tmp_path: Path) -> None:
    write_noise(tmp_path / "noise" / "short.wav", 0.5)
    write_noise(tmp_path / "noise" / "long.wav", 3.0)
    folder = NoiseFolder(tmp_path / "noise", tmp_path / "cache")
    rng = np.random.default_rng(0)
    drawn = [folder.draw(16_000, rng) for _ in range(400)]
    starts = {name: [start for path, start in drawn if path == name] for name in folder.paths}
    assert min(starts["long.wav"]) >= 0 and 31_000 < max(starts["long.wav"]) <= 32_000
    assert min(starts["short.wav"]) >= 0 and 3_800 < max(starts["short.wav"]) < 4_000
    assert min(map(len, starts.values())) > 150
    for path, start in drawn[:40]:
        assert folder.read(path, start, 16_000).shape == (16_000,)


def test_folders_and_files_that_cannot_be_used_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CorpusError, match=r"noise_dir: .*nowhere is no folder"):
        NoiseFolder(tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="noise_dir: no audio files in"):
        NoiseFolder(tmp_path / "empty", tmp_path)
    write_noise(tmp_path / "noise" / "good.wav", 1.0)
    soundfile.write(tmp_path / "noise" / "silent.wav", np.zeros(16_000), 16_000)
    (tmp_path / "noise" / "text.wav").write_text("no audio")
    broken = np.full(16_000, np.nan)
    soundfile.write(tmp_path / "noise" / "nan.wav", broken, 16_000, subtype="FLOAT")
    with pytest.raises(CorpusError) as raised:
        NoiseFolder(tmp_path / "noise", tmp_path / "cache", strict=True)
    for _ in range(2):  # as it is scanned, and as it is kept
        caplog.clear()
        assert NoiseFolder(tmp_path / "noise", tmp_path / "cache").paths == ["good.wav"]
        for message in (str(raised.value), caplog.text):
            assert "3 of 4 audio files below" in message
            for line in ("nan.wav: NaN", "silent.wav: silent", "text.wav: unreadable"):
                assert line in message
            assert "good.wav" not in message


def test_recordings_that_are_missing_or_gone_are_named(tmp_path: Path) -> None:
    write_noise(tmp_path / "noise" / "a.wav", 1.0)
    folder = NoiseFolder(tmp_path / "noise", tmp_path / "cache")
    with pytest.raises(CorpusError, match=r"has no b\.wav; is it another noise corpus"):
        folder.read("b.wav", 0, 10)
    (tmp_path / "noise" / "a.wav").unlink()
    with pytest.raises(CorpusError, match=r"a\.wav: cannot be read"):
        folder.read("a.wav", 0, 10)
