"""Plans: who is mixed with whom, and that (seed, epoch, index) alone decide it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import datasets
import pandas as pd
import pytest
from corpus_layouts import utterances
from planned_voices import all_specs, interferer, rows_of, voices

from data_builders import MixturePlanner
from data_builders.corpora.utterance_table import StringColumn
from data_builders.mixtures.speed import samples_at_speed
from data_builders.schema import CorpusError


def test_enrollment_is_neutral_and_outside_the_mixture() -> None:
    targets = voices("a", "fmfm")
    rows = rows_of(targets)
    specs = all_specs(MixturePlanner(targets, targets, mixing_seed=0))
    for spec in specs:
        target, enrollment = rows[spec.target_id], rows[spec.enrollment_id]
        assert enrollment["emotion"] == "neutral"
        assert enrollment["speaker_id"] == target["speaker_id"]
        assert spec.enrollment_id not in (spec.target_id, interferer(spec).utterance_id)
    # Both neutral utterances of a speaker are used for a target that is neither of them.
    assert len({spec.enrollment_id for spec in specs if spec.target_id == "a/0_2"}) == 2


def test_enrollment_of_any_emotion_never_is_the_target() -> None:
    targets = voices("a", "fm")
    specs = all_specs(
        MixturePlanner(targets, None, mixing_seed=0, enrollment_emotion=None), epochs=40
    )
    drawn = Counter(spec.enrollment_id for spec in specs if spec.target_id == "a/1_2")
    assert drawn.keys() == {"a/1_0", "a/1_1", "a/1_3"}
    assert min(drawn.values()) > 4


def test_enrollments_may_come_from_more_utterances_than_the_targets() -> None:
    everything = voices("a", "fm")
    happy = everything.select([2, 6])
    planner = MixturePlanner(happy, None, everything, mixing_seed=0)
    assert {spec.enrollment_id for spec in all_specs(planner)} == {
        "a/0_0",
        "a/0_1",
        "a/1_0",
        "a/1_1",
    }


@pytest.mark.parametrize("speed", [0.8, 1.25])
@pytest.mark.parametrize(("first", "last"), [(3.0, 4.0), (0.0, 0.5), (7.5, 8.0)])
def test_crops_hold_speech_where_most_of_a_recording_is_silent(
    first: float, last: float, speed: float
) -> None:
    # Speech with its margin, of a tenth of a second, in eight seconds that may hold nothing else.
    corpus = utterances(
        {
            "utterance_id": f"a/{take}",
            "speaker_id": "a_0",
            "emotion": "neutral",
            "duration_seconds": 8.0,
            "speech_start_seconds": first,
            "speech_end_seconds": last,
        }
        for take in range(8)
    )
    planner = MixturePlanner(
        corpus, None, segment_seconds=0.3, enrollment_seconds=0.3, speed_factors=(speed,)
    )
    specs = all_specs(planner)
    begin, end = ((first + 0.1) * 16_000 / speed, (last - 0.1) * 16_000 / speed)
    for spec in specs:
        for start in (spec.target_start, spec.enrollment_start):
            assert 0 <= start <= 8 * 16_000 / speed - 4_800
            assert start + 4_800 > begin and start < end
    assert len({spec.target_start for spec in specs}) > 5


@pytest.mark.parametrize(("gender_state", "same"), [("same", {True}), ("different", {False})])
def test_gender_state_relates_target_and_interferer(gender_state: Any, same: set[bool]) -> None:
    targets, others = voices("a", "fmfm"), voices("b", "ffmm")
    rows = rows_of(targets, others)
    specs = all_specs(MixturePlanner(targets, others, mixing_seed=0, gender_state=gender_state))
    genders = {
        rows[spec.target_id]["gender"] == rows[interferer(spec).utterance_id]["gender"]
        for spec in specs
    }
    assert genders == same
    everybody = all_specs(MixturePlanner(targets, others, mixing_seed=0))
    assert {
        rows[spec.target_id]["gender"] == rows[interferer(spec).utterance_id]["gender"]
        for spec in everybody
    } == {True, False}


def test_corpora_and_speakers_are_drawn_uniformly_whatever_their_size() -> None:
    targets = voices("a", "f" * 50)
    small = voices("b", "m")
    large = voices("c", "ffmm", takes=40)
    # One speaker of the large corpus talks ten times as much as the others.
    large = large.select([row for row in range(len(large)) if row < 40 or row % 10 == 0])
    planner = MixturePlanner(targets, datasets.concatenate_datasets([small, large]), mixing_seed=0)
    rows = rows_of(small, large)
    specs = all_specs(planner)
    corpora = Counter(interferer(spec).utterance_id.partition("/")[0] for spec in specs)
    assert corpora["b"] / len(specs) == pytest.approx(0.5, abs=0.05)
    speakers = Counter(rows[interferer(spec).utterance_id]["speaker_id"] for spec in specs)
    for number in range(4):
        assert speakers[f"c_{number}"] / len(specs) == pytest.approx(0.125, abs=0.03)


def test_a_plan_depends_on_seed_epoch_and_index_alone() -> None:
    targets = voices("a", "fmfm")
    settings: dict[str, Any] = {"snr_range_db": (-5.0, 5.0), "segment_seconds": 1.0}
    planner = MixturePlanner(targets, targets, mixing_seed=1, **settings)
    forwards = all_specs(planner)
    again = MixturePlanner(targets, targets, mixing_seed=1, **settings)
    backwards = [
        again.plan(epoch, index) for epoch in reversed(range(10)) for index in reversed(range(16))
    ]
    assert forwards == backwards[::-1]
    assert planner.plan(1, 3) != planner.plan(2, 3)
    assert planner.plan(0, 3) != MixturePlanner(targets, targets, mixing_seed=2, **settings).plan(
        0, 3
    )


def test_index_walks_over_the_targets() -> None:
    targets = voices("a", "fm")
    planner = MixturePlanner(targets, None, mixing_seed=0)
    assert len(planner) == len(targets)
    ids = [planner.plan(4, index).target_id for index in range(len(planner))]
    assert ids == targets["utterance_id"][:]
    with pytest.raises(IndexError):
        planner.plan(0, len(planner))


def test_the_snr_covers_its_range() -> None:
    targets = voices("a", "fm")
    planner = MixturePlanner(targets, targets, mixing_seed=0, snr_range_db=(-5.0, 10.0))
    drawn = [interferer(spec).snr_db or 0.0 for spec in all_specs(planner, 50)]
    assert -5.0 <= min(drawn) < -4.0
    assert 9.0 < max(drawn) <= 10.0
    fixed = MixturePlanner(targets, targets, mixing_seed=0, snr_range_db=(3.0, 3.0))
    assert {interferer(spec).snr_db for spec in all_specs(fixed)} == {3.0}


def test_longer_targets_are_cropped_and_shorter_ones_kept() -> None:
    long, short = voices("a", "fm", duration_seconds=5.0), voices("b", "fm", duration_seconds=1.0)
    targets = datasets.concatenate_datasets([long, short])
    planner = MixturePlanner(
        targets, targets, mixing_seed=0, segment_seconds=3.0, enrollment_seconds=1.05
    )
    rows = rows_of(targets)
    starts = set()
    for spec in all_specs(planner):
        total = round(rows[spec.target_id]["duration_seconds"] * 16_000)
        assert spec.num_samples == min(total, 48_000)
        assert 0 <= spec.target_start <= total - spec.num_samples
        starts.add(spec.target_start)
        total = round(rows[spec.enrollment_id]["duration_seconds"] * 16_000)
        assert spec.enrollment_num_samples == min(total, 16_800)
        assert 0 <= spec.enrollment_start <= total - spec.enrollment_num_samples
    assert len(starts) > 50


def test_a_longer_interferer_is_cropped_and_a_shorter_one_lies_inside() -> None:
    targets = voices("a", "fm", duration_seconds=3.0)
    interferers = datasets.concatenate_datasets(
        [voices("b", "fm", duration_seconds=1.0), voices("c", "fm", duration_seconds=8.0)]
    )
    rows = rows_of(interferers)
    offsets: dict[str, list[int]] = {"b": [], "c": []}
    for spec in all_specs(MixturePlanner(targets, interferers, mixing_seed=0), 30):
        length = round(rows[interferer(spec).utterance_id]["duration_seconds"] * 16_000)
        first, last = sorted((0, spec.num_samples - length))
        assert first <= interferer(spec).offset <= last
        offsets[interferer(spec).utterance_id[0]].append(interferer(spec).offset)
    assert min(offsets["b"]) >= 0
    assert max(offsets["b"]) > 25_000
    assert max(offsets["c"]) <= 0
    assert min(offsets["c"]) < -60_000


def test_trimmed_utterances_count_from_their_speech() -> None:
    targets = voices("a", "fm", duration_seconds=4.0)
    specs = all_specs(MixturePlanner(targets, targets, mixing_seed=0, trim_silence=True))
    assert {spec.num_samples for spec in specs} == {3 * 16_000}
    assert {spec.enrollment_num_samples for spec in specs} == {3 * 16_000}
    assert all(spec.trim_silence for spec in specs)


def test_the_enrollment_has_the_speed_of_the_target() -> None:
    targets = voices("a", "fm")
    rows = rows_of(targets)
    planner = MixturePlanner(targets, targets, mixing_seed=0, speed_factors=(0.9, 1.0, 1.1))
    specs = all_specs(planner, 20)
    assert {spec.target_speed for spec in specs} == {0.9, 1.0, 1.1}
    assert len({(spec.target_speed, interferer(spec).speed) for spec in specs}) == 9
    for spec in specs:
        for utterance_id, num_samples in (
            (spec.target_id, spec.num_samples),
            (spec.enrollment_id, spec.enrollment_num_samples),
        ):
            seconds = rows[utterance_id]["duration_seconds"] / spec.target_speed
            assert num_samples == pytest.approx(seconds * 16_000, abs=1)
    assert samples_at_speed(1000, 1.0) == 1000


def test_a_speaker_without_another_neutral_utterance_is_named() -> None:
    corpus = voices("a", "fm")
    with pytest.raises(
        CorpusError, match=r"1 of the target speakers have no neutral utterance.*: a_1;"
    ):
        MixturePlanner(corpus.select([0, 1, 2, 3, 6, 7]), None, mixing_seed=0)
    # The only neutral utterance is a target itself: it cannot enroll for itself.
    with pytest.raises(CorpusError, match=r"besides the target itself: a_1"):
        MixturePlanner(corpus.select([0, 1, 2, 3, 4, 6, 7]), None, mixing_seed=0)
    # It can for the others, when it is no target.
    MixturePlanner(corpus.select([2, 6, 7]), None, corpus.select([0, 4]), mixing_seed=0)


def test_one_speaker_alone_cannot_be_interfered_with() -> None:
    corpus = voices("a", "f")
    with pytest.raises(CorpusError, match=r"no other speaker to interfere: a_0.*have 1 speakers"):
        MixturePlanner(corpus, corpus, mixing_seed=0)


def test_an_impossible_gender_state_names_who_cannot_have_it() -> None:
    with pytest.raises(
        CorpusError, match=r"1 of the target speakers .* of same gender to interfere: a_2"
    ):
        MixturePlanner(voices("a", "ffm"), voices("b", "f"), mixing_seed=0, gender_state="same")
    unknown = utterances(
        {"utterance_id": f"x/{take}", "speaker_id": "x_0", "gender": ""} for take in range(2)
    )
    with pytest.raises(CorpusError, match=r"needs the gender of every target speaker.*x_0"):
        MixturePlanner(unknown, voices("b", "f"), mixing_seed=0, gender_state="different")


def test_settings_out_of_range_and_unknown_ones_are_named() -> None:
    corpus = voices("a", "fm")
    with pytest.raises(ValueError, match="enrollment_seconds: expected a number above 0"):
        MixturePlanner(corpus, corpus, enrollment_seconds=-1.0)
    with pytest.raises(ValueError, match="unknown key 'gender_stat': did you mean 'gender_state'"):
        MixturePlanner(corpus, corpus, gender_stat="same")


def test_absent_targets_need_interferers() -> None:
    with pytest.raises(ValueError, match=r"absent_share: 0\.5 of the mixtures would be empty"):
        MixturePlanner(voices("a", "fm"), None, mixing_seed=0, absent_share=0.5)


def test_no_targets_and_repeated_utterances_are_refused() -> None:
    corpus = voices("a", "fm")
    with pytest.raises(CorpusError, match="no target utterances"):
        MixturePlanner(corpus.select([]), corpus, mixing_seed=0)
    with pytest.raises(CorpusError, match="utterance ids repeat"):
        MixturePlanner(corpus, datasets.concatenate_datasets([corpus, corpus]), mixing_seed=0)


def test_drawing_does_not_scan_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each draw looks at one speaker, not at all rows of a large corpus."""
    corpus = voices("a", "fm" * 100, takes=100)
    planner = MixturePlanner(corpus, corpus, mixing_seed=0, gender_state="different")

    def no_scan(column: Any) -> Any:
        raise AssertionError("the whole column was walked over")

    planner.plan(0, 7)
    assert planner.enrollments is planner.interferers is planner.targets
    monkeypatch.setattr(StringColumn, "__iter__", no_scan)
    monkeypatch.setattr(pd.Categorical, "__iter__", no_scan)
    ids = {interferer(planner.plan(epoch, 7)).utterance_id for epoch in range(50)}
    assert len(ids) > 45  # of 10,000 that it may be
