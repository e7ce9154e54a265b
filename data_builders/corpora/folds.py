"""Folds: which speakers are trained on, which choose the checkpoint, and which are tested on."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Literal

import datasets
import numpy as np

from data_builders.schema import GENDERS, CorpusError

Protocol = Literal["validated", "paper"]
SPLITS = ("train", "validation", "test")
HELD_OUT_SHARE = 0.2
# A column that a corpus may have: the only split in which the sentence of an utterance may be.
SENTENCE_COLUMN = "sentence_split"


def split_by_session(
    corpus: datasets.Dataset, fold: int, protocol: Protocol = "validated"
) -> dict[str, datasets.Dataset]:
    """Leaves one session out for the test, the one at place `fold` (paper, section III-A).

    "validated" also keeps the next session (cyclic) for validation; "paper" trains on all but the
    test session and validates on none. Utterances without a session belong to no split. Where the
    corpus has the column `SENTENCE_COLUMN`, a split keeps its own sentences alone; those of
    validation are trained on where nothing is validated. Raises `CorpusError` where there are too
    few sessions, or no such fold.
    """
    session_of_row: list[str] = corpus["session"][:]
    sessions = sorted({*session_of_row} - {""}, key=lambda name: (len(name), name))
    needed = 3 if protocol == "validated" else 2
    if len(sessions) < needed:
        raise CorpusError(
            f"protocol {protocol!r} needs at least {needed} sessions, the corpus has "
            f"{len(sessions)}: {sessions}"
        )
    if not 1 <= fold <= len(sessions):
        raise CorpusError(f"fold {fold} does not exist: use 1 to {len(sessions)}")
    split_of_session = dict.fromkeys(sessions, "train")
    if protocol == "validated":
        split_of_session[sessions[fold % len(sessions)]] = "validation"
    split_of_session[sessions[fold - 1]] = "test"
    split_of_row = [split_of_session.get(session, "") for session in session_of_row]
    return take_splits(corpus, _hold_sentences_apart(corpus, split_of_row, protocol == "validated"))


def split_by_speaker(corpus: datasets.Dataset, seed: int = 0) -> dict[str, datasets.Dataset]:
    """Holds speakers out: about 60 % train, 20 % validation, 20 % test, genders alternating.

    The seed decides who. Raises `CorpusError` where there are fewer than three speakers.
    """
    speaker_of_row: list[str] = corpus["speaker_id"][:]
    gender_of_speaker = dict(zip(speaker_of_row, corpus["gender"][:], strict=True))
    if len(gender_of_speaker) < len(SPLITS):
        raise CorpusError(
            f"three splits need at least three speakers, the corpus has {len(gender_of_speaker)}: "
            f"{sorted(gender_of_speaker)}; add speakers, or a column `split` to a table of your own"
        )
    speakers = _alternate_genders(gender_of_speaker, np.random.default_rng(seed))
    held_out = max(1, round(HELD_OUT_SHARE * len(speakers)))
    split_of_speaker = dict.fromkeys(speakers, "train")
    split_of_speaker.update(dict.fromkeys(speakers[:held_out], "test"))
    split_of_speaker.update(dict.fromkeys(speakers[held_out : 2 * held_out], "validation"))
    return take_splits(corpus, [split_of_speaker[speaker] for speaker in speaker_of_row])


def split_by_name(
    corpus: datasets.Dataset,
    test_speakers: Sequence[str] = (),
    validation_speakers: Sequence[str] = (),
) -> datasets.Dataset:
    """Holds out the speakers whose names fit a pattern, whatever the own folds of the corpus.

    Patterns are those of `fnmatch`, such as "*7". Returns the utterances with a column `split`,
    which decides; "" belongs to none, see `SENTENCE_COLUMN` in `split_by_session`. Raises
    `CorpusError` where a pattern fits nobody, or somebody is held out for both.
    """
    speaker_of_row: list[str] = corpus["speaker_id"][:]
    names = sorted({*speaker_of_row})
    split_of_speaker = dict.fromkeys(names, "train")
    for split, patterns in (("test", test_speakers), ("validation", validation_speakers)):
        for pattern in patterns:
            found = fnmatch.filter(names, pattern)
            if not found:
                raise CorpusError(
                    f"{split}_speakers: no speaker fits {pattern!r}; they are called {names[0]}, "
                    f"{names[-1]}, ..."
                )
            for name in found:
                if split_of_speaker[name] not in ("train", split):
                    raise CorpusError(
                        f"{name} is of test_speakers and of validation_speakers: name each "
                        "speaker once"
                    )
                split_of_speaker[name] = split
    if "split" in corpus.column_names:
        corpus = corpus.remove_columns("split")
    split_of_row = _hold_sentences_apart(
        corpus,
        [split_of_speaker[name] for name in speaker_of_row],
        validated=bool(validation_speakers),
    )
    return corpus.add_column("split", split_of_row)


def _hold_sentences_apart(
    corpus: datasets.Dataset, split_of_row: Sequence[str], validated: bool
) -> list[str]:
    """The splits without the sentences of other splits, where the corpus holds them apart."""
    if SENTENCE_COLUMN not in corpus.column_names:
        return list(split_of_row)
    unused = "" if validated else "validation"
    return [
        split if split == ("train" if own == unused else own) else ""
        for split, own in zip(split_of_row, corpus[SENTENCE_COLUMN][:], strict=True)
    ]


def _alternate_genders(gender_of_speaker: dict[str, str], rng: np.random.Generator) -> list[str]:
    """Shuffled speakers, one of each gender in turn, so that any slice holds both."""
    queues = []
    for gender in (*GENDERS, *sorted({*gender_of_speaker.values()} - {*GENDERS})):
        speakers = sorted(name for name, value in gender_of_speaker.items() if value == gender)
        queues.append([speakers[position] for position in rng.permutation(len(speakers))])
    ordered = []
    for turn in range(max(len(queue) for queue in queues)):
        ordered += [queue[turn] for queue in queues if turn < len(queue)]
    return ordered


def take_splits(
    corpus: datasets.Dataset, split_of_row: Sequence[str]
) -> dict[str, datasets.Dataset]:
    """The rows of each split, by the split of every row; what has another word is in none."""
    assigned = np.asarray(split_of_row)
    return {split: corpus.select(np.flatnonzero(assigned == split)) for split in SPLITS}
