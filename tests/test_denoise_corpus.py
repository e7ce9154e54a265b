"""The Denoised set: what is written, that it can be read back, resumed, and trained on."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import torch
from tiny_training import tiny_model

from data_builders import UTTERANCE_FEATURES, load_corpus, load_mixtures
from data_builders.audio import read_audio
from tse_ser.evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr
from tse_ser.training import denoise_corpus
from tse_ser.training.recipe_parser import RecipeError

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
    denoised_dir: Path, extractor: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"another mixing_seed \(0, not 3\): delete the folder"):
        denoise_corpus.main(arguments(extractor, denoised_dir, "--mixing_seed", "3"))
    torch.manual_seed(1)
    tiny_model("extraction").save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="another extractor"):
        denoise_corpus.main(arguments(tmp_path, denoised_dir))


def test_a_noisy_set_needs_interferers(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--interferers"):
        denoise_corpus.main(["--extractor_name_or_path", "x", "--output_dir", str(tmp_path)])
