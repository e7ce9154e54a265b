"""The command `tse-ser`: predict, enroll and extract, through `main` and the installed script."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import soundfile
from synthetic_speech import speech
from tiny_models import tiny_classifier, transparent_tse_ser

from modeling import TargetSpeakerEmotionPipeline, TseSerFeatureExtractor
from tse_ser.cli.extract import only_run_in
from tse_ser.cli.main import ALL_FINE, CANNOT, INTERRUPTED, SOME_FAILED, main
from tse_ser.cli.results_table import ResultsTable

RATE = 16000
LABELS = ["neutral", "happy", "sad", "angry"]
SCRIPT = Path(sys.executable).with_name("tse-ser")


DETAILS: dict[str, Any] = {
    "emotions": [{"label": "happy", "score": 1.0}],
    "duration_seconds": 1.0,
    "warnings": [],
}


def write_speech(path: Path, seed: int, seconds: float = 0.9, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, speech(seed, seconds, rate), rate)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and recordings."""
    folder = tmp_path_factory.mktemp("command_line")
    models = {
        "whole": transparent_tse_ser(),
        "extractor": transparent_tse_ser().extractor,
        "sc": tiny_classifier(),
    }
    for name, model in models.items():
        model.config.id2label = dict(enumerate(LABELS))
        model.save_pretrained(folder / name)
        TseSerFeatureExtractor().save_pretrained(folder / name)
    write_speech(folder / "mixture.wav", 0, 2.5)
    write_speech(folder / "alice.wav", 1, 4.0)
    for index, name in enumerate(("a.wav", "b.flac", "sub/c.ogg")):
        write_speech(folder / "recordings" / name, 10 + index)
    return folder


@pytest.fixture()
def recordings(folder: Path, tmp_path: Path) -> Path:
    """A folder of three good recordings that a test may spoil."""
    return Path(shutil.copytree(folder / "recordings", tmp_path / "recordings"))


def predict_words(folder: Path, *words: object, model: str = "whole") -> list[str]:
    given = ["--model", folder / model, "--mixture", folder / "mixture.wav", *words]
    return ["predict", *map(str, given)]


def extract_words(folder: Path, recordings: Path, output: Path, model: str = "whole") -> list[str]:
    words = ["--model", folder / model, "--input", recordings, "--output", output]
    return ["extract", *map(str, words), "--enrollment", str(folder / "alice.wav")]


