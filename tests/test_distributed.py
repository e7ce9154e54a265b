"""Two CPU processes, started by our accelerate recipe, do what one process does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import load_file
from subprocesses import run_program
from tiny_training import joint_arguments, log_history, same_weights, tiny_model

import train
from data_builders import load_corpus
from data_builders.audio import read_audio
from tse_ser.training import denoise_corpus


def denoising_arguments(extractor: Path, output_dir: Path) -> list[str]:
    return [
        *("--targets", "generated", "--interferers", "generated_pool", "--protocol", "paper"),
        *("--extractor_name_or_path", str(extractor), "--output_dir", str(output_dir)),
        *("--use_cpu", "true", "--batch_size", "8", "--max_train_examples", "5"),
    ]


@pytest.fixture(scope="module")
def runs(
    generated_corpus: datasets.Dataset,
    tmp_path_factory: pytest.TempPathFactory,
    repository: Path,
) -> Path:
    """Training and Denoised set of one process and of two, and a resumed training of two."""
    folder = tmp_path_factory.mktemp("distributed")
    torch.manual_seed(0)
    tiny_model("extraction").save_pretrained(folder / "extractor")
    # Step 6 of 8 lies inside the second epoch.
    resume = ["--resume_from_checkpoint", str(folder / "training_2" / "checkpoint-6")]
    jobs = [
        ("train", joint_arguments(folder, folder / "training_2", 2)),
        ("train", joint_arguments(folder, folder / "resumed_2", 2) + resume),
        ("denoise", denoising_arguments(folder / "extractor", folder / "denoised_2")),
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    recipe = str(repository / "recipes" / "accelerate" / "cpu_2_processes.yaml")
    script = str(repository / "tests" / "two_process_jobs.py")
    run_program([*launch, recipe, script, folder / "jobs.json"], repository)
    train.train(joint_arguments(folder, folder / "training_1", 1))
    denoise_corpus.denoise(denoising_arguments(folder / "extractor", folder / "denoised_1"))
    return folder


def test_our_recipe_starts_two_processes_that_train_together(runs: Path) -> None:
    for num_processes in (1, 2):
        facts = json.loads((runs / f"training_{num_processes}" / "training_facts.json").read_text())
        assert facts["num_processes"] == num_processes
        assert facts["steps"] == 8


def test_two_processes_give_the_loss_curve_of_one(runs: Path) -> None:
    one, two = (log_history(runs / f"training_{count}" / "checkpoint-8") for count in (1, 2))
    for key in ("loss", "extraction_loss", "classification_loss", "si_snr", "grad_norm"):
        curves = [[entry[key] for entry in history if key in entry] for history in (one, two)]
        assert len(curves[0]) == 8
        assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    for key in ("eval_si_sdr", "eval_si_sdri", "eval_classification_loss", "eval_ua"):
        curves = [[entry[key] for entry in history if key in entry] for history in (one, two)]
        assert len(curves[0]) == 4
        assert curves[0] == pytest.approx(curves[1], rel=1e-3)


def test_two_processes_end_with_the_weights_of_one(runs: Path) -> None:
    one, two = (
        load_file(runs / f"training_{count}" / "checkpoint-8" / "model.safetensors")
        for count in (1, 2)
    )
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4, msg=name)


def test_two_processes_that_resume_inside_an_epoch_go_on_as_before(runs: Path) -> None:
    assert same_weights(*(runs / name / "checkpoint-8" for name in ("training_2", "resumed_2")))


def test_two_processes_write_the_denoised_set_of_one(runs: Path, tmp_path: Path) -> None:
    one, two = (
        load_corpus("denoised", runs / f"denoised_{count}", tmp_path / str(count))
        for count in (1, 2)
    )
    assert one["utterance_id"][:] == two["utterance_id"][:]
    assert one["split"][:] == two["split"][:]
    assert one["split"][:].count("train") == 5
    assert one["si_sdr_db"][:] == pytest.approx(two["si_sdr_db"][:], abs=1e-3)
    for first, second in zip(one["path"][:3], two["path"][:3], strict=True):
        assert read_audio(first) == pytest.approx(read_audio(second), abs=1e-4)
