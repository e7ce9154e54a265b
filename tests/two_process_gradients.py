"""
What test_trainer_proof.py starts twice: one rank of DistributedDataParallel over gloo.

    python tests/two_process_gradients.py RANK STORE OUTPUT

Each rank takes one row of a batch; rank 0 writes the gradients, which are the mean over both.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed

# Started as a program, the folder above is not on the path.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tiny_models import joint_batch, tiny_extractor


def write_gradients(rank: int, output: str) -> None:
    """Two steps on this rank's row; rank 0 writes the gradients of the second."""
    model = tiny_extractor()
    # Without `find_unused_parameters`, a parameter without gradient stops the second step.
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    batch = joint_batch()
    del batch["labels"]
    rows = {name: values[rank : rank + 1] for name, values in batch.items()}
    for _ in range(2):
        model.zero_grad()
        parallel(**rows).loss.backward()
    if rank == 0:
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        save_file(gradients, output)


if __name__ == "__main__":
    rank, store, output = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    write_gradients(rank, output)
    # The group's threads end only where nothing holds it and nobody is still in it: a process that
    # leaves earlier aborts now and then.
    distributed.barrier()
    distributed.destroy_process_group()
