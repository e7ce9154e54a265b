"""What a stage is trained and validated on: drawn mixtures, or the published ones of LibriMix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from data_builders import MixtureDataset, load_mixtures
from data_builders.librimix.extraction import LibriMixExtractionDataset
from data_builders.librimix.metadata import find_librimix_metadata, find_librimix_speech
from data_builders.librimix.mixtures import LibriMixDataset
from data_builders.load import corpus_folder
from data_builders.schema import CorpusError
from tse_ser.training.arguments import DataArguments, TseSerTrainingArguments, mixture_keywords

# Examples of the contract between data and models.
Examples = Dataset[dict[str, Any]]


def load_datasets(
    data_args: DataArguments, training_args: TseSerTrainingArguments
) -> tuple[Examples, Examples | None]:
    """Loads the mixtures of a training.

    Args:
        data_args (`DataArguments`): corpora, split and mixing.
        training_args (`TseSerTrainingArguments`): condition and processes.

    Returns:
        `tuple[Dataset, Dataset | None]`: training mixtures, new in each epoch unless the recipe
        says otherwise, and frozen ones to choose an epoch on, where the protocol has any: those of
        the validation split, or of the test split under protocol "best_on_test".

    Raises:
        CorpusError: a corpus or the metadata of LibriMix are not where they should be.
    """
    # The first process fills the cache, the others read it.
    with training_args.main_process_first(desc="reading the corpora"):
        train_dataset = _load_examples(data_args, training_args.condition, train=True)
        if training_args.eval_strategy == "no":
            return train_dataset, None
        return train_dataset, _load_examples(data_args, training_args.condition, train=False)


def _load_examples(data_args: DataArguments, condition: str, *, train: bool) -> Examples:
    if data_args.librimix_subset is not None:
        return load_librimix(data_args, train=train)
    keywords = mixture_keywords(data_args, condition, train=train)
    evaluation_split = "test" if data_args.protocol == "best_on_test" else "validation"
    dataset = load_mixtures(split="train" if train else evaluation_split, **keywords)
    if train and not data_args.fresh_mixtures:
        return MixtureDataset(dataset.planner, train=False)
    return dataset


def load_librimix(data_args: DataArguments, *, train: bool) -> Examples:
    """Mixtures of LibriMix's published metadata ("min", 16 kHz), each speaker once the target.

    With `noise_dir`, the folder of the WHAM noise, the noise of the metadata is in them.

    Args:
        data_args (`DataArguments`): subsets, folders, crops and seed.
        train (`bool`): the subset of training, with new enrollments and crops in every epoch, or
            that of the validation.

    Returns:
        `Dataset`: the examples, at most as many as the recipe asks for.

    Raises:
        CorpusError: metadata or LibriSpeech are not where they should be.
    """
    subset = data_args.librimix_subset if train else data_args.librimix_eval_subset
    assert subset is not None  # or the mixtures would be drawn
    [num_speakers] = data_args.num_speakers
    metadata = find_librimix_metadata(_folder(data_args, "librimix"), subset, num_speakers)
    mixtures = LibriMixDataset(
        metadata,
        find_librimix_speech(_folder(data_args, "librispeech"), subset),
        data_args.noise_folder,
        mixture_type="mix_clean" if data_args.noise_folder is None else "mix_both",
    )
    examples = LibriMixExtractionDataset(
        mixtures,
        train=train and data_args.fresh_mixtures,
        seed=data_args.mixing_seed,
        segment_seconds=data_args.segment_seconds if train else data_args.eval_segment_seconds,
        enrollment_seconds=data_args.enrollment_seconds,
    )
    most = data_args.max_train_examples if train else data_args.max_eval_examples
    return examples if most is None or most >= len(examples) else SpreadExamples(examples, most)


class SpreadExamples(Dataset[dict[str, Any]]):
    """Some examples of LibriMix, evenly spread over all.

    Args:
        examples (`LibriMixExtractionDataset`): all examples.
        num_examples (`int`): how many of them, 1 at least.
    """

    def __init__(self, examples: LibriMixExtractionDataset, num_examples: int) -> None:
        if num_examples < 1:
            raise CorpusError(f"max_train_examples, max_eval_examples: got {num_examples}, below 1")
        self.examples = examples
        self.num_examples = num_examples

    def set_epoch(self, epoch: int) -> None:
        """See `LibriMixExtractionDataset.set_epoch`."""
        self.examples.set_epoch(epoch)

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.num_examples:
            raise IndexError(f"index {index} is out of range: {self.num_examples} examples")
        return self.examples[index * len(self.examples) // self.num_examples]


def _folder(data_args: DataArguments, name: str) -> Path:
    """Folder of LibriMix's metadata or of LibriSpeech, by its own argument or as a corpus's."""
    argument = {"librimix": "librimix_metadata_dir", "librispeech": "librispeech_dir"}[name]
    given = getattr(data_args, argument)
    folders = data_args.mixing_keywords(noisy=False)["corpus_dirs"]
    folder = Path(given) if given else corpus_folder(name, data_args.corpus_dir, folders)
    if folder is None:
        raise CorpusError(
            f"{name}: its folder is not known: pass --{argument}, --corpus_dirs {name}=FOLDER or "
            f"--corpus_dir, the folder that holds {name}/. Without LibriMix's metadata, draw the "
            "mixtures: recipes/paper/1_extraction_librispeech.yaml"
        )
    if not folder.is_dir():
        raise CorpusError(f"{name}: {folder} is not a folder: check --{argument} or --corpus_dir")
    return folder
