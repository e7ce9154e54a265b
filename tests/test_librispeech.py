"""LibriSpeech: subsets, hours drawn by speaker, Parquet, and incomplete copies."""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
from corpus_layouts import (
    LIBRISPEECH_SPEAKERS,
    burst,
    write_librispeech,
    write_librispeech_parquet,
)

from data_builders import load_corpus
from data_builders.audio import read_audio
from data_builders.corpora import librispeech_parquet, scan
from data_builders.corpora.librispeech import draw_hours
from data_builders.load import split_corpus
from data_builders.schema import CorpusError

UTTERANCES_PER_SPEAKER = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder LibriSpeech with three subsets; tests that spoil something copy it."""
    return write_librispeech(tmp_path_factory.mktemp("lab") / "LibriSpeech")


def hours_of(corpus: datasets.Dataset) -> float:
    return sum(corpus["duration_seconds"]) / 3600


def speakers_of(corpus: datasets.Dataset) -> set[str]:
    return set(corpus["speaker_id"])


def test_every_subset_that_is_there_is_read(root: Path, tmp_path: Path) -> None:
    corpus = load_corpus("librispeech", root, tmp_path)
    genders = {
        f"librispeech_{speaker}": {"F": "female", "M": "male"}[letter]
        for of_subset in LIBRISPEECH_SPEAKERS.values()
        for speaker, letter in of_subset.items()
    }
    assert {row["speaker_id"]: row["gender"] for row in corpus} == genders
    assert len(corpus) == UTTERANCES_PER_SPEAKER * len(genders)
    row = next(row for row in corpus if row["utterance_id"] == "librispeech/19-191-0002")
    assert row["text"] == "UTTERANCE 2 OF CHAPTER 191"
    assert (row["emotion"], row["session"], row["licence"]) == ("", "", "CC-BY-4.0")
    assert row["duration_seconds"] == soundfile.info(row["path"]).duration


def test_the_folder_the_one_above_and_that_of_a_subset_will_do(root: Path, tmp_path: Path) -> None:
    whole = load_corpus("librispeech", root, tmp_path)["utterance_id"][:]
    assert load_corpus("librispeech", root.parent, tmp_path)["utterance_id"][:] == whole
    subset = load_corpus("librispeech:subsets=dev-clean", root, tmp_path)
    assert speakers_of(subset) == {"librispeech_84", "librispeech_174"}
    inside = load_corpus("librispeech", root / "dev-clean", tmp_path)
    assert inside["utterance_id"][:] == subset["utterance_id"][:]


def test_missing_and_unknown_subsets_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError,
        match=r"train-other-500 missing in .*which has train-clean-100, train-clean-360",
    ):
        load_corpus("librispeech:subsets=train-clean-100+train-other-500", root, tmp_path)
    with pytest.raises(CorpusError, match=r"unknown subsets \['clean'\]: use some of train-clean"):
        load_corpus("librispeech:subsets=clean", root, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="found an empty folder"):
        load_corpus("librispeech", tmp_path / "empty", tmp_path / "cache")


def test_hours_are_drawn_by_speaker_and_seed(root: Path, tmp_path: Path) -> None:
    wanted = hours_of(load_corpus("librispeech", root, tmp_path)) / 3
    drawn = load_corpus("librispeech", root, tmp_path, hours=wanted)
    longest = max(drawn["duration_seconds"]) / 3600
    assert wanted <= hours_of(drawn) < wanted + longest
    # All but the last speaker with everything that they said.
    per_speaker = [drawn["speaker_id"][:].count(speaker) for speaker in speakers_of(drawn)]
    assert sum(number < UTTERANCES_PER_SPEAKER for number in per_speaker) <= 1
    assert load_corpus("librispeech", root, tmp_path / "b", hours=wanted)[:] == drawn[:]
    others = [load_corpus("librispeech", root, tmp_path, hours=wanted, seed=s) for s in (1, 2, 3)]
    assert any(speakers_of(other) != speakers_of(drawn) for other in others)


def test_parts_share_no_speaker(root: Path, tmp_path: Path) -> None:
    third = hours_of(load_corpus("librispeech", root, tmp_path)) / 3
    noise, pretraining = (
        load_corpus(f"librispeech:hours={third}+{third},part={part},seed=5", root, tmp_path)
        for part in (1, 2)
    )
    assert not speakers_of(noise) & speakers_of(pretraining)
    for part in (noise, pretraining):
        assert third <= hours_of(part) < third + 2 / 3600
    with pytest.raises(CorpusError, match="part 3 does not exist"):
        load_corpus("librispeech:hours=1+1,part=3", root, tmp_path)


def test_excluded_speakers_are_in_no_draw(root: Path, tmp_path: Path) -> None:
    some = hours_of(load_corpus("librispeech", root, tmp_path)) / 4
    first = load_corpus("librispeech", root, tmp_path, hours=some)
    excluded = sorted(name.removeprefix("librispeech_") for name in speakers_of(first))
    second = load_corpus(
        f"librispeech:hours={some},exclude_speakers={'+'.join(excluded)}", root, tmp_path
    )
    assert not speakers_of(first) & speakers_of(second)
    rest = load_corpus("librispeech", root, tmp_path, exclude_speakers=excluded)
    assert len(speakers_of(rest)) == 12 - len(excluded)


def test_too_many_hours_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"105 \+ 100 hours are wanted, the 12 speakers have 0\.0"
    ):
        load_corpus("librispeech:hours=105+100", root, tmp_path)
    with pytest.raises(CorpusError, match="hours: expected positive numbers"):
        load_corpus("librispeech:hours=0", root, tmp_path)


def test_the_order_of_the_draw_is_pinned() -> None:
    # A published study names its seed: the speakers behind it must not change.
    speakers = [f"s{number % 10}" for number in range(40)]
    parts = draw_hours(speakers, [360.0] * 40, [0.5, 0.6], seed=0)
    assert parts == [[4, 6, 14, 24, 34], [2, 7, 12, 17, 22, 32]]


def test_only_headers_are_decoded_unless_speech_is_to_be_measured(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = load_corpus(
        "librispeech:subsets=dev-clean,measure_speech=true", root, tmp_path / "a"
    )
    assert all(start > 0 for start in measured["speech_start_seconds"])
    monkeypatch.setattr(scan, "decode", None)
    corpus = load_corpus("librispeech:subsets=dev-clean", root, tmp_path / "b")
    assert set(corpus["speech_start_seconds"]) == {0.0}
    assert corpus["speech_end_seconds"][:] == corpus["duration_seconds"][:]
    assert corpus["duration_seconds"][:] == measured["duration_seconds"][:]


def test_truncated_and_empty_files_are_found_without_decoding(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "LibriSpeech")
    cut = copy / "dev-clean" / "84" / "841" / "84-841-0001.flac"
    cut.write_bytes(cut.read_bytes()[:-1500])
    (copy / "dev-clean" / "84" / "841" / "84-841-0002.flac").write_bytes(b"")
    with pytest.raises(CorpusError) as error:
        load_corpus("librispeech", copy, tmp_path / "cache", strict=True)
    message = str(error.value)
    assert "2 of 72 audio files" in message
    assert "84-841-0002.flac: empty: the file has no bytes" in message
    assert "84-841-0001.flac: unreadable" in message or "84-841-0001.flac: truncated" in message


def test_an_incomplete_copy_is_used_and_counted(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = shutil.copytree(root / "dev-clean", tmp_path / "LibriSpeech" / "dev-clean").parent
    (copy / "dev-clean" / "84" / "841" / "84-841-0001.flac").unlink()
    (copy / "dev-clean" / "174" / "1741" / "174-1741.trans.txt").unlink()
    soundfile.write(copy / "dev-clean" / "notes.flac", burst(1), 16_000)
    with caplog.at_level(logging.WARNING):
        corpus = load_corpus("librispeech", copy, tmp_path / "cache")
    assert len(corpus) == 11
    assert "dev-clean: 11 instead of 2703" in caplog.text
    assert "1 transcribed utterances have no audio, such as 84-841-0001" in caplog.text
    assert "3 utterances have no transcript, such as 174-1741-0000" in caplog.text
    assert "1 audio files are not part of the corpus and are left out" in caplog.text
    assert "the gender of 2 speakers is unknown" in caplog.text  # there is no SPEAKERS.TXT
    assert set(corpus["gender"]) == {""}


def test_a_speaker_of_two_genders_is_an_error(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "LibriSpeech")
    with (copy / "SPEAKERS.TXT").open("a") as file:
        file.write("26   | F | train-clean-100  | 20.18 | Another Reader\n")
    with pytest.raises(CorpusError, match=r"SPEAKERS\.TXT: speaker 26 is both male and female"):
        load_corpus("librispeech", copy, tmp_path / "cache")


@pytest.fixture(scope="module")
def parquet(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same recordings as the Hub has them, with SPEAKERS.TXT beside them."""
    folder = write_librispeech_parquet(tmp_path_factory.mktemp("parquet"), root)
    shutil.copy(root / "SPEAKERS.TXT", folder)
    return folder


