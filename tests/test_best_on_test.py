"""Protocol best_on_test: the test session chooses the epochs, and everything says so."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import datasets
import pytest
from tiny_training import (
    JOINT_TRAINING,
    TrainingEndedError,
    killed_after,
    log_history,
    same_weights,
    write_model_configs,
)
from transformers import TrainerControl, TrainerState

from data_builders.option_reader import OptionError
from data_builders.options import RecipeOptions
from tse_ser.options import read_training_options
from tse_ser.training import train
from tse_ser.training.best_on_test import BestOnTest, best_on_test_facts
from tse_ser.training.denoise_corpus import plan_jobs
from tse_ser.training.load_datasets import load_datasets


@pytest.fixture(scope="module")
def flags(
    generated_corpus: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Five epochs of two steps on fold 2."""
    return [
        *JOINT_TRAINING,
        *write_model_configs(tmp_path_factory.mktemp("configs"), classifier_dropout=0.2),
        *("--protocol", "best_on_test", "--fold", "2", "--learning_rate", "1e-2"),
        *("--num_train_epochs", "5", "--per_device_train_batch_size", "8"),
        *("--save_total_limit", "10", "--max_eval_examples", "24"),
    ]


@pytest.fixture(scope="module")
def trained(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train.train([*flags, "--output_dir", str(folder)])
    return folder


def curve(folder: Path, name: str) -> list[float]:
    history = log_history(folder / "checkpoint-10")
    return [entry[f"eval_{name}"] for entry in history if f"eval_{name}" in entry]


def test_the_epochs_are_those_of_the_best_wa_and_the_best_ua(trained: Path) -> None:
    facts = json.loads((trained / "training_facts.json").read_text())
    assert facts["optimistic"] is True
    assert facts["best_on_test"]["label"].startswith("optimistic: the epochs were chosen on the t")
    for name, folder in (("ua", trained), ("wa", trained / "best_wa")):
        values = curve(trained, name)
        assert len(values) == 5
        best = facts["best_on_test"][name]
        epoch = values.index(max(values)) + 1
        assert (best[name], best["epoch"], best["step"]) == (max(values), epoch, 2 * epoch)
        assert best["folder"] == ("." if name == "ua" else "best_wa")
        assert same_weights(folder, trained / f"checkpoint-{2 * epoch}")
        others = [number for number in range(1, 6) if number != epoch]
        assert not any(
            same_weights(folder, trained / f"checkpoint-{2 * number}") for number in others
        )


def test_it_is_chosen_on_the_session_that_is_reported(flags: list[str]) -> None:
    _, data_args, training_args = read_training_options([*flags, "--output_dir", "unused"])
    train_set, chosen_on = load_datasets(data_args, training_args)
    sets: list[Any] = [train_set, chosen_on]
    speakers = [
        {dataset.planner.targets.speaker_ids[index] for index in range(len(dataset))}
        for dataset in sets
    ]
    sessions = [{speaker.split("_")[1] for speaker in of_set} for of_set in speakers]
    assert not sessions[0] & sessions[1]
    assert len(sessions[0]) > 1
    assert len(sessions[1]) == 1
    # As protocol "paper" has them.
    paper = [*flags, "--protocol", "paper", "--output_dir", "unused"]
    _, data_args, training_args = read_training_options(paper)
    train_again, nothing = load_datasets(data_args, training_args)
    assert nothing is None
    assert train_again[0]["utterance_id"] == train_set[0]["utterance_id"]


def test_its_denoised_set_has_no_validation_split(generated_corpus: datasets.Dataset) -> None:
    splits = {}
    for protocol in ("validated", "paper", "best_on_test"):
        data_args = RecipeOptions(interferers=("generated_pool",))
        data_args.protocol = protocol
        splits[protocol] = [job.split for job in plan_jobs(data_args, 1)]
    assert splits == {
        "validated": ["train", "validation", "test"],
        "paper": ["train", "test"],
        "best_on_test": ["train", "test"],
    }


def test_an_interrupted_training_remembers_its_best_epochs(
    flags: list[str], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingEndedError):
        killed_after(7, monkeypatch, [*flags, "--output_dir", str(tmp_path)])
    assert not (tmp_path / "training_facts.json").exists()
    train.train([*flags, "--output_dir", str(tmp_path), "--resume_from_checkpoint", "auto"])
    facts = [json.loads((one / "training_facts.json").read_text()) for one in (tmp_path, trained)]
    assert facts[0]["best_on_test"] == facts[1]["best_on_test"]
    assert same_weights(tmp_path, trained)
    assert same_weights(tmp_path / "best_wa", trained / "best_wa")


def test_the_first_of_equal_epochs_is_kept(tmp_path: Path) -> None:
    callback = BestOnTest()
    saved: list[str] = []

    class Saved:
        def save_pretrained(self, folder: Path) -> None:
            saved.append(f"{folder.name} {state.global_step}")

    state = TrainerState(is_world_process_zero=True)
    arguments: Any = type("Arguments", (), {"output_dir": str(tmp_path)})()
    for step, (wa, ua) in enumerate([(0.4, 0.3), (0.6, 0.3), (0.6, 0.5), (0.5, 0.4)], start=1):
        state.global_step, state.epoch = step, float(step)
        metrics = {"eval_wa": wa, "eval_ua": ua}
        callback.on_evaluate(
            arguments,
            state,
            TrainerControl(),
            metrics=metrics,
            model=Saved(),
            processing_class=Saved(),
        )
    assert {name: best["step"] for name, best in callback.best.items()} == {"wa": 2, "ua": 3}
    assert saved == ["best_wa 1", "best_wa 1", "best_wa 2", "best_wa 2"]
    again = BestOnTest()
    again.best = json.loads(json.dumps(callback.state()["attributes"]["best"]))
    assert best_on_test_facts([again]) == callback.facts()
    assert best_on_test_facts([]) is None


def test_what_would_not_be_the_protocol_is_refused(flags: list[str]) -> None:
    for more, message in (
        (
            ["--stage", "extraction"],
            "'best_on_test' chooses by WA and UA, which stage 'extraction'",
        ),
        (["--early_stopping_patience", "3"], "early_stopping_patience: protocol 'best_on_test'"),
    ):
        with pytest.raises(OptionError, match=message):
            read_training_options([*flags, *more, "--output_dir", "unused"])


def test_it_says_so_while_it_trains(flags: list[str], caplog: pytest.LogCaptureFixture) -> None:
    _, data_args, _ = read_training_options([*flags, "--output_dir", "unused"])
    caplog.set_level(logging.WARNING)
    train.warn_if_optimistic(data_args.protocol)
    assert "protocol best_on_test, optimistic" in caplog.text
    caplog.clear()
    train.warn_if_optimistic("paper")
    assert not caplog.text
