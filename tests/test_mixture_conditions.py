"""Waveforms of several speakers, absent targets, noise, rooms and the loudness law."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from corpus_layouts import burst, write_corpora
from mixture_bytes import digest, recorded, tiny_mixtures
from torch.utils.data import DataLoader

from data_builders import MixtureSpec
from data_builders.audio import read_audio
from data_builders.mixtures.loudness import loudness_lufs
from data_builders.mixtures.mixing import mean_power, mix, snr_gain
from data_builders.mixtures.noise import NoiseFolder
from data_builders.mixtures.rooms import reflections
from data_builders.schema import IGNORED_LABEL, CorpusError

EVERYTHING: dict[str, Any] = {
    "num_speakers": (2, 4),
    "snr_range_db": (-5.0, 5.0),
    "speed_factors": (0.9, 1.0, 1.1),
    "segment_seconds": 0.6,
    "enrollment_seconds": 0.4,
    "trim_silence": True,
    "reverberation": "reverberant",
    "clean_share": 0.2,
    "absent_share": 0.2,
}


@pytest.mark.parametrize("num_speakers", [2, 3, 5])
def test_a_mixture_is_the_sum_of_all_speakers_at_their_snr(
    num_speakers: int, corpora: Path
) -> None:
    mixtures = tiny_mixtures(corpora, num_speakers=num_speakers, snr_range_db=(-5.0, 5.0))
    for index in range(0, len(mixtures), 5):
        example, spec = mixtures[index], mixtures.plan(index)
        target = recorded(mixtures, spec.target_id)
        np.testing.assert_array_equal(example["target"], target)
        np.testing.assert_array_equal(example["enrollment"], recorded(mixtures, spec.enrollment_id))
        mixture, power = target, 0.0
        for one in spec.interferers:
            samples = recorded(mixtures, one.utterance_id)
            gain = snr_gain(mean_power(target), mean_power(samples), one.snr_db or 0.0)
            mixture = mix(mixture, samples * np.float32(gain), one.offset)
            power += mean_power(samples) * gain**2
        np.testing.assert_array_equal(example["mixture"], mixture)
        assert example["snr_db"] == pytest.approx(10 * np.log10(mean_power(target) / power))
        assert example["interferer_id"].split("+") == [one.utterance_id for one in spec.interferers]
        corpora_heard = {one.utterance_id.partition("/")[0] for one in spec.interferers}
        assert example["interferer_corpus"] == "+".join(sorted(corpora_heard))


@pytest.mark.parametrize("segment_seconds", [None, 0.7])
def test_others_talk_alone_in_the_pauses_of_the_target(
    segment_seconds: float | None, corpora: Path
) -> None:
    keywords = {"segment_seconds": segment_seconds, "target_pause_range_seconds": (0.2, 0.5)}
    mixtures = tiny_mixtures(corpora, **keywords)
    before, alone = set(), 0.0
    for index in range(0, len(mixtures), 3):
        example, spec = mixtures[index], mixtures.plan(index)
        whole = np.pad(recorded(mixtures, spec.target_id), (8_000, 8_000))
        part = whole[8_000 + spec.target_start :][: spec.num_samples]
        np.testing.assert_array_equal(example["target"], part)
        if segment_seconds is None:
            pauses = -spec.target_start, spec.num_samples + spec.target_start - len(whole) + 16_000
            assert all(3_200 <= pause <= 8_000 for pause in pauses)
            assert example["snr_db"] == 0  # of the utterance, without its pauses
        assert spec.num_samples <= (segment_seconds or 99) * 16_000
        assert len(example["mixture"]) == spec.num_samples
        before.add(spec.target_start)
        alone += float(np.abs(example["mixture"][: max(-spec.target_start, 0)]).sum())
    assert len(before) > 2 and alone > 0


def test_nobody_pauses_where_nobody_else_talks(corpora: Path) -> None:
    mixtures = tiny_mixtures(corpora, clean_share=1.0, target_pause_range_seconds=(0.2, 0.5))
    for index in range(0, len(mixtures), 5):
        example, spec = mixtures[index], mixtures.plan(index)
        np.testing.assert_array_equal(example["mixture"], recorded(mixtures, spec.target_id))


def test_a_room_is_heard_in_a_pause(corpora: Path) -> None:
    keywords = {"interferers": None, "reverberation": "reverberant"}
    mixtures = tiny_mixtures(corpora, target_pause_range_seconds=(0.2, 0.5), **keywords)
    example, spec = mixtures[0], mixtures.plan(0)
    assert not example["mixture"][: -spec.target_start].any()
    end = len(recorded(mixtures, spec.target_id)) - spec.target_start
    assert 0 < np.abs(example["mixture"][end:]).max() < 0.5 * np.abs(example["mixture"][:end]).max()


def test_gender_states_that_differ_are_mixed(corpora: Path) -> None:
    ravdess = {"interferers": "ravdess", "num_speakers": 3}
    mixtures = tiny_mixtures(corpora, **ravdess)
    states = {mixtures[index]["gender_state"] for index in range(len(mixtures))}
    assert {"mixed", "different"} <= states <= {"mixed", "different", "same"}
    apart = tiny_mixtures(corpora, **ravdess, gender_state="different")
    assert {apart[index]["gender_state"] for index in range(len(apart))} == {"different"}


def test_an_absent_target_leaves_the_interferers_and_no_label(corpora: Path) -> None:
    present = tiny_mixtures(corpora, num_speakers=3)
    absent = tiny_mixtures(corpora, num_speakers=3, absent_share=1.0)
    for index in range(6):
        before, after = present[index], absent[index]
        assert after["target_absent"] and not before["target_absent"]
        assert not after["target"].any() and after["target"].shape == before["target"].shape
        np.testing.assert_allclose(
            after["mixture"], before["mixture"] - before["target"], atol=1e-6
        )
        np.testing.assert_array_equal(after["enrollment"], before["enrollment"])
        assert after["label"] == IGNORED_LABEL != before["label"]
        assert after["speaker_id"] == before["speaker_id"]
        assert np.isnan(after["snr_db"])


def test_noise_lies_under_the_mixture_at_its_snr(corpora: Path) -> None:
    usual = tiny_mixtures(corpora)
    noisy = tiny_mixtures(corpora, noise_dir=corpora / "noise", noise_snr_range_db=(3.0, 9.0))
    folder = NoiseFolder(corpora / "noise", corpora / "cache")
    paths = set()
    for index in range(12):
        before, after, spec = usual[index], noisy[index], noisy.plan(index)
        assert spec.noise is not None
        paths.add(spec.noise.path)
        noise = folder.read(spec.noise.path, spec.noise.start, spec.num_samples)
        gain = snr_gain(
            mean_power(before["target"]), folder.power(spec.noise.path), spec.noise.snr_db
        )
        expected = before["mixture"] + noise * np.float32(gain)
        np.testing.assert_array_equal(after["mixture"], expected)
        np.testing.assert_array_equal(after["target"], before["target"])
        assert 3.0 <= after["noise_snr_db"] == spec.noise.snr_db <= 9.0
        assert np.isnan(before["noise_snr_db"])
        assert after["snr_db"] == before["snr_db"]
    assert paths == {"0.wav", "1.wav"}


def test_in_a_room_the_target_is_the_dry_or_the_reverberant_signal(corpora: Path) -> None:
    usual = tiny_mixtures(corpora)
    direct = tiny_mixtures(corpora, reverberation="direct")
    wet = tiny_mixtures(corpora, reverberation="reverberant")
    for index in range(6):
        before, after, reverberant = usual[index], direct[index], wet[index]
        spec = direct.plan(index)
        assert spec.room is not None
        np.testing.assert_array_equal(after["target"], before["target"])
        np.testing.assert_array_equal(after["mixture"], reverberant["mixture"])
        assert after["snr_db"] == before["snr_db"]
        # The reverberant target is the dry one and, from the first arrival on, its reflections.
        reflected = np.convolve(before["target"], reflections(spec.room, 0))
        expected = before["target"] + reflected[: spec.num_samples]
        np.testing.assert_allclose(reverberant["target"], expected, atol=1e-6)
        assert mean_power(expected - before["target"]) > 0.02 * mean_power(before["target"])
        assert mean_power(after["mixture"] - before["mixture"]) > 0


def test_a_cropped_target_hears_the_room_of_what_was_said_before(corpora: Path) -> None:
    room = {"reverberation": "reverberant", "interferers": None}
    cropped = tiny_mixtures(corpora, segment_seconds=0.3, **room)
    for index in range(8):
        spec = cropped.plan(index)
        assert spec.room is not None
        dry = recorded(cropped, spec.target_id)
        heard = dry + np.convolve(dry, reflections(spec.room, 0))[: len(dry)]
        part = slice(spec.target_start, spec.target_start + spec.num_samples)
        np.testing.assert_allclose(cropped[index]["target"], heard[part], atol=1e-6)


def test_the_reverberation_of_an_interferer_outlasts_it(corpora: Path) -> None:
    mixtures = tiny_mixtures(corpora, reverberation="direct", absent_share=1.0)
    tails = 0
    for index in range(len(mixtures)):
        spec = mixtures.plan(index)
        one = spec.interferers[0]
        end = one.offset + len(recorded(mixtures, one.utterance_id))
        if end < spec.num_samples - 100:
            tails += 1
            # The recordings end in silence: only the tail is left.
            assert mixtures[index]["mixture"][end : end + 100].any()
    assert tails > 3


def test_the_loudness_law_gives_librimix_levels(corpora: Path) -> None:
    mixtures = tiny_mixtures(corpora, snr_distribution="loudness", num_speakers=3)
    loudnesses = []
    for index in range(len(mixtures)):
        example, spec = mixtures[index], mixtures.plan(index)
        assert np.abs(example["mixture"]).max() <= 0.9 + 1e-6
        samples = recorded(mixtures, spec.target_id)
        np.testing.assert_array_equal(example["target"], samples * np.float32(spec.target_gain))
        power = mean_power(samples) * spec.target_gain**2
        others = 0.0
        loudnesses.append(loudness_lufs(example["target"]))
        for one in spec.interferers:
            assert one.snr_db is None and one.gain is not None
            others += mean_power(recorded(mixtures, one.utterance_id)) * one.gain**2
            heard = recorded(mixtures, one.utterance_id) * np.float32(one.gain)
            loudnesses.append(loudness_lufs(heard))
        assert example["snr_db"] == pytest.approx(10 * np.log10(power / others))
    assert -33.01 < min(loudnesses) < -32
    assert -26 < max(loudnesses) < -24.99


def test_the_loudness_law_turns_everybody_down_before_it_clips(tmp_path: Path) -> None:
    root = write_corpora(tmp_path)
    for path in (root / "ravdess").rglob("*.flac"):
        # A click makes the peak, noise below it the loudness.
        samples = 0.02 * burst(len(path.name), active_seconds=1.0) / 0.1
        samples[8000] = 0.9
        soundfile.write(path, samples, 16_000)
    mixtures = tiny_mixtures(root, interferers="ravdess", snr_distribution="loudness")
    peaks = [float(np.abs(mixtures[index]["mixture"]).max()) for index in range(8)]
    assert max(peaks) == pytest.approx(0.9, abs=1e-5)


@pytest.mark.parametrize("snr_distribution", ["normal", "loudness"])
def test_a_record_alone_gives_the_same_bytes_again(snr_distribution: str, corpora: Path) -> None:
    keywords = {**EVERYTHING, "snr_distribution": snr_distribution, "noise_dir": corpora / "noise"}
    mixtures = tiny_mixtures(corpora, **keywords)
    mixtures.set_epoch(4)
    examples = [mixtures[index] for index in range(12)]
    # Another seed, and nothing that the first one has measured.
    other = tiny_mixtures(corpora, noise_dir=corpora / "noise", mixing_seed=77)
    for example in reversed(examples):
        spec = MixtureSpec.from_dict(json.loads(json.dumps(example["spec"])))
        assert digest(other.render(spec)) == digest(example)
    assert any(example["target_absent"] for example in examples)
    assert any(not example["interferer_id"] for example in examples)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_what_workers_measure_for_the_loudness_law_changes_no_byte(corpora: Path) -> None:
    found = []
    for num_workers in (0, 1, 4):
        mixtures = tiny_mixtures(corpora, snr_distribution="loudness", **EVERYTHING)
        mixtures.set_epoch(3)
        loader = DataLoader(mixtures, batch_size=4, num_workers=num_workers, collate_fn=list)
        found.append([digest(example) for batch in loader for example in batch])
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == len(mixtures)


def test_records_of_other_recordings_are_refused_by_name(corpora: Path) -> None:
    keywords = {"noise_dir": corpora / "noise", "reverberation": "direct"}
    spec = tiny_mixtures(corpora, **keywords).plan(0)
    with pytest.raises(CorpusError, match="has noise: give its noise_dir"):
        tiny_mixtures(corpora).render(spec)
    with pytest.raises(CorpusError, match="has interferers, this dataset none"):
        tiny_mixtures(corpora, interferers=None).render(spec)
    with pytest.raises(CorpusError, match=f"{spec.target_id} is not among the utterances"):
        tiny_mixtures(corpora, split="test").render(spec)


def test_a_silent_source_is_named(corpora: Path, tmp_path: Path) -> None:
    root = write_corpora(tmp_path)
    mixtures = tiny_mixtures(root)
    spec = mixtures.plan(0)
    row = mixtures.planner.targets.row_of_id[spec.target_id]
    path = Path(mixtures.planner.targets.paths[row])
    soundfile.write(path, np.zeros(len(read_audio(path))), 16_000)  # after the scan
    with pytest.raises(CorpusError, match=rf"{path.name} is silent, so that no SNR can be reached"):
        mixtures.render(spec)
