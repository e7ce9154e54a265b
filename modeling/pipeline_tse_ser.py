"""
The emotion of one known speaker, in three lines.

    from transformers import pipeline
    recognize = pipeline(model="lab/tse-ser-ft", trust_remote_code=True)
    recognize({"mixture": "meeting.wav", "enrollment": "alice.wav"})

All that happens between a file and an answer happens here, and nowhere else: the command line, the
Space and the endpoint ask this pipeline. `target_recognition` has steps 3 and 4. In the order of a
recording:

1. `audio_reading` decodes it, chooses the channel and brings it to the model's rate.
2. `feature_extraction_tse_ser`, as in training, takes off offset and rumble and leaves out what is
   no speech.
3. The extractor hears the rest, an hour window by window, and its output gets the level that the
   target speaker has in the mixture.
4. Where the target speaks is told from the extracted speech, and all of this speech is heard by the
   classifier in windows of equal length, no longer than the model was trained on. Their
   probabilities count by the speech they hold: one rule for recordings of any length.
5. The answer says what it is worth: calibrated probabilities, whether the speaker was heard, how
   much speech there was, and warnings.

Inputs: `{"mixture": audio, "enrollment": audio or several}`, `{"mixture": audio, "voice": name}`,
or audio alone; or a list, an iterator or a `datasets.Dataset` of these. Options: `voices`, `voice`,
`top_k`, `channel`, `details`, `return_extracted`, `window_seconds`, `max_seconds`, `batch_size`.
Answers: a list of `{"label", "score"}`, as widgets want it, to whose entries `answer`, `warnings`
and `enrollment` are added where there is something to say; with `details` a dict of everything, see
[`TargetSpeakerEmotionPipeline`].
"""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import AutoModelForAudioClassification, Pipeline
from transformers.utils import logging

from .audio_reading import check_channel, is_rate_and_waveform, name_of, read_recording
from .feature_extraction_tse_ser import PreparedWaveform
from .input_checks import AudioError
from .stretches import spread_stretches
from .target_recognition import (
    MIN_WINDOW_SAMPLES,
    Finding,
    Question,
    TargetRecognizer,
    mixture_of,
)
from .voices import EnrolledVoice, enroll, is_enrolled_voice, load_voice, save_voice

logger = logging.get_logger(__name__)
VOICE_NAME = re.compile(r"[\w-]+")
# One task name, so that the widget and `pipeline("audio-classification", ...)` find it as well.
TASK = "audio-classification"
ITSELF = "the recording itself"
# Answers in place of an emotion.
NOT_ENOUGH_SPEECH = "not enough speech"
NOT_HEARD = "the speaker was not heard"
UNCERTAIN = "uncertain"
# Below it all other emotions together are likelier.
UNCERTAIN_BELOW = 0.5
# Of an enrollment: less speech than this knows a voice badly.
GOOD_ENROLLMENT_SECONDS = 2.0
PEAK = 0.99
# What is wrong with one input of several, which must not cost the others; of a single one it is
# raised. Decoders of others raise `RuntimeError`, as models do where memory does not suffice.
INPUT_ERRORS = (ValueError, OSError, RuntimeError, MemoryError)
Voices = str | os.PathLike | Mapping[str, Tensor]
# An array is one recording too: of several channels, where it has two dimensions.
ONE_RECORDING = (str, os.PathLike, bytes, bytearray, Mapping, np.ndarray, Tensor)
# Of a config, what says nothing of how a model answers.
NO_SETTINGS = {
    *("_name_or_path", "transformers_version", "dtype", "architectures", "auto_map"),
    "custom_pipelines",
}

# Its annotations contradict what it takes: the flags below, any feature extractor, own parameters.
BasePipeline: Any = Pipeline


