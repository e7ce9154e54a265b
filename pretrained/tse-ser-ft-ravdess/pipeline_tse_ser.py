"""
The emotion of one known speaker, in three lines.

    from transformers import pipeline
    recognize = pipeline(model="lab/tse-ser-ft", trust_remote_code=True)
    recognize({"mixture": "meeting.wav", "enrollment": "alice.wav"})
"""

import math
import os
import re
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForAudioClassification, Pipeline

from .audio_reading import read_waveform
from .voices import enroll, load_voice, save_voice

VOICE_NAME = re.compile(r"[\w-]+")
# One task name, so that the widget and `pipeline("audio-classification", ...)` find it as well.
TASK = "audio-classification"
ITSELF = "the recording itself"
Voices = str | os.PathLike | Mapping[str, Tensor]


# Its annotations contradict what it takes: the flags below, any feature extractor, own parameters.
BasePipeline: Any = Pipeline


class TargetSpeakerEmotionPipeline(BasePipeline):
    r"""
    Emotion of a target speaker in a mixture, for [`TseSerForEmotionClassification`].

    An input is one of

    - `{"mixture": audio, "enrollment": audio}`: the target speaker is the one of the enrollment;
    - `{"mixture": audio, "voice": "alice"}`: a voice enrolled before, see `enroll`;
    - `audio` alone, as a widget sends it: the speaker of `voice=`, or else the recording is its
      own enrollment, and the result says so;

    or a list, generator or `datasets.Dataset` of such; audio as in `read_waveform`: stereo is mixed
    down and other rates are resampled.

    Args:
        voices (`str`, `os.PathLike` or mapping of `str` to `torch.Tensor`, *optional*): a folder of
            voices, which `enroll` adds to, or their speaker embeddings by name.
        voice (`str`, *optional*): who is meant where the input names nobody.
        top_k (`int`, *optional*): so many emotions, the likeliest first; all by default.
        return_extracted (`bool`): give the target speaker's waveform too.
        window_seconds (`float`, *optional*): give the emotions in every such window too.

    Returns:
        For each input a list of `{"label", "score"}`, with `"enrollment"` where the recording is
        its own. With `return_extracted` or `window_seconds` a dict of `emotions` (this list),
        `enrollment`, `extracted` (`{"array", "sampling_rate"}`) and `windows` (a list of
        `{"start_seconds", "end_seconds", "emotions"}`).
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = True
    _load_tokenizer = False
    _registered_impl: ClassVar[dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any):
        self.voices: dict[str, Tensor] = {}
        self._voices_dir: Path | None = None
        super().__init__(*args, **kwargs)

    def enroll(self, name: str, recordings: Any) -> Tensor:
        """
        Keep a speaker's voice under a name, for inputs `{"mixture": ..., "voice": name}`.

        Args:
            name (`str`): letters, digits, `_` and `-`: where voices are kept in a folder, it names
                the file.
            recordings: one recording of the speaker alone, or a list of several.

        Returns:
            `torch.Tensor` of shape `(1, embedding_size)`: the speaker embedding.

        Raises:
            ValueError: a name that could not name a file, or audio that cannot be used.
        """
        if not (isinstance(name, str) and VOICE_NAME.fullmatch(name)):
            raise ValueError(f"A voice is named by letters, digits, _ and -, not {name!r}.")
        several = recordings if isinstance(recordings, (list, tuple)) else [recordings]
        features = [self.feature_extractor(self._waveform(recording)) for recording in several]
        embedding = enroll(self.model, [each["input_values"][0] for each in features])
        if self._voices_dir is not None:
            self._voices_dir.mkdir(parents=True, exist_ok=True)
            save_voice(self._voices_dir / f"{name}.safetensors", embedding, self.model, name)
        self.voices[name] = embedding
        return embedding

    def _sanitize_parameters(
        self,
        voices: Voices | None = None,
        voice: str | None = None,
        top_k: int | None = None,
        return_extracted: bool | None = None,
        window_seconds: float | None = None,
        **unknown: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown:
            raise TypeError(
                f"Unknown option {min(unknown)!r}: use voices, voice, top_k, return_extracted or "
                "window_seconds."
            )
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"`top_k` must be at least 1, a whole number, got {top_k!r}.")
        if window_seconds is not None and not _is_number(window_seconds):
            raise ValueError(f"`window_seconds` must be a number, got {window_seconds!r}.")
        if voices is not None:
            self._open_voices(voices)
        forward = {"window_seconds": window_seconds}
        postprocess = {"top_k": top_k, "return_extracted": return_extracted}
        given = [
            {key: value for key, value in parameters.items() if value is not None}
            for parameters in ({"voice": voice}, forward, postprocess)
        ]
        return given[0], given[1], given[2]

    def _open_voices(self, voices: Voices) -> None:
        if isinstance(voices, Mapping):
            self.voices = {name: torch.as_tensor(voice) for name, voice in voices.items()}
            return
        self._voices_dir = Path(voices)
        if self._voices_dir.exists() and not self._voices_dir.is_dir():
            raise ValueError(f"`voices` must be a folder or a dict: {voices} is a file.")
        self.voices = {
            path.stem: load_voice(path, self.model)
            for path in sorted(self._voices_dir.glob("*.safetensors"))
        }

    def preprocess(self, input_: Any, voice: str | None = None) -> dict[str, Any]:
        """Waveforms, level and masks of one input; see the class for its forms."""
        mixture, enrollment, voice = _parts(input_, voice)
        waveform = self._waveform(mixture)
        if voice is not None:
            features = dict(self.feature_extractor(waveform))
            features["speaker_embeddings"] = self._embedding(voice)
        else:
            own = waveform if enrollment is None else self._waveform(enrollment)
            features = dict(self.feature_extractor(waveform, own))
            # Batches are padded later on: what is valid has to be known by then.
            mask = torch.ones(features["enrollment_values"].shape, dtype=torch.long)
            features["enrollment_attention_mask"] = mask
        mask = torch.ones(features["input_values"].shape, dtype=torch.long)
        itself = voice is None and enrollment is None
        return {**features, "attention_mask": mask, "enrolled_by_itself": [itself]}

    def _waveform(self, audio: Any) -> np.ndarray:
        return read_waveform(audio, self.feature_extractor.sampling_rate)

    def _embedding(self, voice: str) -> Tensor:
        if not isinstance(voice, str) or voice not in self.voices:
            known = ", ".join(sorted(self.voices)) or "none"
            raise ValueError(
                f"Nobody is enrolled as {voice!r} (known: {known}): call `enroll({voice!r}, "
                "recordings)` first."
            )
        return self.voices[voice]

    def _forward(
        self, input_tensors: dict[str, Any], window_seconds: float | None = None
    ) -> dict[str, Any]:
        by_itself = input_tensors.pop("enrolled_by_itself")
        outputs = self.model(**input_tensors, return_dict=True)
        lengths = input_tensors["attention_mask"].sum(dim=-1)
        result = {
            "logits": outputs.logits,
            "extracted_values": outputs.extracted_values,
            "num_samples": lengths,
            "enrolled_by_itself": by_itself,
        }
        if window_seconds is not None:
            result["windows"] = [
                self._windows(values[None, :length], embedding[None], window_seconds)
                for values, length, embedding in zip(
                    input_tensors["input_values"],
                    lengths.tolist(),
                    outputs.speaker_embeddings,
                    strict=True,
                )
            ]
        return result

    def _windows(
        self, values: Tensor, embedding: Tensor, window_seconds: float
    ) -> list[dict[str, Any]]:
        along = self.model.emotion_along_time(
            values, speaker_embeddings=embedding, window_seconds=window_seconds
        )
        return [
            {"start_seconds": start, "end_seconds": end, "emotions": self._ranked(probabilities)}
            for start, end, probabilities in zip(
                along.start_seconds.tolist(),
                along.end_seconds.tolist(),
                along.probabilities[0],
                strict=True,
            )
        ]

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        top_k: int | None = None,
        return_extracted: bool = False,
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """Probabilities by name, and what else was asked for; see the class."""
        emotions = self._ranked(model_outputs["logits"][0].float().softmax(dim=-1))[:top_k]
        (by_itself,) = _unwrapped(model_outputs["enrolled_by_itself"])
        if by_itself:
            emotions = [{**emotion, "enrollment": ITSELF} for emotion in emotions]
        if not return_extracted and "windows" not in model_outputs:
            return emotions
        result: dict[str, Any] = {"emotions": emotions}
        if by_itself:
            result["enrollment"] = ITSELF
        if return_extracted:
            length = int(model_outputs["num_samples"])
            extracted = model_outputs["extracted_values"][0, :length].float().numpy()
            rate = self.feature_extractor.sampling_rate
            result["extracted"] = {"array": extracted, "sampling_rate": rate}
        if "windows" in model_outputs:
            windows = _unwrapped(model_outputs["windows"])
            result["windows"] = [
                {**window, "emotions": window["emotions"][:top_k]} for window in windows
            ]
        return result

    def _ranked(self, probabilities: Tensor) -> list[dict[str, Any]]:
        scores, classes = probabilities.sort(descending=True)
        names = self.model.config.id2label
        return [
            {"score": score, "label": names[index]}
            for score, index in zip(scores.tolist(), classes.tolist(), strict=True)
        ]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not math.isnan(value)


def _unwrapped(notes: list[Any]) -> list[Any]:
    """The notes of one input: of a batch of one they still stand in a list."""
    return notes[0] if notes and isinstance(notes[0], list) else notes


def _parts(input_: Any, voice: str | None) -> tuple[Any, Any, str | None]:
    """Mixture, enrollment or none, and the name of the voice or none."""
    if not isinstance(input_, Mapping) or "mixture" not in input_:
        if isinstance(input_, Mapping) and not {"array", "raw", "bytes", "path"} & input_.keys():
            raise ValueError(
                f"The input has {list(input_)}: pass {{'mixture': ..., 'enrollment': ...}} or "
                "audio."
            )
        return input_, None, voice
    enrollment = input_.get("enrollment")
    if enrollment is not None and input_.get("voice") is not None:
        raise ValueError("Pass an `enrollment` or a `voice`, not both.")
    if enrollment is not None:
        return input_["mixture"], enrollment, None
    if input_.get("voice") is not None:
        voice = input_["voice"]
    if voice is None:
        raise ValueError(
            "The input has a mixture but no enrollment: add one, name a `voice`, or pass the audio "
            "alone, not in a dict, to make it its own enrollment."
        )
    return input_["mixture"], None, voice


# What `save_pretrained` writes into the config. Not entered into transformers' own table of tasks:
# there it would stand in the way of every other audio classifier of the process.
TargetSpeakerEmotionPipeline._registered_impl = {
    TASK: {
        "impl": TargetSpeakerEmotionPipeline,
        "pt": (AutoModelForAudioClassification,),
        "type": "audio",
    }
}

__all__ = ["TargetSpeakerEmotionPipeline"]
