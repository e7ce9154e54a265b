"""Arguments of an extractor's training on virtual LibriMix: which mixtures, and where they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tse_ser.training.recipe_parser import RecipeError

if TYPE_CHECKING:
    from tse_ser.training.arguments import DataArguments, TseSerTrainingArguments

# What the published metadata decide, with the value that says nothing.
DECIDED_BY_METADATA: dict[str, Any] = {
    "gender_state": "any",
    "interferer_draw": "corpus",
    "interferer_emotions": None,
    "interferer_languages": None,
    "snr_distribution": "uniform",
    "snr_range_db": [0.0, 0.0],
    "reverberation": "none",
    "trim_silence": False,
    "speed_factors": [1.0],
    "clean_share": 0.0,
    "absent_share": 0.0,
}
NUM_SPEAKERS = ([2], [3])


@dataclass
class LibriMixArguments:
    """The published mixtures in place of drawn ones; see `data_builders.librimix.mixtures`."""

    librimix_subset: str | None = field(
        default=None,
        metadata={
            "help": "Train an extractor on LibriMix's published mixtures of this subset, such as "
            "train-clean-100; targets and interferers are not read then."
        },
    )
    librimix_eval_subset: str = field(
        default="dev-clean", metadata={"help": "The LibriMix subset of the validation."}
    )
    librimix_metadata_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of LibriMix's CSV files; if unset, that of the name librimix in "
            "corpus_dirs, else librimix/ below corpus_dir."
        },
    )
    librispeech_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of LibriSpeech for LibriMix; if unset, that of the name librispeech in "
            "corpus_dirs, else librispeech/ below corpus_dir."
        },
    )


def check_librimix(data_args: DataArguments, training_args: TseSerTrainingArguments) -> None:
    """Refuses what the published mixtures cannot be or do.

    Args:
        data_args (`DataArguments`): corpora, split and mixing.
        training_args (`TseSerTrainingArguments`): stage and condition.

    Raises:
        RecipeError: another stage than extraction, or an argument that the metadata decide.
    """
    if data_args.librimix_subset is None:
        return
    if training_args.stage != "extraction" or training_args.condition != "noisy":
        raise RecipeError(
            f"librimix_subset is for stage 'extraction' and condition 'noisy', as LibriMix has no "
            f"emotions: stage is '{training_args.stage}', condition '{training_args.condition}'"
        )
    if data_args.num_speakers not in NUM_SPEAKERS:
        raise RecipeError(
            f"num_speakers: LibriMix has mixtures of 2 or of 3 speakers, got "
            f"{data_args.num_speakers}"
        )
    for name, default in DECIDED_BY_METADATA.items():
        if getattr(data_args, name) != default:
            raise RecipeError(
                f"{name}: LibriMix's metadata decide what is mixed and how loud: leave it out, or "
                f"leave out librimix_subset and draw mixtures from the corpus librispeech"
            )
