"""The scan and the kept table: nothing is decoded twice, and incomplete copies are told."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from corpus_layouts import burst, write_asterisk, write_emodb, write_librispeech, write_ravdess

from data_builders import load_corpus
from data_builders.audio import read_audio, resample
from data_builders.corpora import corpus_table, scan
from data_builders.corpora.scan import (
    AUDIO_SUFFIXES,
    LOSSY_SUFFIXES,
    list_files,
    scan_audio_files,
)
from data_builders.schema import CorpusError


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded as a whole."""
    names: list[str] = []
    decode = scan.decode

    def record(path: Path) -> tuple[np.ndarray, int, bool]:
        names.append(path.name)
        return decode(path)

    monkeypatch.setattr(scan, "decode", record)
    return names


def test_a_new_file_is_decoded_alone(tmp_path: Path, decoded: list[str]) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1])
    load_corpus("ravdess", root, tmp_path / "cache")
    assert len(decoded) == 8
    decoded.clear()
    name = "03-01-08-01-01-01-01.flac"
    soundfile.write(root / "Actor_01" / name, burst(9), 16_000)
    assert len(load_corpus("ravdess", root, tmp_path / "cache")) == 9
    assert decoded == [name]


def test_what_was_scanned_before_a_bad_file_is_kept(tmp_path: Path, decoded: list[str]) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1])
    bad = root / "Actor_01" / "03-01-03-01-01-01-01.flac"
    bad.write_bytes(b"no audio")
    with pytest.raises(CorpusError):
        load_corpus("ravdess", root, tmp_path / "cache", strict=True)
    decoded.clear()
    bad.unlink()
    assert len(load_corpus("ravdess", root, tmp_path / "cache")) == 7
    assert not decoded


