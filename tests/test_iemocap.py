"""IEMOCAP: labels, speakers, scenarios, and what is said about a copy that deviates."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import soundfile
from corpus_layouts import IEMOCAP_LABELS, burst, write_iemocap

from data_builders import load_corpus, load_mixtures
from data_builders.corpora import iemocap
from data_builders.corpora.folds import split_by_session
from data_builders.schema import CorpusError

WORDS = dict(
    zip(
        IEMOCAP_LABELS, ["neutral", "happy", "happy", "sad", "angry", "frustrated", ""], strict=True
    )
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions; tests that spoil something copy it."""
    return write_iemocap(tmp_path_factory.mktemp("iemocap"), sessions=[1, 2])


def test_turns_have_the_label_the_words_and_the_actor_who_speaks(
    root: Path, tmp_path: Path
) -> None:
    corpus = load_corpus("iemocap", root, tmp_path)
    # 2 sessions x 2 dialogues x 2 actors
    assert len(corpus) == 8 * len(IEMOCAP_LABELS)
    rows = {row["utterance_id"]: row for row in corpus}
    # The dialogue is named after the actress with the markers, the turn after the actor who speaks.
    row = rows["iemocap/Ses02F_impro01_M002"]
    assert (row["speaker_id"], row["gender"]) == ("iemocap_ses02_m", "male")
    assert (row["session"], row["emotion"]) == ("2", "happy")
    assert row["text"] == "Turn 2 of Ses02F_impro01."
    assert Path(row["path"]).name == "Ses02F_impro01_M002.wav"
    assert {row["speaker_id"] for row in corpus} == {
        f"iemocap_ses0{session}_{actor}" for session in (1, 2) for actor in "fm"
    }
    for utterance_id, entry in rows.items():
        label = IEMOCAP_LABELS[int(utterance_id[-3:]) % len(IEMOCAP_LABELS)]
        assert entry["emotion"] == WORDS[label]


@pytest.mark.parametrize(("scenario", "word"), [("improvised", "_impro"), ("scripted", "_script")])
def test_scripted_and_improvised_turns_are_told_apart(
    scenario: str, word: str, root: Path, tmp_path: Path
) -> None:
    corpus = load_corpus(f"iemocap:scenario={scenario}", root, tmp_path)
    assert len(corpus) == 4 * len(IEMOCAP_LABELS)
    assert all(word in utterance_id for utterance_id in corpus["utterance_id"])
    assert load_corpus("iemocap", root, tmp_path, scenario=scenario)[:] == corpus[:]
    with pytest.raises(CorpusError, match="scenario: unknown choice 'spoken': use one of 'all'"):
        load_corpus("iemocap:scenario=spoken", root, tmp_path)


def test_a_copy_that_deviates_is_used_with_the_counts_named(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):  # when it is scanned, and whenever it is loaded again
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load_corpus("iemocap", root, tmp_path)
        assert "40 utterances where the complete corpus has 5531" in caplog.text
        assert (
            "session 1 neutral: 4 instead of 384; session 1 happy: 8 instead of 278" in caplog.text
        )
        assert "session 5 angry: 0 instead of 170" in caplog.text


def test_the_complete_counts_give_no_warning(
    root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(iemocap, "KNOWN_COUNTS", {"1": (4, 8, 4, 4), "2": (4, 8, 4, 4)})
    with caplog.at_level(logging.WARNING):
        load_corpus("iemocap", root, tmp_path)
    assert not caplog.text


def test_the_folder_above_the_sessions_will_do(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "lab" / "IEMOCAP_full_release")
    corpus = load_corpus("iemocap", tmp_path / "lab", tmp_path / "cache")
    assert len(corpus) == 8 * len(IEMOCAP_LABELS)


def test_another_folder_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    soundfile.write(tmp_path / "other" / "hello.wav", burst(1), 16_000)
    with pytest.raises(CorpusError, match=r"is not that corpus: expected Session1/dialog.*hello"):
        load_corpus("iemocap", tmp_path / "other", tmp_path / "cache")
    shutil.copytree(root, tmp_path / "unlabelled")
    for folder in (tmp_path / "unlabelled").glob("Session*/dialog"):
        shutil.rmtree(folder)
    with pytest.raises(CorpusError, match=r"is not that corpus.*found 56 audio files"):
        load_corpus("iemocap", tmp_path / "unlabelled", tmp_path / "cache")


def test_turns_without_audio_and_audio_without_label_are_counted(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = shutil.copytree(root, tmp_path / "copy")
    audio = copy / "Session1" / "sentences" / "wav" / "Ses01F_impro01"
    (audio / "Ses01F_impro01_F000.wav").unlink()
    shutil.copy(audio / "Ses01F_impro01_F001.wav", audio / "Ses01F_impro01_F099.wav")
    with caplog.at_level(logging.WARNING):
        corpus = load_corpus("iemocap", copy, tmp_path / "cache")
    assert len(corpus) == 8 * len(IEMOCAP_LABELS) - 1
    assert "1 evaluated turns have no audio file, such as Ses01F_impro01_F000" in caplog.text
    assert "1 audio files have no evaluation and are left out" in caplog.text


def test_a_label_that_nobody_knows_is_an_error(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "copy")
    labels = copy / "Session2" / "dialog" / "EmoEvaluation" / "Ses02F_impro01.txt"
    labels.write_text(labels.read_text().replace("\tang\t", "\twow\t"))
    with pytest.raises(CorpusError, match=r"Ses02F_impro01\.txt: unknown emotion 'wow' of Ses02F"):
        load_corpus("iemocap", copy, tmp_path / "cache")


def test_sessions_are_folds_and_unlabelled_turns_are_no_targets(tmp_path: Path) -> None:
    write_iemocap(tmp_path / "iemocap", labels=["neu", "hap", "fru"])
    corpus = load_corpus("iemocap", tmp_path / "iemocap", tmp_path / "cache")
    splits = split_by_session(corpus, fold=2, protocol="paper")
    assert set(splits["test"]["session"]) == {"2"}
    assert set(splits["train"]["session"]) == {"1", "3", "4", "5"}
    mixtures = load_mixtures(
        targets="iemocap",
        interferers="iemocap",
        corpus_dir=tmp_path,
        cache_dir=tmp_path / "cache",
        emotions=["neutral", "happy"],
        fold=2,
    )
    assert len(mixtures) == 3 * 2 * 2 * 2  # three sessions, two dialogues, two actors, two labels
    assert all(mixtures.planner.targets.emotions)
    assert mixtures[0]["mixture"].shape == mixtures[0]["target"].shape
