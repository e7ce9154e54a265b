"""espeak-ng through ctypes, in a process of its own.

The library keeps global state (even after it is terminated and initialised again, a sentence
sounds different from the time before) and is not thread-safe. A fresh process per batch makes the
samples a function of the batch alone, and keeps a crash of the library out of the caller. The
process runs this file itself and needs the standard library only: requests come as JSON on
standard input; samples go to standard output, in JSON too.

espeak-ng is GPL-3.0-or-later; it is used as the separate, unmodified wheel `espeakng-loader`.
"""

from __future__ import annotations

import base64
import ctypes
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Constants of espeak-ng's public header.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_PARAMETER_RATE = 1
_SAMPLE_BYTES = 2
_NOISE_SEED = 1
_VOICE_FILE = Path("utterance_voice")


@dataclasses.dataclass(frozen=True)
class SpeechRequest:
    """One sentence to be spoken."""

    text: str
    # File below espeak-ng's `lang` folder that gives the pronunciation, such as "gmw/en-US".
    accent: str
    # Attributes of espeak-ng's voice files that make the voice, such as "pitch 100 140"; they
    # follow those of the accent and win over them.
    voice_lines: tuple[str, ...]
    words_per_minute: int  # 80 to 450


def synthesize(requests: Sequence[SpeechRequest]) -> tuple[list[bytes], int]:
    """Speaks sentences, in order, in a fresh process.

    Returns for each request its samples (16-bit little-endian, mono), and their sampling rate in
    Hz. The same requests give the same bytes with the same version of espeak-ng; a sentence alone
    may differ by a few samples from the same sentence after others. Raises `RuntimeError` with the
    words of espeak-ng where it fails.
    """
    # Imported late: the child process runs this file without the site-packages it may lack.
    import espeakng_loader

    job = {
        "library": espeakng_loader.get_library_path(),
        "data": str(espeakng_loader.get_data_path()),
        "requests": [dataclasses.asdict(request) for request in requests],
    }
    finished = subprocess.run(
        [sys.executable, "-I", __file__], input=json.dumps(job).encode(), capture_output=True
    )
    if finished.returncode != 0:
        raise RuntimeError(
            f"espeak-ng stopped with status {finished.returncode}: "
            f"{finished.stderr.decode(errors='replace').strip()[-500:]}. Reinstall the wheel: "
            "pip install --force-reinstall espeakng-loader"
        )
    answer = json.loads(finished.stdout)
    return [base64.b64decode(samples) for samples in answer["samples"]], answer["sampling_rate"]


class _Synthesizer:
    """The library, initialised once in the child process."""

    def __init__(self, library_path: str, data: Path, folder: Path) -> None:
        # The library holds paths in short fixed buffers: from within a folder of our own that
        # links to the data, every path is short.
        (folder / data.name).symlink_to(data)
        os.chdir(folder)
        self._library = ctypes.CDLL(library_path)
        self.sampling_rate = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, b".", _INITIALIZE_DONT_EXIT
        )
        if self.sampling_rate <= 0:
            sys.exit(f"no voices found in {data}")
        # Its noise is seeded by the clock otherwise.
        self._library.espeak_ng_SetRandSeed(_NOISE_SEED)
        self._chunks: list[bytes] = []
        callback_type = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        # Kept as an attribute: ctypes does not own the callback it hands to the library.
        self._callback = callback_type(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: Any, num_samples: int, _events: Any) -> int:
        if samples and num_samples > 0:
            self._chunks.append(ctypes.string_at(samples, num_samples * _SAMPLE_BYTES))
        return 0

    def speak(self, voice: str, text: str, words_per_minute: int) -> bytes:
        """Samples of one sentence in the voice that the lines of a voice file describe."""
        self._chunks.clear()
        _VOICE_FILE.write_text(voice, encoding="utf-8")
        self._check(self._library.espeak_ng_SetVoiceByFile(os.fsencode(_VOICE_FILE)), "voice")
        self._check(self._library.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0), "rate")
        encoded = text.encode()
        size = ctypes.c_size_t(len(encoded) + 1)
        status = self._library.espeak_Synth(encoded, size, 0, 0, 0, _CHARS_UTF8, None, None)
        self._check(status, "synthesis")
        return b"".join(self._chunks)

    def _check(self, status: int, step: str) -> None:
        if status != 0:
            sys.exit(f"{step} failed with status {status:#x}")


def _main() -> None:
    job = json.load(sys.stdin)
    data = Path(job["data"])
    spoken = []
    with tempfile.TemporaryDirectory() as folder:
        synthesizer = _Synthesizer(job["library"], data, Path(folder))
        for request in job["requests"]:
            accent = (data / "lang" / request["accent"]).read_text(encoding="utf-8")
            voice = "\n".join([accent, *request["voice_lines"], ""])
            samples = synthesizer.speak(voice, request["text"], request["words_per_minute"])
            spoken.append(base64.b64encode(samples).decode())
    json.dump({"sampling_rate": synthesizer.sampling_rate, "samples": spoken}, sys.stdout)


if __name__ == "__main__":
    _main()
