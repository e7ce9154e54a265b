"""Where speech lies in a recording: energy above the noise floor in bands, with hysteresis."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

FRAME_SECONDS = 0.025
HOP_SECONDS = 0.010
# What carries speech on any line: the bands whose energies are compared with their floors.
BAND_EDGES_HZ = (100, 300, 600, 1000, 1600, 2500, 3800)
# A frame is heard together with its neighbours: noise fluctuates from frame to frame.
SMOOTHED_FRAMES = 5
# Floors and loudest parts are those around a moment: both change in the course of an hour.
CONTEXT_SECONDS = 15.0
FLOOR_PERCENTILE, LOUD_PERCENTILE = 5, 95
# Frames that much quieter still are silence, of which a recording may have any amount: what counts
# as loud or as the floor must not depend on it.
SILENCE_BELOW_RANGE_DB = 10.0
BLOCK_FRAMES = 1000
TINY_POWER = 1e-20


@dataclass(frozen=True)
class SpeechActivitySettings:
    """
    What counts as speech.

    Args:
        range_db: a frame more than this below the loud parts around it is no speech.
        onset_db: speech begins where the energy of two bands is this far above their floors.
        offset_db: and ends where it is not even this far above them.
        margin_seconds: kept on either side of speech.
        max_pause_seconds: shorter pauses belong to the speech around them.
    """

    range_db: float = 35.0
    onset_db: float = 9.0
    offset_db: float = 6.0
    margin_seconds: float = 0.05
    max_pause_seconds: float = 1.0


def band_powers(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """
    Mean power of each band in each frame.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): at `sampling_rate`.
        sampling_rate (`int`): in Hz.

    Returns:
        `np.ndarray` of shape `(num_frames, num_bands)`: float32; one frame at least.
    """
    return np.concatenate(list(_band_power_blocks(waveform, sampling_rate)))


def frame_powers(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """`band_powers` summed over the bands, `(num_frames, 1)`, in a sixth of the memory."""
    blocks = _band_power_blocks(waveform, sampling_rate)
    return np.concatenate([block.sum(axis=1, keepdims=True) for block in blocks])


def _band_power_blocks(waveform: np.ndarray, sampling_rate: int) -> Iterator[np.ndarray]:
    """`band_powers` in single precision and by blocks: an hour has 360,000 frames."""
    frame, hop = _frame_and_hop(sampling_rate)
    num_frames = max((len(waveform) - frame) // hop + 1, 1)
    window = np.hanning(frame + 2)[1:-1].astype(np.float32)
    window /= np.sqrt(np.square(window).sum())
    bins = np.fft.rfftfreq(frame, 1 / sampling_rate)
    edges = np.searchsorted(bins, BAND_EDGES_HZ)
    for first in range(0, num_frames, BLOCK_FRAMES):
        count = min(BLOCK_FRAMES, num_frames - first)
        part = waveform[first * hop : first * hop + (count - 1) * hop + frame]
        part = np.pad(part, (0, (count - 1) * hop + frame - len(part)))
        frames = np.lib.stride_tricks.sliding_window_view(part, frame)[::hop]
        spectra = np.square(np.abs(np.fft.rfft(frames * window)))
        powers = np.empty((count, len(BAND_EDGES_HZ) - 1), np.float32)
        for band, (low, high) in enumerate(pairwise(edges)):
            powers[:, band] = spectra[:, low : max(high, low + 1)].sum(axis=1)
        yield powers


def active_frames(powers: np.ndarray, settings: SpeechActivitySettings) -> np.ndarray:
    """
    Which frames hold speech.

    Args:
        powers (`np.ndarray` of shape `(num_frames, num_bands)`): from `band_powers`.
        settings: what counts.

    Returns:
        `np.ndarray` of shape `(num_frames,)`: booleans.
    """
    context = round(CONTEXT_SECONDS / HOP_SECONDS)
    active = np.zeros(len(powers), bool)
    for first in range(0, len(powers), context):
        start = max(first - context, 0)
        smooth = _smoothed_part(powers, start, first + 2 * context)
        levels = 10 * np.log10(smooth + TINY_POWER)
        total = 10 * np.log10(smooth.sum(axis=1) + TINY_POWER)
        own = slice(first - start, first - start + context)
        loud = loud_level_db(total, settings.range_db)
        heard = total >= loud - settings.range_db - SILENCE_BELOW_RANGE_DB
        floors = np.percentile(levels[heard], FLOOR_PERCENTILE, axis=0)
        # The second of the bands: a hum that comes and goes has one.
        excess = np.sort(levels[own] - floors, axis=1)[:, -2]
        is_loud = total[own] >= loud - settings.range_db
        active[first : first + context] = with_hysteresis(
            is_loud & (excess >= settings.onset_db), is_loud & (excess >= settings.offset_db)
        )
    return active


def loud_level_db(levels_db: np.ndarray, range_db: float) -> float:
    """
    The level of the loud parts of a recording, however much silence lies around them.

    Args:
        levels_db (`np.ndarray` of shape `(num_frames,)`): level of each frame.
        range_db (`float`): frames this far below the loud ones are not counted.

    Returns:
        `float`: the 95th percentile of the frames that are within `range_db` of it.
    """
    loud = -np.inf
    found = float(np.percentile(levels_db, LOUD_PERCENTILE))
    # It only rises, and is one of finitely many: each round leaves out quieter frames.
    while found > loud:
        loud = found
        found = float(np.percentile(levels_db[levels_db >= loud - range_db], LOUD_PERCENTILE))
    return loud


def speech_stretches(
    active: np.ndarray, num_samples: int, sampling_rate: int, settings: SpeechActivitySettings
) -> list[tuple[int, int]]:
    """
    The parts of a recording that hold speech, with margins, short pauses included.

    Args:
        active (`np.ndarray` of shape `(num_frames,)`): from `active_frames`.
        num_samples (`int`): of the recording.
        sampling_rate (`int`): in Hz.
        settings: margin and longest pause.

    Returns:
        `list[tuple[int, int]]`: first sample and the one after the last, in order; none where there
        is no speech.
    """
    frame, hop = _frame_and_hop(sampling_rate)
    margin = round(settings.margin_seconds * sampling_rate)
    pause = round(settings.max_pause_seconds * sampling_rate)
    stretches: list[tuple[int, int]] = []
    for first, last in runs(active):
        start = max(first * hop - margin, 0)
        stop = min((last - 1) * hop + frame + margin, num_samples)
        if stretches and start - stretches[-1][1] + 2 * margin <= max(pause, 2 * margin):
            stretches[-1] = (stretches[-1][0], stop)
        else:
            stretches.append((start, stop))
    return stretches


def runs(active: np.ndarray) -> list[tuple[int, int]]:
    """Where runs of true values begin, and the positions after their ends."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _frame_and_hop(sampling_rate: int) -> tuple[int, int]:
    return round(FRAME_SECONDS * sampling_rate), round(HOP_SECONDS * sampling_rate)