class TargetSpeakerEmotionPipeline(BasePipeline):
    r"""
    Emotion of a target speaker in a mixture, for [`TseSerForEmotionClassification`].

    An input is one of

    - `{"mixture": audio, "enrollment": audio}`: the target speaker is the one of the enrollment, or
      of a list of several, or of what `voice_of` gave, which spares hearing them for each mixture;
    - `{"mixture": audio, "voice": "alice"}`: a voice enrolled before, see `enroll`, or a speaker
      embedding `(1, embedding_size)` in place of its name;
    - `audio` alone, as a widget sends it, or a row with an `audio` column: the speaker of `voice=`,
      or else the recording is its own enrollment, and the result says so;

    or a list of such, which gives a list, or an iterator or `datasets.Dataset`, which gives an
    iterator. Audio is whatever `read_recording` takes. Of several inputs, one that cannot be used
    gives `{"error": what is wrong and how to mend it, "index": its position}` in its place; alone
    it raises `ValueError`.

    Args:
        voices (`str`, `os.PathLike` or mapping of `str` to `torch.Tensor`, *optional*): a folder of
            voices, which `enroll` adds to, or their speaker embeddings by name.
        voice (`str`, *optional*): who is meant where the input names nobody.
        top_k (`int`, *optional*): so many emotions, the likeliest first; all by default.
        channel (`int` or `str`): of recordings with several: a number, `"mean"` or `"louder"`.
        details (`bool`): give a dict of all that is known.
        return_extracted (`bool`): give the target speaker's waveform too, and the details.
        return_mixture (`bool`): give the mixture too, as the models hear it, what its emotions
            would be were nobody extracted, and the details.
        window_seconds (`float`, *optional*): give the emotions in every such window too, and the
            details. The answer to the whole recording stays what it is.
        max_seconds (`float`, *optional*): refuse recordings that are longer.
        batch_size (`int`): inputs that are taken together; sorted by length inside.

    Returns:
        For each input a list of `{"label", "score"}`, the likeliest emotion first. Where there is
        something to say, each entry has `answer` (in place of the first label: "not enough speech",
        "the speaker was not heard" or "uncertain"), `warnings`, and `enrollment` where the
        recording is its own. With `details` a dict of

        - `emotions`: this list, plain;
        - `answer`: the first label, or what is said in its place;
        - `duration_seconds` of the mixture, `speech_seconds` of the target in it;
        - `speaker_similarity`, `mixture_similarity` and `rest_similarity`: cosine, -1 to 1, of the
          extracted voice, of the mixture and of what was left out of it to the enrollment (None
          for a model that embeds no speech, or where next to nothing was left out);
          `target_present`, where the model has a `presence_threshold`;
        - `removed_db`: how much less power the extracted voice has than the mixture;
        - `warnings`: dicts of `code`, `message`, `role` and numbers;
        - `enrollment`, where the recording is its own;
        - `extracted`: `{"array", "sampling_rate"}`, as long as the mixture and as loud as the
          speaker is in it, without clipping;
        - `mixture`: `{"array", "sampling_rate", "emotions"}`;
        - `windows`: `{"start_seconds", "end_seconds", "speech_seconds", "emotions"}`, no emotions
          where the speaker is silent.
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

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """See the class for inputs and options."""
        if _is_one(inputs):
            return super().__call__(inputs, **options)
        if isinstance(inputs, (list, tuple)):
            return super().__call__(list(inputs), **options) if inputs else []
        if isinstance(inputs, Dataset):
            return super().__call__(inputs, **options)
        if hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"):
            return super().__call__(_Rows(inputs), **options)
        if isinstance(inputs, Iterable):
            return super().__call__((each for each in inputs), **options)
        return super().__call__(inputs, **options)

    def enroll(self, name: str, recordings: Any, channel: int | str = "mean") -> Tensor:
        """
        Keep a speaker's voice under a name, for inputs `{"mixture": ..., "voice": name}`.

        Args:
            name (`str`): letters, digits, `_` and `-`: where voices are kept in a folder, it names
                the file.
            recordings: one recording of the speaker alone, or a list of several.
            channel (`int` or `str`): of recordings with several channels.

        Returns:
            `torch.Tensor` of shape `(1, embedding_size)`: the speaker embedding.

        Raises:
            ValueError: a name that could not name a file, or audio that cannot be used, as where
                it holds too little speech.
        """
        if not (isinstance(name, str) and VOICE_NAME.fullmatch(name)):
            raise ValueError(f"A voice is named by letters, digits, _ and -, not {name!r}.")
        voice = self.voice_to_keep(recordings, channel)
        for warning in voice.warnings:
            logger.warning("Voice %r: %s", name, warning["message"])
        if self._voices_dir is not None:
            self._voices_dir.mkdir(parents=True, exist_ok=True)
            save_voice(self._voices_dir / f"{name}.safetensors", voice.embedding, self.model, name)
        self.voices[name] = voice.embedding
        return voice.embedding

    def voice_to_keep(
        self, recordings: Any, channel: int | str = "mean", max_seconds: float | None = None
    ) -> EnrolledVoice:
        """
        As `voice_of`, for an embedding that is kept alone, without what is known of its recordings.

        Raises:
            ValueError: audio that cannot be used, or too little speech for any answer.
        """
        voice = self.voice_of(recordings, channel, max_seconds)
        if voice.lacks_speech:
            raise AudioError(
                "The enrollment holds less than "
                f"{self.feature_extractor.min_speech_seconds:g} s of speech, by which nobody can "
                f"be told apart: enroll with {GOOD_ENROLLMENT_SECONDS:g} s or more, best calm.",
                "too_short",
            )
        return voice

    def voice_of(
        self, recordings: Any, channel: int | str = "mean", max_seconds: float | None = None
    ) -> EnrolledVoice:
        """
        Hear a speaker once, for many mixtures: `{"mixture": ..., "enrollment": voice}`.

        Args:
            recordings: one recording of the speaker alone, or a list of several.
            channel (`int` or `str`): of recordings with several channels.
            max_seconds (`float`, *optional*): refuse longer ones.

        Returns:
            [`EnrolledVoice`]: its warnings will be in each answer, as if the recordings were there.

        Raises:
            ValueError: audio that cannot be used.
        """
        question = Question()
        self._add_enrollments(question, recordings, channel, max_seconds)
        with self.device_placement(), torch.no_grad():
            embedding = enroll(self.model, question.enrollments)
            self.recognizer.compare_parts(question)
        return EnrolledVoice(
            embedding, question.warnings, question.lacks_enrollment_speech, question.enrollments
        )

    def check_options(self, **options: Any) -> None:
        """
        Refuse options that no input could be answered with, before any is decoded.

        Raises:
            ValueError: one is out of range.
            TypeError: one is unknown.
        """
        self._sanitize_parameters(**options)

    @property
    def answer_settings(self) -> dict[str, Any]:
        """All beside the weights that an answer depends on, as JSON has it."""
        return {
            "config": _settings_of(self.model.config.to_dict()),
            "front_end": self.feature_extractor.settings,
        }

    def _sanitize_parameters(
        self,
        voices: Voices | None = None,
        voice: str | None = None,
        top_k: int | None = None,
        channel: int | str | None = None,
        details: bool | None = None,
        return_extracted: bool | None = None,
        return_mixture: bool | None = None,
        window_seconds: float | None = None,
        max_seconds: float | None = None,
        **unknown: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown:
            raise TypeError(
                f"Unknown option {min(unknown)!r}: use voices, voice, top_k, channel, details, "
                "return_extracted, return_mixture, window_seconds or max_seconds."
            )
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"`top_k` must be at least 1, a whole number, got {top_k!r}.")
        if window_seconds is not None:
            self._check_window(window_seconds)
        if channel is not None:
            check_channel(channel)
        if voices is not None:
            self._open_voices(voices)
        given = [
            {key: value for key, value in parameters.items() if value is not None}
            for parameters in (
                {"voice": voice, "channel": channel, "max_seconds": max_seconds},
                {"window_seconds": window_seconds, "return_mixture": return_mixture},
                {"top_k": top_k, "return_extracted": return_extracted, "details": details},
            )
        ]
        return given[0], given[1], given[2]

    def _check_window(self, window_seconds: Any) -> None:
        if not isinstance(window_seconds, Real) or math.isnan(window_seconds):
            raise ValueError(f"`window_seconds` must be a number, got {window_seconds!r}.")
        if self.recognizer.classifier is None:
            raise ValueError("`window_seconds` must be left out: this model knows no emotions.")
        shortest = MIN_WINDOW_SAMPLES / self.feature_extractor.sampling_rate
        longest = self.recognizer.longest_seconds
        if not shortest <= window_seconds <= longest:
            raise ValueError(
                f"`window_seconds` must be {shortest:.4g} to {longest:g} s, "
                f"`max_duration_seconds` of the classifier at most, got {window_seconds}."
            )

    def _open_voices(self, voices: Voices) -> None:
        if isinstance(voices, Mapping):
            self.voices = {name: torch.as_tensor(voice) for name, voice in voices.items()}
            return
        self._voices_dir = Path(voices).expanduser()
        if self._voices_dir.exists() and not self._voices_dir.is_dir():
            raise ValueError(f"`voices` must be a folder or a dict: {voices} is a file.")
        self.voices = {
            path.stem: load_voice(path, self.model)
            for path in sorted(self._voices_dir.glob("*.safetensors"))
        }

    # ---- from inputs to questions

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[Any]:
        """Answers in the order of the inputs, `batch_size` of which are heard together."""
        is_sized = hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__")
        questions: Any = (_Questions if is_sized else _QuestionStream)(
            inputs, self._question_or_error, preprocess_params
        )
        # Each worker would go through the whole of an iterator.
        num_workers = num_workers if is_sized else min(num_workers, 1)
        for batch in DataLoader(
            questions, num_workers=num_workers, batch_size=batch_size, collate_fn=list
        ):
            for finding in self.forward(batch, **forward_params):
                yield self.postprocess(finding, **postprocess_params)

    def run_single(
        self,
        inputs: Any,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Any:
        """The answer to one input; what is wrong with it is raised."""
        question = self.preprocess(inputs, **preprocess_params)
        (finding,) = self.forward([question], is_alone=True, **forward_params)
        return self.postprocess(finding, **postprocess_params)

    def _question_or_error(self, index: int, input_: Any, **parameters: Any) -> Question:
        try:
            return self.preprocess(input_, index=index, **parameters)
        except INPUT_ERRORS as error:
            return Question(index=index, error=_in_words(error))

    def preprocess(
        self,
        input_: Any,
        voice: str | None = None,
        channel: int | str = "mean",
        max_seconds: float | None = None,
        index: int | None = None,
    ) -> Question:
        """
        Decode and prepare one input; see the class for its forms.

        Raises:
            ValueError: audio that cannot be used; the message names file, role and position.
        """
        mixture, enrollment, voice = _parts(input_, voice)
        question = Question(index=index)
        question.mixture = self._read("mixture", mixture, question, channel, max_seconds)
        question.level = self.feature_extractor.level(question.mixture.values)
        question.mixture.values /= np.float32(question.level)
        if is_enrolled_voice(voice):
            enrollment, voice = voice, None
        if voice is not None:
            question.embedding = self._embedding(voice)
        elif enrollment is None:
            question.enrolled_by_itself = True
            question.enrollments = [question.mixture.values]
        else:
            self._add_enrollments(question, enrollment, channel, max_seconds)
            self._warn_of_the_mixture(question, mixture, enrollment)
        return question

    def _read(
        self,
        role: str,
        audio: Any,
        question: Question,
        channel: int | str,
        max_seconds: float | None,
    ) -> PreparedWaveform:
        name = name_of(audio)
        where = "" if question.index is None else f" of input {question.index}"
        try:
            recording = read_recording(
                audio, self.feature_extractor.sampling_rate, channel, max_seconds
            )
        except ValueError as error:
            named = f" {name}" if name and name not in str(error) else ""
            reason = getattr(error, "reason", "unusable")
            raise AudioError(f"The {role}{named}{where}: {error}", reason) from error
        question.warnings += [
            {**warning, "role": role, **({"file": name} if name else {})}
            for warning in recording.warnings
        ]
        return self.feature_extractor.prepare(
            recording.waveform, f"{role}{f' {name}' if name else ''}{where}", in_place=True
        )

    def _add_enrollments(
        self, question: Question, enrollment: Any, channel: int | str, max_seconds: float | None
    ) -> None:
        if is_enrolled_voice(enrollment):
            question.embedding = enrollment.embedding
            question.warnings += enrollment.warnings
            question.lacks_enrollment_speech = enrollment.lacks_speech
            question.enrollments = enrollment.enrollments
            return
        is_one = _is_one(enrollment) or not isinstance(enrollment, Iterable)
        several = [enrollment] if is_one else list(enrollment)
        if any(map(is_enrolled_voice, several)):
            raise ValueError(
                "The enrollment is a list with an enrolled voice: pass the voice alone, or enroll "
                "with all recordings at once."
            )
        if not several:
            raise ValueError("The enrollment is an empty list: pass one recording or several.")
        prepared = [
            self._read("enrollment", each, question, channel, max_seconds) for each in several
        ]
        question.enrollments = [
            each.values / np.float32(self.feature_extractor.level(each.values)) for each in prepared
        ]
        seconds = sum(each.speech_seconds for each in prepared)
        question.lacks_enrollment_speech = seconds < self.feature_extractor.min_speech_seconds
        if seconds < GOOD_ENROLLMENT_SECONDS:
            question.warnings.append(
                {
                    "code": "little_enrollment_speech",
                    "message": f"The enrollment holds {seconds:.1f} s of speech: enroll with "
                    f"{GOOD_ENROLLMENT_SECONDS:g} s or more, best calm.",
                    "role": "enrollment",
                    "speech_seconds": seconds,
                }
            )

    def _warn_of_the_mixture(self, question: Question, mixture: Any, enrollment: Any) -> None:
        assert question.mixture is not None
        heard = question.mixture.values
        if enrollment is mixture or any(
            len(each) == len(heard) and np.array_equal(each, heard) for each in question.enrollments
        ):
            question.warnings.append(
                {
                    "code": "enrollment_is_mixture",
                    "message": "The enrollment is the mixture itself, which tells nobody apart: "
                    "enroll with another recording, of the speaker alone.",
                    "role": "enrollment",
                }
            )

    def _embedding(self, voice: Any) -> Tensor:
        if isinstance(voice, Tensor):
            return voice.reshape(1, -1)
        if not isinstance(voice, str) or voice not in self.voices:
            known = ", ".join(sorted(self.voices)) or "none"
            raise ValueError(
                f"Nobody is enrolled as {voice!r:.40} (known: {known}): call `enroll({voice!r}, "
                "recordings)` first."
            )
        return self.voices[voice].reshape(1, -1)

    # ---- from questions to findings

    @property
    def recognizer(self) -> TargetRecognizer:
        """The models of this pipeline at work."""
        return TargetRecognizer(self.model, self.feature_extractor, self.device)

    def _forward(
        self,
        questions: list[Question],
        window_seconds: float | None = None,
        return_mixture: bool = False,
        is_alone: bool = False,
    ) -> list[Finding]:
        """What the models make of several questions; an error is that of its question alone, and
        raised where it `is_alone`."""
        try:
            return self.recognizer.findings(questions, window_seconds, return_mixture)
        except INPUT_ERRORS as error:
            if is_alone:
                raise
            if len(questions) == 1:
                return [Finding(questions[0], error=_in_words(error))]
        return [
            finding
            for question in questions
            for finding in self._forward([question], window_seconds, return_mixture)
        ]

    # ---- from findings to answers

    def postprocess(
        self,
        finding: Finding,
        top_k: int | None = None,
        return_extracted: bool = False,
        details: bool = False,
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """The answer in words and numbers; see the class."""
        question = finding.question
        if finding.error is not None:
            return {"error": finding.error, "index": question.index}
        emotions: list[dict[str, Any]] = []
        if finding.probabilities is not None:
            emotions = self.recognizer.ranked(finding.probabilities)
        present = self._is_present(finding)
        answer = self._answer(finding, emotions, present)
        emotions = emotions[:top_k]
        warnings = [*question.warnings, *_warnings_of(finding)]
        mixture_emotions = finding.mixture_probabilities
        if not (
            details
            or return_extracted
            or finding.windows is not None
            or mixture_emotions is not None
        ):
            said: dict[str, Any] = {"enrollment": ITSELF} if question.enrolled_by_itself else {}
            if emotions and answer != emotions[0]["label"]:
                said |= {"answer": answer}
            if warnings:
                said |= {"warnings": warnings}
            return [{**emotion, **said} for emotion in emotions]
        mixture = mixture_of(finding)
        rate = self.feature_extractor.sampling_rate
        result: dict[str, Any] = {
            "emotions": emotions,
            "answer": answer,
            "duration_seconds": mixture.num_samples / rate,
            "speech_seconds": finding.speech_seconds,
            "speaker_similarity": finding.similarity,
            "mixture_similarity": finding.mixture_similarity,
            "rest_similarity": finding.rest_similarity,
            "target_present": present,
            "removed_db": finding.removed_db,
            "warnings": warnings,
        }
        if question.enrolled_by_itself:
            result["enrollment"] = ITSELF
        if return_extracted:
            extracted = _in_place(finding, finding.speech)
            result["extracted"] = {"array": extracted, "sampling_rate": rate}
        if mixture_emotions is not None:
            result["mixture"] = {
                "array": _in_place(finding, mixture.values),
                "sampling_rate": rate,
                "emotions": self.recognizer.ranked(mixture_emotions)[:top_k],
            }
        if finding.windows is not None:
            result["windows"] = [
                {**window, "emotions": window["emotions"][:top_k]} for window in finding.windows
            ]
        return result

    def _is_present(self, finding: Finding) -> bool | None:
        threshold = self.recognizer.setting("presence_threshold")
        if threshold is None or finding.similarity is None:
            return None
        return bool(finding.similarity >= threshold)

    def _answer(
        self, finding: Finding, emotions: list[dict[str, Any]], present: bool | None
    ) -> str | None:
        too_little = finding.speech_seconds < self.feature_extractor.min_speech_seconds
        if too_little or finding.question.lacks_enrollment_speech:
            return NOT_ENOUGH_SPEECH
        if present is False:
            return NOT_HEARD
        if not emotions:
            return None
        return UNCERTAIN if emotions[0]["score"] < UNCERTAIN_BELOW else emotions[0]["label"]


class _Rows(Dataset):
    """Anything with a length and items, as torch's loaders want it."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


