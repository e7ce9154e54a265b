"""CREMA-D as its makers release it, and the Opus copies whose table stands beside them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile
from corpus_layouts import burst, write_cremad

from data_builders import load_corpus, load_mixtures
from data_builders.corpora.cremad import SENTENCE_SPLITS, SENTENCES
from data_builders.corpora.folds import Protocol
from data_builders.load import split_corpus
from data_builders.schema import CorpusError


def sentence_of(utterance_id: str) -> str:
    return utterance_id.split("_")[1]


def test_names_and_demographics_of_the_release_say_everything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_cremad(tmp_path / "cremad")
    # The release has its recordings as mp3 too, and one whose level is a single X.
    (root / "AudioMP3").mkdir()
    soundfile.write(root / "AudioMP3" / "1001_IEO_ANG_XX.mp3", burst(1), 16_000)
    soundfile.write(root / "AudioWAV" / "1040_ITH_SAD_X.wav", burst(2), 16_000)
    corpus = load_corpus("cremad", root, tmp_path / "cache")
    rows = {row["utterance_id"]: row for row in corpus}
    assert len(rows) == 6 * 3 * 6 + 1
    row = rows["cremad/1001_IEO_ANG_XX"]
    assert Path(row["path"]) == root / "AudioWAV" / "1001_IEO_ANG_XX.wav"
    assert (row["speaker_id"], row["gender"], row["emotion"], row["session"], row["text"]) == (
        *("cremad_1001", "male", "angry", "1", "It's eleven o'clock."),
    )
    assert rows["cremad/1040_ITH_SAD_X"]["gender"] == "female"
    assert {*corpus["emotion"]} == {"angry", "disgust", "fearful", "happy", "neutral", "sad"}
    assert {*corpus["session"]} == {"1", "2", "3", "4", "5"}
    assert "1 audio files repeat the name of another file" in caplog.text
    assert "109 utterances where the complete corpus has 7442 (angry: 18 instead of 1271" in (
        caplog.text
    )


def test_unknown_genders_are_counted_and_contradictions_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_cremad(tmp_path / "cremad", sentences=["IEO"])
    table = (root / "VideoDemographics.csv").read_text()
    (root / "VideoDemographics.csv").unlink()
    assert {*load_corpus("cremad", root, tmp_path / "cache")["gender"]} == {""}
    assert "the gender of 6 speakers is unknown, such as cremad_1001: put VideoDem" in caplog.text
    (root / "VideoDemographics.csv").write_text(f"{table}\n1001,30,Female,Unknown,Unknown")
    with pytest.raises(CorpusError, match="speaker 1001 is both male and female"):
        load_corpus("cremad", root, tmp_path / "cache")
    shutil.rmtree(root / "AudioWAV")
    (root / "VideoDemographics.csv").write_text(table)
    with pytest.raises(CorpusError, match=r"expected AudioWAV/1001_DFA_ANG_XX\.wav"):
        load_corpus("cremad", root, tmp_path / "cache")


@pytest.mark.parametrize("protocol", ["validated", "paper"])
def test_sentences_are_held_apart_where_that_is_asked_for(
    protocol: Protocol, tmp_path: Path
) -> None:
    root = write_cremad(tmp_path / "cremad", sentences=SENTENCES)
    shared = split_corpus(load_corpus("cremad", root, tmp_path / "cache"), 2, protocol)
    name = "cremad:held_out_sentences=true"
    apart = split_corpus(load_corpus(name, root, tmp_path / "cache"), 2, protocol)
    for split, corpus in shared.items():
        everything, kept = ({*part["utterance_id"][:]} for part in (corpus, apart[split]))
        wanted = {split, "validation"} if (split, protocol) == ("train", "paper") else {split}
        assert kept == {one for one in everything if SENTENCE_SPLITS[sentence_of(one)] in wanted}
    names = [
        {(row["speaker_id"], row["text"]) for row in apart[split]} for split in ("train", "test")
    ]
    assert not {speaker for speaker, _ in names[0]} & {speaker for speaker, _ in names[1]}
    assert not {text for _, text in names[0]} & {text for _, text in names[1]}


@pytest.mark.parametrize("validation", ["", ",validation_speakers=*_1020"])
def test_sentences_stay_apart_where_speakers_are_held_out_by_name(
    validation: str, tmp_path: Path
) -> None:
    root = write_cremad(tmp_path / "cremad", sentences=SENTENCES)
    name = f"cremad:held_out_sentences=true,test_speakers=*_1001+*_1002{validation}"
    parts = split_corpus(load_corpus(name, root, tmp_path / "cache"))
    assert {*parts["test"]["speaker_id"][:]} == {"cremad_1001", "cremad_1002"}
    assert bool(validation) == bool(len(parts["validation"]))
    wanted = {"test": {"test"}, "validation": {"validation"}, "train": {"train"}}
    # As under protocol "paper": nobody is validated on.
    wanted["train"] |= set() if validation else {"validation"}
    for split, part in parts.items():
        sentences = {SENTENCE_SPLITS[sentence_of(one)] for one in part["utterance_id"][:]}
        assert sentences == (wanted[split] if len(part) else set())


def test_six_actors_are_set_aside_for_choices(tmp_path: Path) -> None:
    root = write_cremad(tmp_path / "cremad", actors=(1001, 1014, 1020, 1024, 1040, 1060, 1080))
    everyone = {*load_corpus("cremad", root, tmp_path / "cache")["speaker_id"]}
    aside = {"cremad_1014", "cremad_1024"}
    study = load_corpus("cremad:part=study", root, tmp_path / "cache")
    assert {*study["speaker_id"]} == everyone - aside and "split" not in study.column_names
    choices = split_corpus(load_corpus("cremad:part=choices", root, tmp_path / "cache"))
    heard = {split: {*part["speaker_id"][:]} for split, part in choices.items()}
    assert heard == {"train": everyone - aside, "validation": aside, "test": set()}
    with pytest.raises(CorpusError, match="unknown choice 'all': use one of 'study', 'choices'"):
        load_corpus("cremad:part=all", root, tmp_path / "cache")


def test_a_corpus_is_split_in_one_way_whatever_role_it_has(tmp_path: Path) -> None:
    write_cremad(tmp_path / "cremad")
    folders: dict[str, Any] = {"corpus_dir": tmp_path, "cache_dir": tmp_path / "cache"}
    held_out = "cremad:test_speakers=*_1001+*_1002,validation_speakers=*_1020"
    for interferers, fold in (("cremad", 2), (held_out.replace("1020", "1040"), 1)):
        asked: dict[str, Any] = {"interferers": interferers, "fold": fold, "split": "train"}
        with pytest.raises(CorpusError, match="cremad is named in several ways"):
            load_mixtures(targets=held_out, **asked, **folders)
    # The sessions of the first fold hold out the same.
    assert len(load_mixtures(targets=held_out, interferers="cremad", split="test", **folders))
    other_order = "cremad:validation_speakers=*_1020,test_speakers=*_1002+*_1001"
    assert len(load_mixtures(targets=held_out, interferers=other_order, split="test", **folders))


@pytest.mark.slow
def test_the_opus_copies_are_the_same_corpus(data_dir: Path) -> None:
    corpus = load_corpus("cremad", data_dir / "cremad")
    rows = {row["utterance_id"].partition("/")[2]: row for row in corpus}
    with (data_dir / "cremad" / "metadata.csv").open(encoding="utf-8", newline="") as file:
        table = {Path(line["path"]).stem: line for line in csv.DictReader(file)}
    assert table.keys() - rows.keys() == {"1076_MTI_SAD_XX"}  # silent
    for name, row in rows.items():
        for column in ("speaker_id", "gender", "emotion", "text", "language"):
            assert row[column] == table[name][column], name
