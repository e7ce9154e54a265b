"""The Denoised set: what is written, that it can be read back, resumed, and trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
import torch
from corpus_layouts import burst
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import tiny_model

from data_builders import UTTERANCE_FEATURES, load_corpus, load_mixtures
from data_builders.audio import read_audio
from data_builders.load import split_corpus
from data_builders.mixtures.mixing import mean_power
from data_builders.option_reader import OptionError
from data_builders.schema import CorpusError
from tse_ser.evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr
from tse_ser.options import EvaluationOptions, read_training_options, with_sources
from tse_ser.training import denoise_corpus

NUM_TRAIN = 6


def arguments(extractor: Path, output_dir: Path, *more: str) -> list[str]:
    return [
        *("--targets", "generated", "--interferers", "generated_pool"),
        *("--extractor_name_or_path", str(extractor), "--output_dir", str(output_dir)),
        *("--max_train_examples", str(NUM_TRAIN), "--max_eval_examples", "3"),
        *("--mixtures_per_utterance", "2", "--batch_size", "4", "--use_cpu", "true"),
        *("--snr_range_db", "-5", "5", "--eval_snr_range_db", "0", "0"),
        *more,
    ]


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extractor")
    torch.manual_seed(0)
    tiny_model("extraction").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def denoised_dir(
    generated_corpus: datasets.Dataset, extractor: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("set") / "denoised"
    denoise_corpus.main(arguments(extractor, folder))
    return folder


@pytest.fixture
def denoised(denoised_dir: Path, tmp_path: Path) -> datasets.Dataset:
    return load_corpus("denoised", denoised_dir, tmp_path)


def test_the_set_keeps_what_is_known_of_each_target(
    denoised: datasets.Dataset, generated_corpus: datasets.Dataset
) -> None:
    assert set(UTTERANCE_FEATURES) <= set(denoised.column_names)
    assert len(set(denoised["utterance_id"][:])) == len(denoised)
    sources = {row["utterance_id"]: row for row in generated_corpus}
    kept = ("speaker_id", "gender", "emotion", "session", "text", "language", "licence")
    for row in denoised:
        assert row["utterance_id"].startswith("denoised/")
        source = sources[row["source_utterance_id"]]
        assert [row[name] for name in kept] == [source[name] for name in kept]
        assert row["duration_seconds"] == pytest.approx(source["duration_seconds"], abs=1e-4)


def test_training_targets_have_several_mixtures_and_the_others_one(
    denoised: datasets.Dataset,
) -> None:
    count = {
        split: [row["source_utterance_id"] for row in denoised if row["split"] == split]
        for split in ("train", "validation", "test")
    }
    assert len(count["train"]) == 2 * NUM_TRAIN
    assert len(set(count["train"])) == NUM_TRAIN
    assert len(count["validation"]) == 3
    assert len(count["test"]) == len(set(count["test"])) > 3
    sessions = {row["split"]: row["session"] for row in denoised}
    assert sessions["test"] == "1"


def test_files_are_mono_float_at_16_khz(denoised_dir: Path) -> None:
    files = sorted(denoised_dir.glob("audio/*/*.wav"))
    assert {path.parent.name for path in files} == {"train", "validation", "test"}
    for path in files:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "FLOAT")


def test_the_si_sdr_on_record_is_that_of_the_file(denoised: datasets.Dataset) -> None:
    mixtures = load_mixtures(
        targets="generated", interferers=["generated_pool"], split="test", fold=1
    )
    row = next(row for row in denoised if row["split"] == "test")
    index = mixtures.planner.targets.row_of_id[row["source_utterance_id"]]
    example = mixtures[index]
    reached = scale_invariant_sdr(read_audio(row["path"]), example["target"])
    mixture_db = scale_invariant_sdr(example["mixture"], example["target"])
    assert row["si_sdr_db"] == pytest.approx(reached, abs=1e-3)
    assert row["si_sdri_db"] == pytest.approx(reached - mixture_db, abs=1e-3)


def test_the_set_is_trained_on_as_if_it_were_clean_speech(denoised_dir: Path) -> None:
    dataset = load_mixtures(
        targets="denoised",
        interferers=None,
        corpus_dirs={"denoised": denoised_dir},
        split="train",
        emotions=None,  # the few utterances of this set are not of all four
        enrollment_emotion=None,
    )
    example = dataset[0]
    assert len(dataset) == 2 * NUM_TRAIN
    np.testing.assert_array_equal(example["mixture"], example["target"])
    assert example["label"] >= 0


def test_a_set_of_another_fold_or_protocol_is_refused(denoised_dir: Path) -> None:
    def options(**changes: Any) -> EvaluationOptions:
        return EvaluationOptions(
            model="m", condition="denoised", denoised_dir=str(denoised_dir), **changes
        )

    assert with_sources(options()).targets == ("generated",)
    # Its training split holds who is tested in another fold.
    with pytest.raises(OptionError, match="made with fold 1, this is fold 3: give --fold 1"):
        with_sources(options(fold=3))
    for other in ("paper", "best_on_test"):
        with pytest.raises(OptionError, match=f"with protocol validated, this is protocol {other}"):
            with_sources(options(protocol=other))


def test_the_set_may_be_moved_and_has_its_own_splits(
    denoised: datasets.Dataset, denoised_dir: Path, tmp_path: Path
) -> None:
    moved = load_corpus("denoised", shutil.copytree(denoised_dir, tmp_path / "moved"))
    assert moved["utterance_id"][:] == denoised["utterance_id"][:]
    np.testing.assert_array_equal(read_audio(moved[5]["path"]), read_audio(denoised[5]["path"]))
    splits = split_corpus(moved)
    for split, rows in splits.items():
        assert {*rows["split"][:]} == {split}
    assert sum(map(len, splits.values())) == len(moved)


def test_an_incomplete_set_is_refused(denoised_dir: Path, tmp_path: Path) -> None:
    part = shutil.copytree(denoised_dir, tmp_path / "part")
    next((part / "audio" / "test").iterdir()).unlink()
    with pytest.raises(CorpusError, match=r"1 files named in .* are not there"):
        load_corpus("denoised", part, tmp_path / "cache")
    with pytest.raises(CorpusError, match=r"holds no metadata\.parquet; write the set with"):
        load_corpus("denoised", tmp_path, tmp_path / "cache")


def test_files_have_the_level_of_their_mixture(denoised: datasets.Dataset) -> None:
    mixtures = load_mixtures(
        targets="generated", interferers=["generated_pool"], split="test", fold=1
    )
    for row in denoised.filter(lambda row: row["split"] == "test").select(range(3)):
        mixture = mixtures[mixtures.planner.targets.row_of_id[row["source_utterance_id"]]][
            "mixture"
        ]
        assert mean_power(read_audio(row["path"])) == pytest.approx(mean_power(mixture), rel=1e-4)


@given(st.lists(st.text("aAx_/-.0\\ é", min_size=1, max_size=150), min_size=2, unique=True))
def test_every_target_and_epoch_has_a_file_and_an_id_of_its_own(ids: list[str]) -> None:
    dataset: Any = None
    names = [denoise_corpus.audio_name(one, epoch) for one in ids for epoch in (0, 1, 11)]
    assert len({name.lower() for name in names}) == 3 * len(ids)
    assert all(Path(name).name == name and len(name.encode()) < 200 for name in names)
    example = {"extracted": np.ones(8), "target": np.ones(8), "mixture": np.ones(8), "file": ""}
    rows = [
        denoise_corpus.metadata_row(
            {**example, "utterance_id": one}, denoise_corpus.Job("train", epoch, dataset), {one: {}}
        )
        for one in ids
        for epoch in (0, 1, 11)
    ]
    assert len({row["utterance_id"] for row in rows}) == 3 * len(ids)


def test_targets_whose_names_differ_in_a_separator_keep_their_recordings(
    extractor: Path, tmp_path: Path
) -> None:
    rows = ["path,speaker_id,emotion,session"]
    for speaker in "abc":
        for number, name in enumerate((f"{speaker}/x/b", f"{speaker}/x_b", f"{speaker}/y")):
            path = tmp_path / "folder" / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, burst(10 * ord(speaker) + number), 16_000)
            rows.append(f"{name}.wav,{speaker},neutral,{speaker}")
    (tmp_path / "folder" / "metadata.csv").write_text("\n".join(rows))
    denoise_corpus.main(
        [
            *("--targets", "folder", "--interferers", "generated_pool", "--use_cpu", "true"),
            *("--corpus_dir", str(tmp_path)),
            *("--extractor_name_or_path", str(extractor), "--emotions", "neutral"),
            *("--output_dir", str(tmp_path / "set")),
        ]
    )
    corpus = load_corpus("denoised", tmp_path / "set", tmp_path / "cache")
    assert len({*corpus["utterance_id"][:]}) == len({*corpus["path"][:]}) == len(corpus) == 9
    sources = {row["utterance_id"]: row for row in load_corpus("folder", tmp_path / "folder")}
    for row in corpus:
        source = sources[row["source_utterance_id"]]
        assert row["duration_seconds"] == pytest.approx(source["duration_seconds"], abs=1e-4)


def test_an_extractor_of_another_rate_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model("extraction")
    model.config.sampling_rate = 8_000
    model.save_pretrained(tmp_path / "extractor")
    assert denoise_corpus.main(arguments(tmp_path / "extractor", tmp_path / "set")) == 2
    assert "hears 8000 Hz, the corpora have 16000 Hz" in capsys.readouterr().err


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(
    denoised_dir: Path, extractor: Path
) -> None:
    files = sorted(denoised_dir.glob("audio/*/*.wav"))
    lost, kept = files[1], [path for path in files if path != files[1]]
    before, times = read_audio(lost), [path.stat().st_mtime_ns for path in kept]
    metadata = denoised_dir / "metadata.parquet"
    rows = datasets.Dataset.from_parquet(str(metadata), keep_in_memory=True).to_list()
    lost.unlink()
    metadata.unlink()
    denoise_corpus.main(arguments(extractor, denoised_dir))
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert read_audio(lost) == pytest.approx(before, abs=1e-5)
    again = datasets.Dataset.from_parquet(str(metadata), keep_in_memory=True).to_list()
    assert [row["utterance_id"] for row in again] == [row["utterance_id"] for row in rows]
    assert [row["si_sdr_db"] for row in again] == pytest.approx([r["si_sdr_db"] for r in rows])


def test_a_set_of_other_settings_is_not_added_to(
    denoised_dir: Path, extractor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert denoise_corpus.main(arguments(extractor, denoised_dir, "--mixing_seed", "3")) == 2
    assert "another mixing_seed (0, not 3): delete the folder" in capsys.readouterr().err
    torch.manual_seed(1)
    tiny_model("extraction").save_pretrained(tmp_path)
    assert denoise_corpus.main(arguments(tmp_path, denoised_dir)) == 2
    assert "another extractor" in capsys.readouterr().err


def test_a_set_that_is_older_than_an_option_has_its_default(
    denoised_dir: Path, extractor: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = denoised_dir / "settings.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    del settings["target_pause_range_seconds"]
    path.write_text(json.dumps(settings), encoding="utf-8")
    assert denoise_corpus.main(arguments(extractor, denoised_dir)) == 0
    pauses = ("--target_pause_range_seconds", "0", "0.5")
    assert denoise_corpus.main(arguments(extractor, denoised_dir, *pauses)) == 2
    assert "another target_pause_range_seconds" in capsys.readouterr().err


def test_what_cannot_be_done_ends_in_a_line(
    extractor: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["--extractor_name_or_path", "x", "--output_dir", str(tmp_path)]
    assert denoise_corpus.main(words) == 2
    assert "--interferers" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert denoise_corpus.main(arguments(extractor, tmp_path / "file" / "set")) == 2
    assert "--output_dir" in capsys.readouterr().err

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(denoise_corpus, "plan_jobs", interrupted)
    assert denoise_corpus.main(arguments(extractor, tmp_path / "set")) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_who_trains_on_a_set_tells_what_it_was_made_of(denoised_dir: Path) -> None:
    # Whatever the recipe names: its facts decide under which licence a model may be shared.
    words = ["--stage", "classification", "--condition", "denoised", "--targets", "emodb"]
    options = read_training_options(
        [*words, "--denoised_dir", str(denoised_dir), "--output_dir", "out"]
    )
    assert options.data.targets == ("generated",)
    assert options.data.interferers == ("generated_pool",)
