"""What the audit compares: who and what is in each split of a recipe, and in its pretraining."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from data_builders.audit.recordings import Measured, measure_recordings
from data_builders.load import load_mixtures, read_corpora
from data_builders.mixtures.dataset import Planner
from data_builders.option_reader import OptionError, read_yaml
from data_builders.options import read_recipe

# Epochs of training whose mixtures are looked at, one by one; evaluation has a single one.
TRAIN_EPOCHS = 3
PRETRAINING = "pretraining"
# What was measured, by `trim_silence`, on which levels depend.
Recordings = dict[bool, Measured]
# Keys of a recipe that name what it starts from.
PRETRAINED_KEYS = ("model_name_or_path", "extractor_name_or_path", "classifier_name_or_path")


@dataclass(frozen=True)
class SplitContents:
    """The recordings of a split by role, and what was wrong with the mixtures drawn of them.

    The roles are tables, see `data_builders.audit.recordings`.
    """

    targets: pd.DataFrame  # extracted or classified
    interferers: pd.DataFrame
    enrollments: pd.DataFrame  # of the target speakers, to enroll with
    num_plans: int = 0  # mixtures that were drawn and looked at
    # Targets whose enrollment is an utterance of their mixture, or another file of its samples.
    enrolled_itself: list[str] = field(default_factory=list)
    enrolled_copy: list[str] = field(default_factory=list)

    @property
    def everything(self) -> pd.DataFrame:
        """Every recording once, whatever its role."""
        return each_once([self.targets, self.interferers, self.enrollments])


def each_once(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Joins tables of recordings, each recording once."""
    joined = pd.concat(list(tables))
    return joined[~joined.index.duplicated()]


class Overlap(NamedTuple):
    """What a split of a fold shares with another one, or with the pretraining."""

    fold: int
    first: str
    second: str
    speakers: list[str]
    utterances: list[str]  # ids
    audio: list[str]  # pairs of utterance ids whose samples are the same


class RecipeData:
    """The data of a YAML recipe, as `train.py` would load them.

    The overrides are options that win over those of the recipe, such as `corpus_dir`. What was
    measured is shared between recipes, and added to.
    """

    def __init__(
        self,
        path: str | Path,
        overrides: Mapping[str, Any],
        recordings: Recordings,
    ) -> None:
        self.path = Path(path)
        # Whatever the recipe's own condition is, its interferers are those of the noisy one.
        self._recipe = read_recipe(path, {**overrides, "condition": "noisy"})
        self.trim_silence = self._recipe.trim_silence
        self.classes = self._recipe.classes
        self._recordings = recordings.setdefault(self.trim_silence, {})

    def folders(self) -> set[str]:
        """The folders that the recipe reads, as messages name them."""
        recipe = self._recipe
        given = [recipe.corpus_dir, recipe.noise_folder, *(recipe.corpus_dirs or {}).values()]
        return {str(Path(one).absolute()) for one in given if one}

    def folds(self) -> list[int]:
        """Every fold, from 1, that all corpora of the recipe have; 1 where none has sessions."""
        recipe = self._recipe
        names = [*recipe.targets, *(recipe.interferers or ())]
        corpora = read_corpora(names, recipe, recipe.cache_dir)
        counts = [
            len({*corpus["session"][:]} - {""})
            for corpus in corpora
            if "split" not in corpus.column_names
        ]
        return list(range(1, min((count for count in counts if count), default=1) + 1))

    def splits(self) -> list[str]:
        """The splits that the protocol of the recipe has: "validation" in "validated" only."""
        validated = self._recipe.protocol == "validated"
        return ["train", "validation", "test"] if validated else ["train", "test"]

    def read(self, split: str, fold: int) -> SplitContents:
        """Loads a split of a fold, measures its recordings and draws its mixtures.

        Raises `CorpusError` where a corpus cannot be used.
        """
        # The audit looks at everything that could be drawn.
        options = replace(self._recipe.of_split(split, fold=fold), max_examples=None)
        planner = load_mixtures(split=split, **options.keywords()).planner
        tables = [planner.targets, planner.enrollments]
        if planner.interferers is not None:
            tables.append(planner.interferers)
        measured = measure_recordings(tables, self.trim_silence, self._recordings)

        targets, enrollments, *interferers = (
            measured.loc[list(table.utterance_ids)] for table in tables
        )
        if options.enrollment_emotion is not None:
            enrollments = enrollments[enrollments["emotion"] == options.enrollment_emotion]
        contents = SplitContents(
            targets,
            interferers[0] if interferers else measured.iloc[:0],
            enrollments,
            num_plans=len(planner) * (TRAIN_EPOCHS if split == "train" else 1),
        )
        _look_at_mixtures(planner, contents, measured["content_hash"].to_dict())
        return contents

    def pretraining(self) -> tuple[list[Path], list[str]]:
        """The recipes that made the checkpoints this one starts from, and what those start from.

        They lie in the same folder and have an `output_dir` that is named as a starting point. With
        them come the starting points that no recipe there explains.
        """
        known, unexplained = _starts_from(self.path)
        for path in known:  # grows as long as there are earlier ones
            earlier, more = _starts_from(path)
            known += [one for one in earlier if one not in (*known, self.path)]
            unexplained += more
        return known, unexplained

    def fold_as_pretraining(self, fold: int) -> int:
        """The fold of this recipe that is trained before a fold of another one.

        It is the same, or, where these corpora have not as many, the one that this recipe states (1
        by default), as it is trained once for all.
        """
        return fold if fold in self.folds() else self._recipe.fold


