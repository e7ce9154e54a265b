"""What the page asks of the model: read recordings, keep voices, recognise emotions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor
from transformers import pipeline
from transformers.utils import cached_file

MIN_MIXTURE_SECONDS = 0.5
MIN_SAMPLE_SECONDS = 1.0
MAX_SECONDS = 30.0
# Below it (60 dB under full scale) a microphone was muted, or hears its own noise.
SILENT_PEAK = 1e-3
# The filters of a resampler grow with the denominator of the ratio of two rates: gigabytes for
# 44101 Hz, so only rates that recorders use are taken.
RATES_HZ = frozenset(
    rate * factor for rate in (8000, 11025, 12000, 16000) for factor in (1, 2, 4, 8, 16)
)
MAX_VOICES = 8
MAX_NAME_LENGTH = 30
PLAYBACK_PEAK = 0.95


class RecordingError(ValueError):
    """Something that the user can mend, said in words meant for the user."""


@dataclass(frozen=True)
class Recognition:
    """
    What was recognised in one recording.

    Args:
        separated: probability of each emotion in the separated voice, by its name.
        unseparated: the same for the whole recording, nobody separated.
        mixture (`np.ndarray` of shape `(num_samples,)`): the recording as the model heard it, in
            -1..1.
        voice (`np.ndarray` of shape `(num_samples,)`): the separated voice, as loud as the
            recording.
        sampling_rate: of both, in Hz.
        judged_seconds: how much of the recording the emotion was taken from, counted from its
            beginning.
        is_present: whether the person is heard in the recording at all; `None` where the model
            does not judge that.
    """

    separated: dict[str, float]
    unseparated: dict[str, float]
    mixture: np.ndarray
    voice: np.ndarray
    sampling_rate: int
    judged_seconds: float
    is_present: bool | None


class Recognizer:
    """
    A published model, loaded with the code that comes with it.

    Args:
        model: folder or hub id of a model that was saved with its pipeline.
    """

    def __init__(self, model: str):
        self._pipeline: Any = pipeline("audio-classification", model=model, trust_remote_code=True)
        self._model: Any = self._pipeline.model
        self.example = find_example(model)

    @property
    def emotions(self) -> list[str]:
        """The names of the emotions, in the order of the classes."""
        names = self._model.config.id2label
        return [names[index] for index in sorted(names)]

    @torch.inference_mode()
    def embed(self, path: str | None) -> Tensor:
        """
        What the model knows a voice by.

        Args:
            path: recording of the person alone, or `None` where there is none yet.

        Returns:
            `torch.Tensor` of shape `(1, embedding_size)`: the recording is not kept.

        Raises:
            RecordingError: it is missing, unreadable, too short, too long or silent.
        """
        if path is None:
            raise RecordingError(
                "There is no sample of the person yet. Record or upload a few seconds in which "
                "only this person speaks, or choose a saved voice."
            )
        values = self._values(path, "sample", MIN_SAMPLE_SECONDS)
        return self._model.get_speaker_embeddings(values).cpu()

    def hear(self, path: str | None) -> Tensor:
        """
        A recording as the model wants it.

        Args:
            path: recording in which several people speak, or `None` where there is none yet.

        Returns:
            `torch.Tensor` of shape `(1, num_samples)`: resampled, and at a level of its own.

        Raises:
            RecordingError: it is missing, unreadable, too short, too long or silent.
        """
        if path is None:
            raise RecordingError(
                "There is no recording yet. Record or upload one in which several people speak."
            )
        return self._values(path, "recording", MIN_MIXTURE_SECONDS)

    @torch.inference_mode()
    def recognize(self, values: Tensor, embedding: Tensor) -> Recognition:
        """
        The emotion of one voice, separated, and that of the recording as it is.

        Args:
            values (`torch.Tensor` of shape `(1, num_samples)`): from `hear`.
            embedding (`torch.Tensor` of shape `(1, embedding_size)`): from `embed`.

        Returns:
            [`Recognition`].
        """
        outputs = self._model(values, speaker_embeddings=embedding.to(self._model.device))
        mixture, voice = _for_playback(
            values[0].float().cpu().numpy(), outputs.extracted_values[0].float().cpu().numpy()
        )
        rate = self._pipeline.feature_extractor.sampling_rate
        present = getattr(outputs, "target_present", None)
        return Recognition(
            separated=self._probabilities(outputs.logits),
            unseparated=self._probabilities(self._model.classifier(values).logits),
            mixture=mixture,
            voice=voice,
            sampling_rate=rate,
            judged_seconds=min(
                len(mixture) / rate, self._model.classifier.config.max_duration_seconds
            ),
            is_present=None if present is None else bool(present[0]),
        )

    def _values(self, path: str, what: str, min_seconds: float) -> Tensor:
        samples, rate = read_recording(path, what, min_seconds)
        features = self._pipeline.preprocess({"array": samples, "sampling_rate": rate})
        return features["input_values"].to(self._model.device)

    def _probabilities(self, logits: Tensor) -> dict[str, float]:
        scores = logits[0].float().softmax(dim=-1).tolist()
        return dict(zip(self.emotions, scores, strict=True))


def find_example(model: str) -> tuple[str, str] | None:
    """
    The recording and the sample of a voice that a model may bring along.

    Args:
        model: folder or hub id.

    Returns:
        Their two files, or `None` where the model has none.
    """
    try:
        found = [cached_file(model, f"sample/{name}.wav") for name in ("mixture", "enrollment")]
    except OSError:
        return None
    return str(found[0]), str(found[1])


def read_recording(path: str, what: str, min_seconds: float) -> tuple[np.ndarray, int]:
    """
    Decode a recording, after a look at everything that a user may get wrong.

    Args:
        path: an audio file.
        what: its part on the page, for messages: "recording" or "sample".
        min_seconds: shorter ones are refused.

    Returns:
        Mono waveform of shape `(num_samples,)` in float32, and its rate in Hz.

    Raises:
        RecordingError: it is unreadable, damaged, too short, too long or silent.
    """
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            # No more than is allowed is decoded: an hour of silence is a small file.
            samples = file.read(int(MAX_SECONDS * rate) + 1, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise RecordingError(
            f"The {what} could not be read as sound. Use a WAV, FLAC, OGG or MP3 file."
        ) from error
    if rate not in RATES_HZ:
        raise RecordingError(
            f"The {what} has an unusual sampling rate of {rate} Hz. Save it with 16000, 44100 or "
            "48000 Hz."
        )
    seconds = len(samples) / rate
    if seconds > MAX_SECONDS:
        raise RecordingError(
            f"The {what} is too long. Cut it to at most {MAX_SECONDS:.0f} seconds."
        )
    if seconds < min_seconds:
        raise RecordingError(
            f"The {what} is too short: {seconds:.1f} seconds. At least {min_seconds:g} "
            f"{'second is' if min_seconds == 1 else 'seconds are'} needed."
        )
    waveform = samples.mean(axis=1)
    if not np.isfinite(waveform).all():
        raise RecordingError(f"The {what} is damaged. Export it again, or choose another file.")
    if np.abs(waveform).max() < SILENT_PEAK:
        raise RecordingError(f"The {what} is silent. Check the microphone, or choose another file.")
    return waveform, rate


def with_voice(voices: dict[str, Tensor], name: str, embedding: Tensor) -> dict[str, Tensor]:
    """
    The voices of a session and one more; one of the same name is replaced.

    Args:
        voices: embeddings by name; left as they are.
        name: what the user calls the person.
        embedding (`torch.Tensor` of shape `(1, embedding_size)`): from `Recognizer.embed`.

    Returns:
        A new dict.

    Raises:
        RecordingError: no name, a long one, or no room for another voice.
    """
    name = checked_name(name)
    if name not in voices and len(voices) >= MAX_VOICES:
        raise RecordingError(
            f"There are {MAX_VOICES} saved voices, and no room for more. Forget one of them first."
        )
    return {**voices, name: embedding}


def saved_voice(voices: dict[str, Tensor], name: str) -> Tensor:
    """
    One voice of a session.

    Raises:
        RecordingError: it is gone, as after an hour.
    """
    if name not in voices:
        raise RecordingError(
            f"The voice of {name} is no longer saved. Reload the page, and give a new sample."
        )
    return voices[name]


def checked_name(name: str) -> str:
    """
    A name without the spaces around it.

    Raises:
        RecordingError: nothing is left, or it is too long.
    """
    name = " ".join(name.split())
    if not name:
        raise RecordingError("The voice needs a name. Type one, then save it.")
    if len(name) > MAX_NAME_LENGTH:
        raise RecordingError(f"The name is too long. Use at most {MAX_NAME_LENGTH} letters.")
    return name


def _for_playback(mixture: np.ndarray, voice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both equally loud, as a model leaves the level of the voice open, and neither clipped."""
    level = np.sqrt(np.mean(np.square(mixture)) / max(np.mean(np.square(voice)), 1e-12))
    voice = voice * level
    gain = PLAYBACK_PEAK / max(np.abs(mixture).max(), np.abs(voice).max())
    return mixture * gain, voice * gain