def test_an_interrupted_scan_goes_on_where_it_was(
    tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1])
    monkeypatch.setattr(scan, "BATCH_FILES", 2)
    scan_file = scan._scan_file

    def interrupt(path: Path, *arguments: Any) -> scan.ScannedFile:
        if len(decoded) >= 4:
            raise KeyboardInterrupt
        return scan_file(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(scan, "_scan_file", interrupt)
        patched.setattr(os, "cpu_count", lambda: 1)
        with pytest.raises(KeyboardInterrupt):
            load_corpus("ravdess", root, tmp_path / "cache")
    before = len(decoded)
    assert before == 4
    load_corpus("ravdess", root, tmp_path / "cache")
    assert len(decoded) == 8


def test_a_kept_table_is_mapped_and_describes_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_librispeech(tmp_path / "LibriSpeech")
    first = load_corpus("librispeech", root, tmp_path / "cache")
    (kept,) = {Path(file["filename"]) for file in first.cache_files}
    assert kept.is_relative_to(tmp_path / "cache")
    monkeypatch.setattr(corpus_table, "scan_audio_files", None)
    again = load_corpus("librispeech", root, tmp_path / "cache")
    assert [Path(file["filename"]) for file in again.cache_files] == [kept]
    assert again[:] == first[:]
    # Another text is another corpus, though no recording changed.
    transcripts = next(root.rglob("*.trans.txt"))
    text = transcripts.read_text(encoding="utf-8")
    transcripts.unlink()
    transcripts.write_text(text.replace("OF", "IN"), encoding="utf-8")
    with pytest.raises(TypeError):
        load_corpus("librispeech", root, tmp_path / "cache")


def test_other_code_makes_a_table_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_emodb(tmp_path / "emodb")
    first = load_corpus("emodb", root, tmp_path / "cache")
    monkeypatch.setattr(corpus_table, "_code_version", lambda: "another")
    second = load_corpus("emodb", root, tmp_path / "cache")
    assert first.cache_files != second.cache_files
    assert first[:] == second[:]


@pytest.mark.parametrize("suffix", AUDIO_SUFFIXES)
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_every_format_that_libsndfile_writes_is_read(
    suffix: str, rate: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = {".oga": "OGG", ".opus": "OGG", ".aif": "AIFF", ".aifc": "AIFF", ".snd": "AU"}
    kind = (kinds | {".sph": "NIST"}).get(suffix, suffix[1:].upper())
    subtype = "OPUS" if suffix == ".opus" else None
    samples = burst(3, rate, active_seconds=1.0)
    soundfile.write(tmp_path / f"a{suffix}", samples, rate, format=kind, subtype=subtype)
    (tmp_path / "metadata.csv").write_text(f"path,speaker_id\na{suffix},anna\n")
    row = load_corpus("folder", tmp_path, tmp_path / "cache")[0]
    assert row["duration_seconds"] == pytest.approx(len(samples) / rate, abs=1e-3)
    heard = read_audio(row["path"])
    assert len(heard) == round(16_000 * row["duration_seconds"])
    # Rendering begins anywhere, and hears the same.
    np.testing.assert_array_equal(read_audio(row["path"], 5_000, 9_000), heard[5_000:9_000])
    is_original = Path(row["path"]) == tmp_path / f"a{suffix}"
    assert is_original == (rate == 16_000 and suffix not in LOSSY_SUFFIXES)
    expected = resample(samples, rate)
    tolerance = 0.6 if suffix in LOSSY_SUFFIXES else 2e-2
    assert np.linalg.norm(heard - expected[: len(heard)]) < tolerance * np.linalg.norm(expected)
    assert "left out" not in caplog.text


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write_emodb(tmp_path / "disk")
    (tmp_path / "emodb").mkdir()
    (tmp_path / "emodb" / "wav").symlink_to(tmp_path / "disk" / "wav")
    (tmp_path / "disk" / "wav" / "again").symlink_to(tmp_path / "emodb")
    assert len(list_files(tmp_path / "emodb", AUDIO_SUFFIXES)) == 20


def test_files_are_listed_in_the_order_of_their_paths(tmp_path: Path) -> None:
    names = ["b/1.wav", "b-c/1.wav", "b/a/2.WAV", "a.flac", ".hidden/1.wav", "b/._1.wav", "b/x.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listed = [file.path for file in list_files(tmp_path, AUDIO_SUFFIXES)]
    assert listed == ["a.flac", "b/1.wav", "b/a/2.WAV", "b-c/1.wav"]
    assert listed == [
        path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path / name for name in listed)
    ]


def test_headers_of_other_rates_are_converted_too(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1], rate=48_000, suffix=".wav")
    files = list_files(root, AUDIO_SUFFIXES)
    cache = tmp_path / "cache"
    usable = scan_audio_files("a", root, files, cache, [], measure_speech=False)
    copies = [scan.corpus_cache(cache, "a") / "audio" / one.copy for one in usable if one]
    assert len(copies) == len(files)
    assert {soundfile.info(copy).samplerate for copy in copies} == {16_000}


@pytest.mark.parametrize("name", ["ravdess", "emodb", "asterisk"])
def test_the_complete_corpora_give_no_warning(
    name: str, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load_corpus(name, data_dir / name)
    assert not caplog.text


def test_incomplete_corpora_are_used_with_their_counts_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_ravdess(tmp_path / "ravdess", actors=[1, 2])
    write_emodb(tmp_path / "emodb")
    shutil.rmtree(write_asterisk(tmp_path / "asterisk") / "it_IT_m_Carlo")
    with caplog.at_level(logging.WARNING):
        for name in ("ravdess", "emodb", "asterisk"):
            load_corpus(name, tmp_path / name, tmp_path / "cache")
    assert (
        "ravdess: 16 utterances where the complete corpus has 1440 (actor 01: 8 instead of 60;"
        in (caplog.text)
    )
    assert "and 4 more); is the copy complete?" in caplog.text  # 24 actors, 20 of them named
    assert "emodb: 20 utterances where the complete corpus has 535 (angry: 10 instead of 127;" in (
        caplog.text
    )
    assert "asterisk: of the voices it_IT_m_Carlo there is nothing; found" in caplog.text
    assert "en_US_f_Allison: 2 prompts" in caplog.text
