"""Arguments of `train.py`: what is trained (model), on what (data), and how (training)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import IntervalStrategy, TrainingArguments
from transformers.integrations.integration_utils import is_tensorboard_available
from transformers.trainer_utils import SaveStrategy

from data_builders.mixing_arguments import MixingArguments, check_pair
from tse_ser.training.librimix_arguments import LibriMixArguments, check_librimix
from tse_ser.training.recipe_parser import RecipeError, RecipeParser

Stage = Literal["extraction", "classification", "joint"]
Condition = Literal["clean", "noisy", "denoised"]

# What chooses the best checkpoint on the validation split; higher is better for both.
BEST_METRICS = {"extraction": "si_sdr", "classification": "ua", "joint": "ua"}


@dataclass
class ModelArguments:
    """Where the model comes from: a checkpoint, or JSON files of its sizes."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Checkpoint of the stage's model to start from."}
    )
    extractor_name_or_path: str | None = field(
        default=None, metadata={"help": "Pretrained extractor that the joint stage starts from."}
    )
    classifier_name_or_path: str | None = field(
        default=None, metadata={"help": "Trained classifier that the joint stage starts from."}
    )
    extractor_config: str | None = field(
        default=None, metadata={"help": "JSON file of a TdSpeakerBeamConfig, for a new extractor."}
    )
    classifier_config: str | None = field(
        default=None, metadata={"help": "JSON file of a ShiftCnnConfig, for a new classifier."}
    )
    speaker_encoder_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of the published weights of the speaker encoder that a new extractor "
            "builds on."
        },
    )
    encoder_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Pretrained speech encoder (hub id or folder) of a new classifier."},
    )
    trainable_encoder_layers: int | None = field(
        default=None,
        metadata={
            "help": "Fine-tune so many of the upper layers of the classifier's speech encoder, "
            "whatever its config or checkpoint says."
        },
    )
    extraction_loss_weight: float | None = field(
        default=None, metadata={"help": "Weight of the SI-SNR loss in the joint stage, eq. (9)."}
    )
    classification_loss_weight: float | None = field(
        default=None, metadata={"help": "Weight of the cross entropy in the joint stage, eq. (9)."}
    )