def _starts_from(recipe: Path) -> tuple[list[Path], list[str]]:
    """The recipes beside one that made what it starts from, and what none of them made."""
    content = read_yaml(recipe)
    named = [str(content[key]) for key in PRETRAINED_KEYS if content.get(key)]
    wanted = {_place(name): name for name in named}
    written: dict[str, Path] = {}
    for path in sorted(recipe.parent.glob("*.yaml")):
        try:
            sibling = read_yaml(path)
        except OptionError:
            continue  # no recipe: what it might have explained is reported as unexplained
        if path != recipe and "stage" in sibling:
            written[_place(sibling.get("output_dir"))] = path
    recipes = [written[place] for place in wanted if place in written]
    return recipes, [name for place, name in wanted.items() if place not in written]


def _place(folder: Any) -> str:
    """A folder as it is compared: results/./a/ is results/a."""
    return os.path.normpath(str(folder))


def _look_at_mixtures(
    planner: Planner, contents: SplitContents, hash_of: Mapping[str, str]
) -> None:
    for number in range(contents.num_plans):
        spec = planner.plan(*divmod(number, len(planner)))
        mixed = {spec.target_id, *(one.utterance_id for one in spec.interferers)}
        hashes = {hash_of[name] for name in mixed}
        if spec.enrollment_id in mixed:
            contents.enrolled_itself.append(spec.target_id)
        elif hash_of[spec.enrollment_id] in hashes:
            contents.enrolled_copy.append(f"{spec.target_id} = {spec.enrollment_id}")


def compare_splits(fold: int, splits: Mapping[str, SplitContents]) -> list[Overlap]:
    """Compares each split with each other; the pretraining with those that it must not know."""
    return [
        _overlap(fold, (first, splits[first].everything), (second, splits[second].everything))
        for first, second in combinations(splits, 2)
        if {first, second} != {"train", PRETRAINING}
    ]


def find_identical(recordings: pd.DataFrame) -> list[list[str]]:
    """Groups of two or more utterances with the same samples: their sorted ids."""
    groups = recordings.groupby("content_hash").groups.values()
    return sorted(sorted(group) for group in groups if len(group) > 1)


def _overlap(
    fold: int, first: tuple[str, pd.DataFrame], second: tuple[str, pd.DataFrame]
) -> Overlap:
    (first_name, ours), (second_name, theirs) = first, second
    by_hash = dict(zip(ours["content_hash"], ours.index, strict=True))
    return Overlap(
        fold=fold,
        first=first_name,
        second=second_name,
        speakers=sorted({*ours["speaker_id"]} & {*theirs["speaker_id"]}),
        utterances=sorted({*ours.index} & {*theirs.index}),
        audio=sorted(
            f"{by_hash[digest]} = {name}"
            for name, digest in theirs["content_hash"].items()
            if digest in by_hash
        ),
    )
