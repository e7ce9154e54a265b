"""Trains one stage of TSE-SER: the extractor, the classifier, or both jointly.

    accelerate launch train.py --config recipes/generated/1_extraction.yaml --fold 1
    accelerate launch train.py --config ... --resume_from_checkpoint auto

Writes the model, its feature extractor and `training_facts.json` into `--output_dir`.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import gc
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from filelock import FileLock, Timeout
from transformers import EarlyStoppingCallback, PreTrainedModel, TrainerCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint

from data_builders.files import make_folder
from data_builders.option_reader import OptionError
from data_builders.schema import SAMPLING_RATE, CorpusError
from modeling import TseSerFeatureExtractor
from tse_ser.machine import describe_machine
from tse_ser.options import (
    TrainingOptions,
    TseSerTrainingArguments,
    read_training_options,
)
from tse_ser.training.best_on_test import OPTIMISTIC, BestOnTest, best_on_test_facts
from tse_ser.training.build_model import build_model
from tse_ser.training.checkpoints import CheckpointError, check_same_run, find_resume_checkpoint
from tse_ser.training.collator import TseSerCollator
from tse_ser.training.facts import run_settings, training_facts, write_facts
from tse_ser.training.frame_statistics import fit_new_classifier
from tse_ser.training.load_datasets import Examples, load_datasets
from tse_ser.training.speaker_embeddings import SpeakerEmbeddingCache
from tse_ser.training.trainer import RunSettings, TseSerTrainer

logger = logging.getLogger("train")

DONE, CANNOT, INTERRUPTED = 0, 2, 130
LOCK_NAME = ".training.lock"
GO_ON = "the same command with --resume_from_checkpoint auto goes on from the last checkpoint"
# What torch and safetensors say of a full disk, in errors of their own.
FULL_DISK_WORDS = ("No space left on device", "inline_container.cc")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, and says in one line what went wrong; returns the exit code, 2 where it cannot
    be, 130 where it was interrupted."""
    return run_program("tse-ser train", lambda: train(argv), GO_ON)


def run_program(name: str, run: Callable[[], None], go_on: str) -> int:
    """Runs a program of one or several processes, called by `name`, and says in one line what
    went wrong, and how it goes on (`go_on`) after an interruption. Returns the exit code: 0
    where all is done, 2 where it cannot be, 130 where it was interrupted."""
    code, problem = DONE, ""
    try:
        run()
        leave_together()
    except KeyboardInterrupt:
        code, problem = INTERRUPTED, f"interrupted: {go_on}"
    except (OptionError, CheckpointError, CorpusError) as error:
        code, problem = CANNOT, f"error: {error}"
    except Exception as error:
        if not _is_full_disk(error):
            raise
        code, problem = CANNOT, f"error: the disk is full: free some space; {go_on}"
    if problem:
        print(f"{name}: {problem}", file=sys.stderr)
    return code


