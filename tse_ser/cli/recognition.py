"""A model of a folder or of the Hub, and what it finds in recordings of any length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig
from transformers.utils.logging import disable_progress_bar

from modeling import (
    TdSpeakerBeamForSpeechExtraction,
    TseSerFeatureExtractor,
    TseSerForEmotionClassification,
    enroll,
    load_voice,
)
from modeling.audio_reading import read_waveform
from tse_ser.cli.errors import CommandError

# Longer recordings go through the model window by window, in the memory of one window.
LONG_RECORDING_SECONDS = 30.0
# What the classifier hears at once of a long recording, unless its own limit is lower.
WINDOW_SECONDS = 4.0
HOP_SECONDS = 1.0  # of windows that are asked for; as the pipeline has it
AUDIO_FORMATS = {".wav": "WAV", ".flac": "FLAC"}
PEAK = 0.99  # of extracted speech that 16 bits would clip
MODELS: dict[str, Any] = {
    "td_speakerbeam": TdSpeakerBeamForSpeechExtraction,
    "tse_ser": TseSerForEmotionClassification,
}


@dataclass(frozen=True)
class Window:
    """The emotions of one stretch of a recording.

    Attributes:
        start_seconds (`float`): where it begins.
        end_seconds (`float`): where it ends.
        probabilities (`dict[str, float]`): emotion to probability.
    """

    start_seconds: float
    end_seconds: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Recognition:
    """What a model found in one recording.

    Attributes:
        extracted (`np.ndarray` of shape `(num_samples,)`): the target speaker, at the level of the
            recording.
        probabilities (`dict[str, float]`): emotion to probability; empty for an extractor alone.
        windows (`list[Window]`): along the recording, where they were asked for.
        target_present (`bool`, *optional*): whether the target speaker seems to be in it at all;
            None for a model that does not judge it.
    """

    extracted: np.ndarray
    probabilities: dict[str, float]
    windows: list[Window]
    target_present: bool | None = None


class Recognizer:
    """A model that is ready to use.

    Args:
        name_or_path (`str`): folder of a saved model, or its name on the Hub.
        device (`str`, *optional*): a GPU where there is one by default.

    Raises:
        CommandError: there is no such model or device, or the model extracts nobody.
    """

    def __init__(self, name_or_path: str, device: str | None = None) -> None:
        disable_progress_bar()  # that of loading weights, in milliseconds
        self.name_or_path = name_or_path
        self.model = _load_model(name_or_path)
        self.feature_extractor = _load_feature_extractor(name_or_path)
        try:
            self.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        except (RuntimeError, AssertionError) as error:
            raise CommandError(
                f"--device {device} cannot be used, take cpu: {_first_line(error)}"
            ) from error

    @property
    def labels(self) -> list[str]:
        """The emotions in the order of their classes; none of an extractor alone."""
        if self.model.config.model_type != "tse_ser":
            return []
        names = self.model.config.id2label
        return [names[index] for index in range(len(names))]

    @property
    def judges_presence(self) -> bool:
        """Whether the model tells speech of the target speaker from that of others."""
        return getattr(self.model.config, "presence_threshold", None) is not None

    @property
    def sampling_rate(self) -> int:
        """The model's rate in Hz."""
        return int(self.feature_extractor.sampling_rate)

    def read(self, path: Path) -> np.ndarray:
        """Decodes a file.

        Args:
            path (`Path`): an audio file.

        Returns:
            `np.ndarray` of shape `(num_samples,)`: mono waveform at the model's rate.

        Raises:
            ValueError: the file is missing or no audio.
        """
        return read_waveform(path, self.sampling_rate)

    def voice(self, enrollment: Sequence[Path] | None, voice: Path | None) -> Tensor:
        """The speaker embedding of recordings, or of a file that holds it.

        Args:
            enrollment (`Sequence[Path]`, *optional*): recordings of the speaker alone.
            voice (`Path`, *optional*): what `tse-ser enroll` wrote; read where it is given.

        Returns:
            `torch.Tensor` of shape `(1, embedding_size)`.

        Raises:
            ValueError: a file cannot be used, or another model made the voice.
        """
        if voice is not None:
            embedding: Tensor = load_voice(voice, self.model)
            return embedding
        return enroll(self.model, [self._enrollment_values(path) for path in enrollment or []])

    def _enrollment_values(self, path: Path) -> Tensor:
        try:
            values: Tensor = self.feature_extractor(self.read(path))["input_values"][0]
        except ValueError as error:
            raise CommandError(_naming(path, error)) from error
        return values

    @torch.no_grad()
    def recognize(
        self, mixture: np.ndarray, embedding: Tensor, window_seconds: float | None = None
    ) -> Recognition:
        """Extracts the target speaker and recognises the emotions.

        Args:
            mixture (`np.ndarray` of shape `(num_samples,)`): waveform at the model's rate.
            embedding (`torch.Tensor` of shape `(1, embedding_size)`): from `voice`.
            window_seconds (`float`, *optional*): length of windows, where they are wanted.

        Returns:
            `Recognition`.

        Raises:
            ValueError: audio that is silent, too short or not finite, or too long a window.
        """
        values = self.feature_extractor(mixture)["input_values"]
        is_long = len(mixture) > LONG_RECORDING_SECONDS * self.sampling_rate
        if not self.labels:
            extracted = self._extract(values, embedding, is_long)
            return Recognition(_at_level_of(mixture, extracted), {}, [])
        windows: list[Window] = []
        if window_seconds is not None or is_long:
            windows, extracted = self._along_time(values, embedding, window_seconds)
        if is_long:
            probabilities = _mean(windows)
            windows = windows if window_seconds is not None else []
        else:
            outputs = self.model(
                values.to(self.model.device), speaker_embeddings=embedding, return_dict=True
            )
            extracted = outputs.extracted_values
            probabilities = self._by_name(outputs.logits[0].float().softmax(dim=-1))
        present = self._is_present(extracted, embedding) if self.judges_presence else None
        return Recognition(_at_level_of(mixture, extracted), probabilities, windows, present)

    def _extract(self, values: Tensor, embedding: Tensor, is_long: bool) -> Tensor:
        if is_long:
            extracted: Tensor = self.model.extract(values, speaker_embeddings=embedding)
            return extracted
        outputs = self.model(
            values.to(self.model.device), speaker_embeddings=embedding, return_dict=True
        )
        return outputs.extracted_values

    def _along_time(
        self, values: Tensor, embedding: Tensor, window_seconds: float | None
    ) -> tuple[list[Window], Tensor]:
        if window_seconds is None:
            longest = self.model.config.classifier_config.max_duration_seconds
            window_seconds = hop_seconds = min(WINDOW_SECONDS, longest)
        else:
            hop_seconds = HOP_SECONDS
        along = self.model.emotion_along_time(
            values,
            speaker_embeddings=embedding,
            window_seconds=window_seconds,
            hop_seconds=hop_seconds,
        )
        windows = [
            Window(round(start, 4), round(end, 4), self._by_name(probabilities))
            for start, end, probabilities in zip(
                along.start_seconds.tolist(),
                along.end_seconds.tolist(),
                along.probabilities[0],
                strict=True,
            )
        ]
        return windows, along.extracted_values

    def _is_present(self, extracted: Tensor, embedding: Tensor) -> bool:
        """Whether the target speaker is heard in some stretch of what was extracted."""
        stretch = round(LONG_RECORDING_SECONDS * self.sampling_rate)
        shortest = round(self.feature_extractor.min_duration_seconds * self.sampling_rate)
        similarities = [
            self.model.get_speaker_similarity(part.to(self.model.device), embedding).item()
            for part in extracted.split(stretch, dim=-1)
            if part.shape[-1] >= shortest
        ]
        return bool(max(similarities) >= self.model.config.presence_threshold)

    def _by_name(self, probabilities: Tensor) -> dict[str, float]:
        return dict(zip(self.labels, probabilities.tolist(), strict=True))


