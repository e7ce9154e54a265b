"""The generated corpus: who speaks, what tells the emotions apart, how it is made and cached."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile

from data_builders import load_corpus
from data_builders.corpora import espeak, generated
from data_builders.corpora.generated_sentences import POOL_SENTENCES, SESSION_SENTENCES
from data_builders.schema import EMOTIONS, SAMPLING_RATE, UTTERANCE_FEATURES, CorpusError

SPEAKERS = {f"generated_s{session}_{gender}" for session in range(1, 6) for gender in "fm"}


@pytest.fixture(scope="session")
def pool(generated_corpus: datasets.Dataset) -> datasets.Dataset:
    """The other voices; the first corpus has made them too."""
    return load_corpus("generated_pool")


def test_a_session_has_one_female_and_one_male_voice(generated_corpus: datasets.Dataset) -> None:
    assert generated_corpus.features == UTTERANCE_FEATURES
    voices = {(row["session"], row["gender"], row["speaker_id"]) for row in generated_corpus}
    assert {speaker for _, _, speaker in voices} == SPEAKERS
    assert sorted((session, gender) for session, gender, _ in voices) == [
        (str(session), gender) for session in range(1, 6) for gender in ("female", "male")
    ]


def test_every_speaker_says_every_sentence_in_every_emotion(
    generated_corpus: datasets.Dataset,
) -> None:
    spoken = Counter((row["speaker_id"], row["text"], row["emotion"]) for row in generated_corpus)
    assert set(spoken.values()) == {1}
    for speaker in SPEAKERS:
        sentences = SESSION_SENTENCES[speaker.split("_")[1][1:]]
        assert len(sentences) >= 12
        expected = {(speaker, text, emotion) for text in sentences for emotion in EMOTIONS}
        assert {key for key in spoken if key[0] == speaker} == expected


def test_no_sentence_occurs_in_two_sessions_or_in_the_pool() -> None:
    sentences = [text for session in SESSION_SENTENCES.values() for text in session]
    sentences += POOL_SENTENCES
    assert len(set(sentences)) == len(sentences)


def test_the_pool_holds_other_voices_without_emotion_or_session(
    generated_corpus: datasets.Dataset, pool: datasets.Dataset
) -> None:
    utterances = Counter(pool["speaker_id"])
    assert len(utterances) >= 24
    assert min(utterances.values()) >= 10
    assert not SPEAKERS & set(utterances)
    genders = Counter(dict(zip(pool["speaker_id"], pool["gender"], strict=True)).values())
    assert genders["female"] == genders["male"]
    assert set(pool["emotion"]) == set(pool["session"]) == {""}
    ids = [*generated_corpus["utterance_id"], *pool["utterance_id"]]
    assert len(set(ids)) == len(ids)
    assert {name.split("/")[0] for name in pool["utterance_id"]} == {"generated_pool"}


def test_files_are_what_the_rows_say(
    generated_corpus: datasets.Dataset, pool: datasets.Dataset
) -> None:
    for row in [*generated_corpus, *pool]:
        info = soundfile.info(row["path"])
        assert os.path.isabs(row["path"])
        assert (info.samplerate, info.channels, info.subtype) == (SAMPLING_RATE, 1, "PCM_16")
        assert info.frames / SAMPLING_RATE == row["duration_seconds"]
        assert 0 <= row["speech_start_seconds"] < row["speech_end_seconds"]
        assert row["speech_end_seconds"] <= row["duration_seconds"]
        assert 0.8 < row["duration_seconds"] < 3.5
        assert row["licence"] == "CC0-1.0"
        assert row["text"] and row["language"].startswith("en-")


def test_all_utterances_have_the_same_level_and_do_not_clip(
    generated_corpus: datasets.Dataset, pool: datasets.Dataset
) -> None:
    for row in [*generated_corpus, *pool]:
        samples, _ = soundfile.read(row["path"])
        assert np.sqrt(np.mean(samples**2)) == pytest.approx(generated.LEVEL_RMS, rel=1e-3)
        assert np.abs(samples).max() < 0.95


def test_duration_alone_does_not_tell_the_emotion(generated_corpus: datasets.Dataset) -> None:
    durations = np.array(generated_corpus["duration_seconds"])
    emotions = np.array(generated_corpus["emotion"])
    sessions = np.array(generated_corpus["session"])
    correct = []
    for session in SESSION_SENTENCES:
        train, test = sessions != session, sessions == session
        means = np.array([durations[train & (emotions == word)].mean() for word in EMOTIONS])
        nearest = np.abs(durations[test][:, None] - means).argmin(axis=1)
        correct.append(np.array(EMOTIONS)[nearest] == emotions[test])
    assert np.mean(np.concatenate(correct)) < 0.55


def test_prosody_follows_the_emotion_in_every_voice(generated_corpus: datasets.Dataset) -> None:
    duration, pitch = defaultdict(list), defaultdict(list)
    for row in generated_corpus:
        key = (row["speaker_id"], row["emotion"])
        duration[key].append(row["duration_seconds"])
        pitch[key].append(_median_pitch(row["path"], row["gender"]))
    for speaker in SPEAKERS:
        # The same sentences in both: what differs is how they are said.
        assert np.mean(duration[speaker, "sad"]) > 1.1 * np.mean(duration[speaker, "angry"])
        assert np.median(pitch[speaker, "happy"]) > 1.2 * np.median(pitch[speaker, "sad"])
        assert np.median(pitch[speaker, "neutral"]) > np.median(pitch[speaker, "sad"])


def _median_pitch(path: str, gender: str) -> float:
    """Median over the loud frames of the lag of the highest autocorrelation, in Hz."""
    samples, _ = soundfile.read(path)
    frames = samples[: len(samples) // 800 * 800].reshape(-1, 800)
    frames = frames[np.mean(frames**2, axis=1) > 0.5 * np.mean(samples**2)]
    spectra = np.abs(np.fft.rfft(frames, 2048)) ** 2
    correlation = np.fft.irfft(spectra)
    lowest, highest = (120, 600) if gender == "female" else (60, 350)
    first, last = SAMPLING_RATE // highest, SAMPLING_RATE // lowest
    lags = correlation[:, first:last].argmax(axis=1) + first
    return float(np.median(SAMPLING_RATE / lags))


def test_making_it_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    utterances = generated._emotional_utterances()[:8] + generated._pool_utterances()[:4]
    contents = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        generated._make(folder, utterances)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        contents.append({path.relative_to(folder): path.read_bytes() for path in files})
    assert len(contents[0]) == len(utterances) + 1
    assert contents[0] == contents[1]


def test_processes_that_start_at_once_make_it_once(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\n"
        "from data_builders.corpora import generated\n"
        "def make(folder, utterances):\n"
        "    with open(sys.argv[1] + '/made', 'a') as file: file.write('once ')\n"
        "    time.sleep(0.5)\n"
        "    (folder / 'metadata.json').write_text('{\"generated\": []}')\n"
        "generated._make = make\n"
        "folder = generated._find_or_make(pathlib.Path(sys.argv[1]))\n"
        "assert (folder / 'metadata.json').is_file()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    repository = Path(__file__).resolve().parent.parent
    processes = [subprocess.Popen(command, cwd=repository) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert (tmp_path / "made").read_text() == "once "


def test_an_interrupted_making_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path, utterances: object) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(generated, "_make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generated._find_or_make(tmp_path)
    monkeypatch.setattr(generated, "_make", lambda folder, utterances: None)
    assert list(generated._find_or_make(tmp_path).iterdir()) == []


def test_without_espeak_the_error_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(CorpusError, match="pip install espeakng-loader"):
        generated.load_generated(None, tmp_path)


def test_a_failure_of_espeak_is_told_with_its_words() -> None:
    request = espeak.SpeechRequest("Hello.", "gmw/absent", ("pitch 100 140",), 165)
    with pytest.raises(RuntimeError, match="gmw/absent"):
        espeak.synthesize([request])