class _Questions(Dataset):
    """Inputs that are prepared when they are asked for, here or in another process."""

    def __init__(self, inputs: Any, prepare: Any, parameters: dict[str, Any]):
        self.inputs, self.prepare, self.parameters = inputs, prepare, parameters

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Question:
        try:
            input_ = self.inputs[index]
        except INPUT_ERRORS as error:  # of a row that is decoded when it is asked for
            return Question(index=index, error=_in_words(error))
        return self.prepare(index, input_, **self.parameters)


class _QuestionStream(IterableDataset):
    """Inputs that come one after the other."""

    def __init__(self, inputs: Any, prepare: Any, parameters: dict[str, Any]):
        self.inputs, self.prepare, self.parameters = inputs, prepare, parameters

    def __iter__(self) -> Iterator[Question]:
        for index, input_ in enumerate(self.inputs):
            yield self.prepare(index, input_, **self.parameters)


def _is_one(inputs: Any) -> bool:
    """Whether this is one recording, or one dict of them."""
    return (
        isinstance(inputs, ONE_RECORDING)
        or is_enrolled_voice(inputs)
        or is_rate_and_waveform(inputs)
        or hasattr(inputs, "get_all_samples")
        or callable(getattr(inputs, "read", None))
    )


def _warnings_of(finding: Finding) -> list[dict[str, Any]]:
    """What is odd about what was extracted."""
    alike, rest = finding.similarity, finding.rest_similarity
    if finding.question.enrolled_by_itself or alike is None or rest is None or rest <= alike:
        return []
    return [
        {
            "code": "rest_more_alike",
            "message": "What was left out sounds more like the enrollment than what was extracted: "
            "another voice may have been taken. Listen to it, and enroll with a longer or another "
            "recording.",
            "role": "mixture",
            "speaker_similarity": alike,
            "rest_similarity": rest,
        }
    ]


