"""The accelerate recipes start the processes that they say, and sharded training its model."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from safetensors.torch import load_file
from subprocesses import run_program
from tiny_training import joint_arguments, log_history, tiny_model
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import AutoModelForAudioClassification

import train
from tse_ser.training.checkpoints import checkpoint_problem
from tse_ser.training.trainer import own_class

REPOSITORY = Path(__file__).resolve().parent.parent
RECIPES = sorted((REPOSITORY / "recipes" / "accelerate").glob("*.yaml"))
# Processes that a machine without a GPU starts with it, on one of its machines.
PROCESSES_HERE = {
    "cpu_1_process": 1,
    "cpu_2_processes": 2,
    "fsdp_2_gpus": 2,
    "multi_gpu": 2,
    "multi_node": 2,
    "single_gpu_bf16": 1,
}
MORE = ("--num_train_epochs", "1", "--extractor_learning_rate", "5e-4")
COUNT_PROCESSES = """
import sys
from accelerate import PartialState
state = PartialState(cpu=True)
print("started", state.process_index, "of", state.num_processes, flush=True)
state.wait_for_everyone()
state.destroy_process_group()
"""


def recipe(name: str) -> Path:
    return REPOSITORY / "recipes" / "accelerate" / f"{name}.yaml"


def launch(name: str, *words: object) -> list[str]:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    return [*command, str(recipe(name)), *map(str, words)]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_accelerate_reads_every_recipe(path: Path) -> None:
    assert path.stem in PROCESSES_HERE, "say how many processes the recipe starts"
    config = load_config_from_file(str(path))  # refuses keys that it does not know
    arguments = launch_command_parser().parse_args(["--config_file", str(path), "train.py"])
    launched, _, _ = _validate_launch_command(arguments)
    assert launched.num_processes == PROCESSES_HERE[path.stem] * config.num_machines
    assert launched.use_fsdp == (path.stem == "fsdp_2_gpus")
    # What takes the path of torchrun; the others start one process, whatever number they name.
    assert (launched.multi_gpu or launched.use_fsdp) == (launched.num_processes > 1)


def test_every_key_of_the_sharding_is_one_that_the_launcher_takes() -> None:
    content = yaml.safe_load(recipe("fsdp_2_gpus").read_text(encoding="utf-8"))
    known = vars(launch_command_parser().parse_args(["train.py"]))
    assert set(content["fsdp_config"]) <= set(known)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(PROCESSES_HERE) - {"multi_node"}))
def test_a_recipe_starts_the_processes_that_it_says(name: str, tmp_path: Path) -> None:
    script = tmp_path / "count.py"
    script.write_text(COUNT_PROCESSES)
    count = PROCESSES_HERE[name]
    started = sorted(
        line
        for line in run_program(launch(name, script), REPOSITORY).splitlines()
        if "started" in line
    )
    assert started == [f"started {index} of {count}" for index in range(count)]


@pytest.mark.slow
def test_two_machines_become_one_training(tmp_path: Path) -> None:
    script = tmp_path / "count.py"
    script.write_text(COUNT_PROCESSES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = [
        subprocess.Popen(
            launch("multi_node", "--machine_rank", rank, "--main_process_port", port, script),
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    started = [machine.communicate(timeout=300)[0].splitlines() for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0]
    assert [sorted(lines) for lines in started] == [
        ["started 0 of 4", "started 1 of 4"],
        ["started 2 of 4", "started 3 of 4"],
    ]


@pytest.mark.parametrize("stage", ["extraction", "classification", "joint"])
def test_a_model_answers_what_fsdp_asks_before_it_shards(stage: Any) -> None:
    model = tiny_model(stage)
    assert model.get_input_embeddings() is None
    assert model.get_output_embeddings() is None


def test_a_sharded_model_has_its_own_class_while_it_is_saved() -> None:
    model = nn.Linear(2, 2)
    # As `fully_shard` makes it.
    model.__class__ = type("FSDPLinear", (FSDPModule, nn.Linear), {})
    sharded = type(model)
    with own_class(model):
        assert type(model) is nn.Linear
    assert type(model) is sharded
    plain = nn.Linear(2, 2)
    with own_class(plain):
        assert type(plain) is nn.Linear
    assert type(plain) is nn.Linear


def test_a_checkpoint_of_a_sharded_training_is_complete(tmp_path: Path) -> None:
    for name in ("optimizer.bin", "pytorch_model_fsdp.bin", "scheduler.pt"):
        torch.save({}, tmp_path / name)
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "trainer_state.json").write_text("{}")
    assert checkpoint_problem(tmp_path) is None
    whole = (tmp_path / "optimizer.bin").read_bytes()
    (tmp_path / "optimizer.bin").write_bytes(whole[: len(whole) // 2])
    assert "optimizer.bin was cut off" in str(checkpoint_problem(tmp_path))
    (tmp_path / "optimizer.bin").unlink()
    assert "optimizer.pt is missing" in str(checkpoint_problem(tmp_path))


@pytest.mark.slow
def test_sharded_training_gives_the_model_of_one_process(
    generated_corpus: Any, tmp_path: Path
) -> None:
    resume = ["--resume_from_checkpoint", str(tmp_path / "sharded" / "checkpoint-2")]
    jobs = [
        joint_arguments(tmp_path, tmp_path / "sharded", 2, *MORE),
        joint_arguments(tmp_path, tmp_path / "resumed", 2, *MORE) + resume,
    ]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    script = REPOSITORY / "tests" / "sharded_jobs.py"
    run_program(launch("fsdp_2_gpus", script, tmp_path / "jobs.json"), REPOSITORY)
    train.train(joint_arguments(tmp_path, tmp_path / "one", 1, *MORE))

    shards = [json.loads((tmp_path / f"shards_{rank}.json").read_text()) for rank in range(2)]
    assert all(shard["type"] == "DistributedType.FSDP" for shard in shards)
    # Each process holds its half of the parameters; nobody holds all of them.
    assert sum(shard["here"] for shard in shards) == shards[0]["all"]
    assert max(shard["here"] for shard in shards) < 0.6 * shards[0]["all"]
    one, sharded = (log_history(tmp_path / name / "checkpoint-4") for name in ("one", "sharded"))
    for key in ("loss", "grad_norm", "eval_si_sdr", "eval_si_sdri", "eval_ua"):
        curves = [[entry[key] for entry in history if key in entry] for history in (one, sharded)]
        assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    weights = {
        name: load_file(tmp_path / name / "checkpoint-4" / "model.safetensors")
        for name in ("one", "sharded", "resumed")
    }
    for name, expected in weights["one"].items():
        torch.testing.assert_close(weights["sharded"][name], expected, rtol=1e-3, atol=1e-4)
        assert torch.equal(weights["resumed"][name], weights["sharded"][name])
    check_saved_model(tmp_path / "sharded", tmp_path / "one")


def check_saved_model(sharded: Path, one: Path) -> None:
    """What a sharded training saves is what one process saves: the model, its code, the facts."""
    names = [
        {path.name for path in folder.iterdir() if path.is_file()} for folder in (sharded, one)
    ]
    assert names[0] == names[1]
    configs = [json.loads((folder / "config.json").read_text()) for folder in (sharded, one)]
    assert configs[0] == configs[1]
    facts = json.loads((sharded / "training_facts.json").read_text())
    assert (facts["num_processes"], facts["steps"]) == (2, 4)
    model = AutoModelForAudioClassification.from_pretrained(sharded)
    saved = load_file(sharded / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