def _is_full_disk(error: BaseException) -> bool:
    """Whether an error that was raised while something was written is that of a full disk."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(words in str(error) for words in FULL_DISK_WORDS)


def leave_together() -> None:
    """Ends the process group once every process is done; the last thing a program does.

    A process that exits while the group's threads still run aborts now and then ("terminate called
    without an active exception"), and the launcher takes the whole run for failed.
    """
    state = PartialState()
    state.wait_for_everyone()
    # A trainer that is only kept by its own cycles holds the parallel model, and that the group.
    gc.collect()
    state.destroy_process_group()


def train(argv: Sequence[str] | None = None) -> None:
    """Reads the options, loads speech and model, trains, and saves. Raises `OptionError` where
    an option cannot be used, or another training writes into the folder; `CorpusError` where a
    corpus cannot be used; `CheckpointError` where there is nothing to resume from, or it was
    another training."""
    options = read_training_options(argv)
    training_args = options.training
    set_up_logging(training_args)
    with claimed(training_args):
        checkpoint = find_resume(training_args)
        set_seed(training_args.seed)
        model = build_model(options.model, training_args.stage, options.data.classes)
        _check_rate(model)
        datasets = load_datasets(options.data, training_args)
        trainer = build_trainer(model, options, *datasets)
        warn_if_optimistic(options.data.protocol)
        announce(trainer, options, checkpoint)
        if checkpoint is None:
            # A checkpoint holds them.
            fit_new_classifier(model, options.model, datasets[0], trainer.data_collator)
        else:
            check_same_run(checkpoint, trainer.run_shape, run_settings(options))
        trainer.train(resume_from_checkpoint=checkpoint)
        save(trainer, options)


@contextlib.contextmanager
def claimed(training_args: TseSerTrainingArguments) -> Iterator[None]:
    """Keeps the output folder to this training for a while, as two would mix their checkpoints.
    Raises `OptionError` where it cannot be made, or another training writes into it."""
    folder = make_folder(str(training_args.output_dir), "--output_dir")
    if training_args.process_index != 0:
        yield
        return
    try:
        # The system lets go of it when the process ends, however that happens.
        held = FileLock(folder / LOCK_NAME, timeout=0).acquire()
    except Timeout as error:
        raise OptionError(
            f"--output_dir {folder}: another training writes into it: wait for its end, or name "
            f"another folder"
        ) from error
    with held:
        yield


def _check_rate(model: PreTrainedModel) -> None:
    """Raises where a model is made for another rate than that of the mixtures."""
    if model.config.sampling_rate != SAMPLING_RATE:
        raise OptionError(
            f"the model is made for {model.config.sampling_rate} Hz, the mixtures have "
            f"{SAMPLING_RATE} Hz: start from a model whose config says sampling_rate "
            f"{SAMPLING_RATE}"
        )


def set_up_logging(training_args: TseSerTrainingArguments) -> None:
    """Logs from the main process, without what libraries say of their own doings."""
    level = logging.INFO if training_args.process_index == 0 else logging.ERROR
    logging.basicConfig(level=level, format="%(name)s: %(message)s")
    for chatty in ("httpx", "huggingface_hub", "torch", "fsspec"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def find_resume(training_args: TseSerTrainingArguments) -> str | None:
    """The checkpoint to resume from; says so where one is left unused."""
    output_dir = str(training_args.output_dir)
    checkpoint = find_resume_checkpoint(training_args.resume_from_checkpoint, output_dir)
    if checkpoint is not None:
        logger.info("resuming from %s", checkpoint)
    elif training_args.resume_from_checkpoint is not None:
        logger.info("%s holds no checkpoint: starting from the beginning", output_dir)
    elif Path(output_dir).is_dir() and get_last_checkpoint(output_dir):
        logger.warning(
            "%s holds checkpoints of an earlier training that will be overwritten: "
            "--resume_from_checkpoint auto goes on with it",
            output_dir,
        )
    return checkpoint


def choose_callbacks(options: TrainingOptions) -> list[TrainerCallback]:
    """What ends a training early, or keeps the epochs that the protocol asks for."""
    callbacks: list[TrainerCallback] = []
    patience = options.training.early_stopping_patience
    if patience is not None:
        callbacks.append(EarlyStoppingCallback(patience))
    if options.data.protocol == "best_on_test":
        callbacks.append(BestOnTest())
    return callbacks


def build_trainer(
    model: PreTrainedModel,
    options: TrainingOptions,
    train_dataset: Examples,
    eval_dataset: Examples | None,
) -> TseSerTrainer:
    """The trainer of a stage."""
    feature_extractor = TseSerFeatureExtractor(sampling_rate=model.config.sampling_rate)
    return TseSerTrainer(
        model=model,
        args=options.training,
        data_collator=TseSerCollator(
            feature_extractor,
            options.training.stage,
            options.data.condition,
            embedding_cache(model, feature_extractor),
            options.training.permutation_invariant,
        ),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=feature_extractor,
        callbacks=[*choose_callbacks(options), RunSettings(run_settings(options))],
    )


def embedding_cache(
    model: PreTrainedModel, feature_extractor: TseSerFeatureExtractor
) -> SpeakerEmbeddingCache | None:
    """What embeds enrollments once, where a frozen speaker encoder does."""
    extractor: Any = getattr(model, "extractor", model)
    if getattr(extractor.config, "speaker_encoder", None) is None:
        return None
    # The trainer takes the model to its device, and enrollments stay on the processor, where the
    # collator runs: in a process of its own, maybe. Both encoders are frozen, and the same.
    on_processor = copy.deepcopy(extractor).eval()
    return SpeakerEmbeddingCache(
        on_processor.get_speaker_embeddings,
        lambda enrollment: feature_extractor([enrollment], return_tensors="np")["input_values"][0],
    )


def warn_if_optimistic(protocol: str) -> None:
    """Says so where the epochs are chosen on what is reported."""
    if protocol == "best_on_test":
        logger.warning("protocol best_on_test, %s", OPTIMISTIC)


def announce(trainer: TseSerTrainer, options: TrainingOptions, checkpoint: str | None) -> None:
    """Says what is about to be trained."""
    args = trainer.args
    logger.info(
        "stage %s, condition %s: %d training and %d validation targets, %.2f M parameters "
        "(%.2f M trained), %d process(es) on %s%s",
        args.stage,
        options.data.condition,
        trainer.num_train_examples,
        trainer.num_eval_examples,
        *(count / 1e6 for count in count_parameters(trainer).values()),
        args.world_size,
        args.device,
        "" if checkpoint is None else ", resumed",
    )


def count_parameters(trainer: TseSerTrainer) -> dict[str, int]:
    """Parameters of the model, and those of them that are trained."""
    network = trainer.network
    return {"all": network.num_parameters(), "trained": network.num_parameters(only_trainable=True)}


def save(trainer: TseSerTrainer, options: TrainingOptions) -> None:
    """Writes weights, config, feature extractor and facts; says where."""
    trainer.save_model()
    if not trainer.is_world_process_zero():
        return
    # A pickle of the arguments, which nothing reads; the facts below say it in the open.
    (Path(str(trainer.args.output_dir)) / "training_args.bin").unlink(missing_ok=True)
    facts = training_facts(
        options,
        trainer.state,
        minutes=trainer.training_minutes,
        num_examples={
            "train": trainer.num_train_examples,
            "validation": trainer.num_eval_examples,
        },
        num_parameters=count_parameters(trainer),
        machine=describe_machine(trainer.args.device),
        best_on_test=best_on_test_facts(trainer.callback_handler.callbacks),
    )
    path = write_facts(facts, str(trainer.args.output_dir))
    print(f"Saved the model to {trainer.args.output_dir}, the facts of its training to {path}")
    if facts["best_on_test"] is not None:
        print(f"Protocol best_on_test: {json.dumps(facts['best_on_test'])}")


if __name__ == "__main__":
    sys.exit(main())
