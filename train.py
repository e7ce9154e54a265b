"""Trains one stage of TSE-SER: the extractor, the classifier, or both jointly.

    accelerate launch train.py --config recipes/generated/1_extraction.yaml --fold 1
    accelerate launch train.py --config ... --resume_from_checkpoint auto

Writes the model, its feature extractor and `training_facts.json` into `--output_dir`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, PreTrainedModel, TrainerCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint

from data_builders.schema import CorpusError
from modeling import TseSerFeatureExtractor
from tse_ser.evaluation.evaluate_checkpoint import describe_machine
from tse_ser.training.arguments import (
    DataArguments,
    ModelArguments,
    TseSerTrainingArguments,
    parse_arguments,
)
from tse_ser.training.best_on_test import OPTIMISTIC, BestOnTest, best_on_test_facts
from tse_ser.training.build_model import build_model
from tse_ser.training.checkpoints import CheckpointError, find_resume_checkpoint
from tse_ser.training.collator import TseSerCollator
from tse_ser.training.facts import training_facts, write_facts
from tse_ser.training.frame_statistics import fit_new_classifier
from tse_ser.training.load_datasets import Examples, load_datasets
from tse_ser.training.processes import leave_together
from tse_ser.training.recipe_parser import RecipeError
from tse_ser.training.speaker_embeddings import SpeakerEmbeddingCache
from tse_ser.training.trainer import TseSerTrainer

logger = logging.getLogger("train")


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the arguments, loads speech and model, trains, and saves.

    Args:
        argv (`Sequence[str]`, *optional*): arguments; those of the process by default.
    """
    model_args, data_args, training_args = parse_arguments(sys.argv[1:] if argv is None else argv)
    set_up_logging(training_args)
    checkpoint = find_resume(training_args)
    set_seed(training_args.seed)
    model = build_model(model_args, training_args.stage)
    train_dataset, eval_dataset = load_datasets(data_args, training_args)
    callbacks = choose_callbacks(data_args, training_args)
    trainer = build_trainer(model, training_args, train_dataset, eval_dataset, callbacks)
    warn_if_optimistic(data_args)
    announce(trainer, checkpoint)
    if checkpoint is None:
        # A checkpoint holds them.
        fit_new_classifier(model, model_args, train_dataset, trainer.data_collator)
    trainer.train(resume_from_checkpoint=checkpoint)
    save(trainer, model_args, data_args)


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


def choose_callbacks(
    data_args: DataArguments, training_args: TseSerTrainingArguments
) -> list[TrainerCallback]:
    """What ends a training early, or keeps the epochs that the protocol asks for."""
    callbacks: list[TrainerCallback] = []
    if training_args.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(training_args.early_stopping_patience))
    if data_args.protocol == "best_on_test":
        callbacks.append(BestOnTest())
    return callbacks


def build_trainer(
    model: PreTrainedModel,
    training_args: TseSerTrainingArguments,
    train_dataset: Examples,
    eval_dataset: Examples | None,
    callbacks: list[TrainerCallback],
) -> TseSerTrainer:
    """The trainer of a stage."""
    feature_extractor = TseSerFeatureExtractor(sampling_rate=model.config.sampling_rate)
    return TseSerTrainer(
        model=model,
        args=training_args,
        data_collator=TseSerCollator(
            feature_extractor,
            training_args.stage,
            training_args.condition,
            embedding_cache(model, feature_extractor),
            training_args.permutation_invariant,
        ),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=feature_extractor,
        callbacks=callbacks,
    )


def embedding_cache(
    model: PreTrainedModel, feature_extractor: TseSerFeatureExtractor
) -> SpeakerEmbeddingCache | None:
    """What embeds enrollments once, where a frozen speaker encoder does."""
    extractor: Any = getattr(model, "extractor", model)
    if getattr(extractor.config, "speaker_encoder", None) is None:
        return None
    return SpeakerEmbeddingCache(
        extractor.get_speaker_embeddings,
        lambda enrollment: feature_extractor([enrollment], return_tensors="np")["input_values"][0],
    )


def warn_if_optimistic(data_args: DataArguments) -> None:
    """Says so where the epochs are chosen on what is reported."""
    if data_args.protocol == "best_on_test":
        logger.warning("protocol best_on_test, %s", OPTIMISTIC)


def announce(trainer: TseSerTrainer, checkpoint: str | None) -> None:
    """Says what is about to be trained."""
    args = trainer.args
    logger.info(
        "stage %s, condition %s: %d training and %d validation targets, %.2f M parameters "
        "(%.2f M trained), %d process(es) on %s%s",
        args.stage,
        args.condition,
        trainer.num_train_examples,
        trainer.num_eval_examples,
        count_parameters(trainer)["all"] / 1e6,
        count_parameters(trainer)["trained"] / 1e6,
        args.world_size,
        args.device,
        "" if checkpoint is None else ", resumed",
    )


def count_parameters(trainer: TseSerTrainer) -> dict[str, int]:
    """Parameters of the model, and those of them that are trained."""
    parameters = list(trainer.network.parameters())
    return {
        "all": sum(p.numel() for p in parameters),
        "trained": sum(p.numel() for p in parameters if p.requires_grad),
    }


def save(trainer: TseSerTrainer, model_args: ModelArguments, data_args: DataArguments) -> None:
    """Writes weights, config, feature extractor and facts; says where."""
    trainer.save_model()
    if not trainer.is_world_process_zero():
        return
    # A pickle of the arguments, which nothing reads; the facts below say it in the open.
    (Path(str(trainer.args.output_dir)) / "training_args.bin").unlink(missing_ok=True)
    facts = training_facts(
        model_args,
        data_args,
        trainer.args,
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
    try:
        main()
        leave_together()
    except (RecipeError, CheckpointError, CorpusError) as error:
        sys.exit(f"train.py: error: {error}")
