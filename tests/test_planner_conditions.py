"""Plans of more than two speakers, and of what else may happen in a mixture."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import datasets
import numpy as np
import pytest
from corpus_layouts import utterances
from planned_voices import all_specs, interferer, rows_of, voices

from data_builders import MixturePlanner, MixtureSpec
from data_builders.schema import CorpusError


def speakers_of(spec: MixtureSpec) -> list[str]:
    """Speaker ids as `voices` makes them: "a/0_2" is said by a_0."""
    ids = [spec.target_id, *(one.utterance_id for one in spec.interferers)]
    return [name.rpartition("_")[0].replace("/", "_") for name in ids]


@pytest.mark.parametrize("gender_state", ["any", "same", "different"])
def test_everybody_in_a_mixture_of_five_is_somebody_else(gender_state: Any) -> None:
    targets, others = voices("a", "ffmm" * 3), voices("b", "fmfmfmfm")
    both = datasets.concatenate_datasets([targets, others])
    rows = rows_of(both)
    planner = MixturePlanner(
        targets, both, mixing_seed=0, num_speakers=5, gender_state=gender_state
    )
    for spec in all_specs(planner):
        assert len(set(speakers_of(spec))) == 5
        target_gender = rows[spec.target_id]["gender"]
        genders = {rows[one.utterance_id]["gender"] for one in spec.interferers}
        if gender_state != "any":
            assert genders == {
                gender
                for gender in ("female", "male")
                if (gender == target_gender) == (gender_state == "same")
            }


def test_every_other_speaker_is_as_likely_however_many_are_taken() -> None:
    corpus = voices("a", "fmfmf", takes=2)
    specs = all_specs(MixturePlanner(corpus, corpus, mixing_seed=0, num_speakers=4), 60)
    absent = Counter(
        ({f"a_{number}" for number in range(5)} - set(speakers_of(spec))).pop()
        for spec in specs
        if spec.target_id == "a/2_0"
    )
    assert absent.keys() == {"a_0", "a_1", "a_3", "a_4"}
    assert min(absent.values()) >= 8


@pytest.mark.parametrize(("draw", "small_share"), [("corpus", 1 / 2), ("speaker", 1 / 6)])
def test_a_small_corpus_interferes_as_often_as_a_large_one_or_as_its_speakers_are(
    draw: Any, small_share: float
) -> None:
    pool = datasets.concatenate_datasets([voices("small", "f"), voices("large", "fmfmf")])
    planner = MixturePlanner(voices("x", "fm"), pool, interferer_draw=draw)
    drawn = Counter(interferer(spec).utterance_id.split("_")[0] for spec in all_specs(planner, 150))
    total = sum(drawn.values())
    assert abs(drawn["small/0"] / total - small_share) < 4 * (small_share / total) ** 0.5
    # The speakers of the large corpus are as likely as each other.
    assert max(drawn.values()) < 1.4 * np.mean(
        [n for name, n in drawn.items() if name[0] == "l"]
    ) or (draw == "corpus")
    with pytest.raises(ValueError, match="interferer_draw"):
        MixturePlanner(voices("x", "fm"), pool, interferer_draw="utterance")


def test_voices_of_the_targets_own_corpus_interfere_where_there_are_any() -> None:
    pool = datasets.concatenate_datasets([voices("a", "fmf"), voices("b", "fm"), voices("c", "m")])
    for gender_state in ("any", "different"):
        planner = MixturePlanner(
            pool, pool, interferer_draw="own_corpus", gender_state=gender_state
        )
        drawn: dict[str, set[str]] = {}
        for spec in all_specs(planner, 40):
            corpora = drawn.setdefault(spec.target_id[0], set())
            corpora.add(interferer(spec).utterance_id[0])
        # The only voice of its corpus has no other there.
        assert drawn == {"a": {"a"}, "b": {"b"}, "c": {"a", "b"}}


def test_a_range_of_speakers_is_drawn_uniformly() -> None:
    corpus = voices("a", "fmfmf")
    specs = all_specs(MixturePlanner(corpus, corpus, mixing_seed=0, num_speakers=(2, 4)), 30)
    counts = Counter(1 + len(spec.interferers) for spec in specs)
    assert counts.keys() == {2, 3, 4}
    assert all(count / len(specs) == pytest.approx(1 / 3, abs=0.06) for count in counts.values())


def test_normal_snrs_have_their_mean_and_spread() -> None:
    corpus = voices("a", "fmfm")
    planner = MixturePlanner(
        corpus, corpus, mixing_seed=0, snr_distribution="normal", snr_mean_std_db=(2.0, 4.0)
    )
    drawn = [interferer(spec).snr_db or 0.0 for spec in all_specs(planner, 60)]
    assert np.mean(drawn) == pytest.approx(2.0, abs=0.5)
    assert np.std(drawn) == pytest.approx(4.0, abs=0.4)


def test_interferers_have_the_wanted_emotions_and_languages() -> None:
    targets = voices("a", "fm")
    others = voices("b", "fmfm").map(
        lambda row: {"language": "de" if row["speaker_id"] < "b_2" else "en-US"}
    )
    rows = rows_of(others)

    def heard(**keywords: Any) -> set[tuple[str, str]]:
        specs = all_specs(MixturePlanner(targets, others, mixing_seed=0, **keywords))
        ids = [interferer(spec).utterance_id for spec in specs]
        return {(rows[name]["emotion"], rows[name]["language"]) for name in ids}

    assert heard(interferer_emotions=["angry"]) == {("angry", "de"), ("angry", "en-US")}
    assert {language for _, language in heard(interferer_languages=["en"])} == {"en-US"}
    assert heard(interferer_emotions=["happy"], interferer_languages=["DE"]) == {("happy", "de")}
    with pytest.raises(CorpusError, match=r"interferer_emotions \['joy'\].*the emotions \['angry'"):
        heard(interferer_emotions=["joy"])
    with pytest.raises(CorpusError, match=r"the languages \['de', 'en-US'\]"):
        heard(interferer_languages=["d"])


def test_shares_of_clean_and_absent_targets_leave_the_other_draws_alone() -> None:
    corpus = voices("a", "fmfm")
    settings: dict[str, Any] = {"mixing_seed": 3, "snr_range_db": (-5.0, 5.0)}
    usual = all_specs(MixturePlanner(corpus, corpus, **settings), 40)
    mixed = all_specs(
        MixturePlanner(corpus, corpus, clean_share=0.25, absent_share=0.25, **settings), 40
    )
    clean = [spec for spec in mixed if not spec.interferers]
    absent = [spec for spec in mixed if spec.target_absent]
    assert len(clean) / len(mixed) == pytest.approx(0.25, abs=0.05)
    assert len(absent) / len(mixed) == pytest.approx(0.25, abs=0.05)
    assert not any(spec.target_absent for spec in clean)
    for before, after in zip(usual, mixed, strict=True):
        assert before == replace(after, interferers=before.interferers, target_absent=False)
        assert after.interferers in ((), before.interferers)


def test_a_share_of_the_examples_stands_in_rooms_and_leaves_the_other_draws_alone() -> None:
    corpus = voices("a", "fmfm")
    usual = all_specs(MixturePlanner(corpus, corpus), 40)
    shared = all_specs(
        MixturePlanner(corpus, corpus, reverberation="direct", reverberation_share=0.3), 40
    )
    in_rooms = [spec for spec in shared if spec.room is not None]
    assert len(in_rooms) / len(shared) == pytest.approx(0.3, abs=0.06)
    assert usual == [replace(spec, room=None) for spec in shared]
    always = all_specs(MixturePlanner(corpus, corpus, reverberation="direct"), 2)
    assert all(spec.room is not None for spec in always)


def test_too_few_speakers_for_the_mixture_are_an_error_at_once() -> None:
    corpus = voices("a", "fmfmf")
    MixturePlanner(corpus, corpus, mixing_seed=0, num_speakers=5)
    with pytest.raises(CorpusError, match=r"4 of .* fewer than 4 other speakers.*lower num_speak"):
        MixturePlanner(
            corpus.select(range(16)), voices("a", "fmfm"), mixing_seed=0, num_speakers=(2, 5)
        )
    with pytest.raises(CorpusError, match=r"2 of .* fewer than 3 other speakers of same gender"):
        MixturePlanner(
            voices("b", "fm"),
            voices("a", "ffmm"),
            mixing_seed=0,
            num_speakers=4,
            gender_state="same",
        )


def test_utterances_without_length_are_named() -> None:
    corpus = voices("a", "fm", duration_seconds=0.4)
    MixturePlanner(corpus, None, mixing_seed=0)
    with pytest.raises(CorpusError, match=r"8 utterances have no length, such as a/0_0: check sp"):
        MixturePlanner(corpus, None, mixing_seed=0, trim_silence=True)
    silent = utterances(
        {"utterance_id": f"a/{take}", "speaker_id": "a_0", "duration_seconds": 0.0}
        for take in range(2)
    )
    with pytest.raises(CorpusError, match="check duration_seconds"):
        MixturePlanner(silent, None, mixing_seed=0)
