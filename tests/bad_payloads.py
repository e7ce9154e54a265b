"""Strategies of hypothesis for what must not be taken for audio: strings, JSON, broken files."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st
from tiny_endpoint import RATE, audio_file, in_base64, noise, wav_claiming

FILES = {kind: audio_file(noise(0, 0.3), kind=kind) for kind in ("WAV", "FLAC", "OGG", "MP3")}

PLACES = st.sampled_from(
    [
        *("/etc/passwd", "../../secret.wav", "C:\\x.wav", "~/.ssh/id_rsa", "/dev/zero"),
        *("/dev/stdin", "-", ".", "x.wav\0.txt", "voices/alice.safetensors"),
        *("\\\\server\\share", "/proc/self/fd/0", "file:///etc/passwd", "http://127.0.0.1:9/x.wav"),
        *("https://example.com/a.flac", "s3://b/k"),
        *("hf://datasets/a/b.wav", "ftp://example.com/x", "gopher://example.com", "|id", "$(id)"),
        *("data:audio/wav;base64,UklGRg==", "var/lib/nonexistent", "/var/lib/nonexistent"),
    ]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), PLACES
)
JSON = st.recursive(
    SCALARS,
    lambda inside: (
        st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=10), inside, max_size=4)
    ),
    max_leaves=10,
)
NOT_TEXT = JSON.filter(lambda value: value is not None and not isinstance(value, str))


def broken_wav(field: tuple[int, str, int]) -> bytes:
    return wav_claiming(*field, FILES["WAV"])


def as_float(value: float) -> bytes:
    return audio_file(np.full((RATE, 1), value, np.float32), subtype="FLOAT")


BAD_FILES = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(["WAV", "FLAC", "OGG", "MP3"]).flatmap(
        lambda kind: st.integers(0, 40).map(lambda end: FILES[kind][:end])
    ),
    st.sampled_from([b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"\xff\xfb"]).flatmap(
        lambda start: st.binary(max_size=200).map(lambda rest: start + rest)
    ),
    st.tuples(
        st.just(24), st.just("<I"), st.integers(0, 3999) | st.integers(768001, 2**32 - 1)
    ).map(broken_wav),
    st.tuples(st.just(22), st.just("<H"), st.integers(40, 2**16 - 1) | st.just(0)).map(broken_wav),
    st.sampled_from([0.0, math.nan, math.inf, -math.inf, 1e-45]).map(as_float),
    st.floats(0, 0.09).map(lambda seconds: audio_file(noise(0, seconds))),
)
# Small files of more than the ten minutes that an endpoint takes.
LONG_FILES = st.sampled_from(
    [
        audio_file(np.zeros((round(seconds * rate), 1), np.float32), rate, "FLAC")
        for seconds, rate in ((600.1, 8000), (610, 4000), (700, 4000))
    ]
)
BAD_AUDIO = st.one_of(
    PLACES, BAD_FILES, BAD_FILES.map(in_base64), LONG_FILES, NOT_TEXT, st.text(max_size=50)
)


def spoiled(name: str, at: float, values: bytes, cut: float) -> bytes:
    content = bytearray(FILES[name])
    start = int(at * len(content))
    content[start : start + len(values)] = values
    return bytes(content[: max(int(cut * len(content)), 1)])


SPOILED = st.builds(
    spoiled,
    st.sampled_from(["WAV", "FLAC", "OGG", "MP3"]),
    # Headers more than anything else.
    st.floats(0, 0.05) | st.floats(0, 1),
    st.binary(min_size=1, max_size=8),
    st.just(1.0) | st.floats(0, 1),
)
