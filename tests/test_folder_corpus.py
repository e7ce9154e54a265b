"""The folder corpus: anybody's recordings behind a table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import soundfile
from corpus_layouts import burst

from data_builders import load_corpus, load_mixtures
from data_builders.load import split_corpus
from data_builders.schema import UTTERANCE_FEATURES, CorpusError

ROWS: list[dict[str, str]] = [
    {
        "path": f"{speaker}/{number}.wav",
        "speaker_id": speaker,
        "gender": gender,
        "emotion": emotion,
        "session": session,
    }
    for session, speaker, gender in [("1", "anna", "F"), ("2", "bert", "m"), ("3", "cleo", "Woman")]
    for number, emotion in enumerate(["neutral", "Joy", "ang", ""])
]


def write_folder(root: Path, rows: Sequence[dict[str, str]], rate: int = 16_000) -> Path:
    """The recordings of the rows, and metadata.csv."""
    for number, row in enumerate(rows):
        path = root / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, burst(number, rate), rate)
    write_table(root, rows)
    return root


def write_table(root: Path, rows: Sequence[dict[str, str]]) -> None:
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False, encoding="utf-8-sig")


def test_a_table_of_recordings_is_a_corpus(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "folder", ROWS, rate=22_050)
    corpus = load_corpus("folder", root, tmp_path / "cache")
    assert corpus.features == UTTERANCE_FEATURES
    assert corpus["utterance_id"][:5] == [
        *(f"folder/anna/{number}" for number in range(4)),
        "folder/bert/0",
    ]
    assert corpus["gender"][:] == ["female"] * 4 + ["male"] * 4 + ["female"] * 4
    assert corpus["emotion"][:4] == ["neutral", "happy", "angry", ""]
    assert corpus["speaker_id"][0] == "folder_anna"
    assert (corpus[0]["text"], corpus[0]["language"], corpus[0]["licence"]) == ("", "", "")
    assert soundfile.info(corpus[0]["path"]).samplerate == 16_000
    assert corpus[0]["duration_seconds"] == pytest.approx(len(burst(0)) / 16_000, abs=1e-3)


def test_path_and_speaker_suffice(tmp_path: Path) -> None:
    rows = [{"path": row["path"], "speaker_id": row["speaker_id"]} for row in ROWS]
    corpus = load_corpus("folder", write_folder(tmp_path / "a", rows), tmp_path / "cache")
    assert set(corpus["gender"]) == set(corpus["emotion"]) == {""}


def test_mixtures_are_made_of_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Among its emotions is one that no other corpus has.
    rows = [{**row, "emotion": row["emotion"] or "Sleepy"} for row in ROWS]
    rows += [{**row, "path": row["path"].replace(".", "b.")} for row in rows]
    write_folder(tmp_path / "folder", rows)
    mixtures = load_mixtures(
        targets="folder",
        interferers=None,
        emotions=["neutral", "happy", "sleepy"],
        corpus_dir=tmp_path,
        cache_dir=tmp_path / "cache",
        split="test",
    )
    examples = [mixtures[index] for index in range(len(mixtures))]
    assert {example["speaker_id"] for example in examples} == {"folder_anna"}
    assert sorted(example["label"] for example in examples) == [0, 0, 1, 1, 2, 2]
    assert "emotions that no other corpus has: sleepy (6)" in caplog.text


def test_parquet_another_name_and_absolute_paths(tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere", ROWS)
    (tmp_path / "lab").mkdir()
    rows: list[dict[str, Any]] = [
        {**row, "path": str(tmp_path / "elsewhere" / row["path"]), "utterance_id": f"u{n}"}
        for n, row in enumerate(ROWS)
    ]
    rows[0]["gender"] = None  # Parquet has missing values
    rows[0]["speaker_id"] = rows[1]["speaker_id"] = "dora"
    rows[1]["gender"] = "Unknown"
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "lab" / "train.parquet"))
    name = "folder:metadata=train.parquet,name=lab_a"
    corpus = load_corpus(name, tmp_path / "lab", tmp_path / "cache")
    assert corpus["utterance_id"][:2] == ["lab_a/u0", "lab_a/u1"]
    assert corpus["speaker_id"][1:3] == ["lab_a_dora", "lab_a_anna"]
    assert corpus["gender"][:3] == ["", "", "female"]
    # Two folders at once, each under its own name.
    mixtures = load_mixtures(
        targets=[name, "folder"],
        interferers=None,
        emotions=None,
        enrollment_emotion=None,
        split="test",
        corpus_dirs={name: tmp_path / "lab", "folder": tmp_path / "elsewhere"},
        cache_dir=tmp_path / "cache",
    )
    targets = {mixtures.plan(index).target_id for index in range(len(mixtures))}
    assert {name.partition("/")[0] for name in targets} == {"lab_a", "folder"}


def test_a_split_column_decides(tmp_path: Path) -> None:
    splits = ["train", "validation", "test"] * 4
    rows = [{**row, "split": split} for row, split in zip(ROWS, splits, strict=True)]
    root = write_folder(tmp_path / "folder", rows)
    for _ in range(2):  # as it was read, and as it was kept
        parts = split_corpus(load_corpus("folder", root, tmp_path / "cache"))
        assert parts["test"]["utterance_id"][:] == [
            f"folder/{row['path'][:-4]}" for row in rows if row["split"] == "test"
        ]


def test_a_changed_table_or_file_is_read_again(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "folder", ROWS)
    before = load_corpus("folder", root, tmp_path / "cache")
    write_table(root, [{**row, "text": "Hello, world."} for row in ROWS])
    assert set(load_corpus("folder", root, tmp_path / "cache")["text"]) == {"Hello, world."}
    soundfile.write(root / ROWS[0]["path"], burst(0, active_seconds=2.0), 16_000)
    after = load_corpus("folder", root, tmp_path / "cache")
    assert after[0]["duration_seconds"] > before[0]["duration_seconds"] + 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"emotion": "hangry"},
            r"row 2: emotion 'hangry' is unknown: use one of \"\", angry, bored",
        ),
        ({"gender": "x"}, r"row 2: gender 'x' is unknown: use one of \"\", female, male"),
        ({"speaker_id": ""}, "row 2: path and speaker_id must not be empty"),
        ({"path": ""}, "row 2: path and speaker_id must not be empty"),
        ({"path": "../secret.wav"}, r"row 2: \.\./secret\.wav leaves the folder"),
        ({"path": "anna/../../secret.wav"}, "leaves the folder of the table"),
        ({"path": "anna/9.wav"}, r"1 of 12 audio files .* cannot be used:\n  anna/9\.wav: missing"),
        ({"path": "anna/0.wav"}, "1 utterance ids repeat, such as anna/0"),
        ({"gender": "m"}, "speaker folder_anna is female in folder/anna/0 and male in"),
        ({"split": "dev"}, "row 2: unknown split 'dev': use one of train, validation, test"),
    ],
)
def test_a_bad_row_is_named(change: dict[str, str], reason: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "folder", ROWS)
    rows = [{**row, "split": "train"} if "split" in change else dict(row) for row in ROWS]
    rows[1].update(change)
    write_table(root, rows)
    with pytest.raises(CorpusError, match=reason):
        load_corpus("folder", root, tmp_path / "cache", strict=True)


def test_a_bad_table_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "folder", ROWS)
    cache = tmp_path / "cache"
    table = root / "metadata.csv"
    table.write_text("path,speaker\na.wav,anna\n")
    with pytest.raises(CorpusError, match=r"columns \['speaker_id'\] are missing; found \['path'"):
        load_corpus("folder", root, cache)
    table.write_text("path,speaker_id\na.wav,anna,f\n")
    with pytest.raises(CorpusError, match=r"row 1: 3 values for 2 columns; a comma inside"):
        load_corpus("folder", root, cache)
    table.write_text("path,speaker_id\n")
    with pytest.raises(CorpusError, match="no utterance is described"):
        load_corpus("folder", root, cache)
    table.write_bytes("path,speaker_id\nä.wav,anna\n".encode("latin-1"))
    with pytest.raises(CorpusError, match="not UTF-8"):
        load_corpus("folder", root, cache)
    table.unlink()
    with pytest.raises(CorpusError, match=r"holds no metadata\.csv or metadata\.parquet: write"):
        load_corpus("folder", root, cache)
    with pytest.raises(CorpusError, match=r"holds no other\.csv"):
        load_corpus("folder:metadata=other.csv", root, cache)


def test_unused_columns_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{**row, "microphone": "close"} for row in ROWS]
    with caplog.at_level(logging.WARNING):
        load_corpus("folder", write_folder(tmp_path / "folder", rows), tmp_path / "cache")
    assert "1 columns are not used: microphone" in caplog.text


@pytest.mark.parametrize(
    ("name", "utterances", "speakers"),
    [
        ("cremad", 4359, 81),
        ("librispeech251", 709, 251),
        ("nemo", 1025, 9),
        ("emotiontts", 300, 15),
    ],
)
@pytest.mark.slow
def test_opus_tables_load_and_their_silent_clip_is_counted(
    name: str,
    utterances: int,
    speakers: int,
    data_dir: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    corpus = load_corpus(f"folder:name={name}", data_dir / name)
    assert len(corpus) == utterances
    assert len({*corpus["speaker_id"][:]}) == speakers
    assert ("1076_MTI_SAD_XX.opus: silent" in caplog.text) == (name == "cremad")
    row = corpus[0]
    with soundfile.SoundFile(row["path"]) as file:
        assert (file.samplerate, file.channels) == (16_000, 1)
        assert file.frames == round(row["duration_seconds"] * 16_000)


@pytest.mark.parametrize(
    ("targets", "interferers", "confusable"),
    [
        (["folder:name=my"], ["folder:name=my_1"], True),
        (["folder:name=my_1", "folder:name=my"], None, True),
        (["ravdess"], ["folder:name=ravdess_2"], True),
        (["folder:name=my"], ["folder:name=my-1"], False),
        (["folder:name=ravdess"], ["ravdess"], False),  # the same speakers
        (["generated"], ["generated_pool"], False),  # whose speakers are known
    ],
)
def test_folders_whose_speakers_could_be_one_are_refused(
    targets: list[str], interferers: list[str] | None, confusable: bool, tmp_path: Path
) -> None:
    expected = "their speakers could be taken for each other's" if confusable else "is not a folder"
    if targets == ["generated"]:
        load_mixtures(targets=targets, interferers=interferers)
        return
    with pytest.raises(CorpusError, match=expected):
        load_mixtures(targets=targets, interferers=interferers, corpus_dir=tmp_path)
