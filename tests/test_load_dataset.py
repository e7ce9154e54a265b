"""`datasets.load_dataset("target_speaker_mixture")`: the same examples as `load_mixtures`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import datasets
import datasets.packaged_modules
import numpy as np
import pytest
import soundfile
from corpus_layouts import burst, write_corpora
from mixture_bytes import digest, write_noise

from data_builders import NO_DATA_FILES, CorpusError, MixtureSpec, load_mixtures
from data_builders.option_reader import OptionError
from data_builders.options import MixtureOptions
from data_builders.target_speaker_mixture import (
    PLAN_FEATURES,
    MixtureConfig,
    TargetSpeakerMixture,
)


def keywords(corpora: Path, **changes: Any) -> dict[str, Any]:
    return {
        "targets": "ravdess",
        "interferers": ["emodb", "asterisk"],
        "corpus_dir": str(corpora),
        "cache_dir": str(corpora / "cache"),
        "snr_range_db": (-5.0, 5.0),
        "segment_seconds": 0.6,
        **changes,
    }


def load(corpora: Path, split: str | None = "test", streaming: bool = False, **changes: Any) -> Any:
    return datasets.load_dataset(
        "target_speaker_mixture",
        data_files=NO_DATA_FILES,
        split=split,
        streaming=streaming,
        **keywords(corpora, **changes),
    )


def test_rows_are_rendered_one_by_one_and_in_slices(corpora: Path) -> None:
    expected = load_mixtures(split="train", **keywords(corpora))
    loaded = load(corpora, split="train")
    assert digest(loaded[7]) == digest(expected[7])
    part = loaded[3:6]
    assert part["utterance_id"] == [expected[index]["utterance_id"] for index in range(3, 6)]
    np.testing.assert_array_equal(part["mixture"][2], expected[5]["mixture"])


def test_every_split_is_offered_that_the_protocol_has(corpora: Path) -> None:
    assert set(load(corpora, split=None)) == {"train", "validation", "test"}
    paper = load(corpora, split=None, protocol="paper", streaming=True)
    assert set(paper) == {"train", "test"}


def test_only_plans_are_kept_on_disk(corpora: Path, tmp_path: Path) -> None:
    loaded = load(corpora, cache_dir=str(tmp_path))
    samples = sum(len(example["mixture"]) for example in loaded)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < samples  # a single byte a sample would be more


def test_a_changed_corpus_is_planned_anew(corpora: Path, tmp_path: Path) -> None:
    root = write_corpora(tmp_path)
    before = load(root)[0]
    path = next((root / "ravdess").rglob(f"{before['utterance_id'].partition('/')[2]}.flac"))
    soundfile.write(path, burst(77, active_seconds=0.01)[: round(0.3 * 16_000)], 16_000)
    after = load(root)[0]
    assert after["utterance_id"] == before["utterance_id"]
    assert len(after["mixture"]) == round(0.3 * 16_000) < len(before["mixture"])


def test_unknown_keywords_are_refused_with_the_nearest_known_one(corpora: Path) -> None:
    message = "unknown key 'gender_stat': did you mean 'gender_state'?"
    with pytest.raises(OptionError, match=re.escape(message)):
        load(corpora, gender_stat="same")
    with pytest.raises(OptionError, match=re.escape(message)):
        load_mixtures(split="test", **keywords(corpora, gender_stat="same"))


def test_mixtures_with_other_noise_are_planned_anew(corpora: Path, tmp_path: Path) -> None:
    noise = write_noise(tmp_path / "noise")
    before = load(corpora, noise_dir=str(noise))[:]["spec"]
    assert {spec["noise"]["path"] for spec in before} == {"0.wav", "1.wav"}
    (noise / "0.wav").unlink()
    after = load(corpora, noise_dir=str(noise))[:]["spec"]
    assert {spec["noise"]["path"] for spec in after} == {"1.wav"}


def test_a_fold_without_a_class_is_refused_unless_the_class_is_left_out(corpora: Path) -> None:
    of_emodb: dict[str, Any] = {
        "targets": "emodb",
        "enrollment_emotion": None,
        "interferers": "asterisk",
    }
    with pytest.raises(CorpusError, match=r"fold 1: the test split has no .* happy or sad; use"):
        load_mixtures(split="test", **keywords(corpora, **of_emodb))
    of_emodb["emotions"] = ("neutral", "angry")
    assert len(load_mixtures(split="test", **keywords(corpora, **of_emodb))) > 0


def test_the_builder_is_registered_where_datasets_looks_for_it() -> None:
    """Fails when a release of datasets moves its private table: then move the registration too."""
    table = datasets.packaged_modules._PACKAGED_DATASETS_MODULES
    module_path, version = table["target_speaker_mixture"]
    assert all(isinstance(value, str) for entry in table.values() for value in entry)
    assert version
    module = datasets.load.dataset_module_factory(
        "target_speaker_mixture", data_files=NO_DATA_FILES
    )
    assert module.module_path == module_path
    assert datasets.load.get_dataset_builder_class(module) is TargetSpeakerMixture


def test_the_configuration_has_every_option_of_load_mixtures(corpora: Path) -> None:
    """`load_dataset` takes `split` and `cache_dir` itself; the second comes under another name."""
    given = keywords(corpora, num_speakers=3, absent_share=0.5, noise_dir="noise")
    cache_dir = given.pop("cache_dir")
    options = MixtureOptions.from_keywords(given)
    config = MixtureConfig(**given, corpus_cache_dir=cache_dir)
    assert config.mixture_keywords() == {**dataclasses.asdict(options), "cache_dir": cache_dir}


def test_the_table_of_plans_mirrors_the_spec() -> None:
    assert [*PLAN_FEATURES] == ["split", *(field.name for field in dataclasses.fields(MixtureSpec))]