def smoothed(powers: np.ndarray, num_frames: int) -> np.ndarray:
    """Mean over as many frames around each, `(num_frames, ...)`; over fewer at the ends."""
    half = num_frames // 2
    sums = np.zeros((len(powers) + 1, powers.shape[1]))
    np.cumsum(powers, axis=0, out=sums[1:])
    positions = np.arange(len(powers), dtype=np.int32)
    first, last = np.maximum(positions - half, 0), np.minimum(positions + half + 1, len(powers))
    means = sums[last]
    means -= sums[first]
    # Running sums leave rounding where the powers vanish.
    np.maximum(means, 0, out=means)
    means /= (last - first)[:, None]
    return means


def _smoothed_part(powers: np.ndarray, start: int, stop: int) -> np.ndarray:
    """`smoothed(powers, SMOOTHED_FRAMES)[start:stop]`, without smoothing the rest of an hour."""
    half = SMOOTHED_FRAMES // 2
    before = min(start, half)
    part = smoothed(powers[start - before : stop + half], SMOOTHED_FRAMES)
    return part[before : before + stop - start]


def with_hysteresis(onset: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The runs of `offset` in which `onset` holds somewhere."""
    active = np.zeros_like(offset)
    for first, last in runs(offset):
        active[first:last] = onset[first:last].any()
    return active