def without_path(corpus: datasets.Dataset) -> list[dict[str, Any]]:
    return corpus.remove_columns("path").to_list()


def test_parquet_gives_the_same_corpus_and_the_same_bytes(
    root: Path, parquet: Path, tmp_path: Path
) -> None:
    extracted = load_corpus("librispeech", root, tmp_path)
    unpacked = load_corpus("librispeech", parquet, tmp_path)
    assert without_path(unpacked) == without_path(extracted)
    for a, b in zip(extracted["path"], unpacked["path"], strict=True):
        assert Path(b).is_relative_to(tmp_path)
        assert Path(a).read_bytes() == Path(b).read_bytes()
    third = hours_of(extracted) / 3
    drawn = [load_corpus("librispeech", where, tmp_path, hours=third) for where in (root, parquet)]
    assert without_path(drawn[0]) == without_path(drawn[1])


def test_parquet_is_unpacked_once_and_again_when_it_changes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_librispeech_parquet(tmp_path / "parquet", root)
    name = "librispeech:subsets=dev-clean"
    first = load_corpus(name, folder, tmp_path / "cache")
    assert len(list((tmp_path / "cache").rglob("*.flac"))) == len(first)  # of this subset alone
    opened = []
    load_dataset = datasets.load_dataset

    def record(*args: Any, **keywords: Any) -> datasets.IterableDataset:
        opened.append(keywords)
        return load_dataset(*args, **keywords)

    monkeypatch.setattr(datasets, "load_dataset", record)
    assert load_corpus(name, folder, tmp_path / "cache")[:] == first[:]
    assert not opened
    (file,) = (folder / "all" / "validation.clean").iterdir()
    shutil.copy(file, file.with_name("copy"))
    file.with_name("copy").replace(file)
    load_corpus(name, folder, tmp_path / "cache")
    assert opened[0]["streaming"]