@dataclass
class DataArguments(LibriMixArguments, MixingArguments):
    """Corpora, split and mixing, and what differs between training and validation."""

    config: str | None = field(
        default=None, metadata={"help": "YAML recipe of defaults; the command line wins."}
    )
    emotions: list[str] | None = field(
        default_factory=lambda: ["neutral", "happy", "sad", "angry"],
        metadata={"help": "Emotions of the targets; 'all' takes every utterance, labelled or not."},
    )
    eval_snr_range_db: list[float] = field(
        default_factory=lambda: [0.0, 0.0],
        metadata={"help": "The SNR range of validation, in dB; snr_range_db is that of training."},
    )
    segment_seconds: float | None = field(
        default=None, metadata={"help": "Longer training targets are cropped to this length."}
    )
    eval_segment_seconds: float | None = field(
        default=None, metadata={"help": "The same in validation; whole utterances if unset."}
    )
    fresh_mixtures: bool = field(
        default=True,
        metadata={
            "help": "Draw new training mixtures in every epoch; false keeps those of the first, as "
            "a corpus on disk would."
        },
    )
    speed_factors: list[float] = field(
        default_factory=lambda: [1.0],
        metadata={"help": "Training voices are played at one of these speeds."},
    )
    clean_share: float = field(
        default=0.0, metadata={"help": "Share of training examples without interferer."}
    )
    absent_share: float = field(
        default=0.0, metadata={"help": "Share of training examples without the target."}
    )
    denoised_dir: str | None = field(
        default=None,
        metadata={"help": "Denoised set, as tse_ser.training.denoise_corpus writes it."},
    )
    max_train_examples: int | None = field(
        default=None, metadata={"help": "Train on at most this many targets an epoch."}
    )
    max_eval_examples: int | None = field(
        default=None, metadata={"help": "Validate on at most this many mixtures."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.emotions == ["all"]:
            self.emotions = None
        check_pair("eval_snr_range_db", self.eval_snr_range_db)


def _reporting_default() -> str:
    return "tensorboard" if is_tensorboard_available() else "none"


@dataclass
class TseSerTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with the defaults that these three stages need."""

    stage: Stage = field(
        default="extraction", metadata={"help": "What is trained; decides model and losses."}
    )
    condition: Condition = field(
        default="noisy", metadata={"help": "What the model hears: target, mixture, or extracted."}
    )
    permutation_invariant: bool = field(
        default=False,
        metadata={
            "help": "Train an extractor to separate without an enrollment, the better of its two "
            "outputs counted: a start for trainings of few hours."
        },
    )
    extractor_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of the extractor in the joint stage; one rate if unset."},
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after this many validations without a better one."}
    )

    report_to: str | None = field(default_factory=_reporting_default)
    logging_steps: float = field(default=10)
    eval_strategy: IntervalStrategy | str = field(default="epoch")
    save_strategy: IntervalStrategy | str = field(default="epoch")
    save_total_limit: int | None = field(default=2)
    load_best_model_at_end: bool = field(default=True)
    # Full batches only: a short last one would weigh its examples more than the others.
    dataloader_drop_last: bool = field(default=True)
    # The collator decides what the model gets.
    remove_unused_columns: bool = field(default=False)
    # A loss that is no number is shown, not replaced by the average.
    logging_nan_inf_filter: bool = field(default=False)
    # The models have no parameter that a stage leaves out, and searching for one costs time.
    ddp_find_unused_parameters: bool | None = field(default=False)
    # The patience that is used up belongs to what a resumed training resumes.
    restore_callback_states_from_checkpoint: bool = field(default=True)

    def __post_init__(self) -> None:
        if self.metric_for_best_model is None:
            self.metric_for_best_model = BEST_METRICS[self.stage]
        if not _has_accelerator():
            # Without it several CPU processes would not find each other, and train one copy each.
            self.use_cpu = True
        super().__post_init__()
        self._check_stage()

    def _check_stage(self) -> None:
        if self.condition == "denoised" and self.stage != "classification":
            raise ValueError(
                f"condition 'denoised' is for the classification stage: stage '{self.stage}' "
                "extracts by itself, use condition 'noisy'"
            )
        if self.label_smoothing_factor:
            raise ValueError(
                "label_smoothing_factor would replace the model's loss by the cross entropy alone: "
                "set `label_smoothing` in the classifier's config"
            )
        if self.permutation_invariant and self.stage != "extraction":
            raise ValueError("permutation_invariant is for stage 'extraction': leave it out")
        if self.extractor_learning_rate is not None and self.stage != "joint":
            raise ValueError("extractor_learning_rate is for stage 'joint': use learning_rate")


def _has_accelerator() -> bool:
    return torch.accelerator.is_available()


def parse_arguments(
    argv: Sequence[str],
) -> tuple[ModelArguments, DataArguments, TseSerTrainingArguments]:
    """Reads the arguments of `train.py`.

    Args:
        argv (`Sequence[str]`): command-line arguments without the program's name.

    Returns:
        `tuple[ModelArguments, DataArguments, TseSerTrainingArguments]`: with the protocol applied.

    Raises:
        RecipeError: an unknown key, a value that does not fit, or arguments that exclude each
            other; the message names them.
    """
    parser = RecipeParser((ModelArguments, DataArguments, TseSerTrainingArguments))
    model_args, data_args, training_args = parser.parse(argv)
    check_librimix(data_args, training_args)
    _check_condition(data_args, training_args)
    _apply_protocol(data_args, training_args)
    return model_args, data_args, training_args


def _check_condition(data_args: DataArguments, training_args: TseSerTrainingArguments) -> None:
    drawn = data_args.librimix_subset is None
    if drawn and training_args.condition == "noisy" and not data_args.interferers:
        raise RecipeError(
            "condition 'noisy' needs --interferers, the corpora of the interfering speech "
            "(for example generated_pool)"
        )
    if training_args.condition == "denoised" and data_args.denoised_dir is None:
        raise RecipeError(
            "condition 'denoised' needs --denoised_dir, a folder written by "
            "tse_ser.training.denoise_corpus"
        )


def _apply_protocol(data_args: DataArguments, training_args: TseSerTrainingArguments) -> None:
    """What the protocol says of the choice of an epoch."""
    if data_args.protocol == "paper":
        # No validation split: the last epoch is the result.
        training_args.eval_strategy = IntervalStrategy.NO
        training_args.load_best_model_at_end = False
    elif data_args.protocol == "best_on_test":
        _choose_on_test(training_args)
    if (
        training_args.early_stopping_patience is not None
        and not training_args.load_best_model_at_end
    ):
        raise RecipeError(
            "early_stopping_patience needs a validation split and load_best_model_at_end: "
            f"protocol is '{data_args.protocol}', set early_stopping_patience to null"
        )


def _choose_on_test(training_args: TseSerTrainingArguments) -> None:
    """The epoch of the best UA is the result, that of the best WA is kept beside it."""
    if training_args.stage == "extraction":
        raise RecipeError(
            "protocol 'best_on_test' chooses by WA and UA, which stage 'extraction' has not: give "
            "that stage protocol 'validated' or 'paper'"
        )
    if training_args.early_stopping_patience is not None:
        raise RecipeError(
            "early_stopping_patience: protocol 'best_on_test' looks at the test session in every "
            "epoch, set it to null"
        )
    training_args.eval_strategy = IntervalStrategy.EPOCH
    training_args.save_strategy = SaveStrategy.EPOCH
    training_args.load_best_model_at_end = True
    training_args.metric_for_best_model = "ua"
    training_args.greater_is_better = True


def mixture_keywords(data_args: DataArguments, condition: str, *, train: bool) -> dict[str, Any]:
    """Keywords of `load_mixtures` for one condition, in training or in validation.

    Args:
        data_args (`DataArguments`): corpora, split and mixing.
        condition (`str`): "clean" and "denoised" have no interferer.
        train (`bool`): whether the range of SNRs, the crop and the speeds of training apply.

    Returns:
        `dict[str, Any]`: every keyword but `split`.
    """
    noisy, denoised = condition == "noisy", condition == "denoised"
    keywords = data_args.mixing_keywords(noisy=noisy)
    keywords |= {
        "emotions": data_args.emotions,
        "segment_seconds": data_args.segment_seconds if train else data_args.eval_segment_seconds,
        "max_examples": data_args.max_train_examples if train else data_args.max_eval_examples,
        "speed_factors": tuple(data_args.speed_factors) if train else (1.0,),
    }
    if denoised:
        keywords["targets"] = ["denoised"]
        keywords["corpus_dirs"] |= {"denoised": data_args.denoised_dir}
        # Nobody hears the enrollment: no speaker of a small set needs a neutral utterance for it.
        keywords["enrollment_emotion"] = None
    if not noisy:
        return keywords
    if train:
        shares = {"clean_share": data_args.clean_share, "absent_share": data_args.absent_share}
        return keywords | shares
    return keywords | {"snr_range_db": tuple(data_args.eval_snr_range_db)}
