"""ESD: its layouts, its transcripts in several encodings, and its speakers."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from corpus_layouts import write_esd

from data_builders import load_corpus
from data_builders.schema import CorpusError


@pytest.mark.parametrize(
    "above", ["", "Emotion Speech Dataset", "ESD/Emotional Speech Dataset (ESD)"]
)
@pytest.mark.parametrize("parts", [False, True])
def test_every_layout_gives_the_same_corpus(above: str, parts: bool, tmp_path: Path) -> None:
    write_esd(tmp_path / "esd" / above, speakers=[11, 15], parts=parts)
    corpus = load_corpus("esd", tmp_path / "esd", tmp_path / "cache")
    assert len(corpus) == 2 * 5 * 3
    rows = {row["utterance_id"]: row for row in corpus}
    row = rows["esd/0015_001421"]
    assert (row["speaker_id"], row["gender"]) == ("esd_0015", "female")
    assert (row["emotion"], row["session"], row["language"]) == ("surprised", "", "en")
    assert rows["esd/0011_000351"]["emotion"] == "angry"
    assert rows["esd/0011_000351"]["gender"] == "male"


@pytest.mark.parametrize("parts", [False, True])
def test_a_part_is_chosen_by_folder_or_by_number(parts: bool, tmp_path: Path) -> None:
    root = write_esd(tmp_path / "esd", speakers=[12], sentences=[1, 20, 21, 50, 51], parts=parts)
    for part, sentences in {"evaluation": {1, 20}, "test": {21, 50}, "train": {51}}.items():
        corpus = load_corpus(f"esd:part={part}", root, tmp_path / "cache")
        numbers = {(int(name[-6:]) - 1) % 350 + 1 for name in corpus["utterance_id"]}
        assert numbers == sentences
        assert len(corpus) == 5 * len(sentences)
    with pytest.raises(CorpusError, match="part: unknown choice 'dev': use one of 'all', 'train'"):
        load_corpus("esd:part=dev", root, tmp_path / "cache")


def test_genders_are_those_of_the_readme(tmp_path: Path) -> None:
    root = write_esd(tmp_path / "esd", sentences=[1])
    corpus = load_corpus("esd", root, tmp_path / "cache")
    women = {row["speaker_id"] for row in corpus if row["gender"] == "female"}
    assert women == {f"esd_{number:04d}" for number in range(15, 20)}
    assert len(set(corpus["speaker_id"])) == 10


def test_transcripts_are_read_in_whatever_encoding(tmp_path: Path) -> None:
    # Four speakers, four encodings; folders in capitals as some copies have them.
    root = write_esd(tmp_path / "esd", speakers=[11, 12, 13, 14], sentences=[7], case=str.upper)
    corpus = load_corpus("esd", root, tmp_path / "cache")
    assert set(corpus["text"]) == {"It\N{RIGHT SINGLE QUOTATION MARK}s sentence 7."}


def test_ragged_transcript_lines_are_understood(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_esd(tmp_path / "esd", speakers=[11], sentences=[1])
    (root / "0011" / "0011.txt").write_text(
        "0011_000001 Spaces for tabs.  Neutral\n\n0011_000351\tNo emotion here.\n", encoding="utf-8"
    )
    with caplog.at_level(logging.WARNING):
        corpus = load_corpus("esd", root, tmp_path / "cache")
    texts = dict(zip(corpus["utterance_id"], corpus["text"], strict=True))
    assert texts["esd/0011_000001"] == "Spaces for tabs."
    assert texts["esd/0011_000351"] == "No emotion here."
    assert "3 utterances have no transcript, such as 0011_000701" in caplog.text


def test_mandarin_speakers_and_missing_utterances_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_esd(tmp_path / "esd", speakers=[1, 11], sentences=[1, 2])
    with caplog.at_level(logging.WARNING):
        corpus = load_corpus("esd", root, tmp_path / "cache")
    assert set(corpus["speaker_id"]) == {"esd_0011"}
    assert "10 audio files of the Mandarin speakers 0001 to 0010 are left out" in caplog.text
    assert "10 utterances where the complete corpus has 17500" in caplog.text
    assert "0011 neutral: 2 instead of 350" in caplog.text
    shutil.rmtree(root / "0011")
    with pytest.raises(CorpusError, match=r"esd: .* is not that corpus: expected 0011/Angry"):
        load_corpus("esd", root, tmp_path / "cache")


def test_an_emotion_that_nobody_knows_is_an_error(tmp_path: Path) -> None:
    root = write_esd(tmp_path / "esd", speakers=[11], sentences=[1], parts=True)
    shutil.move(root / "0011" / "Sad", root / "0011" / "Bored")
    with pytest.raises(CorpusError, match=r"Bored/evaluation/0011_001051\.wav: the folder is none"):
        load_corpus("esd", root, tmp_path / "cache")
