"""Recipes and command lines: what wins, what is refused, and that ours can be read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_builders.options import MixtureOptions
from tse_ser.training.arguments import DataArguments, mixture_keywords, parse_arguments
from tse_ser.training.build_model import build_model, read_config
from tse_ser.training.denoise_corpus import parse_arguments as parse_denoise_arguments
from tse_ser.training.recipe_parser import RecipeError

REPOSITORY = Path(__file__).resolve().parent.parent
TRAIN_RECIPES = sorted(
    path
    for path in REPOSITORY.glob("recipes/*/*.yaml")
    if path.parent.name != "accelerate" and path.name[0].isdigit()
)
MODEL_CONFIGS = sorted(REPOSITORY.glob("recipes/model_configs/*.json"))


def write_recipe(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(f"report_to: none\ninterferers: [generated_pool]\n{text}\n")
    return str(path)


def parse(folder: Path, text: str, *argv: str) -> Any:
    config = write_recipe(folder, text)
    return parse_arguments(["--config", config, "--output_dir", str(folder), *argv])


def test_the_command_line_wins_over_the_recipe(tmp_path: Path) -> None:
    text = "learning_rate: 1e-3\nfold: 2\nsnr_range_db: [-5, 5]\ntrim_silence: true"
    _, data_args, training_args = parse(
        tmp_path, text, "--fold", "3", "--snr_range_db", "-1.5", "2", "--trim_silence", "false"
    )
    assert training_args.learning_rate == 1e-3
    assert (data_args.fold, data_args.snr_range_db) == (3, [-1.5, 2.0])
    assert data_args.trim_silence is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "lerning_rate: 0.1",
            r"recipe\.yaml: unknown key 'lerning_rate': did you mean learn",
        ),
        ("fold: one", r"recipe\.yaml: argument --fold.*invalid int value: 'one'"),
        ("stage: joimt", r"recipe\.yaml: argument --stage: invalid choice: 'joimt'"),
        ("snr_range_db: [5, -5]", r"recipe\.yaml: snr_range_db: expected two numbers, low then"),
        ("label_smoothing_factor: 0.1", "label_smoothing_factor would replace the model's loss"),
        ("interferers: null", "condition 'noisy' needs --interferers"),
        ("condition: denoised\nstage: classification", "needs --denoised_dir"),
        ("condition: denoised\ndenoised_dir: x", "condition 'denoised' is for the classification"),
        ("extractor_learning_rate: 0.1", "extractor_learning_rate is for stage 'joint'"),
        ("protocol: paper\nearly_stopping_patience: 3", "early_stopping_patience needs a valid"),
        (
            "corpus_dir: ${TSE_SER_NOWHERE}/x",
            "'corpus_dir' needs the environment variable TSE",
        ),
        ("- a list", "is not valid YAML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_key_and_the_fix(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(tmp_path, text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--foldd", "2"], "unknown argument --foldd: did you mean --fold?"),
        (["--fol", "2"], "unknown argument --fol: did you mean --fold?"),
        (["--fold", "x"], "^argument --fold"),
        (["--fold", "1", "stray"], "unknown argument stray"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_a_wrong_command_line_is_refused(flags: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_arguments(["--interferers", "generated_pool", *flags])


def test_words_that_yaml_reads_as_booleans_keep_their_meaning(tmp_path: Path) -> None:
    _, _, training_args = parse(tmp_path, "eval_strategy: no\nload_best_model_at_end: no")
    assert training_args.eval_strategy == "no"
    assert training_args.load_best_model_at_end is False


def test_null_and_all_and_any_mean_no_restriction(tmp_path: Path) -> None:
    for text in (
        "emotions: null\nenrollment_emotion: null",
        "emotions: all\nenrollment_emotion: any",
    ):
        _, data_args, _ = parse(tmp_path, text)
        assert data_args.emotions is None
        assert data_args.enrollment_emotion is None


def test_environment_variables_are_expanded_in_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSE_SER_SOMEWHERE", "/corpora")
    _, data_args, _ = parse(tmp_path, "corpus_dir: ${TSE_SER_SOMEWHERE}/speech")
    assert data_args.corpus_dir == "/corpora/speech"
    # What the command line says needs no variable.
    _, data_args, _ = parse(tmp_path, "corpus_dir: ${TSE_SER_NOWHERE}", "--corpus_dir", "here")
    assert data_args.corpus_dir == "here"


def test_the_protocol_decides_about_validation(tmp_path: Path) -> None:
    _, _, validated = parse(tmp_path, "stage: classification\ncondition: noisy")
    assert (validated.eval_strategy, validated.load_best_model_at_end) == ("epoch", True)
    assert (validated.metric_for_best_model, validated.greater_is_better) == ("ua", True)
    _, _, paper = parse(tmp_path, "stage: classification\nprotocol: paper")
    assert (paper.eval_strategy, paper.load_best_model_at_end) == ("no", False)


def test_validation_leaves_out_what_belongs_to_training(tmp_path: Path) -> None:
    text = (
        "snr_range_db: [-5, 5]\nspeed_factors: [0.9, 1.1]\nsegment_seconds: 2\n"
        "max_train_examples: 9\nmixing_seed: 4\nclean_share: 0.1\nabsent_share: 0.2"
    )
    _, data_args, _ = parse(tmp_path, text)
    train = mixture_keywords(data_args, "noisy", train=True)
    validation = mixture_keywords(data_args, "noisy", train=False)
    changed = {key for key in validation if train[key] != validation[key]}
    assert {key: train[key] for key in train.keys() - validation.keys()} == {
        "clean_share": 0.1,
        "absent_share": 0.2,
    }
    assert changed == {"snr_range_db", "speed_factors", "segment_seconds", "max_examples"}
    assert (validation["snr_range_db"], validation["speed_factors"]) == ((0.0, 0.0), (1.0,))
    assert validation["segment_seconds"] is None
    clean = mixture_keywords(data_args, "clean", train=True)
    assert clean["interferers"] is None
    assert "clean_share" not in clean


def test_every_argument_of_a_mixture_reaches_load_mixtures(tmp_path: Path) -> None:
    given = {
        "targets": ["iemocap"],
        "interferers": ["librispeech"],
        "corpus_dir": "corpora",
        "corpus_dirs": ["iemocap=/data/IEMOCAP"],
        "cache_dir": "cache",
        "fold": 2,
        "protocol": "paper",
        "num_speakers": [2, 3],
        "gender_state": "same",
        "interferer_emotions": ["angry"],
        "interferer_languages": ["en"],
        "snr_distribution": "normal",
        "snr_range_db": [-5.0, 5.0],
        "snr_mean_std_db": [1.0, 2.0],
        "enrollment_seconds": 3.0,
        "enrollment_emotion": "any",
        "trim_silence": True,
        "noise_dir": "noise",
        "noise_snr_range_db": [0.0, 9.0],
        "reverberation": "direct",
        "rt60_range_seconds": [0.3, 0.4],
        "mixing_seed": 7,
        "clean_share": 0.1,
        "absent_share": 0.2,
        "speed_factors": [0.9, 1.1],
        "segment_seconds": 2.0,
        "emotions": ["neutral"],
        "max_train_examples": 5,
    }
    _, data_args, _ = parse(tmp_path, yaml.safe_dump(given))
    keywords = mixture_keywords(data_args, "noisy", train=True)

    assert keywords.pop("cache_dir") == given.pop("cache_dir")
    options = MixtureOptions.from_keywords(keywords)
    names = {"mixing_seed": "seed", "max_train_examples": "max_examples"}
    expected = given | {
        "corpus_dirs": {"iemocap": "/data/IEMOCAP"},
        "enrollment_emotion": None,
    }
    for name, value in expected.items():
        found = getattr(options, names.get(name, name))
        assert (list(found) if isinstance(found, tuple) else found) == value, name
    assert keywords.keys() == {field.name for field in dataclasses.fields(MixtureOptions)}


def test_noise_is_found_like_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "wham_noise").mkdir()

    def found(**given: Any) -> str | None:
        return DataArguments(noise_dir="wham_noise", **given).mixing_keywords(noisy=True)[
            "noise_dir"
        ]

    assert found(corpus_dir=str(tmp_path)) == str(tmp_path / "wham_noise")
    assert found(corpus_dir=str(tmp_path), corpus_dirs=["wham_noise=/wham"]) == "/wham"
    assert found(corpus_dir=str(tmp_path / "elsewhere")) == found() == "wham_noise"
    assert DataArguments(corpus_dir=str(tmp_path)).noise_folder is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("corpus_dirs: [iemocap]", "corpus_dirs: expected entries such as iemocap=/data/IEMOCAP"),
        ("num_speakers: [2, 3, 4]", "num_speakers: expected one number or two"),
        ("noise_snr_range_db: [5, 1]", "noise_snr_range_db: expected two numbers, low then high"),
        ("snr_mean_std_db: [5]", "snr_mean_std_db: expected two numbers, got"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(tmp_path, text)


@pytest.mark.parametrize("path", TRAIN_RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_our_recipes_can_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TSE_SER_DATA", "TSE_SER_PRETRAINED"):
        monkeypatch.setenv(variable, "somewhere")
    model_args, _, _ = parse_arguments(["--config", str(path), "--report_to", "none"])
    for name in ("extractor_config", "classifier_config"):
        if getattr(model_args, name) is not None:
            assert REPOSITORY / getattr(model_args, name) in MODEL_CONFIGS


def test_our_denoise_recipes_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TSE_SER_DATA", "TSE_SER_PRETRAINED"):
        monkeypatch.setenv(variable, "somewhere")
    for path in REPOSITORY.glob("recipes/*/denoise.yaml"):
        # A study adds where it reads and writes.
        parse_denoise_arguments(
            ["--config", str(path), "--extractor_name_or_path", "x", "--output_dir", "y"]
        )


@pytest.mark.parametrize("path", MODEL_CONFIGS, ids=lambda path: path.stem)
def test_our_model_configs_have_known_fields_only(path: Path) -> None:
    from modeling import ShiftCnnConfig, TdSpeakerBeamConfig

    config_class: Any = TdSpeakerBeamConfig if "extractor" in path.stem else ShiftCnnConfig
    assert read_config(str(path), config_class).sampling_rate == 16_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"num_filter": 16}',
            "TdSpeakerBeamConfig has no field 'num_filter': did you mean num",
        ),
        ('{"num_filters": 0}', "`num_filters` must be at least 1"),
        ('{"num_filters": ', "is not valid JSON"),
    ],
)
def test_a_wrong_model_config_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "extractor.json"
    path.write_text(text)
    model_args, _, _ = parse(tmp_path, f"extractor_config: {path}")
    with pytest.raises(RecipeError, match=message):
        build_model(model_args, "extraction")


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("joint", "extractor_name_or_path"),
        ("classification", "model_name_or_path"),
        ("classification", "classifier_name_or_path"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path, stage: Any, name: str) -> None:
    model_args, _, _ = parse(tmp_path, f"{name}: {tmp_path}/none")
    with pytest.raises(RecipeError, match=f"--{name} {tmp_path}/none: no model is there"):
        build_model(model_args, stage)


def test_a_stage_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    model_args, _, _ = parse(tmp_path, "")
    with pytest.raises(RecipeError, match="--extractor_config"):
        build_model(model_args, "joint")
