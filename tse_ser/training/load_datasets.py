"""What a stage is trained and validated on: drawn mixtures, or the published ones of LibriMix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, Subset

from data_builders import MixtureDataset, load_mixtures
from data_builders.librimix.extraction import LibriMixExtractionDataset
from data_builders.librimix.metadata import find_librimix_metadata, find_librimix_speech
from data_builders.librimix.mixtures import LibriMixDataset
from data_builders.options import RecipeOptions
from data_builders.schema import CorpusError
from tse_ser.options import TseSerTrainingArguments
from tse_ser.training.voice_channels import VoiceChannels

# Examples of the contract between data and models.
Examples = Dataset[dict[str, Any]]


def load_datasets(
    data: RecipeOptions, training_args: TseSerTrainingArguments
) -> tuple[Examples, Examples | None]:
    """Loads the mixtures of a training.

    Args:
        data (`RecipeOptions`): corpora, split and mixing.
        training_args (`TseSerTrainingArguments`): processes, and whether it validates.

    Returns:
        `tuple[Dataset, Dataset | None]`: training mixtures, new in each epoch unless the recipe
        says otherwise, and frozen ones to choose an epoch on, where the protocol has any: those of
        the validation split, or of the test split under protocol "best_on_test".

    Raises:
        CorpusError: a corpus or the metadata of LibriMix are not where they should be.
    """
    # The first process fills the cache, the others read it.
    with training_args.main_process_first(desc="reading the corpora"):
        train_dataset = _load_examples(data, "train")
        if training_args.eval_strategy == "no":
            return train_dataset, None
        return train_dataset, _load_examples(data, "validation")


def _load_examples(data: RecipeOptions, split: str) -> Examples:
    if data.librimix_subset is not None:
        return _load_librimix(data, train=split == "train")
    # Under best_on_test, the test session takes the place of the validation's.
    chosen_on = "test" if data.protocol == "best_on_test" and split == "validation" else split
    dataset = load_mixtures(split=chosen_on, **data.of_split(split).keywords())
    if split != "train":
        return dataset
    if data.has_channels:
        channels = data.equalizer_db, data.random_lowpass_share
        return VoiceChannels(dataset.planner, data.fresh_mixtures, *channels)
    return MixtureDataset(dataset.planner, data.fresh_mixtures)


def _load_librimix(data: RecipeOptions, *, train: bool) -> Examples:
    """Mixtures of LibriMix's published metadata ("min", 16 kHz), each speaker once the target.
    In training, enrollments and crops are new in every epoch. With `noise_dir`, the folder of
    the WHAM noise, the noise of the metadata is in them."""
    subset = data.librimix_subset if train else data.librimix_eval_subset
    assert subset is not None  # or the mixtures would be drawn
    num_speakers, _ = data.speaker_range()
    metadata = find_librimix_metadata(_folder(data, "librimix"), subset, num_speakers)
    mixtures = LibriMixDataset(
        metadata,
        find_librimix_speech(_folder(data, "librispeech"), subset),
        data.noise_folder,
        mixture_type="mix_clean" if data.noise_folder is None else "mix_both",
    )
    examples = LibriMixExtractionDataset(
        mixtures,
        train=train and data.fresh_mixtures,
        seed=data.mixing_seed,
        segment_seconds=data.segment_seconds if train else data.eval_segment_seconds,
        enrollment_seconds=data.enrollment_seconds,
    )
    most = (data.max_train_examples if train else data.max_eval_examples) or data.max_examples
    return examples if most is None or most >= len(examples) else SpreadExamples(examples, most)


class SpreadExamples(Subset[dict[str, Any]]):
    """Some examples of LibriMix, so many of them evenly spread over all."""

    dataset: LibriMixExtractionDataset

    def __init__(self, examples: LibriMixExtractionDataset, num_examples: int) -> None:
        size = len(examples)
        super().__init__(examples, [index * size // num_examples for index in range(num_examples)])

    def set_epoch(self, epoch: int) -> None:
        """See `LibriMixExtractionDataset.set_epoch`."""
        self.dataset.set_epoch(epoch)


def _folder(data: RecipeOptions, name: str) -> Path:
    """Folder of LibriMix's metadata or of LibriSpeech, by its own argument or as a corpus's."""
    argument = {"librimix": "librimix_metadata_dir", "librispeech": "librispeech_dir"}[name]
    given = getattr(data, argument) or (data.corpus_dirs or {}).get(name)
    below = None if data.corpus_dir is None else Path(data.corpus_dir) / name
    folder = Path(given) if given else below
    if folder is None:
        raise CorpusError(
            f"{name}: its folder is not known: pass --{argument}, --corpus_dirs {name}=FOLDER or "
            f"--corpus_dir, the folder that holds {name}/. Without LibriMix's metadata, draw the "
            "mixtures: recipes/paper/1_extraction_librispeech.yaml"
        )
    if not folder.is_dir():
        raise CorpusError(f"{name}: {folder} is not a folder: check --{argument} or --corpus_dir")
    return folder
