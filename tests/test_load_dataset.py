"""`datasets.load_dataset("target_speaker_mixture")`: the same examples as `load_mixtures`."""

from __future__ import annotations

import dataclasses
import inspect
import math
from pathlib import Path
from typing import Any

import datasets
import datasets.packaged_modules
import numpy as np
import pytest
import soundfile
from corpus_layouts import burst, write_corpora
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from data_builders import NO_DATA_FILES, MixtureSpec, load_mixtures
from data_builders.target_speaker_mixture import (
    PLAN_FEATURES,
    MixtureConfig,
    TargetSpeakerMixture,
)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpora(tmp_path_factory.mktemp("corpora"))


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


def assert_same(example: dict[str, Any], expected: dict[str, Any]) -> None:
    assert example.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            assert example[name].dtype == np.float32
            np.testing.assert_array_equal(example[name], value)
        elif isinstance(value, float) and math.isnan(value):
            assert math.isnan(example[name])
        else:
            assert example[name] == value


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("changes", [{}, {"interferers": None, "trim_silence": True}])
def test_map_style_and_streaming_give_the_examples_of_load_mixtures(
    streaming: bool, changes: dict[str, Any], corpora: Path
) -> None:
    expected = load_mixtures(split="test", **keywords(corpora, **changes))
    loaded = list(load(corpora, streaming=streaming, **changes))
    assert len(loaded) == len(expected) == 32
    for index, example in enumerate(loaded):
        assert_same(example, expected[index])


def test_rows_are_rendered_one_by_one_and_in_slices(corpora: Path) -> None:
    expected = load_mixtures(split="train", **keywords(corpora))
    loaded = load(corpora, split="train")
    assert_same(loaded[7], expected[7])
    part = loaded[3:6]
    assert part["utterance_id"] == [expected[index]["utterance_id"] for index in range(3, 6)]
    np.testing.assert_array_equal(part["mixture"][2], expected[5]["mixture"])


def test_every_split_is_offered_that_the_protocol_has(corpora: Path) -> None:
    assert set(load(corpora, split=None)) == {"train", "validation", "test"}
    paper = load(corpora, split=None, protocol="paper", streaming=True)
    assert set(paper) == {"train", "test"}


@pytest.mark.parametrize("streaming", [False, True])
def test_workers_give_each_example_once(streaming: bool, corpora: Path) -> None:
    loader = DataLoader(load(corpora, streaming=streaming), batch_size=None, num_workers=2)
    ids = [example["utterance_id"] for example in loader]
    assert len(ids) == len(set(ids)) == 32


def test_nodes_share_the_examples_evenly(corpora: Path) -> None:
    streamed = load(corpora, streaming=True, max_examples=30)
    parts = [
        [example["utterance_id"] for example in split_dataset_by_node(streamed, rank, 2)]
        for rank in range(2)
    ]
    assert [len(part) for part in parts] == [15, 15]
    assert len({*parts[0], *parts[1]}) == 30


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


def test_unknown_keywords_are_refused(corpora: Path) -> None:
    with pytest.raises(TypeError, match="gender_stat"):
        load(corpora, gender_stat="same")


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


def test_the_configuration_mirrors_load_mixtures() -> None:
    inherited = {field.name for field in dataclasses.fields(datasets.BuilderConfig)}
    fields = {
        field.name: field.default
        for field in dataclasses.fields(MixtureConfig)
        if field.name not in inherited
    }
    # load_dataset takes `split` and `cache_dir` itself and hands the second on under another name.
    fields["cache_dir"] = fields.pop("corpus_cache_dir")
    parameters = dict(inspect.signature(load_mixtures).parameters)
    del parameters["split"]
    assert fields == {name: parameter.default for name, parameter in parameters.items()}


def test_the_table_of_plans_mirrors_the_spec() -> None:
    assert [*PLAN_FEATURES] == ["split", *(field.name for field in dataclasses.fields(MixtureSpec))]
