"""Recipes of training, read by the programs of `data_builders`, mean what they mean to training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_builders import CorpusError
from data_builders.options import MixtureOptions
from data_builders.recipe import mixture_keywords, read_data_recipe
from tse_ser.training import arguments

REPOSITORY = Path(__file__).resolve().parent.parent
TRAINING_RECIPES = sorted(
    path
    for path in (REPOSITORY / "recipes").glob("*/*.yaml")
    if any(line.startswith("stage:") for line in path.read_text(encoding="utf-8").splitlines())
)
# Its mixtures are published, not drawn.
LIBRIMIX_RECIPE = REPOSITORY / "recipes" / "paper" / "1_extraction.yaml"
TRAINING_RECIPES.remove(LIBRIMIX_RECIPE)
EVERY_KEY = """
stage: joint
output_dir: results
learning_rate: 1.0e-3
targets: [iemocap]
interferers: [librispeech, esd]
corpus_dirs: [iemocap=/data/IEMOCAP, esd=/data/ESD]
cache_dir: ${CACHE_OF_TEST}
emotions: [all]
enrollment_emotion: any
num_speakers: [2, 3]
interferer_languages: [en]
snr_distribution: normal
snr_mean_std_db: [1.0, 3.0]
snr_range_db: [-5.0, 5.0]
eval_snr_range_db: [0.0, 2.0]
segment_seconds: 2.0
eval_segment_seconds: 4.0
speed_factors: [0.9, 1.1]
noise_dir: /data/noise
reverberation: direct
clean_share: 0.1
absent_share: 0.2
mixing_seed: 3
max_train_examples: 50
max_eval_examples: 20
fold: 2
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def of_training(path: Path, condition: str, train: bool) -> dict[str, Any]:
    """Every option, as training hands it to `load_mixtures`."""
    _, data_args, _ = arguments.parse_arguments(["--config", str(path), "--condition", condition])
    return filled(arguments.mixture_keywords(data_args, condition, train=train))


def filled(keywords: dict[str, Any]) -> dict[str, Any]:
    cache_dir = keywords.pop("cache_dir", None)
    options = vars(MixtureOptions.from_keywords(keywords))
    named = {name: value for name, value in options.items() if name != "corpus_dirs"}
    sequences = {key: list(one) for key, one in named.items() if isinstance(one, tuple | list)}
    folders = dict(options["corpus_dirs"] or {})
    return {**named, **sequences, "cache_dir": cache_dir, "corpus_dirs": folders}


@pytest.mark.parametrize("condition", ["noisy", "clean"])
@pytest.mark.parametrize(
    "path", TRAINING_RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_the_recipes_mean_the_same_to_training_and_to_the_tools(
    path: Path, condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSE_SER_PRETRAINED", "pretrained")
    recipe = {**read_data_recipe(path), "condition": condition}
    for split in ("train", "validation"):
        expected = of_training(path, condition, train=split == "train")
        assert filled(mixture_keywords(recipe, split)) == expected


def test_every_key_means_the_same_to_training_and_to_the_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_OF_TEST", "/data/cache")
    path = write(tmp_path, EVERY_KEY)
    for split in ("train", "validation"):
        found = filled(mixture_keywords(read_data_recipe(path), split))
        assert found == of_training(path, "noisy", train=split == "train")
    assert found["cache_dir"] == "/data/cache"
    test = filled(mixture_keywords(read_data_recipe(path), "test"))
    assert test == {**found, "segment_seconds": None, "max_examples": None}


def test_a_study_and_a_list_of_keywords_are_recipes_too(tmp_path: Path) -> None:
    study = read_data_recipe(REPOSITORY / "recipes" / "ravdess" / "study.yaml")
    keywords = mixture_keywords(study, "test")
    assert keywords["targets"] == ("ravdess",)
    assert keywords["protocol"] == "validated"
    path = write(tmp_path, "targets: emodb\nsnr_range_db: [-5, 5]\nnum_speakers: 3\nseed: 2\n")
    assert mixture_keywords(read_data_recipe(path), "test") == {
        "targets": "emodb",
        "snr_range_db": (-5, 5),
        "num_speakers": 3,
        "seed": 2,
    }


def test_the_published_mixtures_of_librimix_have_no_plan_to_read() -> None:
    recipe = read_data_recipe(LIBRIMIX_RECIPE)
    with pytest.raises(CorpusError, match="librimix_subset: the published mixtures of LibriMix"):
        mixture_keywords(recipe, "train")


def test_choosing_on_the_test_session_leaves_the_splits_of_protocol_paper(tmp_path: Path) -> None:
    recipe = read_data_recipe(write(tmp_path, "targets: [iemocap]\nprotocol: best_on_test\n"))
    assert mixture_keywords(recipe, "test")["protocol"] == "paper"


def test_keys_nobody_knows_are_refused(tmp_path: Path) -> None:
    message = r"recipe.yaml: unknown key 'snr_range': did you mean 'snr_range_db'\?"
    for recipe in ("snr_range: [0, 1]\n", "stage: joint\noutput_dir: x\nsnr_range: [0, 1]\n"):
        with pytest.raises(CorpusError, match=message):
            read_data_recipe(write(tmp_path, recipe))
    with pytest.raises(CorpusError, match="unknown key 'learning_rate': use some of"):
        read_data_recipe(write(tmp_path, "learning_rate: 1\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- targets\n", "expected `key: value` lines, got list"),
        ("targets: [\n", "is no readable YAML recipe"),
        ("corpus_dir: ${NO_SUCH_VARIABLE}\n", "needs the environment variable NO_SUCH_VARIABLE"),
        ("corpus_dirs: [iemocap]\n", r"expected entries such as .*, got 'iemocap'"),
    ],
)
def test_what_is_no_recipe_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=message):
        read_data_recipe(write(tmp_path, text))
    with pytest.raises(CorpusError, match=r"absent.yaml: is no readable YAML recipe"):
        read_data_recipe(tmp_path / "absent.yaml")
