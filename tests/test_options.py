"""Options: what wins, what is refused and how it is said, whoever reads them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data_builders.option_reader import OptionError, read_options, read_yaml
from data_builders.options import INTERFERENCE, TRAIN_ONLY, MixtureOptions, RecipeOptions
from tse_ser.options import EvaluationOptions, read_evaluation_options, read_training_options

# A value of every option of the data that is none of the defaults.
EVERY_OPTION: dict[str, Any] = {
    "targets": ("iemocap",),
    "interferers": ("librispeech", "esd"),
    "corpus_dir": "corpora",
    "corpus_dirs": {"iemocap": "/data/IEMOCAP"},
    "fold": 2,
    "protocol": "paper",
    "emotions": ("sad", "fearful"),
    "max_examples": 7,
    "strict_corpora": True,
    "noise_dir": "/data/noise",
    "mixing_seed": 3,
    "num_speakers": (2, 3),
    "gender_state": "same",
    "interferer_draw": "speaker",
    "interferer_emotions": ("angry",),
    "interferer_languages": ("en",),
    "snr_distribution": "normal",
    "snr_range_db": (-5.0, 5.0),
    "snr_mean_std_db": (1.0, 3.0),
    "segment_seconds": 2.0,
    "enrollment_seconds": 3.0,
    "enrollment_emotion": "sad",
    "trim_silence": True,
    "target_pause_range_seconds": (0.1, 0.4),
    "speed_factors": (0.9, 1.1),
    "lowpass_hz": 5500.0,
    "noise_snr_range_db": (0.0, 9.0),
    "reverberation": "direct",
    "rt60_range_seconds": (0.3, 0.4),
    "clean_share": 0.1,
    "noise_share": 0.5,
    "reverberation_share": 0.4,
    "absent_share": 0.2,
}


def write_recipe(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(f"report_to: none\ninterferers: [generated_pool]\n{text}\n")
    return str(path)


def parse(folder: Path, text: str, *argv: str) -> Any:
    config = write_recipe(folder, text)
    return read_training_options(["--config", config, "--output_dir", str(folder), *argv])


def as_flags(options: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        values = [f"{k}={v}" for k, v in value.items()] if isinstance(value, dict) else value
        several = values if isinstance(values, list | tuple) else [values]
        words += [f"--{name}", *(str(one) for one in several)]
    return words


def as_yaml(options: dict[str, Any]) -> str:
    plain = {key: list(one) if isinstance(one, tuple) else one for key, one in options.items()}
    return yaml.safe_dump(plain)


def test_every_option_is_among_those_tried_here() -> None:
    assert EVERY_OPTION.keys() == {one.name for one in dataclasses.fields(MixtureOptions)}
    defaults = MixtureOptions()
    assert not [key for key, value in EVERY_OPTION.items() if getattr(defaults, key) == value]


def test_yaml_command_line_and_python_give_the_same_options(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(as_yaml(EVERY_OPTION))
    (of_yaml,) = read_options([RecipeOptions], ["--config", str(path)])
    (of_flags,) = read_options([RecipeOptions], as_flags(EVERY_OPTION))
    of_python = RecipeOptions(**EVERY_OPTION)
    assert dataclasses.replace(of_yaml, config=None) == of_flags == of_python
    assert {name: getattr(of_python, name) for name in EVERY_OPTION} == EVERY_OPTION


@given(
    low=st.floats(-50, 50),
    span=st.floats(0, 50),
    seed=st.integers(0, 2**31),
    shares=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    seconds=st.none() | st.floats(0.01, 100),
)
def test_numbers_survive_yaml_and_the_command_line(
    tmp_path_factory: pytest.TempPathFactory,
    low: float,
    span: float,
    seed: int,
    shares: tuple[float, float],
    seconds: float | None,
) -> None:
    options: dict[str, Any] = {"snr_range_db": (low, low + span), "mixing_seed": seed}
    options["segment_seconds"] = seconds
    options |= dict(zip(("clean_share", "absent_share"), shares, strict=True))
    path = tmp_path_factory.getbasetemp() / "numbers.yaml"
    path.write_text(as_yaml(options))
    (of_yaml,) = read_options([RecipeOptions], ["--config", str(path)])
    said = {key: value for key, value in options.items() if value is not None}
    (of_flags,) = read_options([RecipeOptions], as_flags(said))
    assert dataclasses.replace(of_yaml, config=None) == of_flags == RecipeOptions(**options)


def test_the_command_line_wins_over_the_recipe(tmp_path: Path) -> None:
    text = "learning_rate: 1e-3\nfold: 2\nsnr_range_db: [-5, 5]\ntrim_silence: true"
    options = parse(
        tmp_path, text, "--fold", "3", "--snr_range_db", "-1.5", "2", "--trim_silence", "false"
    )
    assert options.training.learning_rate == 1e-3
    assert (options.data.fold, options.data.snr_range_db) == (3, (-1.5, 2.0))
    assert options.data.trim_silence is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate: 0.1", r"recipe\.yaml: unknown key 'lerning_rate': did you mean 'learn"),
        ("fold: one", r"recipe\.yaml: fold: expected a whole number, got 'one'"),
        ("fold: 1.5", "fold: expected a whole number, got 1.5"),
        ("fold: true", "fold: expected a whole number, got True"),
        ("fold: 0", "fold: expected a number at least 1, got 0"),
        ("trim_silence: maybe", "trim_silence: expected true or false, got 'maybe'"),
        ("stage: joimt", r"recipe\.yaml: stage: unknown choice 'joimt': use one of 'extraction'"),
        ("eval_strategy: often", "often is not a valid IntervalStrategy"),
        ("snr_range_db: [5, -5]", r"recipe\.yaml: snr_range_db: expected the lower number first"),
        ("snr_range_db: 5", "snr_range_db: expected 2 values, got 5"),
        ("snr_range_db: [0, .nan]", "snr_range_db: expected a number finite, got nan"),
        ("emotions: [sad, sad]", "emotions: expected each class once"),
        ("label_smoothing_factor: 0.1", "label_smoothing_factor would replace the model's loss"),
        ("interferers: null", "condition 'noisy' needs --interferers"),
        ("condition: denoised\nstage: classification", "needs --denoised_dir"),
        ("condition: denoised\ndenoised_dir: x", "condition 'denoised' is for the classification"),
        ("extractor_learning_rate: 0.1", "extractor_learning_rate is for stage 'joint'"),
        ("protocol: paper\nearly_stopping_patience: 3", "early_stopping_patience needs a valid"),
        ("corpus_dir: ${TSE_SER_NOWHERE}/x", "'corpus_dir' needs the environment variable TSE"),
        ("corpus_dirs: [iemocap]", "corpus_dirs: expected entries such as iemocap=/data/IEMOCAP"),
        ("num_speakers: [2, 3, 4]", "num_speakers: expected one number, or"),
        ("snr_mean_std_db: [5]", "snr_mean_std_db: expected 2 values"),
        ("snr_range_db: [0, .inf]", "snr_range_db: expected a number finite, got inf"),
        ("speed_factors: [0.0]", "speed_factors: expected a number at least 0.5"),
        ("speed_factors: [1.0, 0.987654]", "speed_factors: expected ratios"),
        ("speed_factors: []", "speed_factors: expected ratios"),
        ("gender_state: equal", "gender_state: unknown choice 'equal': use one of 'any', 'same'"),
        ("num_speakers: 1", "num_speakers: expected a number at least 2 and at most 5"),
        ("num_speakers: 6", "num_speakers: expected a number at least 2 and at most 5"),
        ("num_speakers: [3, 2]", "num_speakers: expected one number, or"),
        ("snr_distribution: gaussian", "snr_distribution: unknown choice 'gaussian'"),
        ("snr_mean_std_db: [0, -1]", "snr_mean_std_db: expected a deviation of at least 0"),
        ("noise_snr_range_db: [20, 5]", "noise_snr_range_db: expected the lower"),
        ("reverberation: wet", "reverberation: unknown choice 'wet'"),
        ("rt60_range_seconds: [0.05, 0.3]", "rt60_range_seconds: .* at least 0.2 and at most 1.5"),
        ("rt60_range_seconds: [0.3, 9]", "rt60_range_seconds: .* at least 0.2 and at most 1.5"),
        ("clean_share: -0.1", "clean_share: expected a number at least 0 and at most 1"),
        ("absent_share: 1.5", "absent_share: expected a number at least 0 and at most 1"),
        ("lowpass_hz: 0", "lowpass_hz: expected a number above 0"),
        ("lowpass_hz: 8000", "lowpass_hz: expected a frequency between 0 and 8000 Hz"),
        ("clean_share: 0.6\nabsent_share: 0.5", "at most 1 together"),
        # What transformers takes and fails of later.
        ("per_device_train_batch_size: 0", "per_device_train_batch_size: .* at least 1, got 0"),
        ("per_device_eval_batch_size: -2", "per_device_eval_batch_size: .* at least 1"),
        ("gradient_accumulation_steps: 0", "gradient_accumulation_steps: .* at least 1"),
        ("max_steps: 0", "max_steps: expected at least 1, or -1"),
        ("num_train_epochs: 0", "num_train_epochs: expected a number above 0"),
        ("learning_rate: -1", "learning_rate: expected a number at least 0"),
        ("stage: joint\nextractor_learning_rate: -1", "extractor_learning_rate: .* at least 0"),
        ("seed: -1", "seed: expected a number at least 0"),
        ("mixing_seed: -1", "mixing_seed: expected a number at least 0"),
        ("segment_seconds: -2", "segment_seconds: expected a number above 0"),
        ("eval_segment_seconds: 0", "eval_segment_seconds: expected a number above 0"),
        ("max_train_examples: 0", "max_train_examples: expected a number at least 1"),
        ("early_stopping_patience: 0", "early_stopping_patience: .* at least 1"),
        ("extraction_loss_weight: -1", "extraction_loss_weight: expected a number at least 0"),
        ("- a list", "is not valid YAML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_key_and_the_fix(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        parse(tmp_path, text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--foldd", "2"], "unknown argument --foldd: did you mean '--fold'"),
        (["--fol", "2"], "unknown argument --fol: did you mean '--fold'"),
        (["--fold", "x"], "^--fold: expected a whole number, got 'x'"),
        (["--fold", "1", "stray"], "unknown argument stray"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_a_wrong_command_line_is_refused(flags: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        read_training_options(["--interferers", "generated_pool", *flags])


def test_words_that_yaml_reads_as_booleans_keep_their_meaning(tmp_path: Path) -> None:
    training = parse(tmp_path, "eval_strategy: no\nload_best_model_at_end: no").training
    assert training.eval_strategy == "no"
    assert training.load_best_model_at_end is False


def test_null_and_all_and_any_mean_no_restriction(tmp_path: Path) -> None:
    for text in (
        "emotions: null\nenrollment_emotion: null",
        "emotions: all\nenrollment_emotion: any",
    ):
        data = parse(tmp_path, text).data
        assert data.emotions is None
        assert data.enrollment_emotion is None


def test_environment_variables_are_expanded_in_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSE_SER_SOMEWHERE", "/corpora")
    data = parse(tmp_path, "corpus_dir: ${TSE_SER_SOMEWHERE}/speech").data
    assert data.corpus_dir == "/corpora/speech"
    # What the command line says needs no variable.
    data = parse(tmp_path, "corpus_dir: ${TSE_SER_NOWHERE}", "--corpus_dir", "here").data
    assert data.corpus_dir == "here"


def test_a_file_says_what_differs_from_those_that_it_includes(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "base.yaml").write_text("fold: 1\nmixing_seed: 5\n")
    (tmp_path / "more.yaml").write_text("mixing_seed: 6\n")
    path = tmp_path / "top.yaml"
    path.write_text("include: [below/base.yaml, more.yaml]\nfold: 3\n")
    assert read_yaml(path) == {"fold": 3, "mixing_seed": 6}
    path.write_text("include: top.yaml\n")
    with pytest.raises(OptionError, match="includes itself"):
        read_yaml(path)


def test_a_repeated_flag_adds_to_a_list_and_replaces_a_pair() -> None:
    words = ["--targets", "iemocap", "esd", "--targets", "ravdess", "--snr_range_db", "0", "0"]
    (options,) = read_options([MixtureOptions], [*words, "--snr_range_db", "-5", "5"])
    assert options.targets == ("iemocap", "esd", "ravdess")
    assert options.snr_range_db == (-5.0, 5.0)


def test_the_protocol_decides_about_validation(tmp_path: Path) -> None:
    validated = parse(tmp_path, "stage: classification\ncondition: noisy").training
    assert (validated.eval_strategy, validated.load_best_model_at_end) == ("epoch", True)
    assert (validated.metric_for_best_model, validated.greater_is_better) == ("ua", True)
    paper = parse(tmp_path, "stage: classification\nprotocol: paper").training
    assert (paper.eval_strategy, paper.load_best_model_at_end) == ("no", False)


def test_validation_and_test_leave_out_what_belongs_to_training() -> None:
    recipe = RecipeOptions(
        **EVERY_OPTION, eval_segment_seconds=4.0, max_train_examples=9, max_eval_examples=5
    )
    train, validation, test = (
        recipe.of_split(split).keywords() for split in ("train", "validation", "test")
    )
    expected = {key: value for key, value in EVERY_OPTION.items() if key != "max_examples"}
    assert train == {**expected, "max_examples": 9, "cache_dir": None}
    changed = {key for key in train if train[key] != validation[key]}
    assert changed == {*TRAIN_ONLY, "segment_seconds", "max_examples"}
    assert (validation["segment_seconds"], validation["max_examples"]) == (4.0, 5)
    # The test is of whole utterances, and of as many as all splits may have.
    assert {key for key in test if test[key] != validation[key]} == {
        "segment_seconds",
        "max_examples",
    }
    assert (test["segment_seconds"], test["max_examples"]) == (None, 7)
    at_0_db = dataclasses.replace(recipe, eval_snr_range_db=(0, 0))
    assert at_0_db.of_split("train").snr_range_db == (-5.0, 5.0)
    assert at_0_db.of_split("test").snr_range_db == (0.0, 0.0)


def test_clean_speech_knows_no_interference_and_denoised_speech_is_a_corpus() -> None:
    recipe = RecipeOptions(**EVERY_OPTION, denoised_dir="/data/denoised")
    defaults = MixtureOptions()
    clean = dataclasses.replace(recipe, condition="clean").of_split("train").keywords()
    kept = EVERY_OPTION.keys() - {*INTERFERENCE}
    assert {key: clean[key] for key in kept} == {key: EVERY_OPTION[key] for key in kept}
    assert all(clean[key] == getattr(defaults, key) for key in INTERFERENCE)
    denoised = dataclasses.replace(recipe, condition="denoised").of_split("train").keywords()
    folders = {"iemocap": "/data/IEMOCAP", "denoised": "/data/denoised"}
    own = {"targets": ("denoised",), "corpus_dirs": folders, "enrollment_emotion": None}
    assert denoised == {**clean, **own}


def test_noise_is_found_like_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "wham_noise").mkdir()

    def found(**options: Any) -> str | None:
        return MixtureOptions(noise_dir="wham_noise", **options).noise_folder

    assert found(corpus_dir=tmp_path) == str(tmp_path / "wham_noise")
    assert found(corpus_dir=tmp_path, corpus_dirs=["wham_noise=/wham"]) == "/wham"
    assert found(corpus_dir=tmp_path / "elsewhere") == found() == "wham_noise"
    assert MixtureOptions(corpus_dir=str(tmp_path)).noise_folder is None


def test_an_evaluation_takes_the_test_split_of_a_recipe_and_flags_win(tmp_path: Path) -> None:
    text = "output_dir: x\nsnr_range_db: [-5, 5]\neval_snr_range_db: [1, 2]\nsegment_seconds: 2"
    config = ["--model", "m", "--config", write_recipe(tmp_path, text)]
    options = read_evaluation_options(config)
    assert isinstance(options, EvaluationOptions)
    assert (options.snr_range_db, options.segment_seconds) == ((1.0, 2.0), None)
    assert options.interferers == ("generated_pool",)
    options = read_evaluation_options([*config, "--snr_range_db", "3", "3", "--fold", "2"])
    assert (options.snr_range_db, options.fold) == ((3.0, 3.0), 2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--condition", "noisy"], "needs --interferers"),
        (["--condition", "denoised"], "needs --denoised_dir"),
        (["--condition", "clean", "--absent_share", "0.5"], "absent_share is for condition"),
        (["--condition", "clean", "--batch_size", "0"], "batch_size: .* at least 1, got 0"),
        (["--condition", "loud"], "condition: unknown choice 'loud'"),
    ],
)
def test_a_wrong_evaluation_is_refused(flags: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        read_evaluation_options(["--model", "m", *flags])
    with pytest.raises(OptionError, match="model is needed: give --model"):
        read_evaluation_options(["--condition", "clean"])
