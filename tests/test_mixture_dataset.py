"""Mixtures: the same bytes in every worker, new ones in every epoch, frozen ones for evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mixture_bytes import EVERYBODY, digest, recorded, tiny_mixtures
from torch.utils.data import DataLoader

from data_builders.mixtures.mixing import mean_power, mix, snr_gain
from data_builders.schema import EMOTIONS, IGNORED_LABEL, CorpusError


def test_persistent_workers_see_the_next_epoch(corpora: Path) -> None:
    mixtures = tiny_mixtures(corpora)
    loader = DataLoader(
        mixtures,
        batch_size=4,
        num_workers=2,
        persistent_workers=True,
        collate_fn=lambda batch: batch,
    )
    epochs = []
    for epoch in range(3):
        mixtures.set_epoch(epoch)
        specs = [example["spec"] for batch in loader for example in batch]
        assert {spec["epoch"] for spec in specs} == {epoch}
        epochs.append([spec["interferers"][0]["offset"] for spec in specs])
    assert epochs[0] != epochs[1] != epochs[2]


def test_evaluation_mixtures_are_the_same_in_every_epoch(corpora: Path) -> None:
    for split in ("validation", "test"):
        mixtures = tiny_mixtures(corpora, split=split)
        before = [digest(mixtures[index]) for index in range(len(mixtures))]
        mixtures.set_epoch(7)
        assert [digest(mixtures[index]) for index in range(len(mixtures))] == before
        assert mixtures.epoch == 0


def test_a_segment_is_a_part_of_the_whole_at_the_level_of_the_whole(corpora: Path) -> None:
    """What was read in part equals what was read whole, in the first epoch and in later ones."""
    mixtures = tiny_mixtures(corpora, segment_seconds=0.5, enrollment_seconds=0.4)
    planner = mixtures.planner
    assert planner.interferers is not None
    cropped = 0
    for epoch in (0, 1, 0):
        mixtures.set_epoch(epoch)
        for index in range(len(mixtures)):
            example, spec = mixtures[index], mixtures.plan(index)
            target = recorded(mixtures, spec.target_id)
            interferer = recorded(mixtures, spec.interferers[0].utterance_id)
            part = target[spec.target_start : spec.target_start + 8000]
            np.testing.assert_array_equal(example["target"], part)
            enrollment = recorded(mixtures, spec.enrollment_id)
            np.testing.assert_array_equal(
                example["enrollment"],
                enrollment[spec.enrollment_start : spec.enrollment_start + 6400],
            )
            gain = snr_gain(mean_power(target), mean_power(interferer), 0.0)
            np.testing.assert_array_equal(
                example["mixture"],
                mix(part, interferer * np.float32(gain), spec.interferers[0].offset),
            )
            cropped += spec.interferers[0].offset < 0
    assert cropped > 10


def test_levels_are_those_of_the_trimmed_utterance_when_silence_is_trimmed(corpora: Path) -> None:
    mixtures = tiny_mixtures(corpora, trim_silence=True)
    planner = mixtures.planner
    assert planner.interferers is not None
    example, spec = mixtures[5], mixtures.plan(5)
    regions = []
    for table, utterance_id in (
        (planner.targets, spec.target_id),
        (planner.interferers, spec.interferers[0].utterance_id),
    ):
        first, stop = table.region(table.row_of_id[utterance_id], True)
        samples = recorded(mixtures, utterance_id)
        assert 0 < stop - first < len(samples)
        regions.append(samples[first:stop])
    np.testing.assert_array_equal(example["target"], regions[0])
    gain = snr_gain(mean_power(regions[0]), mean_power(regions[1]), 0.0)
    np.testing.assert_array_equal(
        example["mixture"],
        mix(regions[0], regions[1] * np.float32(gain), spec.interferers[0].offset),
    )


def test_a_voice_at_another_speed_keeps_its_level_and_changes_its_length(corpora: Path) -> None:
    usual = tiny_mixtures(corpora, interferers=None)
    faster = tiny_mixtures(corpora, interferers=None, speed_factors=(1.25,))
    for index in range(4):
        before, after = usual[index], faster[index]
        for name in ("target", "enrollment"):
            assert len(after[name]) == -(-len(before[name]) * 4 // 5)
            # A burst of noise loses what the new limit, 6.4 kHz before, cuts off.
            ratio = mean_power(after[name]) / mean_power(before[name])
            assert 0.6 < ratio < 1.0
        assert before["spec"]["enrollment_id"] == after["spec"]["enrollment_id"]


def test_clean_speech_is_its_own_mixture(corpora: Path) -> None:
    example = tiny_mixtures(corpora, interferers=None)[3]
    np.testing.assert_array_equal(example["mixture"], example["target"])
    assert not np.shares_memory(example["mixture"], example["target"])
    assert np.isnan(example["snr_db"])
    assert example["interferer_id"] == example["interferer_corpus"] == ""
    assert example["gender_state"] == ""


def test_an_example_tells_what_it_is_made_of(corpora: Path) -> None:
    seen = set()
    mixtures = tiny_mixtures(corpora)
    for index in range(len(mixtures)):
        example = mixtures[index]
        actor = int(example["utterance_id"][-2:])
        assert example["speaker_id"] == f"ravdess_{actor:02d}"
        word = {"01": "neutral", "03": "happy", "04": "sad", "05": "angry"}[
            example["utterance_id"].split("-")[2]
        ]
        assert example["label"] == EMOTIONS.index(word)
        assert example["interferer_id"].startswith(example["interferer_corpus"] + "/")
        assert example["spec"]["target_id"] == example["utterance_id"]
        if example["interferer_corpus"] == "ravdess":
            same = (actor - int(example["interferer_id"][-2:])) % 2 == 0
            assert example["gender_state"] == ("same" if same else "different")
        seen.add(example["interferer_corpus"])
    assert seen == set(EVERYBODY)


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_no_speaker_is_heard_in_two_splits(fold: int, corpora: Path) -> None:
    heard = []
    for split in ("train", "validation", "test"):
        planner = tiny_mixtures(corpora, split=split, fold=fold).planner
        assert planner.interferers is not None
        tables = (planner.targets, planner.enrollments, planner.interferers)
        heard.append({speaker for table in tables for speaker in table.speaker_ids})
    assert not heard[0] & heard[1]
    assert not heard[0] & heard[2]
    assert not heard[1] & heard[2]
    tested = {f"ravdess_{actor:02d}" for actor in range(4 * fold - 3, 4 * fold + 1)}
    assert {speaker for speaker in heard[2] if speaker.startswith("ravdess")} == tested
    # 12 actors, 10 speakers of EMO-DB and 4 of Asterisk: nobody is left out.
    assert sum(len(speakers) for speakers in heard) == 26


def test_targets_are_chosen_by_emotion(corpora: Path) -> None:
    def labels(**keywords: Any) -> list[int]:
        mixtures = tiny_mixtures(corpora, interferers=None, **keywords)
        return sorted({mixtures[index]["label"] for index in range(len(mixtures))})

    assert labels() == [0, 1, 2, 3]
    # The emotions are the classes, in their order.
    assert labels(emotions=("happy", "angry")) == [0, 1]
    angry = tiny_mixtures(corpora, interferers=None, emotions=("angry", "happy"))
    table = angry.planner.targets
    for row, name in enumerate(table.utterance_ids):
        assert angry[row]["utterance_id"] == name
        assert angry[row]["label"] == ("angry", "happy").index(table.emotions[row])
    prompts = {"targets": "asterisk", "emotions": None, "enrollment_emotion": None}
    assert labels(**prompts) == [IGNORED_LABEL]
    with pytest.raises(CorpusError, match=r"unknown emotions \['joy'\]"):
        labels(emotions=("joy",))
    with pytest.raises(CorpusError, match="train split has no target utterances of the emotions"):
        labels(targets="emodb", emotions=("sad",))


def test_fewer_examples_are_spread_over_all_speakers(corpora: Path) -> None:
    mixtures = tiny_mixtures(corpora, split="test", max_examples=4)
    assert len(mixtures) == 4
    assert len({mixtures[index]["speaker_id"] for index in range(4)}) == 4
    assert len(tiny_mixtures(corpora, split="test", max_examples=1000)) == 32
    with pytest.raises(ValueError, match="max_examples"):
        tiny_mixtures(corpora, max_examples=0)


def test_requests_that_have_no_examples_are_explained(corpora: Path) -> None:
    with pytest.raises(CorpusError, match="unknown split 'dev': use one of train, validation"):
        tiny_mixtures(corpora, split="dev")
    with pytest.raises(CorpusError, match="protocol 'paper' has no validation split"):
        tiny_mixtures(corpora, split="validation", protocol="paper")
    with pytest.raises(CorpusError, match="no corpus is named"):
        tiny_mixtures(corpora, targets=[])
