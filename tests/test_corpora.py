"""The corpora: what the adapters read from folders and file names, and what the scan keeps."""

from __future__ import annotations

import csv
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
from corpus_layouts import (
    LEAD_SECONDS,
    TRAIL_SECONDS,
    burst,
    write_asterisk,
    write_emodb,
    write_ravdess,
)

from data_builders import audio, load_corpus
from data_builders.audio import find_speech, read_audio, resample
from data_builders.schema import UTTERANCE_FEATURES, CorpusError


def by_id(corpus: datasets.Dataset) -> dict[str, dict[str, object]]:
    return {row["utterance_id"]: row for row in corpus}


@pytest.mark.parametrize("name", ["ravdess", "emodb", "asterisk"])
def test_names_of_the_real_files_give_the_published_metadata(name: str, data_dir: Path) -> None:
    root = data_dir / name
    corpus = load_corpus(name, root)
    assert corpus.features == UTTERANCE_FEATURES
    rows = {Path(row["path"]).relative_to(root).as_posix(): row for row in corpus}
    with (root / "metadata.csv").open(encoding="utf-8", newline="") as file:
        published = {line["file"]: line for line in csv.DictReader(file)}
    assert rows.keys() == published.keys()
    for file_name, line in published.items():
        row = rows[file_name]
        assert row["speaker_id"] == line["speaker_id"]
        assert row["gender"] == {"f": "female", "m": "male"}[line["gender"]]
        assert row["emotion"] == line["emotion"]
        assert row["text"] == line["statement_or_text"]
        assert row["language"] == line["language"]
        assert row["duration_seconds"] == pytest.approx(float(line["duration_s"]), abs=1e-4)


def test_speech_of_real_files_begins_where_others_measured_it(data_dir: Path) -> None:
    root = data_dir / "ravdess"
    rows = {
        Path(row["path"]).relative_to(root).as_posix(): row for row in load_corpus("ravdess", root)
    }
    differences = []
    with (root / "stats.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            row = rows[line["file"]]
            lead = row["speech_start_seconds"] + audio.GATE_MARGIN_SECONDS
            trail = row["duration_seconds"] - row["speech_end_seconds"] + audio.GATE_MARGIN_SECONDS
            differences.append(
                (lead - float(line["lead_silence_s"]), trail - float(line["trail_silence_s"]))
            )
    assert np.abs(np.median(differences, axis=0)).max() < 0.02
    # Quiet breaths before or after the words are judged differently in a few files.
    assert np.mean(np.abs(differences) < 0.15) > 0.85


@pytest.mark.parametrize("above", ["", "Audio_Speech_Actors_01-24"])
@pytest.mark.parametrize(("rate", "suffix"), [(48_000, ".wav"), (16_000, ".flac")])
def test_ravdess_is_read_as_released_and_as_converted(
    above: str, rate: int, suffix: str, tmp_path: Path
) -> None:
    write_ravdess(tmp_path / "ravdess" / above, actors=[1, 2], rate=rate, suffix=suffix)
    corpus = load_corpus("ravdess", tmp_path / "ravdess", tmp_path / "cache")
    assert len(corpus) == 16
    row = by_id(corpus)["ravdess/03-01-05-01-02-01-02"]
    assert row["speaker_id"] == "ravdess_02"
    assert row["gender"] == "female"
    assert row["emotion"] == "angry"
    assert row["session"] == "1"
    assert row["text"] == "Dogs are sitting by the door"
    for row in corpus:
        information = soundfile.info(row["path"])
        assert (information.samplerate, information.channels) == (16_000, 1)
        assert information.frames == round(row["duration_seconds"] * 16_000)
        assert Path(row["path"]).is_relative_to(tmp_path / "cache") == (rate != 16_000)


def test_ravdess_sessions_hold_two_men_and_two_women(tmp_path: Path) -> None:
    write_ravdess(tmp_path / "ravdess", actors=range(1, 25), emotions=["01"])
    corpus = load_corpus("ravdess", tmp_path / "ravdess", tmp_path / "cache")
    speakers = {(row["session"], row["gender"], row["speaker_id"]) for row in corpus}
    counts: dict[tuple[str, str], int] = {}
    for session, gender, _ in speakers:
        counts[session, gender] = counts.get((session, gender), 0) + 1
    assert counts == {(str(s), g): 2 for s in range(1, 7) for g in ("female", "male")}


def test_emodb_is_read_from_its_codes(tmp_path: Path) -> None:
    corpus = load_corpus("emodb", write_emodb(tmp_path / "emodb"), tmp_path / "cache")
    row = by_id(corpus)["emodb/16a01Wa"]
    assert row["speaker_id"] == "emodb_16"
    assert row["gender"] == "female"
    assert row["emotion"] == "angry"
    assert row["text"] == "Der Lappen liegt auf dem Eisschrank."


def test_english_and_spanish_prompts_of_asterisk_are_one_speaker(tmp_path: Path) -> None:
    root = write_asterisk(tmp_path / "asterisk")
    # Part of the release, and no speech.
    (root / "en_US_f_Allison" / "silence").mkdir()
    soundfile.write(root / "en_US_f_Allison" / "silence" / "1.flac", np.zeros(16_000), 16_000)
    rows = by_id(load_corpus("asterisk", root, tmp_path / "cache"))
    assert len(rows) == 10
    english = rows["asterisk/en_US_f_Allison/dictate/play_help"]
    spanish = rows["asterisk/es_MX_f_Allison/dictate/play_help"]
    assert english["speaker_id"] == spanish["speaker_id"]
    assert (english["language"], spanish["language"]) == ("en-US", "es-MX")
    assert len({row["speaker_id"] for row in rows.values()}) == 4
    assert rows["asterisk/it_IT_m_Carlo/conf-full"]["gender"] == "male"
    assert rows["asterisk/it_IT_m_Carlo/conf-full"]["licence"] == "CC-BY-3.0"


def test_other_rates_are_resampled_once(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1], rate=48_000, suffix=".wav")
    paths = load_corpus("ravdess", root, tmp_path / "cache")["path"][:]
    written = [os.stat(path).st_mtime_ns for path in paths]
    assert load_corpus("ravdess", root, tmp_path / "cache")["path"][:] == paths
    assert [os.stat(path).st_mtime_ns for path in paths] == written
    assert soundfile.info(paths[0]).subtype == "FLOAT"
    os.remove(paths[0])
    assert load_corpus("ravdess", root, tmp_path / "cache")["path"][:] == paths
    assert os.path.exists(paths[0])


