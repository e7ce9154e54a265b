"""Bad audio is found at the scan, all of it at once, and never in the middle of an epoch.

It is left out with a counted line, or stops the corpus where `strict` asks for that.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_layouts import burst, write_ravdess

from data_builders import load_corpus, load_mixtures
from data_builders.schema import CorpusError


def with_sample(value: float) -> np.ndarray:
    samples = burst(1)
    samples[100] = value
    return samples


def spoil(path: Path, content: bytes | np.ndarray | Path | None) -> None:
    """Replaces a recording by bytes, by other samples, by a link or by nothing."""
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, Path):
        path.symlink_to(content)
    elif content is not None:
        subtype = "FLOAT" if path.suffix == ".wav" else None
        soundfile.write(path, content, 16_000, subtype=subtype)


def write_mp3_of_a_stream(path: Path, bitrate_mode: str, rate: int = 44_100) -> None:
    """An mp3 without the first frame, which tells how long it is; its loudness changes."""
    rng = np.random.default_rng(0)
    samples = 0.2 * rng.standard_normal(3 * rate) * np.repeat(rng.random(30), rate // 10)
    soundfile.write(
        path, samples, rate, format="MP3", bitrate_mode=bitrate_mode, compression_level=0.5
    )
    content = path.read_bytes()
    path.write_bytes(content[content.index(content[:2], 100) :])


NO_AUDIO = b"no audio at all, but long enough to look at"
BAD_NAME = "Actor_02/03-01-04-01-02-01-02.wav"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (NO_AUDIO, "unreadable"),
        (b"", "empty: the file has no bytes"),
        (np.zeros(0), "empty: it holds no samples"),
        (np.stack([burst(1), burst(1) * 0.5], axis=1), "2 channels that differ; convert it to mon"),
        (np.zeros(16_000), "silent: every sample is zero"),
        (np.full(16_000, 1e-34), "silent"),  # as codecs leave it
        (np.full(16_000, 0.25), "silent"),
        (with_sample(np.nan), "NaN or infinite"),
        (with_sample(np.inf), "NaN or infinite"),
        (burst(1)[4000:5000], "too short: 0.062 s"),
        (Path("nowhere"), "missing"),
        (None, "missing"),
    ],
)
def test_a_bad_file_is_left_out_and_counted_or_stops_a_strict_corpus(
    content: bytes | np.ndarray | Path | None,
    reason: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1, 2], suffix=".wav")
    rows = [f"{path.relative_to(root)},{path.parent.name}" for path in root.rglob("*.wav")]
    (root / "metadata.csv").write_text("\n".join(["path,speaker_id", *rows]))
    spoil(root / BAD_NAME, content)
    for _ in range(2):  # as it is scanned, and as it is kept
        caplog.clear()
        corpus = load_corpus("folder", root, tmp_path / "cache")
        assert len(corpus) == 15
        assert f"folder/{BAD_NAME[:-4]}" not in corpus["utterance_id"][:]
        assert f"1 of 16 audio files below {root} cannot be used and are left out" in caplog.text
        assert f"{BAD_NAME}: {reason}" in caplog.text
        with pytest.raises(CorpusError) as error:
            load_corpus("folder", root, tmp_path / "cache", strict=True)
        assert f"{BAD_NAME}: {reason}" in str(error.value)
        assert "Replace or delete" in str(error.value)


def test_a_truncated_flac_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1])
    path = root / "Actor_01" / "03-01-04-01-02-01-01.flac"
    path.write_bytes(path.read_bytes()[:-4000])
    assert len(load_corpus("ravdess", root, tmp_path / "cache")) == 7
    assert re.search(r"03-01-04-01-02-01-01\.flac: (truncated|unreadable)", caplog.text)


def test_bad_files_are_reported_together_up_to_ten(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1, 2])
    for path in sorted(root.rglob("*.flac"))[:12]:
        spoil(path, np.zeros(16_000))
    with pytest.raises(CorpusError) as error:
        load_corpus("ravdess", root, tmp_path / "cache", strict=True)
    assert str(error.value).count("silent") == 10
    assert "12 of 16 audio files" in str(error.value)
    assert "and 2 more" in str(error.value)


def test_a_corpus_of_bad_files_alone_is_refused(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1])
    for path in root.rglob("*.flac"):
        spoil(path, NO_AUDIO)
    with pytest.raises(CorpusError, match="8 of 8 audio files"):
        load_corpus("ravdess", root, tmp_path / "cache")


def test_a_strict_corpus_is_usable_once_its_bad_file_is_gone(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1, 2])
    path = root / "Actor_01" / "03-01-04-01-02-01-01.flac"
    spoil(path, NO_AUDIO)
    with pytest.raises(CorpusError):
        load_corpus("ravdess", root, tmp_path / "cache", strict=True)
    path.unlink()
    assert len(load_corpus("ravdess", root, tmp_path / "cache", strict=True)) == 15


def test_very_quiet_speech_is_not_silence(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1, 2], suffix=".wav")
    samples = burst(1) * np.float32(1e-3)
    soundfile.write(root / "Actor_01" / "03-01-04-01-02-01-01.wav", samples, 16_000, "FLOAT")
    assert len(load_corpus("ravdess", root, tmp_path / "cache")) == 16


def test_a_file_that_vanishes_after_the_scan_is_named(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess")
    mixtures = load_mixtures(
        targets="ravdess", interferers=None, corpus_dir=tmp_path, cache_dir=tmp_path / "cache"
    )
    for path in root.rglob("*.flac"):
        path.unlink()
    with pytest.raises(CorpusError, match=r"03-01-.*\.flac: cannot be read"):
        mixtures[0]


@pytest.mark.parametrize("rate", [44_100, 16_000])
def test_an_mp3_that_does_not_tell_its_length_is_read_whole_or_not_at_all(
    rate: int, tmp_path: Path
) -> None:
    for mode in ("CONSTANT", "VARIABLE"):
        write_mp3_of_a_stream(tmp_path / f"{mode}.mp3", mode, rate)
    (tmp_path / "metadata.csv").write_text(
        "path,speaker_id\nCONSTANT.mp3,a\nVARIABLE.mp3,a\n", encoding="utf-8"
    )
    (kept,) = load_corpus("folder", tmp_path, tmp_path / "cache")
    assert kept["utterance_id"] == "folder/CONSTANT"
    assert kept["duration_seconds"] == pytest.approx(3.0, abs=0.2)
    with pytest.raises(CorpusError, match=r"VARIABLE\.mp3: an mp3 that does not tell its length"):
        load_corpus("folder", tmp_path, tmp_path / "cache", strict=True)
