"""The public way to corpora and mixtures: `load_corpus` and `load_mixtures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from data_builders.audio import cache_folder
from data_builders.corpora import (
    CORPORA,
    SPLIT_OPTIONS,
    parse_corpus_name,
    refuse_confusable,
    settle_corpus_options,
)
from data_builders.corpora.folds import (
    SPLITS,
    Protocol,
    split_by_name,
    split_by_session,
    split_by_speaker,
    take_splits,
)
from data_builders.mixtures.dataset import MixtureDataset
from data_builders.mixtures.noise import NoiseFolder
from data_builders.mixtures.planner import MixturePlanner
from data_builders.options import DrawingOptions, MixtureOptions, values_of
from data_builders.schema import EMOTIONS, UTTERANCE_FEATURES, CorpusError


def load_corpus(
    name: str,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    *,
    strict: bool = False,
    **options: Any,
) -> datasets.Dataset:
    """Reads a corpus.

    Args:
        name (`str`): one of `CORPORA`, with options or without: "iemocap:scenario=improvised", see
            `data_builders.corpora`.
        data_dir (`str` or `Path`, *optional*): folder of that corpus; "generated" needs none.
        cache_dir (`str` or `Path`, *optional*): where scans, resampled copies and generated speech
            are kept; `TSE_SER_CACHE`, else `~/.cache/tse_ser`, if not given.
        strict (`bool`): stop at audio that cannot be used; otherwise it is left out, and a warning
            counts it.
        **options: options of the corpus as Python values; these win over those in its name.

    Returns:
        `datasets.Dataset`: its utterances, with `UTTERANCE_FEATURES`.

    Raises:
        CorpusError: the corpus or an option is unknown, or the corpus is missing, another one, or
            holds no usable audio, or `strict` and some is not.
    """
    corpus, named_options = parse_corpus_name(name)
    options = {**named_options, **settle_corpus_options(corpus, options, corpus)}
    cache = cache_folder(cache_dir)
    patterns = {name: options.pop(name) for name in SPLIT_OPTIONS if name in options}
    utterances = CORPORA[corpus](
        None if data_dir is None else Path(data_dir), cache, strict=strict, **options
    )
    return split_by_name(utterances, **patterns) if patterns else utterances


def split_corpus(
    corpus: datasets.Dataset, fold: int = 1, protocol: Protocol = "validated"
) -> dict[str, datasets.Dataset]:
    """Splits a corpus as it asks for: by its own split column, by session, or by speaker.

    A corpus with sessions has folds, from 1, see `split_by_session` for the protocols. One without
    is split by speaker in one fixed way, whatever the fold. Raises `CorpusError` where there are
    too few sessions or speakers, or no such fold.
    """
    if "split" in corpus.column_names:
        return take_splits(corpus, corpus["split"][:])
    if any(corpus["session"][:]):
        return split_by_session(corpus, fold, protocol)
    return split_by_speaker(corpus)


def load_mixtures(
    *, split: str = "train", cache_dir: str | Path | None = None, **keywords: Any
) -> MixtureDataset:
    """Mixtures of a split, rendered on access: new ones in every training epoch, else frozen.

    Args:
        split (`str`): "train", "validation" or "test".
        cache_dir (`str` or `Path`, *optional*): see `load_corpus`.
        keywords: the fields of `MixtureOptions`, which documents them.

    Returns:
        `MixtureDataset`: the examples; see `MixtureDataset.render`.

    Raises:
        OptionError: a keyword is unknown, or out of its range.
        CorpusError: a corpus cannot be used, the split is empty or lacks one of the emotions, or no
            mixture can be made of it.
    """
    options = MixtureOptions.from_keywords(keywords)
    return MixtureDataset(_make_planner(options, split, cache_dir), train=split == "train")


def _make_planner(
    options: MixtureOptions, split: str, cache_dir: str | Path | None
) -> MixturePlanner:
    if split not in SPLITS:
        raise CorpusError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    names = [*options.targets, *(options.interferers or ())]
    refuse_confusable(names)
    corpora = read_corpora(options.targets, options, cache_dir)
    others = None
    if options.interferers is not None:
        others = read_corpora(options.interferers, options, cache_dir)
    _refuse_split_twice([*zip(names, [*corpora, *(others or ())], strict=True)], options)
    _refuse_unheard_of(options.emotions, corpora)
    speakers_utterances = _join_split(corpora, split, options)
    # A corpus that brings its own splits has no folds; it may be a small sample.
    targets = _select_targets(
        speakers_utterances,
        split,
        options,
        every_class=any("split" not in corpus.column_names for corpus in corpora),
    )
    noise_folder = options.noise_folder
    interferers = None if others is None else _join_split(others, split, options)
    noise = None
    if noise_folder is not None:
        noise = NoiseFolder(noise_folder, cache_dir, strict=options.strict_corpora)
    drawing = values_of(options, DrawingOptions)
    try:
        return MixturePlanner(
            targets,
            interferers,
            speakers_utterances,
            noise=noise,
            classes=options.classes,
            **drawing,
        )
    except CorpusError as error:
        raise CorpusError(f"the {split} split: {error}") from error


def _refuse_split_twice(
    named: Sequence[tuple[str, datasets.Dataset]], options: MixtureOptions
) -> None:
    """Refuses a corpus that is named with several options and split in several ways by them.

    Else somebody who is tested on as a target would be heard in training as an interferer.
    """
    by_name: dict[str, dict[str, datasets.Dataset]] = {}
    for name, corpus in named:
        by_name.setdefault(_own_name(name), {})[name] = corpus
    for own, several in by_name.items():
        split_of_speaker: dict[str, str] = {}
        for corpus in several.values() if len(several) > 1 else ():
            for split, part in split_corpus(corpus, options.fold, options.protocol).items():
                for speaker in {*part["speaker_id"][:]}:
                    if split_of_speaker.setdefault(speaker, split) != split:
                        raise CorpusError(
                            f"{own} is named in several ways ({', '.join(several)}), by which "
                            f"{speaker} is in {split_of_speaker[speaker]} and in {split}: give "
                            f"targets and interferers the same test_speakers and "
                            f"validation_speakers"
                        )


def _join_split(
    corpora: Sequence[datasets.Dataset], split: str, options: MixtureOptions
) -> datasets.Dataset:
    parts = [split_corpus(corpus, options.fold, options.protocol)[split] for corpus in corpora]
    columns = list(UTTERANCE_FEATURES)
    return datasets.concatenate_datasets([part.select_columns(columns) for part in parts])


def read_corpora(
    names: str | Sequence[str], options: MixtureOptions, cache_dir: str | Path | None = None
) -> list[datasets.Dataset]:
    """Reads one corpus or several, in the order of their names.

    The options tell where they lie, and how strict they are read. Raises `CorpusError` where a
    corpus cannot be used, or none is named.
    """
    if not names:
        raise CorpusError(f"no corpus is named: use some of {', '.join(sorted(CORPORA))}")
    folders = options.corpus_dir, options.corpus_dirs
    return [
        load_corpus(name, corpus_folder(name, *folders), cache_dir, strict=options.strict_corpora)
        for name in ([names] if isinstance(names, str) else names)
    ]


def corpus_folder(
    name: str, corpus_dir: str | Path | None, corpus_dirs: Mapping[str, str | Path] | None
) -> Path | None:
    """Folder of a corpus, if one was given.

    `corpus_dir` holds a folder for each corpus, named like it; `corpus_dirs` has folders by corpus
    name, with its options or without, and wins.
    """
    folders, own = corpus_dirs or {}, _own_name(name)
    for key in (name, own, name.partition(":")[0]):
        if key in folders:
            return Path(folders[key])
    return None if corpus_dir is None else Path(corpus_dir) / own


def _own_name(name: str) -> str:
    """The name of a corpus without its options; of a folder, the one that it was given."""
    corpus, _, has_options = name.partition(":")
    # LibriMix's metadata lie in a folder of this kind too, and are no corpus.
    options = parse_corpus_name(name)[1] if has_options else {}
    return str(options.get("name", corpus))


def _refuse_unheard_of(emotions: Sequence[str] | None, corpora: Sequence[datasets.Dataset]) -> None:
    """A word that is no emotion of the corpora in any split is a misspelt one."""
    known = {emotion for corpus in corpora for emotion in corpus.unique("emotion")} - {""}
    unknown = [one for one in emotions or () if one not in known and one not in EMOTIONS]
    if unknown:
        raise CorpusError(
            f"unknown emotions {unknown}: the targets have {sorted(known)}; 'all' takes every one"
        )


def _select_targets(
    utterances: datasets.Dataset, split: str, options: MixtureOptions, every_class: bool
) -> datasets.Dataset:
    emotions, max_examples = options.emotions, options.max_examples
    rows = np.arange(len(utterances))
    if emotions is not None:
        emotion_of_row = np.asarray(utterances["emotion"][:])
        rows = np.flatnonzero(np.isin(emotion_of_row, list(emotions)))
    if len(rows) == 0:
        raise CorpusError(
            f"the {split} split has no target utterances"
            + ("" if emotions is None else f" of the emotions {list(emotions)}")
            + ": protocol 'paper' has no validation split; otherwise check the corpora"
        )
    if emotions is not None and every_class:
        _check_classes({*emotion_of_row[rows].tolist()}, emotions, split, options.fold)
    if max_examples is not None and max_examples < len(rows):
        rows = rows[np.arange(max_examples) * len(rows) // max_examples]
    return utterances.select(rows)


def _check_classes(found: set[str], emotions: Sequence[str], split: str, fold: int) -> None:
    """A split without a class can neither teach it nor be scored by the mean over the classes."""
    missing = [emotion for emotion in emotions if emotion not in found]
    if missing:
        kept = [emotion for emotion in emotions if emotion in found]
        raise CorpusError(
            f"fold {fold}: the {split} split has no target that is {' or '.join(missing)}; use "
            f"another fold or corpus, or leave the class out with emotions={kept}"
        )