def test_the_hub_is_streamed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "file": ["84-841-0000.flac"],
        "audio": [{"bytes": (root / "dev-clean/84/841/84-841-0000.flac").read_bytes(), "path": ""}],
        "text": ["HELLO"],
        "id": ["84-841-0000"],
    }

    def load_dataset(name: str, configuration: str, **keywords: Any) -> datasets.IterableDataset:
        assert (name, configuration) == ("openslr/librispeech_asr", "all")
        assert keywords == {"split": "validation.clean", "streaming": True}
        return datasets.Dataset.from_dict(rows).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    name = "librispeech:hub=openslr/librispeech_asr"
    corpus = load_corpus(f"{name},subsets=dev-clean", root, tmp_path)
    assert corpus["text"][:] == ["HELLO"]
    assert corpus["gender"][:] == ["female"]  # from SPEAKERS.TXT in the folder
    assert load_corpus(f"{name},subsets=dev-clean", None, tmp_path)["gender"][:] == [""]
    with pytest.raises(CorpusError, match="name the subsets to fetch"):
        load_corpus(name, None, tmp_path)


def test_a_hub_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="dev-clean cannot be read from Parquet"):
        load_corpus("librispeech:hub=openslr/librispeech_asr,subsets=dev-clean", None, tmp_path)


def as_rows(*examples: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from examples


def test_audio_in_parquet_becomes_flac_or_is_refused(tmp_path: Path) -> None:
    wav = io.BytesIO()
    samples = np.round(burst(1) * 2**15) / 2**15
    soundfile.write(wav, samples, 16_000, format="WAV", subtype="PCM_16")
    row = {"id": "1-2-0003", "audio": {"bytes": wav.getvalue(), "path": None}, "text": "A"}
    librispeech_parquet._write_rows(as_rows(row), tmp_path)
    np.testing.assert_array_equal(read_audio(tmp_path / "1" / "2" / "1-2-0003.flac"), samples)
    for audio, reason in [
        ({"bytes": None, "path": "a.flac"}, "no audio in the Parquet file"),
        ({"bytes": b"nothing", "path": None}, "the audio of 1-2-0003 is unreadable"),
    ]:
        with pytest.raises(CorpusError, match=reason):
            librispeech_parquet._write_rows(as_rows({**row, "audio": audio}), tmp_path)
    with pytest.raises(CorpusError, match=r"'\.\./1-2-0003' is no utterance"):
        librispeech_parquet._write_rows(as_rows({**row, "id": "../1-2-0003"}), tmp_path)


@pytest.mark.parametrize(
    ("path", "subset"),
    [
        ("all/train.clean.100/0000.parquet", "train-clean-100"),
        ("clean/train.360/0003.parquet", "train-clean-360"),
        ("other/train.500/0003.parquet", "train-other-500"),
        ("clean/validation/0000.parquet", "dev-clean"),
        ("other/test/0000.parquet", "test-other"),
        ("data/train.clean.100-00000-of-00014-9e5e4f92.parquet", "train-clean-100"),
        ("librispeech_dev_clean-00000-of-00015.parquet", "dev-clean"),
        ("data/train-00000-of-00014.parquet", None),
    ],
)
def test_the_subset_is_told_by_the_names_of_parquet_files(path: str, subset: str | None) -> None:
    assert librispeech_parquet.subset_of(Path("lab", "parquet"), path) == subset
    assert librispeech_parquet.subset_of(Path("all", "test.other"), "0000.parquet") == "test-other"


def test_the_splits_of_the_release_are_kept_on_request(root: Path, tmp_path: Path) -> None:
    name = "librispeech:subsets=train-clean-100+dev-clean,release_splits=true"
    splits = split_corpus(load_corpus(name, root, tmp_path))
    for split, subset in (("train", "train-clean-100"), ("validation", "dev-clean")):
        expected = {f"librispeech_{speaker}" for speaker in LIBRISPEECH_SPEAKERS[subset]}
        assert speakers_of(splits[split]) == expected
    assert len(splits["test"]) == 0
    # Asked for or not, they are tables of their own.
    corpus = load_corpus("librispeech:subsets=train-clean-100+dev-clean", root, tmp_path)
    assert "split" not in corpus.column_names
    assert len(split_corpus(corpus)["test"]) > 0
