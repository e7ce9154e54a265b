"""Drawing a number of hours from a corpus by speaker, in parts that share no speaker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_builders.schema import CorpusError


def draw_hours(
    speaker_ids: Sequence[str],
    durations_seconds: Sequence[float],
    hours: Sequence[float],
    *,
    seed: int,
    exclude_speakers: Sequence[str] = (),
) -> list[list[int]]:
    """Draws speaker after speaker until each part has its hours; the next begins with another.

    A speaker counts with all utterances, the last of a part with no more than are needed: a part
    exceeds its hours by less than one utterance. The seed gives the order of the speakers; that of
    the others is the same without `exclude_speakers`. Returns for each part the positions of its
    utterances, ascending. Raises `CorpusError` where there are too few hours.
    """
    rows_of_speaker: dict[str, list[int]] = {}
    for row, speaker in enumerate(speaker_ids):
        rows_of_speaker.setdefault(speaker, []).append(row)
    speakers = sorted(rows_of_speaker)
    order = np.random.default_rng(seed).permutation(len(speakers))
    excluded = {*exclude_speakers}
    queue = [speakers[place] for place in order if speakers[place] not in excluded]
    remaining = iter(queue)
    parts = []
    for wanted in hours:
        rows: list[int] = []
        seconds = 0.0
        while seconds < wanted * 3600:
            speaker = next(remaining, "")
            if not speaker:
                total = sum(
                    durations_seconds[row] for name in queue for row in rows_of_speaker[name]
                )
                raise CorpusError(
                    f"{' + '.join(f'{number:g}' for number in hours)} hours are wanted, the "
                    f"{len(queue)} speakers have {total / 3600:.2f}; add subsets, or lower hours"
                )
            for row in rows_of_speaker[speaker]:
                if seconds >= wanted * 3600:
                    break
                rows.append(row)
                seconds += durations_seconds[row]
        parts.append(sorted(rows))
    return parts