def write_speech(path: Path, speech: np.ndarray, sampling_rate: int) -> None:
    """Writes a file that is there whole or not at all.

    Args:
        path (`Path`): what to write; its folder is made.
        speech (`np.ndarray` of shape `(num_samples,)`): waveform within -1..1.
        sampling_rate (`int`): rate in Hz.

    Raises:
        CommandError: the file's suffix names no format that is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not an audio name: a run that is cut off leaves nothing that passes for a recording.
    partial = path.with_name(f"{path.name}.partial")
    file_format = audio_format(path)
    soundfile.write(partial, speech, sampling_rate, format=file_format, subtype="PCM_16")
    partial.replace(path)


def audio_format(path: Path) -> str:
    """The format that a file's suffix names.

    Raises:
        CommandError: none that is written.
    """
    if path.suffix.lower() not in AUDIO_FORMATS:
        raise CommandError(f"{path}: name a .wav or .flac file")
    return AUDIO_FORMATS[path.suffix.lower()]


def _load_model(name_or_path: str) -> Any:
    _check_folder(name_or_path)
    try:
        model_type = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False).model_type
        if model_type not in MODELS:
            raise CommandError(
                f"--model {name_or_path} is a {model_type!r} model, which extracts nobody: name "
                f"one of the types {' or '.join(MODELS)}"
            )
        return MODELS[model_type].from_pretrained(name_or_path).eval()
    except (OSError, SafetensorError) as error:
        raise CommandError(
            f"--model {name_or_path}: check the name and the folder ({_first_line(error)})"
        ) from error


def _load_feature_extractor(name_or_path: str) -> Any:
    try:
        return TseSerFeatureExtractor.from_pretrained(name_or_path)
    except OSError as error:
        raise CommandError(
            f"--model {name_or_path} holds no preprocessor_config.json: save a "
            "TseSerFeatureExtractor there, as trainings do"
        ) from error


def _check_folder(name_or_path: str) -> None:
    folder = Path(name_or_path)
    if folder.exists() and not (folder / "config.json").is_file():
        raise CommandError(
            f"--model {name_or_path} holds no config.json: name the folder that a training wrote"
        )
    # Names on the Hub have one slash at most, and none in front.
    if not folder.exists() and (name_or_path.count("/") > 1 or name_or_path[:1] in "./~"):
        raise CommandError(f"--model {name_or_path}: there is no such folder")


def _at_level_of(mixture: np.ndarray, extracted: Tensor) -> np.ndarray:
    """Extraction leaves the level open: that of the mixture, and not above what 16 bits hold."""
    speech = extracted[0].float().cpu().numpy()
    level = float(np.sqrt(np.mean(np.square(speech, dtype=np.float64))))
    wanted = float(np.sqrt(np.mean(np.square(mixture, dtype=np.float64))))
    speech = speech * np.float32(wanted / max(level, 1e-12))
    peak = float(np.abs(speech).max())
    return speech if peak <= PEAK else speech * np.float32(PEAK / peak)


def _mean(windows: list[Window]) -> dict[str, float]:
    labels = windows[0].probabilities
    return {
        label: sum(window.probabilities[label] for window in windows) / len(windows)
        for label in labels
    }


def _naming(path: Path, error: ValueError) -> str:
    """The complaint about a file, with its name once."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
