"""Every option of the programs beside those of the data: models, training, evaluation.

The options of the data are declared in `data_builders.options`; both are read by
`data_builders.option_reader`. `read_training_options` and `read_evaluation_options` give what
`train.py` and the evaluation run on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from transformers import IntervalStrategy, TrainingArguments
from transformers.integrations.integration_utils import is_tensorboard_available
from transformers.trainer_utils import SaveStrategy

from data_builders.corpora.denoised import settings_of
from data_builders.option_reader import (
    OptionError,
    OptionParser,
    Range,
    check_range,
    option,
    read_options,
    settle_options,
)
from data_builders.options import DataOptions, RecipeOptions, read_split
from data_builders.schema import EMOTIONS

Data = TypeVar("Data", bound=DataOptions)
Stage = Literal["extraction", "classification", "joint"]
Condition = Literal["clean", "noisy", "denoised"]

# What chooses the best checkpoint on the validation split; higher is better for both.
BEST_METRICS = {"extraction": "si_sdr", "classification": "ua", "joint": "ua"}
# Numbers of `transformers.TrainingArguments` that it takes whatever they are.
TRAINING_RANGES = {
    "per_device_train_batch_size": Range(at_least=1),
    "per_device_eval_batch_size": Range(at_least=1),
    "gradient_accumulation_steps": Range(at_least=1),
    "num_train_epochs": Range(above=0),
    "learning_rate": Range(at_least=0),
    "extractor_learning_rate": Range(at_least=0),
    "weight_decay": Range(at_least=0),
    "warmup_steps": Range(at_least=0),
    "max_grad_norm": Range(at_least=0),
    "seed": Range(at_least=0),
    "data_seed": Range(at_least=0),
    "early_stopping_patience": Range(at_least=1),
    "save_total_limit": Range(at_least=1),
    "dataloader_num_workers": Range(at_least=0),
}


@dataclass(kw_only=True)
class ModelOptions:
    """Where the model comes from: a checkpoint, or JSON files of its sizes."""

    model_name_or_path: str | None = option(None, "Checkpoint of the stage's model to start from.")
    extractor_name_or_path: str | None = option(
        None, "Pretrained extractor that the joint stage starts from."
    )
    classifier_name_or_path: str | None = option(
        None, "Trained classifier that the joint stage starts from."
    )
    extractor_config: str | None = option(
        None, "JSON file of a TdSpeakerBeamConfig, for a new extractor."
    )
    classifier_config: str | None = option(
        None, "JSON file of a ShiftCnnConfig, for a new classifier."
    )
    speaker_encoder_dir: str | None = option(
        None,
        "Folder of the published weights of the speaker encoder that a new extractor builds on.",
    )
    encoder_name_or_path: str | None = option(
        None, "Pretrained speech encoder (hub id or folder) of a new classifier."
    )
    trainable_encoder_layers: int | None = option(
        None,
        "Fine-tune so many of the upper layers of the classifier's speech encoder, whatever its "
        "config or checkpoint says.",
        at_least=1,
    )
    extractor_output_choice: Literal["order", "similarity"] | None = option(
        None,
        "How the extractor finds the target's among its outputs, whatever its config or checkpoint "
        "says: 'order' learns to put it first, in a training that adapts it to its corpora; "
        "'similarity' compares voices with the enrollment.",
    )
    train_similarity_projection: bool = option(
        False,
        "Train nothing but the projection in which an extractor that chooses by similarity "
        "compares voices, and add one where there is none.",
    )
    extraction_loss_weight: float | None = option(
        None, "Weight of the SI-SNR loss in the joint stage, eq. (9).", at_least=0
    )
    classification_loss_weight: float | None = option(
        None, "Weight of the cross entropy in the joint stage, eq. (9).", at_least=0
    )

    def __post_init__(self) -> None:
        settle_options(self)


def _reporting_default() -> str:
    return "tensorboard" if is_tensorboard_available() else "none"


@dataclass
class TseSerTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with the defaults that these three stages need."""

    stage: Stage = field(
        default="extraction", metadata={"help": "What is trained; decides model and losses."}
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
        for name, allowed in TRAINING_RANGES.items():
            check_range(name, getattr(self, name), allowed)
        if self.max_steps != -1 and self.max_steps < 1:
            raise OptionError(
                f"max_steps: expected at least 1, or -1 for num_train_epochs, got {self.max_steps}"
            )
        if self.metric_for_best_model is None:
            self.metric_for_best_model = BEST_METRICS[self.stage]
        if not torch.accelerator.is_available():
            # Without it several CPU processes would not find each other, and train one copy each.
            self.use_cpu = True
        super().__post_init__()
        if self.label_smoothing_factor:
            raise OptionError(
                "label_smoothing_factor would replace the model's loss by the cross entropy alone: "
                "set `label_smoothing` in the classifier's config"
            )
        if self.permutation_invariant and self.stage != "extraction":
            raise OptionError("permutation_invariant is for stage 'extraction': leave it out")
        if self.extractor_learning_rate is not None and self.stage != "joint":
            raise OptionError("extractor_learning_rate is for stage 'joint': use learning_rate")


class TrainingOptions(NamedTuple):
    """What `train.py` runs on."""

    model: ModelOptions  # where the model comes from
    data: RecipeOptions  # what it hears
    training: TseSerTrainingArguments  # how it is trained, with the protocol applied


def read_training_options(argv: Sequence[str] | None = None) -> TrainingOptions:
    """Reads the options of `train.py`.

    Args:
        argv (`Sequence[str]`, *optional*): arguments; those of the process if not given.

    Returns:
        `TrainingOptions`: recipe and command line, the line wins.

    Raises:
        OptionError: an unknown key, a value that does not fit, or options that exclude each other;
            the message names them.
    """
    kinds = (ModelOptions, RecipeOptions, TseSerTrainingArguments)
    options = TrainingOptions(*read_options(kinds, argv, prog="tse-ser train"))
    _check_stage(options.data, options.training.stage)
    options = options._replace(data=with_sources(options.data))
    _apply_protocol(options.data.protocol, options.training)
    return options


def _check_condition(data: DataOptions) -> None:
    """Raises where nobody interferes in a noisy condition, or a Denoised set is not named."""
    drawn = getattr(data, "librimix_subset", None) is None
    if data.condition == "noisy" and drawn and not data.interferers:
        raise OptionError(
            "condition 'noisy' needs --interferers, the corpora of the interfering speech (for "
            "example generated_pool)"
        )
    if data.condition == "denoised" and data.denoised_dir is None:
        raise OptionError(
            "condition 'denoised' needs --denoised_dir, a folder written by "
            "tse_ser.training.denoise_corpus"
        )


def with_sources(data: Data) -> Data:
    """Tells of a Denoised set the corpora that it was made of, as targets and interferers,
    whatever a recipe names.

    Raises `OptionError` where the set was made for another fold or protocol, so that its training
    split may hold who is tested here, and `CorpusError` where it cannot be read.
    """
    if data.condition != "denoised" or data.denoised_dir is None:
        return data
    made = settings_of(data.denoised_dir)
    for name in ("fold", "protocol"):
        theirs, ours = made.get(name), getattr(data, name)
        # Both of these protocols train on all sessions but the tested one.
        same = theirs == ours or {theirs, ours} == {"paper", "best_on_test"}
        if theirs is not None and not same:
            raise OptionError(
                f"denoised_dir {data.denoised_dir}: the set was made with {name} {theirs}, this is "
                f"{name} {ours}: give --{name} {theirs}, or make a set of its own for this one"
            )
    roles = ("targets", "interferers")
    sources: dict[str, Any] = {role: tuple(made[role]) for role in roles if made.get(role)}
    return dataclasses.replace(data, **sources)


def _check_stage(data: RecipeOptions, stage: Stage) -> None:
    if data.librimix_subset is not None and stage != "extraction":
        raise OptionError(
            f"librimix_subset is for stage 'extraction', as LibriMix has no emotions: stage is "
            f"'{stage}'"
        )
    if data.condition == "denoised" and stage != "classification":
        raise OptionError(
            f"condition 'denoised' is for the classification stage: stage '{stage}' extracts by "
            f"itself, use condition 'noisy'"
        )
    _check_condition(data)


def _apply_protocol(protocol: str, training: TseSerTrainingArguments) -> None:
    """What the protocol says of the choice of an epoch."""
    if protocol == "paper":
        # No validation split: the last epoch is the result.
        training.eval_strategy = IntervalStrategy.NO
        training.load_best_model_at_end = False
    elif protocol == "best_on_test":
        _choose_on_test(training)
    if training.early_stopping_patience is not None and not training.load_best_model_at_end:
        raise OptionError(
            "early_stopping_patience needs a validation split and load_best_model_at_end: "
            f"protocol is '{protocol}', set early_stopping_patience to null"
        )


def _choose_on_test(training: TseSerTrainingArguments) -> None:
    """The epoch of the best UA is the result, that of the best WA is kept beside it."""
    if training.stage == "extraction":
        raise OptionError(
            "protocol 'best_on_test' chooses by WA and UA, which stage 'extraction' has not: give "
            "that stage protocol 'validated' or 'paper'"
        )
    if training.early_stopping_patience is not None:
        raise OptionError(
            "early_stopping_patience: protocol 'best_on_test' looks at the test session in every "
            "epoch, set it to null"
        )
    training.eval_strategy = IntervalStrategy.EPOCH
    training.save_strategy = SaveStrategy.EPOCH
    training.load_best_model_at_end = True
    training.metric_for_best_model = "ua"
    training.greater_is_better = True


@dataclass(kw_only=True)
class EvaluationOptions(DataOptions):
    """What is scored on what."""

    model: str = field(metadata={"help": "Folder or hub id of any of the three models."})
    output: str | None = option(None, "JSON file to write.")
    classifier: str | None = option(None, "Classifier to put behind `--model`, an extractor.")
    split: Literal["train", "validation", "test"] = option("test", "What is scored.")
    emotions: tuple[str, ...] | None = option(
        (), "Emotions of the targets; the classes of the model if unset."
    )
    speaker_similarity: bool = option(
        False, "Compare extracted speech and enrollment, as where targets are absent."
    )
    seed: int = option(0, "Seed of the training, for the record.", at_least=0)
    batch_size: int = option(8, "Utterances in a forward pass.", at_least=1)

    def keywords(self) -> dict[str, Any]:
        """See `DataOptions.keywords`; the default emotions where none are asked for."""
        keywords = super().keywords()
        return keywords | {"emotions": EMOTIONS} if self.emotions == () else keywords

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_condition(self)
        if self.absent_share and self.condition != "noisy":
            raise OptionError(
                f"absent_share is for condition 'noisy': in '{self.condition}' nobody else speaks"
            )


def read_evaluation_options(
    argv: Sequence[str] | None = None, kind: type[EvaluationOptions] = EvaluationOptions
) -> Any:
    """Reads the options of an evaluation.

    Args:
        argv (`Sequence[str]`, *optional*): arguments; those of the process if not given.
        kind (`type`): `EvaluationOptions`, or what adds to them.

    Returns:
        `EvaluationOptions`: with `--config RECIPE`, on the mixtures that the recipe has of the
        split; flags win.

    Raises:
        OptionError: an unknown flag, a value that does not fit, or options that exclude each other.
    """
    parser = OptionParser(
        [kind], prog="tse-ser evaluate", description="Score one checkpoint on one test condition."
    )
    parser.add_argument("--config", help="Recipe whose data are scored; flags win.")
    flags = parser.flags(argv)
    config = flags.pop("config", None)
    return read_split(config, flags.get("split", kind.split), flags, kind)


def data_facts(data: DataOptions) -> dict[str, Any]:
    """The options of the data for a record, plain values as JSON has them, all but the recipe's
    name."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(data).items()
        if key != "config"
    }
