"""The public way to corpora and mixtures: `load_corpus` and `load_mixtures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np

from data_builders.audio import default_cache_dir
from data_builders.corpora import CORPORA
from data_builders.folds import SPLITS, Protocol, split_by_session, split_by_speaker
from data_builders.interference import GenderState
from data_builders.mixture_dataset import MixtureDataset
from data_builders.planner import MixturePlanner
from data_builders.schema import EMOTIONS, UTTERANCE_FEATURES, CorpusError


def load_corpus(
    name: str, data_dir: str | Path | None = None, cache_dir: str | Path | None = None
) -> datasets.Dataset:
    """Reads a corpus.

    Args:
        name (`str`): one of `CORPORA`.
        data_dir (`str` or `Path`, *optional*): folder of that corpus; "generated" needs none.
        cache_dir (`str` or `Path`, *optional*): where scans, resampled copies and generated speech
            are kept; `TSE_SER_CACHE`, else `~/.cache/tse_ser`, if not given.

    Returns:
        `datasets.Dataset`: its utterances, with `UTTERANCE_FEATURES`.

    Raises:
        CorpusError: the corpus is unknown, missing, another one, or holds unusable audio.
    """
    if name not in CORPORA:
        raise CorpusError(f"unknown corpus {name!r}: use one of {', '.join(sorted(CORPORA))}")
    cache = default_cache_dir() if cache_dir is None else Path(cache_dir)
    return CORPORA[name](None if data_dir is None else Path(data_dir), cache.absolute())


def split_corpus(
    corpus: datasets.Dataset, fold: int = 1, protocol: Protocol = "validated"
) -> dict[str, datasets.Dataset]:
    """Splits a corpus as it asks for: by its own split column, by session, or by speaker.

    A corpus without sessions is split by speaker in one fixed way, whatever the fold.

    Args:
        corpus (`datasets.Dataset`): utterances.
        fold (`int`): 1-based fold of a corpus with sessions.
        protocol (`str`): "validated" or "paper", see `split_by_session`.

    Returns:
        `dict[str, datasets.Dataset]`: the splits "train", "validation" and "test".

    Raises:
        CorpusError: too few sessions or speakers, or no such fold.
    """
    if "split" in corpus.column_names:
        own = np.asarray(corpus["split"][:])
        return {split: corpus.select(np.flatnonzero(own == split)) for split in SPLITS}
    if any(corpus["session"][:]):
        return split_by_session(corpus, fold, protocol)
    return split_by_speaker(corpus)


def load_mixtures(
    *,
    targets: str | Sequence[str] = "generated",
    interferers: str | Sequence[str] | None = "generated_pool",
    split: str = "train",
    fold: int = 1,
    protocol: Protocol = "validated",
    corpus_dir: str | Path | None = None,
    corpus_dirs: Mapping[str, str | Path] | None = None,
    emotions: Sequence[str] | None = EMOTIONS,
    gender_state: GenderState = "any",
    snr_range_db: tuple[float, float] = (0.0, 0.0),
    segment_seconds: float | None = None,
    enrollment_seconds: float | None = None,
    enrollment_emotion: str | None = "neutral",
    trim_silence: bool = False,
    speed_factors: tuple[float, ...] = (1.0,),
    seed: int = 0,
    max_examples: int | None = None,
    cache_dir: str | Path | None = None,
) -> MixtureDataset:
    """Mixtures of a split, rendered on access: new ones in every training epoch, else frozen.

    Args:
        targets (`str` or `Sequence[str]`): corpora of the targets.
        interferers (`str` or `Sequence[str]`, *optional*): corpora of the interferers, each with
            all utterances of the same split; None for clean speech.
        split (`str`): "train", "validation" or "test".
        fold (`int`): 1-based fold of the corpora with sessions.
        protocol (`str`): "validated" or "paper", see `split_by_session`.
        corpus_dir (`str` or `Path`, *optional*): root with one folder a corpus, named like it.
        corpus_dirs (`Mapping[str, str | Path]`, *optional*): folders by corpus name; these win.
        emotions (`Sequence[str]`, *optional*): emotions of the targets; None for every utterance,
            with the label -100 where it is none of `EMOTIONS`.
        gender_state (`str`): "any", "same" or "different" genders of target and interferer.
        snr_range_db (`tuple[float, float]`): the SNR is drawn uniformly between these.
        segment_seconds (`float`, *optional*): longer targets are cropped to this.
        enrollment_seconds (`float`, *optional*): longer enrollments are cropped to this.
        enrollment_emotion (`str`, *optional*): emotion of enrollments, drawn from all utterances of
            the split; None for any.
        trim_silence (`bool`): leave out silence before and after the speech.
        speed_factors (`tuple[float, ...]`): speeds drawn for target and interferer.
        seed (`int`): mixing seed.
        max_examples (`int`, *optional*): at most so many targets, evenly spread over the split.
        cache_dir (`str` or `Path`, *optional*): see `load_corpus`.

    Returns:
        `MixtureDataset`: the examples; see `MixtureDataset.render`.

    Raises:
        CorpusError: a corpus cannot be used, the split is empty, or no mixture can be made of it.
        ValueError: an argument is out of its range.
    """
    if split not in SPLITS:
        raise CorpusError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")

    def read_split(names: str | Sequence[str]) -> datasets.Dataset:
        parts = [
            split_corpus(corpus, fold, protocol)[split].select_columns(list(UTTERANCE_FEATURES))
            for corpus in read_corpora(names, corpus_dir, corpus_dirs, cache_dir)
        ]
        return datasets.concatenate_datasets(parts)

    speakers_utterances = read_split(targets)
    return MixtureDataset(
        MixturePlanner(
            _select_targets(speakers_utterances, split, emotions, max_examples),
            None if interferers is None else read_split(interferers),
            speakers_utterances,
            seed=seed,
            gender_state=gender_state,
            snr_range_db=snr_range_db,
            segment_seconds=segment_seconds,
            enrollment_seconds=enrollment_seconds,
            enrollment_emotion=enrollment_emotion,
            trim_silence=trim_silence,
            speed_factors=speed_factors,
        ),
        train=split == "train",
    )


def read_corpora(
    names: str | Sequence[str],
    corpus_dir: str | Path | None = None,
    corpus_dirs: Mapping[str, str | Path] | None = None,
    cache_dir: str | Path | None = None,
) -> list[datasets.Dataset]:
    """Reads several corpora whose folders are given as for `load_mixtures`.

    Args:
        names (`str` or `Sequence[str]`): one corpus or several.
        corpus_dir (`str` or `Path`, *optional*): root with one folder a corpus, named like it.
        corpus_dirs (`Mapping[str, str | Path]`, *optional*): folders by corpus name; these win.
        cache_dir (`str` or `Path`, *optional*): see `load_corpus`.

    Returns:
        `list[datasets.Dataset]`: the corpora, in the order of their names.

    Raises:
        CorpusError: a corpus cannot be used, or none is named.
    """
    if not names:
        raise CorpusError(f"no corpus is named: use some of {', '.join(sorted(CORPORA))}")
    folders = dict(corpus_dirs or {})
    corpora = []
    for name in [names] if isinstance(names, str) else names:
        folder = folders.get(name, None if corpus_dir is None else Path(corpus_dir) / name)
        corpora.append(load_corpus(name, folder, cache_dir))
    return corpora


def _select_targets(
    utterances: datasets.Dataset,
    split: str,
    emotions: Sequence[str] | None,
    max_examples: int | None,
) -> datasets.Dataset:
    rows = np.arange(len(utterances))
    if emotions is not None:
        unknown = sorted({*emotions} - {*EMOTIONS})
        if unknown:
            raise CorpusError(f"unknown emotions {unknown}: use some of {list(EMOTIONS)}, or None")
        rows = np.flatnonzero(np.isin(np.asarray(utterances["emotion"][:]), list(emotions)))
    if len(rows) == 0:
        raise CorpusError(
            f"the {split} split has no target utterances"
            + ("" if emotions is None else f" of the emotions {list(emotions)}")
            + ": protocol 'paper' has no validation split; otherwise check the corpora"
        )
    if max_examples is not None and max_examples < len(rows):
        if max_examples < 1:
            raise ValueError(f"max_examples: expected at least 1, got {max_examples}")
        rows = rows[np.arange(max_examples) * len(rows) // max_examples]
    return utterances.select(rows)
