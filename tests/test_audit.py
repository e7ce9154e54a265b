"""The audit finds every kind of leak, tells findings from leaks, and passes the clean corpora."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
from corpus_layouts import burst, write_ravdess

import data_builders.load
from data_builders.audit.__main__ import main
from data_builders.audit.levels import cross_validated_ua, score_levels
from data_builders.audit.recordings import count_clipped
from data_builders.audit.splits import RecipeData
from data_builders.corpora.folds import SPLITS
from data_builders.mixtures.enrollment import EnrollmentPool
from data_builders.schema import EMOTIONS

RECIPE = {
    "stage": "joint",
    "targets": "[ravdess]",
    "interferers": "[ravdess]",
    "output_dir": "results/joint",
}


def write_recipe(path: Path, **changes: str) -> Path:
    path.write_text("\n".join(f"{key}: {value}" for key, value in {**RECIPE, **changes}.items()))
    return path


@pytest.fixture(scope="module")
def clean_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve actors, three sessions; every recording has one level."""
    root = tmp_path_factory.mktemp("clean")
    write_ravdess(root / "ravdess")
    for path in (root / "ravdess").rglob("*.flac"):
        samples, rate = soundfile.read(path)
        soundfile.write(path, 0.05 * samples / np.sqrt(np.mean(samples**2)), rate)
    return root


