"""How many samples an mp3 holds, counted frame by frame (ISO 11172-3 and 13818-3, layer III).

Where no header at its beginning tells the length, as in recordings of a stream, libsndfile guesses
it from the bit rate of the first frames, and decodes no more than that: where the rate changes, a
part is lost.
"""

from __future__ import annotations

from pathlib import Path

# By the two bits of the version: 2.5, (none), 2, 1.
RATES = ((11_025, 12_000, 8_000), (), (22_050, 24_000, 16_000), (44_100, 48_000, 32_000))
KBITS_VERSION_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
KBITS_VERSION_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
VERSION_1, LAYER_3 = 3, 1
# A header with the length, and what an encoder adds before and behind.
UNHEARD_FRAMES = 4


def is_part(path: Path, num_samples: int) -> bool:
    """Whether a decoder has left out a part of an mp3, of which it made `num_samples`.

    False of a file whose frames are not found.
    """
    num_frames, samples_per_frame = _count_frames(path.read_bytes())
    return num_samples < (num_frames - UNHEARD_FRAMES) * samples_per_frame


def _count_frames(content: bytes) -> tuple[int, int]:
    """Frames up to the first thing that is none, such as a tag at the end, and their samples."""
    place = num_frames = samples_per_frame = 0
    if content[:3] == b"ID3":
        size = 0
        for byte in content[6:10]:
            size = size << 7 | byte
        place = 10 + size
    while place + 4 <= len(content):
        sync, kind, format_bits = content[place : place + 3]
        version, layer = kind >> 3 & 3, kind >> 1 & 3
        bit_rate, rate = format_bits >> 4, format_bits >> 2 & 3
        is_frame = sync == 0xFF and kind >= 0xE0 and layer == LAYER_3 and version != 1
        if not is_frame or not 0 < bit_rate < 15 or rate == 3:
            break
        kbits = KBITS_VERSION_1 if version == VERSION_1 else KBITS_VERSION_2
        samples_per_frame = 1152 if version == VERSION_1 else 576
        num_bytes = samples_per_frame // 8 * kbits[bit_rate] * 1000 // RATES[version][rate]
        place += num_bytes + (format_bits >> 1 & 1)
        num_frames += 1
    return num_frames, samples_per_frame