def _settings_of(config: Any) -> Any:
    """A config as a dict, and those in it, without `NO_SETTINGS`."""
    if not isinstance(config, dict):
        return config
    return {name: _settings_of(own) for name, own in config.items() if name not in NO_SETTINGS}


def _in_words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _in_place(finding: Finding, values: np.ndarray) -> np.ndarray:
    """
    What was heard as long and as loud as its mixture, within -1..1; silence where that is.

    Where there is room for it, this is written over `values`.
    """
    mixture = mixture_of(finding)
    whole = spread_stretches(values, mixture.stretches, mixture.num_samples, in_place=True)
    peak = finding.question.level * max(float(whole.max()), -float(whole.min()))
    gain = np.float32(finding.question.level * min(1, PEAK / max(peak, PEAK)))
    return np.multiply(whole, gain, out=whole)


def _parts(input_: Any, voice: str | None) -> tuple[Any, Any, str | None]:
    """Mixture, enrollment or none, and the name of the voice or none."""
    if isinstance(input_, Mapping) and "mixture" not in input_ and "audio" in input_:
        input_ = {**input_, "mixture": input_["audio"]}
        if input_.get("enrollment") is None and input_.get("voice") is None:
            return input_["audio"], None, voice
    if not isinstance(input_, Mapping) or "mixture" not in input_:
        if isinstance(input_, Mapping) and not {"array", "raw", "bytes", "path"} & input_.keys():
            raise ValueError(
                f"The input has {list(input_)[:9]}: pass {{'mixture': ..., 'enrollment': ...}} or "
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
