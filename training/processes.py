"""The processes of a distributed run."""

from accelerate import PartialState


def leave_together() -> None:
    """Ends the process group once every process is done; the last thing a program does.

    A process that exits while the group's threads still run aborts now and then ("terminate called
    without an active exception"), and the launcher takes the whole run for failed.
    """
    state = PartialState()
    state.wait_for_everyone()
    state.destroy_process_group()
