"""Stretches of a recording, first sample and the one after the last: joined, and put back."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

Stretch = tuple[int, int]


def join_stretches(
    waveform: np.ndarray, stretches: list[Stretch], in_place: bool = False
) -> np.ndarray:
    """The stretches of a waveform one after the other; the waveform itself where that is all."""
    if stretches == [(0, len(waveform))]:
        return waveform
    if in_place:
        filled = 0
        for start, stop in stretches:
            waveform[filled : filled + stop - start] = waveform[start:stop]
            filled += stop - start
        return waveform[:filled]
    return np.concatenate([waveform[start:stop] for start, stop in stretches])


def spread_stretches(
    values: np.ndarray,
    stretches: list[Stretch],
    num_samples: int,
    in_place: bool = False,
) -> np.ndarray:
    """
    What `join_stretches` undoes: the stretches in their places, silence between them.

    With `in_place`, what it joined in place goes back to where it was: `values` are written over.
    """
    if stretches == [(0, num_samples)]:
        return values
    whole = _room_behind(values, num_samples) if in_place else None
    if whole is None:
        whole = np.empty(num_samples, values.dtype)
    end, rest = num_samples, sum(stop - start for start, stop in stretches)
    # From the last one: each moves to the right, where nothing is left that has yet to move.
    for start, stop in reversed(stretches):
        whole[stop:end] = 0
        rest -= stop - start
        whole[start:stop] = values[rest : rest + stop - start]
        end = start
    whole[:end] = 0
    return whole


def _room_behind(values: np.ndarray, num_samples: int) -> np.ndarray | None:
    """The memory that `values` are the beginning of, where it holds so many samples."""
    owner = values.base
    if not isinstance(owner, np.ndarray) or owner.ndim != 1 or len(owner) < num_samples:
        return None
    same_start = owner.__array_interface__["data"] == values.__array_interface__["data"]
    return owner[:num_samples] if same_start and owner.dtype == values.dtype else None


def total_length(pieces: list[Stretch]) -> int:
    """Of all pieces together, in samples."""
    return sum(stop - start for start, stop in pieces)


def equal_parts(pieces: list[Stretch], count: int) -> list[list[Stretch]]:
    """Pieces of a waveform, joined, in so many parts of one length: the pieces of each."""
    edges = np.linspace(0, total_length(pieces), count + 1).round().astype(int).tolist()
    placed = list(with_offsets(pieces))
    return [
        [
            (start + max(first - offset, 0), start + min(last - offset, stop - start))
            for (start, stop), offset in placed
            if offset < last and offset + stop - start > first
        ]
        for first, last in pairwise(edges)
    ]


def with_offsets(stretches: list[Stretch]) -> Iterator[tuple[Stretch, int]]:
    """Each stretch, and where it begins once they stand one after the other."""
    offset = 0
    for start, stop in stretches:
        yield (start, stop), offset
        offset += stop - start


def in_recording(parts: list[Stretch], stretches: list[Stretch]) -> list[tuple[int, int, int]]:
    """
    Where parts of the joined stretches lie in the recording.

    Returns:
        Pieces of the parts: first sample in the recording, first sample in the joined stretches,
        and length.
    """
    pieces = []
    for (start, stop), offset in with_offsets(stretches):
        for first, last in parts:
            begin, end = max(first, offset), min(last, offset + stop - start)
            if begin < end:
                pieces.append((start + begin - offset, begin, end - begin))
    return pieces