def test_several_loads_at_once_share_one_cache(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1, 2], rate=48_000, suffix=".wav")
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load_corpus, "ravdess", root, tmp_path / "cache") for _ in range(4)]
        corpora = [load.result()[:] for load in loads]
    assert all(corpus == corpora[0] for corpus in corpora)
    assert not list((tmp_path / "cache").rglob("*.part"))
    assert len(list((tmp_path / "cache").rglob("*.wav"))) == 16


def test_resampling_keeps_what_is_below_the_new_limit_and_nothing_else() -> None:
    time_48 = np.arange(48_000) / 48_000
    time_16 = np.arange(16_000) / 16_000
    kept = resample(np.sin(2 * np.pi * 7000 * time_48), 48_000)
    inner = slice(200, -200)
    assert np.abs(kept - np.sin(2 * np.pi * 7000 * time_16))[inner].max() < 1e-3
    removed = resample(np.sin(2 * np.pi * 8600 * time_48), 48_000)
    assert np.abs(removed)[inner].max() < 1e-4
    upsampled = resample(np.sin(2 * np.pi * 3000 * time_48[:8000] * 6), 8_000)
    assert np.abs(upsampled - np.sin(2 * np.pi * 3000 * time_16))[inner].max() < 1e-3


def test_speech_is_found_relative_to_the_loudest_frame() -> None:
    samples = burst(3)
    samples[:1000] += 1e-6  # noise far below the speech
    for level in (1.0, 1e-3):
        start, end = find_speech(samples * np.float32(level))
        margin = audio.GATE_MARGIN_SECONDS
        assert start == pytest.approx(LEAD_SECONDS - margin, abs=0.03)
        assert end == pytest.approx(len(samples) / 16_000 - TRAIL_SECONDS + margin, abs=0.03)


def test_what_is_35_db_below_the_loudest_frame_is_no_speech() -> None:
    # A tone of whole periods a frame has the same power in each: the gate shows to the decibel.
    tone = np.sin(2 * np.pi * 400 * np.arange(8000) / 16_000)
    levels_db = (-36.0, -34.0, 0.0, -34.0, -36.0)
    samples = np.concatenate([tone * 10 ** (level_db / 20) for level_db in levels_db])
    start, end = find_speech(samples.astype(np.float32))
    assert start == pytest.approx(0.5 - audio.GATE_MARGIN_SECONDS, abs=0.03)
    assert end == pytest.approx(2.0 + audio.GATE_MARGIN_SECONDS, abs=0.03)


def test_reading_a_part_gives_the_samples_of_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, burst(2, active_seconds=2.0), 16_000)
    whole = read_audio(path)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(read_audio(path, 5001, 21_003), whole[5001:21_003])
    with pytest.raises(CorpusError, match="fewer samples"):
        read_audio(path, 0, len(whole) + 1)


def test_identical_channels_are_taken_as_one(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1])
    name = "03-01-01-01-01-01-01.flac"
    mono = read_audio(root / "Actor_01" / name)
    soundfile.write(root / "Actor_01" / name, np.stack([mono, mono], axis=1), 16_000)
    rows = by_id(load_corpus("ravdess", root, tmp_path / "cache"))
    np.testing.assert_array_equal(read_audio(str(rows[f"ravdess/{name[:-5]}"]["path"])), mono)


def test_copies_and_strangers_are_left_out_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1])
    # One well-known copy of RAVDESS holds everything twice.
    write_ravdess(root / "audio_speech_actors_01-24", actors=[1])
    soundfile.write(root / "03-02-01-01-01-01-01.flac", burst(1), 16_000)  # a song
    with caplog.at_level(logging.WARNING):
        corpus = load_corpus("ravdess", root, tmp_path / "cache")
    assert len(corpus) == 8
    assert "8 audio files repeat the name of another file" in caplog.text
    assert "1 audio files are not part of the corpus" in caplog.text


@pytest.mark.parametrize("name", ["ravdess", "emodb", "asterisk"])
def test_another_corpus_is_refused_with_what_was_expected_and_found(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "hello.wav", burst(1), 16_000)
    with pytest.raises(CorpusError, match=rf"{name}: .*expected .*found 1 audio files.*hello\.wav"):
        load_corpus(name, tmp_path, tmp_path / "cache")


def test_missing_folders_and_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"ravdess: .*pass --corpus_dir.* data_dir"):
        load_corpus("ravdess", cache_dir=tmp_path)
    with pytest.raises(CorpusError, match="nowhere is not a folder"):
        load_corpus("emodb", tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="found an empty folder"):
        load_corpus("emodb", tmp_path / "empty", tmp_path)
    with pytest.raises(CorpusError, match=r"unknown corpus 'iemocup': use one of asterisk"):
        load_corpus("iemocup")
