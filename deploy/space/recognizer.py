"""What the page asks of the pipeline: an answer, the voices of a visit, and words for errors."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from transformers import pipeline
from transformers.utils import cached_file

logger = logging.getLogger(__name__)

MAX_SECONDS = 600.0
MAX_VOICES = 8
MAX_NAME_LENGTH = 30
PLAYBACK_PEAK = 0.95
# What the visitor chooses, and what the pipeline calls it.
CHANNELS: dict[str, int | str] = {
    "All together": "mean",
    "The louder one": "louder",
    "The left one": 0,
    "The right one": 1,
}
NO_SAMPLE = (
    "There is no sample of the person yet. Record or upload a few seconds in which only this "
    "person speaks, or choose a saved voice."
)
# In the visitor's words; {what} is "recording" or "sample".
WORDS_OF_REASON = {
    "unreadable": "The {what} could not be read as sound. Use a WAV, FLAC, OGG, MP3, M4A or WEBM "
    "file.",
    "too_long": "The {what} is too long. Cut it to at most {minutes:.0f} minutes.",
    "too_short": "The {what} is too short. Use one of a few seconds.",
    "silent": "The {what} is silent. Check the microphone, or choose another file.",
    "damaged": "The {what} is damaged. Export it again, or choose another file.",
}


class RecordingError(ValueError):
    """Something that the user can mend, said in words meant for the user."""


@dataclass(frozen=True)
class Recognition:
    """What was recognised in one recording."""

    answer: str  # an emotion, or what is said in its place
    separated: dict[str, float]  # probability of each emotion in the separated voice, by its name
    unseparated: dict[str, float]  # the same for the whole recording, nobody separated
    mixture: np.ndarray  # `(num_samples,)`, the recording as the model heard it, in -1..1
    voice: np.ndarray  # `(num_samples,)`, the separated voice, as loud as it is in the recording
    sampling_rate: int  # of both, in Hz
    speech_seconds: float  # how much this person speaks
    warnings: tuple[str, ...] = ()  # what a visitor should know, in whole sentences


class Recognizer:
    """
    A published model, loaded with the code that comes with it.

    Args:
        model: folder or hub id of a model that was saved with its pipeline.
    """

    def __init__(self, model: str):
        self._pipeline: Any = pipeline("audio-classification", model=model, trust_remote_code=True)
        self.example = find_example(model)

    @property
    def emotions(self) -> list[str]:
        """The names of the emotions, in the order of the classes."""
        names = self._pipeline.model.config.id2label
        return [names[index] for index in sorted(names)]

    def embed(
        self, path: str | None, channel: int | str = "mean"
    ) -> tuple[Tensor, tuple[str, ...]]:
        """
        What the model knows a voice by, and what a visitor should know about the recording.

        Args:
            path: recording of the person alone, or `None` where there is none yet.
            channel: of a recording with several, as the pipeline takes it.

        Returns:
            `torch.Tensor` of shape `(1, embedding_size)`, as the recording is not kept; and whole
            sentences.

        Raises:
            RecordingError: it is missing, or the pipeline cannot use it.
        """
        if path is None:
            raise RecordingError(NO_SAMPLE)
        try:
            voice = self._pipeline.voice_to_keep(path, channel, MAX_SECONDS)
        except ValueError as error:
            raise in_words("sample", error) from error
        except (RuntimeError, MemoryError) as error:
            raise failed() from error
        return voice.embedding.cpu(), _sentences(voice.warnings)

    def recognize(
        self, path: str | None, voice: Tensor | str | None, channel: int | str = "mean"
    ) -> Recognition:
        """
        The emotion of one voice, separated, and that of the recording as it is.

        Args:
            path: recording in which several people speak, or `None` where there is none yet.
            voice: from `embed`, or the path of a sample of the person alone.
            channel: of recordings with several, as the pipeline takes it.

        Returns:
            [`Recognition`].

        Raises:
            RecordingError: a recording is missing, or the pipeline cannot use it.
        """
        if path is None:
            raise RecordingError(
                "There is no recording yet. Record or upload one in which several people speak."
            )
        if voice is None:
            raise RecordingError(NO_SAMPLE)
        speaker = {"voice" if isinstance(voice, Tensor) else "enrollment": voice}
        try:
            result = self._pipeline(
                {"mixture": path, **speaker},
                channel=channel,
                max_seconds=MAX_SECONDS,
                return_extracted=True,
                return_mixture=True,
            )
        except ValueError as error:
            is_sample = str(error).startswith("The enrollment")
            raise in_words("sample" if is_sample else "recording", error) from error
        except (RuntimeError, MemoryError) as error:
            raise failed() from error
        mixture, extracted = result["mixture"]["array"], result["extracted"]["array"]
        gain = PLAYBACK_PEAK / max(np.abs(mixture).max(), np.abs(extracted).max(), 1e-9)
        return Recognition(
            answer=result["answer"],
            separated=self._by_name(result["emotions"]),
            unseparated=self._by_name(result["mixture"]["emotions"]),
            mixture=mixture * gain,
            voice=extracted * gain,
            sampling_rate=result["mixture"]["sampling_rate"],
            speech_seconds=result["speech_seconds"],
            warnings=_sentences(result["warnings"]),
        )

    def read(self, path: str) -> tuple[int, np.ndarray]:
        """A recording as its place on the page takes it: rate in Hz, and 16-bit samples."""
        heard = self._pipeline(path, return_mixture=True)["mixture"]
        return heard["sampling_rate"], as_int16(heard["array"])

    def _by_name(self, emotions: list[dict[str, Any]]) -> dict[str, float]:
        scores = {emotion["label"]: emotion["score"] for emotion in emotions}
        return {name: scores[name] for name in self.emotions}


def _sentences(warnings: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(warning["message"] for warning in warnings)


def in_words(what: str, error: ValueError) -> RecordingError:
    """What the pipeline complains of, in words for a visitor."""
    words = WORDS_OF_REASON.get(getattr(error, "reason", ""), "The {what} cannot be used.")
    return RecordingError(words.format(what=what, minutes=MAX_SECONDS / 60))


def failed() -> RecordingError:
    """Words for a failure of the program itself, which goes into the log."""
    logger.exception("The model failed")
    return RecordingError(
        "Something went wrong here, perhaps for want of memory. Try a shorter recording."
    )


def as_int16(waveform: np.ndarray) -> np.ndarray:
    """From -1..1; players would bring a float waveform to full level."""
    return (waveform.clip(-1, 1) * 32767).round().astype(np.int16)


def find_example(model: str) -> tuple[str, str] | None:
    """Files of the recording and of the sample of a voice that a model may bring along; `None`
    where it has none."""
    try:
        found = [cached_file(model, f"sample/{name}.wav") for name in ("mixture", "enrollment")]
    except OSError:
        return None
    return str(found[0]), str(found[1])


def with_voice(voices: dict[str, Tensor], name: str, embedding: Tensor) -> dict[str, Tensor]:
    """The voices of a session, left as they are, and one more under what the user calls the
    person; one of the same name is replaced. Raises `RecordingError` where there is no name, a
    long one, or no room for another voice."""
    name = checked_name(name)
    if name not in voices and len(voices) >= MAX_VOICES:
        raise RecordingError(
            f"There are {MAX_VOICES} saved voices, and no room for more. Forget one of them first."
        )
    return {**voices, name: embedding}


def saved_voice(voices: dict[str, Tensor], name: str) -> Tensor:
    """One voice of a session; raises `RecordingError` where it is gone, as after an hour."""
    if name not in voices:
        raise RecordingError(
            f"The voice of {name} is no longer saved. Reload the page, and give a new sample."
        )
    return voices[name]


def checked_name(name: str) -> str:
    """A name without the spaces around it; raises `RecordingError` where nothing is left, or
    too much."""
    name = " ".join(name.split())
    if not name:
        raise RecordingError("The voice needs a name. Type one, then save it.")
    if len(name) > MAX_NAME_LENGTH:
        raise RecordingError(f"The name is too long. Use at most {MAX_NAME_LENGTH} letters.")
    return name
