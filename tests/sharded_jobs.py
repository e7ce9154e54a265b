"""What test_accelerate_configs.py launches: trainings that FSDP shards over CPU processes.

    accelerate launch --config_file recipes/accelerate/fsdp_2_gpus.yaml \\
        tests/sharded_jobs.py jobs.json

accelerate turns FSDP into plain data parallelism where there is no GPU; here its CPU processes pass
for GPUs, and everything behind that is what runs on GPUs: FSDP2, its checkpoints, Trainer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import accelerate.state
import torch
import torch.distributed
from accelerate.utils import DistributedType

# The launcher puts this script's folder on the path, not the repository.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train
from tse_ser.training.train import leave_together
from tse_ser.training.trainer import TseSerTrainer


def pass_cpu_processes_for_gpus() -> None:
    """Lets accelerate take gloo processes on the CPU for processes with a GPU each."""

    def prepare_backend(*_: Any, **__: Any) -> tuple[str, DistributedType]:
        return "gloo", DistributedType.MULTI_GPU

    def set_device(state: Any) -> None:
        state.device = torch.device("cpu")

    torch.distributed.init_process_group("gloo")
    accelerate.state.PartialState._prepare_backend = prepare_backend
    accelerate.state.PartialState.set_device = set_device


def record_shards(folder: Path) -> None:
    """Writes down, after each training, how many parameters this process held."""
    original = TseSerTrainer.train

    def recorded(trainer: TseSerTrainer, *args: Any, **kwargs: Any) -> Any:
        result = original(trainer, *args, **kwargs)
        parameters: list[Any] = list(trainer.network.parameters())
        held = {
            "all": sum(each.numel() for each in parameters),
            "here": sum(each.to_local().numel() for each in parameters),
            "type": str(trainer.accelerator.distributed_type),
        }
        path = folder / f"shards_{trainer.args.process_index}.json"
        path.write_text(json.dumps(held), encoding="utf-8")
        return result

    TseSerTrainer.train = recorded  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    torch.set_num_threads(1)
    pass_cpu_processes_for_gpus()
    jobs = Path(sys.argv[1])
    record_shards(jobs.parent)
    for arguments in json.loads(jobs.read_text(encoding="utf-8")):
        train.train(arguments)
    leave_together()
