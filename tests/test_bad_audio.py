"""Bad audio is found at the scan, all of it at once, and never in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_layouts import burst, write_ravdess

from data_builders import load_corpus, load_mixtures
from data_builders.schema import CorpusError


def write_text(path: Path) -> None:
    path.write_text("no audio at all, but long enough to look at")


def write_no_bytes(path: Path) -> None:
    path.write_bytes(b"")


def write_no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0, dtype=np.float32), 16_000)


def write_differing_channels(path: Path) -> None:
    soundfile.write(path, np.stack([burst(1), burst(1) * 0.5], axis=1), 16_000)


def write_silence(path: Path) -> None:
    soundfile.write(path, np.zeros(16_000), 16_000)


def write_nan(path: Path) -> None:
    samples = burst(1)
    samples[100] = np.nan
    soundfile.write(path, samples, 16_000, subtype="FLOAT")


def write_infinite(path: Path) -> None:
    samples = burst(1)
    samples[100] = np.inf
    soundfile.write(path, samples, 16_000, subtype="FLOAT")


def write_short(path: Path) -> None:
    soundfile.write(path, burst(1)[4000:5000], 16_000)


def write_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (write_text, "unreadable"),
        (write_no_bytes, "empty: the file has no bytes"),
        (write_no_samples, "empty: it holds no samples"),
        (write_differing_channels, "2 channels that differ; convert it to mono"),
        (write_silence, "silent: every sample is zero"),
        (write_nan, "NaN or infinite"),
        (write_infinite, "NaN or infinite"),
        (write_short, "too short: 0.062 s"),
        (write_dangling_link, "unreadable"),
    ],
)
def test_a_bad_file_is_reported_with_its_name_and_reason(
    spoil: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1, 2], suffix=".wav")
    name = "Actor_02/03-01-04-01-02-01-02.wav"
    spoil(root / name)
    with pytest.raises(CorpusError) as error:
        load_corpus("ravdess", root, tmp_path / "cache")
    message = str(error.value)
    assert "1 audio file below" in message
    assert f"{name}: {reason}" in message
    assert "Replace or delete" in message


def test_a_truncated_flac_is_reported(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1])
    path = root / "Actor_01" / "03-01-04-01-02-01-01.flac"
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(CorpusError, match=r"03-01-04-01-02-01-01\.flac: (truncated|unreadable)"):
        load_corpus("ravdess", root, tmp_path / "cache")


def test_bad_files_are_reported_together_up_to_ten(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1, 2])
    for path in sorted(root.rglob("*.flac"))[:12]:
        write_silence(path)
    with pytest.raises(CorpusError) as error:
        load_corpus("ravdess", root, tmp_path / "cache")
    assert str(error.value).count("silent") == 10
    assert "12 audio files" in str(error.value)
    assert "and 2 more" in str(error.value)


def test_a_corpus_is_usable_once_its_bad_file_is_gone(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1, 2])
    path = root / "Actor_01" / "03-01-04-01-02-01-01.flac"
    write_text(path)
    with pytest.raises(CorpusError):
        load_corpus("ravdess", root, tmp_path / "cache")
    path.unlink()
    assert len(load_corpus("ravdess", root, tmp_path / "cache")) == 15


def test_very_quiet_speech_is_not_silence(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1, 2], suffix=".wav")
    samples = burst(1) * np.float32(1e-3)
    soundfile.write(root / "Actor_01" / "03-01-04-01-02-01-01.wav", samples, 16_000, "FLOAT")
    assert len(load_corpus("ravdess", root, tmp_path / "cache")) == 16


def test_bad_audio_stops_the_mixtures_before_the_first_one(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess")
    write_silence(root / "Actor_12" / "03-01-05-01-01-01-12.flac")
    with pytest.raises(CorpusError, match="03-01-05-01-01-01-12"):
        load_mixtures(
            targets="ravdess",
            interferers="ravdess",
            corpus_dir=tmp_path,
            cache_dir=tmp_path / "cache",
        )


def test_a_file_that_vanishes_after_the_scan_is_named(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess")
    mixtures = load_mixtures(
        targets="ravdess", interferers=None, corpus_dir=tmp_path, cache_dir=tmp_path / "cache"
    )
    for path in root.rglob("*.flac"):
        path.unlink()
    with pytest.raises(CorpusError, match=r"03-01-.*\.flac: cannot be read"):
        mixtures[0]
