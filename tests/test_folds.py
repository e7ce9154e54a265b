"""Folds: no speaker is in two splits, and every session is tested once."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from corpus_layouts import utterances, write_ravdess

from data_builders import load_corpus
from data_builders.corpora.folds import split_by_name, split_by_session, split_by_speaker
from data_builders.load import split_corpus
from data_builders.schema import CorpusError


def corpus_of_sessions(num_sessions: int = 12) -> datasets.Dataset:
    """One man and one woman a session, two utterances each, and a voice without a session."""
    rows: list[dict[str, object]] = [
        {
            "utterance_id": f"x/{session}{gender}{take}",
            "speaker_id": f"x_{session}{gender}",
            "gender": gender,
            "session": str(session),
        }
        for session in range(1, num_sessions + 1)
        for gender in ("female", "male")
        for take in range(2)
    ]
    rows.append({"utterance_id": "x/pool", "speaker_id": "x_pool"})
    return utterances(rows)


def corpus_of_speakers(num_female: int, num_male: int) -> datasets.Dataset:
    counts = {"female": num_female, "male": num_male}
    return utterances(
        {
            "utterance_id": f"x/{gender}{number}{take}",
            "speaker_id": f"x_{gender}{number}",
            "gender": gender,
        }
        for gender, count in counts.items()
        for number in range(count)
        for take in range(3)
    )


def sessions_of(splits: dict[str, datasets.Dataset]) -> dict[str, set[str]]:
    return {name: set(split["session"][:]) for name, split in splits.items()}


def test_each_fold_tests_one_session_and_validates_on_the_next() -> None:
    corpus = corpus_of_sessions()
    everything = {str(session) for session in range(1, 13)}
    for fold in range(1, 13):
        sessions = sessions_of(split_by_session(corpus, fold))
        assert sessions["test"] == {str(fold)}
        assert sessions["validation"] == {str(fold % 12 + 1)}
        assert sessions["train"] == everything - sessions["test"] - sessions["validation"]


def test_the_protocol_of_the_paper_trains_on_all_but_the_test_session() -> None:
    splits = split_by_session(corpus_of_sessions(5), fold=2, protocol="paper")
    assert len(splits["validation"]) == 0
    assert sessions_of(splits)["test"] == {"2"}
    assert sessions_of(splits)["train"] == {"1", "3", "4", "5"}


def test_impossible_folds_name_the_possible_ones() -> None:
    with pytest.raises(CorpusError, match="fold 0 does not exist: use 1 to 5"):
        split_by_session(corpus_of_sessions(5), fold=0)
    with pytest.raises(CorpusError, match="fold 6 does not exist: use 1 to 5"):
        split_by_session(corpus_of_sessions(5), fold=6)
    with pytest.raises(CorpusError, match="needs at least 3 sessions, the corpus has 2"):
        split_by_session(corpus_of_sessions(2), fold=1)
    assert len(split_by_session(corpus_of_sessions(2), fold=1, protocol="paper")["train"]) == 4


@pytest.mark.parametrize(("num_female", "num_male"), [(2, 1), (3, 1), (5, 5), (14, 14), (20, 3)])
def test_every_speaker_is_in_one_split(num_female: int, num_male: int) -> None:
    corpus = corpus_of_speakers(num_female, num_male)
    splits = split_by_speaker(corpus)
    speakers = [set(split["speaker_id"][:]) for split in splits.values()]
    assert all(speakers)
    assert len(set.union(*speakers)) == sum(len(part) for part in speakers)
    assert len(set.union(*speakers)) == num_female + num_male
    assert sum(len(split) for split in splits.values()) == len(corpus)


def test_speakers_are_held_out_in_both_genders() -> None:
    splits = split_by_speaker(corpus_of_speakers(5, 5))
    for name, expected in {"train": 6, "validation": 2, "test": 2}.items():
        genders = dict(zip(splits[name]["speaker_id"], splits[name]["gender"], strict=True))
        assert len(genders) == expected
        assert set(genders.values()) == {"female", "male"}


def test_speakers_are_assigned_alike_in_any_order_of_rows() -> None:
    corpus = corpus_of_speakers(5, 5)
    backwards = corpus.select(range(len(corpus) - 1, -1, -1))
    for name, split in split_by_speaker(corpus).items():
        same = split_by_speaker(backwards)[name]
        assert set(same["utterance_id"][:]) == set(split["utterance_id"][:])
    tests = {frozenset(split_by_speaker(corpus, seed)["test"]["speaker_id"]) for seed in range(8)}
    assert len(tests) > 1


def test_two_speakers_cannot_be_split() -> None:
    with pytest.raises(CorpusError, match="at least three speakers, the corpus has 2"):
        split_by_speaker(corpus_of_speakers(1, 1))


def test_a_corpus_is_split_by_what_it_has(tmp_path: Path) -> None:
    write_ravdess(tmp_path / "ravdess", emotions=["01"])
    ravdess = load_corpus("ravdess", tmp_path / "ravdess", tmp_path / "cache")
    assert sessions_of(split_corpus(ravdess, fold=3))["test"] == {"3"}
    without_sessions = corpus_of_speakers(5, 5)
    splits = [split_corpus(without_sessions, fold)["test"]["utterance_id"][:] for fold in (1, 2)]
    assert splits[0] == splits[1]
    assert splits[0] == split_by_speaker(without_sessions)["test"]["utterance_id"][:]


def test_speakers_are_held_out_by_their_names_whatever_the_folds() -> None:
    corpus = split_by_name(corpus_of_sessions(), ["*_7*", "x_1female"], ["x_2*"])
    for fold in (1, 5):
        splits = split_corpus(corpus, fold=fold, protocol="paper")
        held_out = {split: {*splits[split]["speaker_id"][:]} for split in ("test", "validation")}
        assert held_out["test"] == {"x_7female", "x_7male", "x_1female"}
        assert held_out["validation"] == {"x_2female", "x_2male"}
        # All others are trained on, who belong to no session too.
        assert sum(len(part) for part in splits.values()) == len(corpus)
    again = split_by_name(corpus, ["x_pool"])
    assert {*split_corpus(again)["test"]["speaker_id"][:]} == {"x_pool"}


@pytest.mark.parametrize(
    ("patterns", "reason"),
    [
        ({"test_speakers": ["y*"]}, "no speaker fits 'y\\*'; they are called x_10female"),
        ({"test_speakers": ["x_1*"], "validation_speakers": ["*male"]}, "is of test_speakers and"),
    ],
)
def test_patterns_that_fit_nobody_or_somebody_twice_are_refused(
    patterns: dict[str, list[str]], reason: str
) -> None:
    with pytest.raises(CorpusError, match=reason):
        split_by_name(corpus_of_sessions(), **patterns)
