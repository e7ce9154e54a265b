"""Resuming: a killed training ends where an uninterrupted one does; wrong folders are refused."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from tiny_training import JOINT_TRAINING, log_history, same_weights, write_model_configs

import train
from tse_ser.training.checkpoints import CheckpointError, find_resume_checkpoint

# Runs train.py and dies, without a word, in the seventh step: in the middle of the second epoch and
# after the checkpoint of step 6.
KILLED_TRAINING = """
import os, signal, sys
import train
from tse_ser.training.trainer import TrainingClock

def die(self, args, state, control, **kwargs):
    if state.global_step == 7:
        os.kill(os.getpid(), signal.SIGKILL)

TrainingClock.on_step_end = die
train.train(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def flags(
    generated_corpus: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Three epochs of four steps, with dropout and SpecAugment: the generators matter."""
    configs = write_model_configs(
        tmp_path_factory.mktemp("configs"),
        apply_spec_augment=True,
        mask_time_prob=0.2,
        mask_time_length=3,
        classifier_dropout=0.2,
    )
    return [
        *JOINT_TRAINING,
        *configs,
        *("--num_train_epochs", "3", "--per_device_train_batch_size", "4"),
        *("--eval_strategy", "steps", "--eval_steps", "2"),
        *("--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "10"),
        *("--early_stopping_patience", "20"),
        *("--dataloader_num_workers", "1", "--dataloader_persistent_workers", "true"),
    ]


def test_a_killed_training_resumes_to_the_weights_of_one_that_was_not(
    tmp_path: Path, flags: list[str], repository: Path
) -> None:
    killed_dir, whole_dir = tmp_path / "killed", tmp_path / "whole"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_TRAINING, *flags, "--output_dir", str(killed_dir)],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (killed_dir / "checkpoint-6").is_dir()
    assert not (killed_dir / "model.safetensors").exists()
    # A checkpoint whose writing was cut off is passed over.
    shutil.copytree(killed_dir / "checkpoint-6", killed_dir / "checkpoint-7")
    (killed_dir / "checkpoint-7" / "trainer_state.json").unlink()

    train.train([*flags, "--output_dir", str(killed_dir), "--resume_from_checkpoint", "auto"])
    train.train([*flags, "--output_dir", str(whole_dir), "--resume_from_checkpoint", "auto"])

    assert same_weights(killed_dir / "checkpoint-12", whole_dir / "checkpoint-12")
    assert same_weights(killed_dir, whole_dir)
    for key in ("loss", "extraction_loss", "eval_si_sdr"):
        curves = [
            [
                (entry["step"], entry[key])
                for entry in log_history(folder / "checkpoint-12")
                if key in entry
            ]
            for folder in (killed_dir, whole_dir)
        ]
        assert curves[0] == curves[1]
        assert curves[0]
    # The training did train, and the two ends of it differ.
    assert not same_weights(whole_dir / "checkpoint-2", whole_dir / "checkpoint-12")


def test_auto_finds_nothing_in_an_empty_folder(tmp_path: Path) -> None:
    assert find_resume_checkpoint("auto", str(tmp_path)) is None
    assert find_resume_checkpoint("auto", str(tmp_path / "none")) is None
    assert find_resume_checkpoint(None, str(tmp_path)) is None


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such folder"):
        find_resume_checkpoint(str(tmp_path / "none"), str(tmp_path))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        find_resume_checkpoint(str(tmp_path), str(tmp_path))
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"trainer_state\.json was cut off"):
        find_resume_checkpoint(str(tmp_path), str(tmp_path))
    (tmp_path / "trainer_state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"\.pt was cut off"):
        find_resume_checkpoint(str(tmp_path), str(tmp_path))


def test_the_program_refuses_a_wrong_folder(tmp_path: Path, flags: list[str]) -> None:
    output = ["--output_dir", str(tmp_path / "out")]
    with pytest.raises(CheckpointError, match=f"--resume_from_checkpoint {tmp_path}"):
        train.train([*flags, *output, "--resume_from_checkpoint", str(tmp_path)])
