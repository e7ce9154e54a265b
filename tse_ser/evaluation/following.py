"""The other machines of a study whose every training runs on several machines at once.

The runner of machine rank 0 leads: it takes the steps and cells. Those of the other ranks start
their part of each step that it starts, and nothing by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from tse_ser.evaluation import sharing
from tse_ser.evaluation.claims import Claims
from tse_ser.evaluation.progress import StudyProgress, say
from tse_ser.evaluation.study import Step, StudyError


def follow(
    runner: sharing.Shared,
    plan: Sequence[sharing.Unit],
    progress: StudyProgress,
    claims: Claims,
) -> None:
    """Takes part in the steps of a plan until none is left.

    Args:
        runner: runs this machine's part of a step.
        plan: steps and cells, each after what it builds on.
        progress: told what is done.
        claims: of this runner, which takes none.

    Raises:
        StudyError: if the runner that takes the steps runs them on its machine alone.
    """
    joined: set[tuple[str, int, int]] = set()
    failed: dict[str, str] = {}
    say("This machine takes part in the steps that machine rank 0 starts")
    while True:
        sharing.note_what_is_done(runner, progress)
        undone = {unit.key for unit in progress.waiting}
        left = sharing.what_is_left(plan, undone, failed)
        if not any(isinstance(unit, Step) for unit in left):
            return
        for step in left:
            claim = claims.current(step.key)
            if claim is None or not isinstance(step, Step):
                continue
            if claims.failed_meanwhile(claim):
                failed[step.key] = claim.content["message"]
            # Each start of the program on the leading machine is joined once.
            start = (step.key, claim.number, claim.content.get("attempt", 0))
            if not claims.is_held(claim) or start in joined or not start[-1]:
                continue
            if claim.content["machines"] == 1:
                raise StudyError(
                    f"{step.key} is run by {claim.holder} alone: give that runner the same "
                    "accelerate config, with machine rank 0"
                )
            joined.add(start)
            progress.start(step)
            try:
                runner.join(step, claim)
            except StudyError as error:
                say(str(error))  # the leading machine decides what becomes of it
        time.sleep(sharing.WAIT_SECONDS / 10)