def table_rows(output: Path) -> list[dict[str, str]]:
    with (output / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("tse-ser:")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


def pipeline_result(folder: Path, mixture: Any, **options: Any) -> Any:
    model, feature_extractor = transparent_tse_ser(), TseSerFeatureExtractor()
    model.config.id2label = dict(enumerate(LABELS))
    recognize = TargetSpeakerEmotionPipeline(model=model, feature_extractor=feature_extractor)
    return recognize({"mixture": mixture, "enrollment": str(folder / "alice.wav")}, **options)


def test_predict_gives_what_the_pipeline_gives(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--enrollment", folder / "alice.wav", "--json", "--window_seconds", 0.5)
    assert main(predict_words(folder, *words, "--top_k", 2)) == ALL_FINE

    printed = json.loads(capsys.readouterr().out)
    mixture = str(folder / "mixture.wav")
    expected = pipeline_result(folder, mixture, window_seconds=0.5, top_k=2)
    assert [entry["label"] for entry in printed["emotions"]] == [
        entry["label"] for entry in expected["emotions"]
    ]
    windows = zip(printed["windows"], expected["windows"], strict=True)
    for one, other in ((printed, expected), *windows):
        scores = [[entry["score"] for entry in each["emotions"]] for each in (one, other)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    spans = [(window["start_seconds"], window["end_seconds"]) for window in printed["windows"]]
    assert spans == [(0.0, 0.5), (1.0, 1.5), (2.0, 2.5)]


def test_a_voice_gives_what_its_recordings_give(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enrollment = [str(folder / "alice.wav"), str(write_speech(tmp_path / "more.wav", 7))]
    voice = str(tmp_path / "voices" / "alice.safetensors")
    model = ["--model", str(folder / "whole")]
    assert main(["enroll", *model, "--recordings", *enrollment, "--output", voice]) == ALL_FINE
    assert "2 recordings" in capsys.readouterr().out
    printed = []
    for speaker in (["--voice", voice], ["--enrollment", *enrollment]):
        assert main(predict_words(folder, *speaker, "--json")) == ALL_FINE
        printed.append(json.loads(capsys.readouterr().out)["speaker_similarity"])
    assert printed[0] == printed[1]
    # Both recordings count.
    assert main(predict_words(folder, "--enrollment", enrollment[0], "--json")) == ALL_FINE
    assert json.loads(capsys.readouterr().out)["speaker_similarity"] != printed[0]


def test_people_get_the_answer_a_line_an_emotion_and_the_speech(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "extracted.flac"
    words = ("--enrollment", folder / "alice.wav", "--output", output)
    assert main(predict_words(folder, *words, "--window_seconds", 1)) == ALL_FINE

    answer, *lines = capsys.readouterr().out.splitlines()
    assert answer == "answer: uncertain"
    assert {line.split()[0] for line in lines[:4]} == set(LABELS)
    shares = [float(line.split()[1].rstrip("%")) for line in lines[:4]]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=0.3)
    assert lines[4].strip().startswith("0.00 - 1.00 s")
    assert str(output) in lines[-1]
    extracted, rate = soundfile.read(output)
    mixture, _ = soundfile.read(folder / "mixture.wav")
    assert (rate, len(extracted)) == (RATE, len(mixture))
    assert extracted.std() == pytest.approx(mixture.std(), rel=0.02)
    assert not list(output.parent.glob("*.partial"))
    # Nothing is written over what is there, inputs least of all.
    assert main(predict_words(folder, *words)) == CANNOT
    assert "--overwrite" in complaint(capsys)
    assert main(predict_words(folder, *words, "--overwrite")) == ALL_FINE
    for name in ("mixture.wav", "alice.wav"):
        words = ("--enrollment", folder / "alice.wav", "--output", folder / name)
        assert main(predict_words(folder, *words, "--overwrite")) == CANNOT
        assert "is an input" in complaint(capsys)


def test_the_channel_is_chosen_and_warnings_are_printed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left, right = speech(0, 2.0), 0.5 * speech(3, 2.0)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), RATE)
    soundfile.write(tmp_path / "right.wav", right, RATE)
    found = []
    for words in (("stereo.wav", "--channel", "1"), ("right.wav",), ("stereo.wav",)):
        arguments = predict_words(folder, "--enrollment", folder / "alice.wav", *words[1:])
        arguments[arguments.index("--mixture") + 1] = str(tmp_path / words[0])
        assert main([*arguments, "--json"]) == ALL_FINE
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["emotions"] == found[1]["emotions"] != found[2]["emotions"]
    assert [len(each["warnings"]) for each in found] == [0, 0, 1]
    assert main(arguments) == ALL_FINE
    assert "warning: The channels hold different sound" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["whole", "extractor"])
def test_a_folder_gives_speech_and_a_table(folder: Path, tmp_path: Path, model: str) -> None:
    output = tmp_path / "out"
    assert main(extract_words(folder, folder / "recordings", output, model)) == ALL_FINE

    rows = table_rows(output)
    assert [row["file"] for row in rows] == ["a.wav", "b.flac", "sub/c.ogg"]
    assert [row["output"] for row in rows] == ["a.wav", "b.flac.wav", "sub/c.ogg.wav"]
    for row in rows:
        assert soundfile.info(output / row["output"]).samplerate == RATE
        assert float(row["duration_seconds"]) == pytest.approx(0.9, abs=0.01)
        if model == "whole":
            shares = {label: float(row[f"probability_{label}"]) for label in LABELS}
            assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
            assert row["emotion"] == max(shares, key=lambda label: shares[label])
        else:
            assert "emotion" not in row


def test_bad_files_are_recorded_and_do_not_stop_the_rest(
    folder: Path, tmp_path: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recordings / "0_text.wav").write_text("no audio")
    (recordings / "empty.mp3").write_bytes(b"")
    soundfile.write(recordings / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(recordings / "short.wav", np.ones(10) / 2, RATE)
    (recordings / "notes.txt").write_text("no recording")
    (recordings / "._a.wav").write_text("what another system left here")
    output = tmp_path / "out"
    words = extract_words(folder, recordings, output)
    assert main(words) == SOME_FAILED
    assert "4 could not be used" in capsys.readouterr().out

    rows = {row["file"]: row for row in table_rows(output)}
    assert len(rows) == 7
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {
        *("a.wav", "b.flac", "sub/c.ogg")
    }
    assert "silent" in rows["silent.wav"]["reason"]
    assert "0_text.wav" in rows["0_text.wav"]["reason"]
    # Once more: nothing is tried again, and the code still says that something is missing.
    assert main(words) == SOME_FAILED
    assert "0 of them looked at now" in capsys.readouterr().out
    for name in ("0_text.wav", "empty.mp3", "short.wav", "silent.wav"):
        (recordings / name).unlink()
        write_speech(recordings / f"{Path(name).stem}.wav", 5)
    write_speech(recordings / "empty.wav", 5).rename(recordings / "empty.mp3")
    assert main([*words, "--retry_failed"]) == ALL_FINE
    assert len(table_rows(output)) == 7


def test_a_half_written_row_is_done_again_and_nothing_else(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = extract_words(folder, folder / "recordings", output)
    assert main(words) == ALL_FINE
    table = output / "results.csv"
    whole = table.read_bytes()
    first = (output / "a.wav").stat().st_mtime_ns
    # Cut anywhere in the last row: even one that lacks no more than its line break is not trusted.
    start = whole[:-1].rfind(b"\n") + 1
    for cut in (start, start + 1, start + 20, len(whole) - 3, len(whole) - 1):
        table.write_bytes(whole[:cut])
        (output / "sub" / "c.ogg.wav").unlink()
        capsys.readouterr()
        assert main(words) == ALL_FINE
        assert "1 of them looked at now" in capsys.readouterr().out
        assert table.read_bytes() == whole
        assert (output / "sub" / "c.ogg.wav").is_file()
    assert (output / "a.wav").stat().st_mtime_ns == first


def test_names_with_commas_quotes_and_line_breaks_survive_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    names = ['a, "b".wav', "line\nbreak.wav", os.fsdecode(b"not-utf8-\xff.wav"), "ä.wav"]
    with ResultsTable(path, ["happy"]) as table:
        for name in names:
            table.add_done(name, name, DETAILS, "1:2")
    content = path.read_bytes()
    for cut in sorted({*range(0, len(content), 5), len(content) - 1, len(content)}):
        path.write_bytes(content[:cut])
        with ResultsTable(path, ["happy"]) as table:
            kept = [name for name in names if name in table]
            assert kept == names[: len(kept)]
            for name in names[len(kept) :]:
                table.add_done(name, name, DETAILS, "1:2")
        assert path.read_bytes() == content


def test_results_of_another_model_or_voice_are_not_mixed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = extract_words(folder, folder / "recordings", output)
    assert main(words) == ALL_FINE
    assert main([*words[:-1], str(folder / "mixture.wav")]) == CANNOT
    assert "another voice" in complaint(capsys)
    assert main(extract_words(folder, folder / "recordings", output, "extractor")) == CANNOT
    assert "another model" in complaint(capsys)


@pytest.mark.parametrize(("threshold", "present"), [(-1.0, True), (1.0, False)])
def test_a_model_that_judges_presence_says_so(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    threshold: float,
    present: bool,
) -> None:
    transparent_tse_ser(presence_threshold=threshold).save_pretrained(tmp_path / "model")
    TseSerFeatureExtractor().save_pretrained(tmp_path / "model")
    words = predict_words(folder, "--enrollment", folder / "alice.wav")
    words[words.index("--model") + 1] = str(tmp_path / "model")
    assert main(words) == ALL_FINE
    assert ("the speaker was not heard" in capsys.readouterr().out) is not present
    assert main([*words, "--json"]) == ALL_FINE
    assert json.loads(capsys.readouterr().out)["target_present"] is present
    words = extract_words(folder, folder / "recordings", tmp_path / "out")
    words[words.index("--model") + 1] = str(tmp_path / "model")
    assert main(words) == ALL_FINE
    rows = table_rows(tmp_path / "out")
    assert [row["target_present"] for row in rows] == [("no", "yes")[present]] * 3


def test_what_was_replaced_or_deleted_is_done_again_and_nothing_else(
    folder: Path, tmp_path: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = extract_words(folder, recordings, output)
    assert main(words) == ALL_FINE
    before = {row["file"]: row for row in table_rows(output)}
    (output / "b.flac.wav").unlink()
    write_speech(recordings / "a.wav", 50, 1.1)
    kept = (output / "sub" / "c.ogg.wav").stat().st_mtime_ns
    capsys.readouterr()
    assert main(words) == ALL_FINE
    assert "2 of them looked at now" in capsys.readouterr().out
    after = {row["file"]: row for row in table_rows(output)}
    assert after["b.flac"] == before["b.flac"] and (output / "b.flac.wav").is_file()
    assert float(after["a.wav"]["duration_seconds"]) == pytest.approx(1.1)
    assert (output / "sub" / "c.ogg.wav").stat().st_mtime_ns == kept


def test_no_file_of_somebody_else_is_overwritten(
    folder: Path, tmp_path: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "a.wav").write_text("somebody's")
    assert main(extract_words(folder, recordings, output)) == SOME_FAILED
    assert (output / "a.wav").read_text() == "somebody's"
    rows = {row["file"]: row for row in table_rows(output)}
    assert "move it away" in rows["a.wav"]["reason"] and rows["b.flac"]["status"] == "ok"
    # Into a folder above the input, where an output would be one of the recordings.
    inner = tmp_path / "above" / "sub"
    write_speech(inner / "sub" / "x.wav", 1)
    write_speech(inner / "x.wav", 2)
    content = (inner / "x.wav").read_bytes()
    assert main(extract_words(folder, inner, tmp_path / "above")) == CANNOT
    assert "would be overwritten" in complaint(capsys)
    assert (inner / "x.wav").read_bytes() == content


def test_two_runs_never_share_a_folder_on_any_disk(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    words = extract_words(folder, folder / "recordings", tmp_path / "out")
    with only_run_in_new(tmp_path / "out"):
        assert main(words) == CANNOT
    assert "another run works there" in complaint(capsys)

    def refuse(self: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "_acquire", refuse)
    with only_run_in_new(tmp_path / "out"):
        assert main(words) == CANNOT
    assert "another run works there" in complaint(capsys)
    assert main(words) == ALL_FINE


@contextlib.contextmanager
def only_run_in_new(output: Path) -> Iterator[None]:
    output.mkdir(exist_ok=True)
    with only_run_in(output):
        yield


@pytest.mark.skipif(os.name != "posix", reason="names are text elsewhere")
def test_names_that_are_no_text_and_the_umask(folder: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "recordings", tmp_path / "out"
    source.mkdir()
    name = os.fsdecode(b"caf\xe9.wav")
    write_speech(source / "ascii.wav", 1).rename(source / name)
    voice = tmp_path / "alice.safetensors"
    arguments = ["enroll", "--model", str(folder / "whole"), "--output", str(voice)]
    before = os.umask(0o027)
    try:
        assert main([*arguments, "--recordings", str(source / name)]) == ALL_FINE
        assert main(extract_words(folder, source, output)) == ALL_FINE
        words = predict_words(folder, "--voice", voice, "--json")
        words[words.index("--mixture") + 1] = str(source / name)
        assert main(words) == ALL_FINE
    finally:
        os.umask(before)
    for path in (voice, output / name, output / "results.csv"):
        assert path.stat().st_mode & 0o777 == 0o640, path


@pytest.mark.skipif(os.name != "posix", reason="needs /dev/full")
def test_what_the_disk_refuses_names_the_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    (tmp_path / "file").write_text("")
    enroll = ["enroll", "--model", str(folder / "whole"), "--recordings", str(folder / "alice.wav")]
    assert main([*enroll, "--output", str(tmp_path / "file" / "a.safetensors")]) == CANNOT
    assert str(tmp_path / "file") in complaint(capsys)
    output = tmp_path / "full.wav"
    output.with_name("full.wav.partial").symlink_to("/dev/full")
    words = predict_words(folder, "--enrollment", folder / "alice.wav", "--output", output)
    assert main(words) == CANNOT
    assert "make room on the disk" in complaint(capsys)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("tse-ser 0.")


def test_a_bar_shows_the_progress_on_a_terminal_only(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    words = extract_words(folder, folder / "recordings", tmp_path / "log")
    assert main(words) == ALL_FINE
    assert "extracting" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    words = extract_words(folder, folder / "recordings", tmp_path / "terminal")
    assert main(words) == ALL_FINE
    shown = capsys.readouterr().err
    assert "extracting: 100%" in shown and "3/3" in shown


def test_what_cannot_work_is_said_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alice = ("--enrollment", folder / "alice.wav")
    other = tmp_path / "other.safetensors"
    enroll = ["enroll", "--model", str(folder / "extractor"), "--recordings", str(alice[1])]
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "empty").mkdir()
    cases: list[tuple[list[str], str]] = [
        (predict_words(folder), "--enrollment --voice"),
        (predict_words(folder, *alice, "--windw_seconds", 1), "unrecognized"),
        (predict_words(folder, *alice, "--top_k", 0), "at least 1"),
        (predict_words(folder, *alice, "--window_seconds", "nan"), "above 0"),
        (predict_words(folder, *alice, "--window_seconds", 60), "max_duration_seconds"),
        (predict_words(folder, *alice, "--output", "speech.mp3"), ".wav or .flac"),
        (predict_words(folder, *alice, "--device", "cuda:99"), "cpu"),
        (predict_words(folder, *alice, model="extractor"), "tse-ser extract"),
        (predict_words(folder, *alice, model="sc"), "td_speakerbeam or tse_ser"),
        (predict_words(folder, *alice, model="recordings"), "config.json"),
        (predict_words(folder, *alice, model="nowhere"), "no such folder"),
        ([*predict_words(folder, *alice), "--model", "lab/none"], "and no such Hub model"),
        (predict_words(folder, "--enrollment", tmp_path / "text.wav"), "text.wav"),
        (predict_words(folder, "--voice", tmp_path / "none.safetensors"), "does not exist"),
        (predict_words(folder, "--voice", alice[1]), "holds no voice"),
        ([*predict_words(folder, *alice), "--mixture", str(tmp_path / "text.wav")], "text.wav"),
        ([*enroll, "--output", str(tmp_path / "alice.pt")], ".safetensors"),
        (extract_words(folder, tmp_path / "empty", tmp_path / "out"), "no recordings"),
        (extract_words(folder, tmp_path / "none", tmp_path / "out"), "no folder"),
        (extract_words(folder, tmp_path, tmp_path), "is --input"),
        ([], "COMMAND"),
    ]
    for words, hint in cases:
        assert main(words) == CANNOT, words
        assert hint in complaint(capsys), words
    assert main([*enroll, "--output", str(other)]) == ALL_FINE
    different = transparent_tse_ser()
    different.extractor.auxiliary_network.network.output_conv.bias.data += 1
    different.save_pretrained(tmp_path / "different")
    TseSerFeatureExtractor().save_pretrained(tmp_path / "different")
    words = predict_words(folder, "--voice", other)
    words[words.index("--model") + 1] = str(tmp_path / "different")
    assert main(words) == CANNOT
    assert "another model" in complaint(capsys)


def test_what_is_odd_about_the_enrollment_is_said_by_every_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixture = folder / "mixture.wav"
    assert main(predict_words(folder, "--enrollment", mixture, "--json")) == ALL_FINE
    printed = json.loads(capsys.readouterr().out)
    assert "enrollment_is_mixture" in [warning["code"] for warning in printed["warnings"]]
    little = write_speech(tmp_path / "little.wav", 1, 0.7)
    assert main(predict_words(folder, "--enrollment", little, "--json")) == ALL_FINE
    assert json.loads(capsys.readouterr().out)["answer"] == "not enough speech"
    (tmp_path / "in").mkdir()
    shutil.copy(mixture, tmp_path / "in" / "mixture.wav")
    words = ["extract", "--model", str(folder / "whole"), "--input", str(tmp_path / "in")]
    for enrollment, output in ((mixture, tmp_path / "one"), (little, tmp_path / "two")):
        assert main([*words, "--enrollment", str(enrollment), "--output", str(output)]) == ALL_FINE
    assert "enrollment_is_mixture" in table_rows(tmp_path / "one")[0]["warnings"]
    assert table_rows(tmp_path / "two")[0]["answer"] == "not enough speech"
    capsys.readouterr()
    voice = tmp_path / "little.safetensors"
    enroll = ["enroll", "--model", str(folder / "whole"), "--recordings", str(little)]
    assert main([*enroll, "--output", str(voice)]) == CANNOT and not voice.exists()
    assert "enroll with 2 s or more" in complaint(capsys)


def test_a_link_to_nothing_is_a_file_that_cannot_be_used(
    folder: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link, output = recordings / "gone.wav", tmp_path / "out"
    link.symlink_to(tmp_path / "elsewhere.wav")
    for _ in range(2):
        assert main(extract_words(folder, recordings, output)) == SOME_FAILED
    rows = {row["file"]: row for row in table_rows(output)}
    assert rows["gone.wav"]["status"] == "failed" and "is no file" in rows["gone.wav"]["reason"]
    assert len(rows) == 4 and sum(row["status"] == "ok" for row in rows.values()) == 3
    write_speech(tmp_path / "elsewhere.wav", 9)
    assert main(extract_words(folder, recordings, output)) == ALL_FINE
    # A disk that is away for a while takes nothing with it.
    (tmp_path / "elsewhere.wav").rename(tmp_path / "away.wav")
    assert main(extract_words(folder, recordings, output)) == ALL_FINE
    assert (output / "gone.wav").is_file() and len(table_rows(output)) == 4


def test_recordings_below_the_output_are_not_passed_over(
    folder: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(extract_words(folder, recordings, recordings / "sub")) == CANNOT
    assert "holds recordings, which would be passed over" in complaint(capsys)


def test_memory_that_runs_out_is_said_in_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr("modeling.target_recognition.TargetRecognizer._extract", broken)
    assert main(predict_words(folder, "--enrollment", folder / "alice.wav")) == CANNOT
    assert "Unable to allocate 9 GiB" in complaint(capsys)


def test_results_of_other_settings_of_one_model_are_not_mixed(
    folder: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(folder / "whole", tmp_path / "model"))
    words = [*extract_words(folder, recordings, tmp_path / "out"), "--model", str(model)]
    assert main(words) == ALL_FINE
    for name, change in (
        ("config.json", {"temperature": 2.0}),
        ("config.json", {"presence_threshold": 0.5}),
        ("config.json", {"classifier_config": {"max_duration_seconds": 0.5}}),
        ("preprocessor_config.json", {"max_pause_seconds": 0.2}),
    ):
        before = (model / name).read_text()
        settings = json.loads(before)
        for key, value in change.items():
            inner = value if isinstance(value, dict) else {}
            settings[key] = {**settings[key], **inner} if inner else value
        (model / name).write_text(json.dumps(settings))
        capsys.readouterr()
        assert main(words) == CANNOT
        assert "another model" in complaint(capsys)
        (model / name).write_text(before)
    assert main(words) == ALL_FINE


def test_two_recordings_never_share_an_output(
    folder: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_speech(recordings / "b.flac.wav", 3)
    assert main(extract_words(folder, recordings, tmp_path / "out")) == CANNOT
    assert "b.flac" in complaint(capsys)


def test_results_inside_the_input_are_no_input(folder: Path, recordings: Path) -> None:
    output = recordings / "extracted"
    for _ in range(2):
        assert main(extract_words(folder, recordings, output)) == ALL_FINE
        assert len(table_rows(output)) == 3


def test_ctrl_c_is_told_apart(
    monkeypatch: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tse_ser.cli.extract.extract_file", interrupt)
    words = extract_words(folder, folder / "recordings", tmp_path / "out")
    assert main(words) == INTERRUPTED
    assert complaint(capsys) == "tse-ser: interrupted: the same command goes on"
    monkeypatch.undo()
    monkeypatch.setattr("tse_ser.cli.predict.predict", interrupt)
    assert main(predict_words(folder, "--enrollment", folder / "alice.wav")) == INTERRUPTED
    assert complaint(capsys) == "tse-ser: interrupted"
    assert main(words) == ALL_FINE


@pytest.mark.parametrize("command", [[], ["predict"], ["enroll"], ["extract"]])
def test_help_teaches_by_examples_and_names_the_exit_codes(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "tse-ser predict --model" in text or f"tse-ser {command[0]} --model" in text
    assert "exit codes" in text and max(map(len, text.splitlines())) <= 100


def run_script(*words: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *words], cwd=cwd, capture_output=True, text=True, timeout=300, **options
    )


@pytest.fixture()
def script() -> Path:
    if not SCRIPT.is_file():
        pytest.skip("tse-ser is not installed: `make install` installs it")
    return SCRIPT


def test_the_installed_script_answers_without_loading_torch(script: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    asked = run_script("--help", cwd=tmp_path)
    assert asked.returncode == ALL_FINE and "tse-ser enroll" in asked.stdout
    assert time.monotonic() - started < 10
    wrong = run_script("predict", "--model", "x", cwd=tmp_path)
    assert wrong.returncode == CANNOT
    assert wrong.stderr.count("\n") == 1 and "--mixture" in wrong.stderr


MEASURE_PEAK = """
import resource, sys
from tse_ser.cli.main import main
code = main(sys.argv[1:])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, file=sys.stderr)
"""


@pytest.mark.slow
def test_an_hour_takes_its_samples_and_little_more(
    folder: Path, tmp_path: Path, repository: Path
) -> None:
    def peak_bytes(minutes: int) -> int:
        mixture = tmp_path / "mixture.wav"
        minute = speech(0, 60.0)
        with soundfile.SoundFile(mixture, "w", RATE, 1) as file:
            for _ in range(minutes):
                file.write(minute)
        words = ["predict", "--model", str(folder / "whole"), "--mixture", str(mixture)]
        run = subprocess.run(
            [sys.executable, "-c", MEASURE_PEAK, *words, "--enrollment", folder / "alice.wav"],
            cwd=repository,
            capture_output=True,
            text=True,
        )
        code, peak = run.stderr.splitlines()[-1].split()
        assert int(code) == ALL_FINE, run.stderr
        return int(peak)

    # An hour of samples takes 230 MB: they are there once, and never their extracted speech too.
    assert peak_bytes(60) - peak_bytes(1) < 330e6


@pytest.mark.slow
def test_a_killed_run_resumes_without_loss_or_repetition(
    script: Path, folder: Path, tmp_path: Path
) -> None:
    recordings, output = tmp_path / "recordings", tmp_path / "out"
    for index in range(300):
        write_speech(recordings / f"{index:03}.wav", index, 0.4)
    words = extract_words(folder, recordings, output)
    finished: dict[str, int] = {}
    for _ in range(3):  # killed three times, each time a little further
        process = subprocess.Popen([SCRIPT, *words], cwd=tmp_path, stdout=subprocess.DEVNULL)
        count, deadline = len(finished), time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            table = output / "results.csv"
            if table.is_file() and len(table.read_bytes().splitlines()) > count + 20:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        rows = table_rows(output)
        for row in rows[:-1]:  # of the last one only a part may be on disk
            modified = (output / row["output"]).stat().st_mtime_ns
            assert finished.setdefault(row["file"], modified) == modified
        assert len(finished) > count
    done = run_script(*words, cwd=tmp_path)
    assert done.returncode == ALL_FINE, done.stderr
    rows = table_rows(output)
    assert sorted(row["file"] for row in rows) == sorted(path.name for path in recordings.iterdir())
    for name, modified in finished.items():
        assert (output / name).stat().st_mtime_ns == modified
    assert not list(output.rglob("*.partial"))