@pytest.fixture
def corpus(clean_corpus: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil, with a recipe."""
    shutil.copytree(clean_corpus / "ravdess", tmp_path / "ravdess")
    write_recipe(tmp_path / "joint.yaml")
    return tmp_path


def flac(corpus: Path, actor: int, emotion: str = "03", statement: str = "01") -> Path:
    name = f"03-01-{emotion}-01-{statement}-01-{actor:02d}.flac"
    return corpus / "ravdess" / f"Actor_{actor:02d}" / name


@pytest.fixture
def audit(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the audit over a folder of recipes; returns exit status and report."""

    def run(corpus: Path, *words: str, config: Sequence[str] = ("joint.yaml",)) -> tuple[int, str]:
        recipes = [str(corpus / name) for name in config]
        folders = ["--corpus_dir", str(corpus), "--cache_dir", str(corpus / "cache")]
        status = main(["--config", *recipes, *folders, *words])
        printed = capsys.readouterr()
        return status, printed.err if status == 2 else printed.out

    return run


Audit = Callable[..., tuple[int, str]]


def test_a_clean_corpus_passes_with_the_numbers_of_every_fold(corpus: Path, audit: Audit) -> None:
    output = corpus / "docs" / "audit.md"
    status, report = audit(corpus, "--output", str(output))
    assert status == 0
    assert "**No leak.**" in report
    assert output.read_text() == report
    assert str(corpus / "cache") not in report
    rows = [line.split(" | ") for line in re.findall(r"(?m)^\| \d \| \w+ \| 32 \| 0\..*", report)]
    # Three folds of three splits; four speakers, eight targets a class, and eight to enroll with.
    assert [(row[0].strip("| "), row[1]) for row in rows] == [
        (str(fold), split) for fold in (1, 2, 3) for split in SPLITS
    ]
    seconds = sum(
        soundfile.info(flac(corpus, actor, emotion, statement)).duration
        for actor in range(1, 5)
        for emotion in ("01", "03", "04", "05")
        for statement in ("01", "02")
    )
    test = rows[2]
    assert test[3:11] == [f"{seconds / 3600:.2f}", "4 (2 / 2 / 0)", *["8"] * 4, "0", test[3]]
    assert test[-1].strip("| ") == "8"
    for pair in ("train, validation", "train, test", "validation, test"):
        assert len(re.findall(rf"\| \d \| {pair} \| 0 \| 0 \| 0 \|", report)) == 3


def test_identical_audio_in_two_splits_is_a_leak(corpus: Path, audit: Audit) -> None:
    # In another format too, as long as the samples are the same.
    samples, rate = soundfile.read(flac(corpus, 1), dtype="int16")
    flac(corpus, 6, "04").unlink()
    soundfile.write(flac(corpus, 6, "04").with_suffix(".wav"), samples, rate)
    status, report = audit(corpus, "--folds", "1")
    assert status == 1
    pair = "ravdess/03-01-03-01-01-01-01 = ravdess/03-01-04-01-01-01-06"
    assert "1 recordings with identical samples" in report
    assert f"identical samples: {pair}" in report
    assert "| 1 | validation, test | 0 | 0 | 1 |" in report


def test_identical_audio_of_one_speaker_is_a_finding(corpus: Path, audit: Audit) -> None:
    shutil.copy(flac(corpus, 1, statement="01"), flac(corpus, 1, statement="02"))
    status, report = audit(corpus, "--folds", "1")
    assert status == 0
    pair = "ravdess/03-01-03-01-01-01-01 = ravdess/03-01-03-01-02-01-01"
    # Enrollments are neutral, these two are happy.
    assert f"identical samples: {pair}\n" in report
    write_recipe(corpus / "joint.yaml", enrollment_emotion="any")
    remark = "; one may be drawn as the enrollment of the other"
    assert f"identical samples: {pair}{remark}\n" in audit(corpus, "--folds", "2")[1]
    assert re.search(r"\| ravdess \| 96 \| \d\.\d\d \| 1 \|", report)


def test_a_copy_of_the_enrollment_in_a_test_mixture_is_a_leak(corpus: Path, audit: Audit) -> None:
    # The only other neutral recording of the actor is the one that is enrolled.
    shutil.copy(flac(corpus, 1, "01", "01"), flac(corpus, 1, "01", "02"))
    status, report = audit(corpus, "--folds", "1")
    assert status == 1
    assert "fold 1: test has 2 mixtures that hold a copy of their enrollment" in report
    # In training it spoils two examples of many.
    status, report = audit(corpus, "--folds", "2")
    assert status == 0
    assert "6 training mixtures hold a copy of their enrollment" in report


def test_an_enrollment_inside_its_mixture_is_a_leak(
    corpus: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = EnrollmentPool.draw

    def careless(pool: EnrollmentPool, utterance_id: str, *others: Any, **named: Any) -> int:
        return draw(pool, "another utterance", *others, **named)

    monkeypatch.setattr(EnrollmentPool, "draw", careless)
    status, report = audit(corpus, "--folds", "1")
    assert status == 1
    assert re.search(
        r"fold 1: train has \d+ mixtures that hold their own enrollment: ravdess/03-01-01", report
    )


def test_a_speaker_in_two_splits_is_a_leak(
    corpus: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_utterance(utterances: datasets.Dataset, *_: Any) -> dict[str, datasets.Dataset]:
        # Statement 01 of actor 9 trains, 02 tests; everything else as in fold 1.
        speaker = np.array(utterances["speaker_id"][:])
        late = np.array(["-01-02-01-" in name for name in utterances["utterance_id"][:]])
        actor = np.char.rpartition(speaker, "_")[:, 2].astype(int)
        test = (actor <= 4) | ((actor == 9) & late)
        split_of_row = np.where(test, "test", np.where(actor <= 8, "validation", "train"))
        return {split: utterances.select(np.flatnonzero(split_of_row == split)) for split in SPLITS}

    monkeypatch.setattr(data_builders.load, "split_corpus", by_utterance)
    write_recipe(corpus / "joint.yaml", enrollment_emotion="any")
    status, report = audit(corpus, "--folds", "1")
    assert status == 1
    assert "fold 1: train and test share 1 speakers: ravdess_09" in report
    assert "utterances:" not in report


def test_an_utterance_in_two_splits_is_a_leak(
    corpus: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_corpus = data_builders.load.split_corpus

    def careless(utterances: datasets.Dataset, *others: Any) -> dict[str, datasets.Dataset]:
        splits = split_corpus(utterances, *others)
        both = datasets.concatenate_datasets([splits["train"], splits["test"].select(range(8))])
        return {**splits, "train": both}

    monkeypatch.setattr(data_builders.load, "split_corpus", careless)
    status, report = audit(corpus, "--folds", "1")
    assert status == 1
    assert "train and test share 8 utterances: ravdess/03-01-01-01-01-01-01" in report
    assert "| 1 | train, test | 1 | 8 | 8 |" in report


def test_pretraining_that_heard_a_held_out_split_is_a_leak(corpus: Path, audit: Audit) -> None:
    started = {"extractor_name_or_path": "results/extraction"}
    write_recipe(corpus / "joint.yaml", **started)
    first = {"stage": "extraction", "output_dir": "results/extraction"}
    write_recipe(corpus / "extraction.yaml", **first)
    status, report = audit(corpus, "--folds", "3")
    assert status == 0
    assert "| 3 | test, pretraining | 0 | 0 | 0 |" in report
    # The paper's protocol also trains on what the other one chooses the checkpoint with.
    write_recipe(corpus / "extraction.yaml", protocol="paper", **first)
    status, report = audit(corpus, "--folds", "1")
    assert status == 1
    assert "fold 1: validation and pretraining share 4 speakers" in report
    assert "fold 1: validation and pretraining share 32 utterances" in report
    assert "| 1 | test, pretraining | 0 | 0 | 0 |" in report


def test_what_the_pretraining_started_from_counts_too(corpus: Path, audit: Audit) -> None:
    """A leak two stages back, in a recipe that is trained once, on one of its own folds."""
    write_recipe(corpus / "joint.yaml", extractor_name_or_path="results/extraction")
    write_recipe(
        corpus / "extraction.yaml",
        stage="extraction",
        output_dir="results/extraction",
        extractor_name_or_path="results/first",
    )
    first = {"stage": "extraction", "output_dir": "results/first"}
    write_recipe(corpus / "first.yaml", protocol="paper", **first)
    status, report = audit(corpus, "--folds", "1")
    assert status == 1
    assert "extraction.yaml" in report and "first.yaml" in report
    assert "fold 1: validation and pretraining share 4 speakers" in report
    # The generated voices have five sessions; the three folds of the actors are among them, and a
    # sixth is not.
    write_recipe(corpus / "first.yaml", targets="generated", interferers="generated", **first)
    recipe = RecipeData(corpus / "first.yaml", {}, {True: {}, False: {}})
    assert [recipe.fold_as_pretraining(fold) for fold in (3, 6)] == [3, 1]


def test_pretraining_without_a_recipe_is_named(corpus: Path, audit: Audit) -> None:
    # What lies beside a recipe and is none does not stop its audit.
    (corpus / "study.yaml").write_text("include: elsewhere.yaml\n")
    write_recipe(corpus / "joint.yaml", classifier_name_or_path="somebody/else")
    status, report = audit(corpus, "--folds", "1")
    assert status == 0
    assert "starts from somebody/else, whose data are not known" in report


def test_levels_that_depend_on_the_emotion_are_a_finding(corpus: Path, audit: Audit) -> None:
    for actor in range(1, 13):
        for place, emotion in enumerate(("01", "03", "04", "05")):
            for statement in ("01", "02"):
                path = flac(corpus, actor, emotion, statement)
                samples, rate = soundfile.read(path)
                soundfile.write(path, samples * 10 ** (-place / 2), rate)
    status, report = audit(corpus, "--folds", "1")
    assert status == 0
    assert "ravdess: level as recorded, gives the emotion away: UA 100.0%" in report
    assert "| ravdess | level, normalised | 25.0% | 25.0% | 25.0% | no |" in report
    levels = {
        line.split(" | ")[1]: float(line.split(" | ")[3])
        for line in report.splitlines()
        if re.match(r"\| ravdess \| \w+ \| 24 \| -", line)
    }
    assert levels["neutral"] - levels["angry"] == pytest.approx(30, abs=0.3)


def test_clipping_offset_and_silence_are_counted(corpus: Path, audit: Audit) -> None:
    clipped = burst(1)
    clipped[5000:5003] = 1.0
    soundfile.write(flac(corpus, 1), clipped, 16_000)
    soundfile.write(flac(corpus, 2), burst(2) + 0.05, 16_000)
    soundfile.write(flac(corpus, 3), np.pad(burst(3), (0, 32_000)), 16_000)
    status, report = audit(corpus, "--folds", "1")
    assert status == 0
    for finding in ("1 recordings are clipped", "1 recordings have a DC offset"):
        assert finding in report
    assert "| 1 (03-01-03-01-01-01-01) | 1 (03-01-03-01-01-01-02) |" in report
    assert "are mostly silent" in report


def test_only_runs_at_full_scale_count_as_clipped() -> None:
    samples = np.zeros(40, dtype=np.float32)
    samples[[3, 4, 9]] = 1.0
    samples[20:23] = (1.0, -1.0, 1.0)
    assert count_clipped(samples) == 0
    samples[30:34] = -1.0
    samples[35:38] = 1 - 1 / 2**15
    assert count_clipped(samples) == 7


def test_a_loudness_classifier_is_tested_on_speakers_it_has_not_heard() -> None:
    rng = np.random.default_rng(0)
    labels = np.tile(np.repeat(np.arange(4), 10), 12)
    speakers = np.repeat([f"speaker_{number:02d}" for number in range(12)], 40)
    noise = rng.normal(size=480)
    right, wrong = cross_validated_ua(
        20.0 * labels + noise, np.stack([labels, rng.permutation(labels)]), speakers
    )
    assert right == 1.0
    assert wrong == pytest.approx(0.25, abs=0.1)
    assert cross_validated_ua(noise, labels[None], speakers)[0] == pytest.approx(0.25, abs=0.1)
    assert cross_validated_ua(np.zeros(480), labels[None], speakers)[0] == 0.25
    # A level that tells speakers apart, of whom each has one emotion only, tells nothing.
    speakers = np.repeat([f"speaker_{number:02d}" for number in range(48)], 10)
    own = np.repeat(rng.permutation(48) * 10.0, 10)
    assert cross_validated_ua(own, labels[None], speakers)[0] < 0.45


def recordings_of(levels_db: Sequence[float], emotions: Sequence[str]) -> pd.DataFrame:
    """Recordings of five speakers that differ in level and emotion alone."""
    return pd.DataFrame(
        {
            "corpus": "corpus",
            "speaker_id": [f"speaker_{number % 5}" for number in range(len(levels_db))],
            "emotion": emotions,
            "level_db": levels_db,
            "loudness_lufs": levels_db,
            "normalized_level_db": 0.0,
            "normalized_loudness_lufs": -np.inf,
        }
    )


def test_only_a_level_beyond_chance_gives_the_emotion_away() -> None:
    rng = np.random.default_rng(1)

    def verdicts(slope_db: float) -> list[bool]:
        labels = np.arange(200) // 5 % 4
        levels_db = slope_db * labels + rng.normal(size=200)
        recordings = recordings_of(levels_db.tolist(), [EMOTIONS[label] for label in labels])
        return [score.tells for score in score_levels(recordings)]

    assert verdicts(10.0) == [True, False, True, False]
    assert verdicts(0.0) == [False] * 4
    for emotion in ("happy", "fearful"):
        assert score_levels(recordings_of([0.0] * 9, [emotion] * 9)) == []


def test_what_cannot_be_read_is_neither_clean_nor_a_leak(corpus: Path, audit: Audit) -> None:
    status, message = audit(corpus, config=["absent.yaml"])
    assert status == 2
    assert "absent.yaml" in message
    write_recipe(corpus / "joint.yaml", targetz="[ravdess]")
    status, message = audit(corpus)
    assert status == 2
    assert "unknown key 'targetz'" in message
    write_recipe(corpus / "joint.yaml", targets="[emodb]")
    status, message = audit(corpus)
    assert status == 2
    assert "emodb" in message
    write_recipe(corpus / "joint.yaml")
    flac(corpus, 1).write_bytes(b"no audio")
    status, report = audit(corpus, "--folds", "1")
    assert status == 0
    assert "1 of 96 audio files below DIR/ravdess cannot be used and are left out" in report
    assert str(corpus / "ravdess") not in report
    status, message = audit(corpus, "--strict_corpora")
    assert status == 2
    assert "1 of 96 audio files" in message


def test_several_recipes_share_one_report(corpus: Path, audit: Audit) -> None:
    write_recipe(corpus / "other.yaml", trim_silence="true", interferers="null", protocol="paper")
    status, report = audit(corpus, "--folds", "1", config=["joint.yaml", "other.yaml"])
    assert status == 0
    assert report.count("**No leak.**") == 2
    assert len(re.findall(r"(?m)^## .*\.yaml$", report)) == 2
    paper = report.partition("other.yaml\n")[2]
    assert "train, test" in paper
    assert "validation" not in paper.partition("### Level")[0]


def test_recordings_of_one_id_in_two_folders_are_not_taken_for_each_other(
    corpus: Path, audit: Audit
) -> None:
    other = corpus / "other" / "ravdess"
    shutil.copytree(corpus / "ravdess", other)
    # An actor of the training and one of the test of fold 1.
    shutil.copy(flac(corpus, 9), flac(corpus / "other", 1))
    write_recipe(corpus / "other.yaml", corpus_dirs=f"[ravdess={other}]")
    status, report = audit(corpus, "--folds", "1", config=["joint.yaml", "other.yaml"])
    assert status == 1
    first, _, second = report.partition("other.yaml\n")
    assert "**No leak.**" in first
    assert "share 1 recordings with identical samples" in second


def test_noise_that_is_left_out_is_reported_and_the_heading_tells_every_flag(
    corpus: Path, audit: Audit
) -> None:
    noise = corpus / "street"
    noise.mkdir()
    soundfile.write(noise / "cars.wav", burst(16_000), 16_000)
    (noise / "bad.wav").write_bytes(b"no audio")
    # The folder of the recipe before is said on the command line too.
    write_recipe(corpus / "first.yaml", output_dir="./results/first/", corpus_dir="${NOT_SET}")
    write_recipe(corpus / "joint.yaml", extractor_name_or_path="results/first")
    words = ("--folds", "1", "--noise_dir", str(noise), "--snr_range_db", "-5", "5")
    status, report = audit(corpus, *words)
    assert status == 0
    assert "1 of 2 audio files below DIR cannot be used and are left out" in report
    assert "whose data are not known" not in report
    heading = report.partition("## ")[0]
    assert "--noise_dir DIR --snr_range_db -5.0 5.0" in heading
    assert str(corpus) not in heading.replace(str(corpus / "joint.yaml"), "")


def test_the_generated_recipes_are_clean(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Its extractor comes from the recipe of the first stage, which is looked at too.
    config = repository / "recipes" / "generated" / "2_joint.yaml"
    assert main(["--config", str(config), "--folds", "1"]) == 0
    report = capsys.readouterr().out
    assert "**No leak.**" in report
    assert "| 1 | test, pretraining | 0 | 0 | 0 |" in report
    # Its voices speak every emotion at one level.
    assert "level as recorded, gives the emotion away" not in report


@pytest.mark.slow
def test_ravdess_is_clean_but_for_what_is_known_of_it(
    repository: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = repository / "recipes" / "ravdess" / "1_extraction.yaml"
    assert main(["--config", str(config), "--corpus_dir", str(data_dir)]) == 0
    report = capsys.readouterr().out
    pair = "ravdess/03-01-03-01-02-01-07 = ravdess/03-01-03-01-02-02-07"
    assert f"identical samples: {pair}" in report
    assert "ravdess: level as recorded, gives the emotion away" in report
