"""The processes of a distributed run."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

from accelerate import PartialState
from torch import nn
from torch.distributed.fsdp import FSDPModule


@contextlib.contextmanager
def own_class(model: nn.Module) -> Iterator[None]:
    """Gives a model that FSDP has sharded its own class for a while. FSDP puts a class of its
    own over the model's; saving copies the code of the model's class, and would copy FSDP's."""
    before = type(model)
    if issubclass(before, FSDPModule):
        model.__class__ = before.__bases__[1]  # FSDPModule, then the model's class
    try:
        yield
    finally:
        model.__class__ = before


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
