"""The sample of a repository: a mixture and an enrollment that may be shared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from modeling.audio_reading import read_waveform
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.licenses import conditions

SAMPLE_DIR = "sample"
NAMES = ("mixture", "enrollment")
MAX_SECONDS = 30.0
SHAREABLE_CONDITIONS = frozenset({"by", "sa", "nc"})


@dataclass(frozen=True)
class Samples:
    """Two recordings and the terms under which they may be shared.

    Attributes:
        mixture (`Path`): audio file of a mixture.
        enrollment (`Path`): audio file of the target speaker alone.
        license_id (`str`): a Creative Commons licence that allows adaptations, such as `cc0-1.0`.
        credit (`str`, *optional*): whom to name; needed unless the licence is CC0.
    """

    mixture: Path
    enrollment: Path
    license_id: str
    credit: str | None = None

    def __post_init__(self) -> None:
        asked = conditions(self.license_id)
        if not self.license_id.startswith("cc") or not asked <= SHAREABLE_CONDITIONS:
            raise PublishingError(
                f"--sample_license {self.license_id!r}: only recordings under a Creative Commons "
                "licence that allows adaptations (cc0-1.0, cc-by-4.0, ...) may be shared as a "
                "sample; those that `make demo` speaks are cc0-1.0"
            )
        if asked and not self.credit:
            raise PublishingError(
                f"--sample_credit is missing: {self.license_id} asks you to name the author"
            )

    def write(self, folder: Path, sampling_rate: int) -> None:
        """Writes both as 16-bit mono WAV, without whatever else the files held.

        Args:
            folder (`Path`): folder of the repository.
            sampling_rate (`int`): rate of the model in Hz.

        Raises:
            PublishingError: a file cannot be read, or is too long.
        """
        for name in NAMES:
            path: Path = getattr(self, name)
            try:
                waveform = read_waveform(path, sampling_rate)
            except ValueError as error:
                raise PublishingError(f"--sample_{name}: {error}") from error
            seconds = len(waveform) / sampling_rate
            if seconds > MAX_SECONDS:
                raise PublishingError(
                    f"--sample_{name}: {path} lasts {seconds:.0f} s; a sample has at most "
                    f"{MAX_SECONDS:.0f} s, cut it"
                )
            target = folder / SAMPLE_DIR / f"{name}.wav"
            target.parent.mkdir(parents=True, exist_ok=True)
            # Integers end at full scale, floats need not.
            waveform = waveform / max(1.0, float(np.abs(waveform).max()))
            soundfile.write(target, waveform, sampling_rate, subtype="PCM_16")
