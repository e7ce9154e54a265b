"""Every recipe means the same mixtures to training, evaluation, the audit and the export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import data_builders.audit.splits
import data_builders.plans.export_plan
import tse_ser.evaluation.evaluate_checkpoint
import tse_ser.training.denoise_corpus
import tse_ser.training.load_datasets
from data_builders.audit.splits import RecipeData
from data_builders.option_reader import OptionError, read_yaml
from data_builders.options import MixtureOptions, read_recipe
from data_builders.plans import export_plan
from data_builders.schema import CorpusError
from tse_ser.evaluation.evaluate_checkpoint import load_condition
from tse_ser.options import read_evaluation_options, read_training_options
from tse_ser.training.denoise_corpus import parse_arguments, plan_jobs
from tse_ser.training.load_datasets import load_datasets

REPOSITORY = Path(__file__).resolve().parent.parent


def content_of(path: Path) -> Mapping[str, Any]:
    try:
        return read_yaml(path)
    except OptionError:
        return {}  # of another kind: not even a mapping


RECIPES = sorted(
    path for path in (REPOSITORY / "recipes").rglob("*.yaml") if "output_dir" in content_of(path)
)
OF_TRAINING = [path for path in RECIPES if "stage" in content_of(path)]
LIBRIMIX = [path for path in RECIPES if "librimix_subset" in content_of(path)]
DRAWN = [path for path in OF_TRAINING if path not in LIBRIMIX]
# Options of the data that no recipe of ours may be without a test of.
HARD = """
stage: joint
output_dir: results
learning_rate: 1.0e-3
targets: [iemocap]
interferers: [librispeech, esd]
corpus_dirs: [iemocap=/data/IEMOCAP, wham_noise=/data/wham]
cache_dir: ${CACHE_OF_TEST}
emotions: [sad, angry]
enrollment_emotion: any
num_speakers: [2, 3]
snr_range_db: [-5.0, 5.0]
eval_snr_range_db: [0.0, 2.0]
segment_seconds: 2.0
eval_segment_seconds: 4.0
speed_factors: [0.9, 1.1]
noise_dir: wham_noise
clean_share: 0.1
absent_share: 0.2
mixing_seed: 3
max_train_examples: 50
protocol: best_on_test
fold: 2
"""


class HeardError(Exception):
    """Carries what a program asked `load_mixtures` for, in place of the mixtures."""

    def __init__(self, split: str, keywords: Mapping[str, Any]) -> None:
        options = {key: value for key, value in keywords.items() if key != "cache_dir"}
        mixtures = MixtureOptions.from_keywords(options)
        super().__init__(split)
        self.asked = split, vars(mixtures), mixtures.noise_folder, keywords.get("cache_dir")


def asked_of(program: Callable[[], Any]) -> tuple[Any, ...]:
    with pytest.raises(HeardError) as caught:
        program()
    return caught.value.asked


@pytest.fixture(autouse=True)
def no_mixtures_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_mixtures(*, split: str, **keywords: Any) -> None:
        raise HeardError(split, keywords)

    for module in (
        data_builders.audit.splits,
        data_builders.plans.export_plan,
        tse_ser.evaluation.evaluate_checkpoint,
        tse_ser.training.denoise_corpus,
        tse_ser.training.load_datasets,
    ):
        monkeypatch.setattr(module, "load_mixtures", load_mixtures)
    for variable in ("TSE_SER_DATA", "TSE_SER_PRETRAINED", "CACHE_OF_TEST"):
        monkeypatch.setenv(variable, "/somewhere")


def trained(path: Path, *flags: str) -> tuple[Any, ...]:
    _, data, training = read_training_options(
        ["--config", str(path), "--report_to", "none", *flags]
    )
    return asked_of(lambda: load_datasets(data, training))


def exported(path: Path, split: str, *flags: str) -> tuple[Any, ...]:
    argv = ["--config", str(path), "--split", split, "--output", "unused.parquet", *flags]
    return asked_of(lambda: export_plan.main(argv))


def audited(path: Path, split: str, fold: int) -> tuple[Any, ...]:
    recipe = RecipeData(path, {}, {True: {}, False: {}})
    return asked_of(lambda: recipe.read(split, fold))


def evaluated(path: Path, *flags: str) -> tuple[Any, ...]:
    settings = read_evaluation_options(["--model", "unused", "--config", str(path), *flags])
    return asked_of(lambda: load_condition(settings))


@pytest.mark.parametrize("condition", ["noisy", "clean", "denoised"])
@pytest.mark.parametrize(
    "path", [*DRAWN, None], ids=lambda path: path and str(path.relative_to(REPOSITORY))
)
def test_training_evaluation_audit_and_export_draw_the_same_mixtures(
    path: Path | None, condition: str, tmp_path: Path
) -> None:
    if path is None:
        path = tmp_path / "hard.yaml"
        path.write_text(HARD)
    flags = ["--condition", condition, "--denoised_dir", "/denoised"]
    if condition != "denoised" or content_of(path).get("stage") == "classification":
        assert trained(path, *flags) == exported(path, "train", *flags)
    for split in ("train", "validation", "test"):
        expected = exported(path, split, *flags)
        assert evaluated(path, "--split", split, *flags) == expected
        if condition == "noisy":
            # The audit looks at everything that could be drawn.
            found = audited(path, split, read_recipe(path).fold)
            assert found[1] == {**expected[1], "max_examples": None}


def test_a_flag_wins_over_what_the_recipe_says_of_the_split(tmp_path: Path) -> None:
    path = tmp_path / "hard.yaml"
    path.write_text(HARD)
    flags = ["--snr_range_db", "7", "8", "--mixing_seed", "9"]
    _, options, *_ = exported(path, "test", *flags)
    assert (options["snr_range_db"], options["mixing_seed"]) == ((7.0, 8.0), 9)
    assert evaluated(path, *flags)[1] == options


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path not in OF_TRAINING], ids=lambda path: path.parent.name
)
def test_the_denoised_set_is_made_of_the_mixtures_that_are_exported(path: Path) -> None:
    flags = ["--config", str(path), "--extractor_name_or_path", "x", "--output_dir", "y"]
    data, _ = parse_arguments(flags)
    assert asked_of(lambda: plan_jobs(data, 1)) == exported(path, "train")


@pytest.mark.parametrize("path", LIBRIMIX, ids=lambda path: path.stem)
def test_the_published_mixtures_of_librimix_have_no_plan_to_read(path: Path) -> None:
    assert read_training_options(["--config", str(path)]).data.librimix_subset is not None
    with pytest.raises(CorpusError, match="librimix_subset: the published mixtures of LibriMix"):
        read_recipe(path).of_split("train")


def test_a_file_of_data_alone_is_a_recipe_too(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("targets: emodb\nsnr_range_db: [-5, 5]\nnum_speakers: 3\nmixing_seed: 2\n")
    plain = read_recipe(path).of_split("test")
    assert (plain.targets, plain.snr_range_db, plain.num_speakers) == (("emodb",), (-5, 5), (3,))
    path.write_text("name: mine\nprotocol: paper\ndata: {targets: [emodb]}\n")
    nested = read_recipe(path)
    assert (nested.protocol, nested.targets) == ("paper", ("emodb",))


def test_slips_of_the_pen_are_refused_and_other_programs_keys_are_not(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for text in ("snr_range: [0, 1]\n", "output_dir: x\nsnr_range: [0, 1]\n"):
        path.write_text(text)
        with pytest.raises(
            OptionError, match="unknown key 'snr_range': did you mean 'snr_range_db'"
        ):
            read_recipe(path)
    path.write_text("learning_rate: 1\n")
    with pytest.raises(OptionError, match="unknown key 'learning_rate'"):
        read_recipe(path)
    path.write_text("learning_rate: 1\noutput_dir: x\n")
    assert read_recipe(path) == read_recipe(path)
