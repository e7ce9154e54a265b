"""Where a training resumes: folders that a killed training left half written are passed over."""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

logger = logging.getLogger(__name__)

# Trainer writes them in this order, the state last; under FSDP the optimizer has another name.
CHECKPOINT_FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")
OTHER_NAMES = {"optimizer.pt": "optimizer.bin"}


class CheckpointError(ValueError):
    """A folder that a training cannot resume from; the message names it and what is missing."""


def find_resume_checkpoint(resume_from_checkpoint: str | None, output_dir: str) -> str | None:
    """Resolves `--resume_from_checkpoint`.

    Args:
        resume_from_checkpoint (`str`, *optional*): a checkpoint folder, or "auto" for the last
            complete one in `output_dir`, if there is one.
        output_dir (`str`): folder of the training.

    Returns:
        `str`: the folder to resume from, or `None` to start from the beginning.

    Raises:
        CheckpointError: the named folder is no complete checkpoint.
    """
    if resume_from_checkpoint is None:
        return None
    if resume_from_checkpoint == "auto":
        return _last_complete_checkpoint(Path(output_dir))
    problem = checkpoint_problem(Path(resume_from_checkpoint))
    if problem:
        raise CheckpointError(
            f"--resume_from_checkpoint {resume_from_checkpoint}: {problem}. Name a folder "
            "checkpoint-<step> that a training wrote, or 'auto' for the last one in --output_dir"
        )
    return resume_from_checkpoint


def check_same_run(checkpoint: str, shape: Mapping[str, int], settings: Mapping[str, Any]) -> None:
    """Refuses to resume from another training.

    Args:
        checkpoint (`str`): the folder.
        shape (`Mapping[str, int]`): `tse_ser.training.trainer.run_shape` of this run. Where an
            update had another number of examples, or an epoch, the checkpoint's step would be
            another place in the epoch.
        settings (`Mapping`): `tse_ser.training.facts.run_settings` of this run: data, model and
            optimisation.

    Raises:
        CheckpointError: one of them was another; the message names it.
    """
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))
    kept = state.get("stateful_callbacks", {})
    _check_settings(checkpoint, kept.get("RunSettings", {}).get("args", {}), settings)
    _check_shape(checkpoint, kept.get("RunShape", {}), shape)


def _check_settings(checkpoint: str, kept: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    written = kept.get("settings", {})
    for name, value in settings.items():
        # An option that came later than the checkpoint says nothing about it.
        if name in written and written[name] != value:
            raise CheckpointError(
                f"{checkpoint}: its training had {name} {written[name]!r}, this one has {value!r}: "
                f"give it the same options, or start anew in another --output_dir"
            )


def _check_shape(checkpoint: str, kept: Mapping[str, Any], shape: Mapping[str, int]) -> None:
    written = kept.get("attributes", {}).get("shape")
    if not written:
        logger.warning("%s does not tell how many examples an update had", checkpoint)
        return
    if written["num_train_examples"] != shape["num_train_examples"]:
        raise CheckpointError(
            f"{checkpoint}: its training had {written['num_train_examples']} training examples, "
            f"this one has {shape['num_train_examples']}: give it the same data, or start anew in "
            f"another --output_dir"
        )
    if written["examples_per_update"] != shape["examples_per_update"]:
        raise CheckpointError(
            f"{checkpoint}: its training heard {written['examples_per_update']} examples an update "
            f"in {written['num_processes']} process(es), this one would hear "
            f"{shape['examples_per_update']} in {shape['num_processes']}, so that its steps would "
            f"be other epochs and other mixtures: start as many processes, or set "
            f"--per_device_train_batch_size and --gradient_accumulation_steps for "
            f"{written['examples_per_update']} examples an update"
        )
    if written["num_processes"] != shape["num_processes"]:
        logger.warning(
            "%s was written by %d process(es), this run has %d: the mixtures are the same, what is "
            "drawn inside the model (dropout, SpecAugment) is not",
            checkpoint,
            written["num_processes"],
            shape["num_processes"],
        )


def checkpoint_problem(folder: Path) -> str | None:
    """What keeps a training from resuming from a folder: the first problem, `None` for a
    complete checkpoint."""
    if not folder.is_dir():
        return "there is no such folder"
    for name in CHECKPOINT_FILES:
        if not any((folder / each).is_file() for each in (name, OTHER_NAMES.get(name, name))):
            return f"is no checkpoint of a training, {name} is missing"
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except ValueError:
        return "trainer_state.json was cut off"
    # Torch saves zip archives, whose directory comes last.
    for path in [*folder.glob("*.pt"), *folder.glob("*.bin"), *folder.glob("rng_state*.pth")]:
        if not zipfile.is_zipfile(path):
            return f"{path.name} was cut off"
    return None


def _last_complete_checkpoint(output_dir: Path) -> str | None:
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
    steps = {
        int(match.group(1)): path
        for path in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if (match := pattern.fullmatch(path.name))
    }
    for step in sorted(steps, reverse=True):
        problem = checkpoint_problem(steps[step])
        if problem is None:
            return str(steps[step])
        logger.warning("%s is passed over: %s", steps[step], problem)
    return None
