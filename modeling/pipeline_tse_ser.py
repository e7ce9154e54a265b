"""
The emotion of one known speaker, in three lines.

    from transformers import pipeline
    recognize = pipeline(model="lab/tse-ser-ft", trust_remote_code=True)
    recognize({"mixture": "meeting.wav", "enrollment": "alice.wav"})

All that happens between a file and an answer happens here, and nowhere else: the command line, the
Space and the endpoint ask this pipeline. In the order of a recording:

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import AutoModelForAudioClassification, Pipeline

from .audio_reading import check_channel, is_rate_and_waveform, name_of, read_recording
from .feature_extraction_tse_ser import PreparedWaveform, join_stretches, spread_stretches
from .input_checks import AudioError
from .speech_activity import (
    HOP_SECONDS,
    SpeechActivitySettings,
    active_frames,
    band_powers,
    loud_level_db,
    smoothed,
    speech_stretches,
)
from .voices import enroll, load_voice, save_voice, speaker_similarity

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
# What the extractor hears at once, of a recording that is longer.
WINDOW_SECONDS = 10.0
# From one window of `window_seconds` to the next.
COURSE_HOP_SECONDS = 1.0
# Padded audio that goes through a model at once.
BATCH_SECONDS = 10.0
# Speakers are compared over stretches of this length, and the likeliest one counts.
SIMILARITY_SECONDS = 10.0
# Of an enrollment: less speech than this knows a voice badly; its parts are compared.
GOOD_ENROLLMENT_SECONDS = 2.0
VOICE_PART_SECONDS = 1.6
MAX_VOICE_PARTS = 12
# Where the target speaks, what was extracted is little below the mixture and below its own loud
# parts: what leaks of others is weaker. The first pair of numbers is for moments that are clearly
# the target's, the second for what lies within reach of one. Chosen on validation actors.
CLEAR_BELOW_MIXTURE_DB, CLEAR_RANGE_DB = 4.0, 15.0
TARGET_BELOW_MIXTURE_DB, TARGET_RANGE_DB = 10.0, 30.0
CLEAR_REACH_SECONDS = 0.15
# Kept before and after: words begin and end softly, and the classifier was trained on whole ones.
TARGET_MARGIN_SECONDS = 0.4
SHARE_FRAMES = 11
MIN_WINDOW_SAMPLES = 400  # what a classifier hears at least
PEAK = 0.99
Voices = str | os.PathLike | Mapping[str, Tensor]
# A waveform and the pieces of it that are heard: first sample and the one after the last.
Window = tuple[np.ndarray, list[tuple[int, int]]]

# Its annotations contradict what it takes: the flags below, any feature extractor, own parameters.
BasePipeline: Any = Pipeline


@dataclass
class Question:
    """
    One input, prepared.

    Args:
        index: its position among the inputs, or None where it is the only one.
        mixture: filtered and cut to its speech, at unit level.
        level: that of the mixture as it came.
        enrollments: waveforms of the target speaker at unit level, each `(num_samples,)`.
        embedding (`torch.Tensor` of shape `(1, embedding_size)`, *optional*): of an enrolled voice,
            in place of `enrollments`.
        enrolled_by_itself: whether the mixture is its own enrollment.
        warnings: what was odd about the recordings.
        lacks_enrollment_speech: whether the enrollment holds too little speech.
        error: why there is no answer.
    """

    index: int | None = None
    mixture: PreparedWaveform | None = None
    level: float = 1.0
    enrollments: list[np.ndarray] = field(default_factory=list)
    embedding: Tensor | None = None
    enrolled_by_itself: bool = False
    warnings: list[dict[str, Any]] = field(default_factory=list)
    lacks_enrollment_speech: bool = False
    error: str | None = None


@dataclass
class Finding:
    """
    What the models made of a question.

    Args:
        question: the input.
        mixture_power (`np.ndarray` of shape `(num_frames,)`): of the mixture, smoothed.
        speech: the target speaker as loud as in the mixture at unit level, in its stretches; a
            long one may have taken the mixture's place.
        active (`np.ndarray` of shape `(num_frames,)`): the frames of `speech` that hold some.
        heard: what of `speech` the classifier hears: first sample and the one after the last.
        speech_seconds: how much the target speaks, pauses not counted.
        probabilities (`torch.Tensor` of shape `(num_labels,)`): none of an extractor alone.
        mixture_probabilities: of the mixture, where it was asked for.
        windows: course of the emotions, where it was asked for.
        similarity: cosine of the extracted speech and the enrollment.
        mixture_similarity: cosine of the mixture and the enrollment.
        removed_db: how much less power the extracted speech has than the mixture.
        error: why there is no answer.
    """

    question: Question
    mixture_power: np.ndarray = field(default_factory=lambda: np.zeros(0))
    speech: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    active: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    heard: list[tuple[int, int]] = field(default_factory=list)
    speech_seconds: float = 0.0
    probabilities: Tensor | None = None
    mixture_probabilities: Tensor | None = None
    windows: list[dict[str, Any]] | None = None
    similarity: float | None = None
    mixture_similarity: float | None = None
    removed_db: float = 0.0
    error: str | None = None


class TargetSpeakerEmotionPipeline(BasePipeline):
    r"""
    Emotion of a target speaker in a mixture, for [`TseSerForEmotionClassification`].

    An input is one of

    - `{"mixture": audio, "enrollment": audio}`: the target speaker is the one of the enrollment, or
      of a list of several;
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
        - `speaker_similarity` and `mixture_similarity`: cosine, -1 to 1, of the extracted voice and
          of the mixture to the enrollment (None for a model that embeds no speech);
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
            ValueError: a name that could not name a file, or audio that cannot be used.
        """
        if not (isinstance(name, str) and VOICE_NAME.fullmatch(name)):
            raise ValueError(f"A voice is named by letters, digits, _ and -, not {name!r}.")
        embedding, _ = self.voice_of(recordings, channel)
        if self._voices_dir is not None:
            self._voices_dir.mkdir(parents=True, exist_ok=True)
            save_voice(self._voices_dir / f"{name}.safetensors", embedding, self.model, name)
        self.voices[name] = embedding
        return embedding

    def voice_of(
        self, recordings: Any, channel: int | str = "mean", max_seconds: float | None = None
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        """
        A speaker embedding, and what was odd about the recordings it comes from.

        Args:
            recordings: one recording of the speaker alone, or a list of several.
            channel (`int` or `str`): of recordings with several channels.
            max_seconds (`float`, *optional*): refuse longer ones.

        Returns:
            `torch.Tensor` of shape `(1, embedding_size)`, and warnings as in the class's details.

        Raises:
            ValueError: audio that cannot be used.
        """
        question = Question()
        self._add_enrollments(question, recordings, channel, max_seconds)
        with self.device_placement(), torch.no_grad():
            embedding = enroll(self.model, question.enrollments)
            self._compare_parts(question)
        return embedding, question.warnings

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
        if self._classifier is None:
            raise ValueError("`window_seconds` must be left out: this model knows no emotions.")
        shortest = MIN_WINDOW_SAMPLES / self.feature_extractor.sampling_rate
        if not shortest <= window_seconds <= self._longest_seconds:
            raise ValueError(
                f"`window_seconds` must be {shortest:.4g} to {self._longest_seconds:g} s, "
                "`max_duration_seconds` of the classifier at most, got "
                f"{window_seconds}."
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
        (finding,) = self.forward([question], **forward_params)
        if finding.error is not None:
            raise ValueError(finding.error)
        return self.postprocess(finding, **postprocess_params)

    def _question_or_error(self, index: int, input_: Any, **parameters: Any) -> Question:
        try:
            return self.preprocess(input_, index=index, **parameters)
        except (ValueError, OSError, MemoryError) as error:
            return Question(index=index, error=str(error) or type(error).__name__)

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
        several = [enrollment] if _is_one(enrollment) else list(enrollment)
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
                f"Nobody is enrolled as {voice!r} (known: {known}): call `enroll({voice!r}, "
                "recordings)` first."
            )
        return self.voices[voice].reshape(1, -1)

    # ---- from questions to findings

    @property
    def _extractor(self) -> Any:
        return getattr(self.model, "extractor", self.model)

    @property
    def _classifier(self) -> Any:
        return getattr(self.model, "classifier", None)

    @property
    def _longest_seconds(self) -> float:
        return float(self._classifier.config.max_duration_seconds)

    def _setting(self, name: str) -> Any:
        return getattr(self.model.config, name, None)

    def _forward(
        self,
        questions: list[Question],
        window_seconds: float | None = None,
        return_mixture: bool = False,
    ) -> list[Finding]:
        """What the models make of several questions; an error is that of its question alone."""
        try:
            return self._findings(questions, window_seconds, return_mixture)
        except (ValueError, RuntimeError, MemoryError) as error:
            if len(questions) == 1:
                return [Finding(questions[0], error=str(error) or type(error).__name__)]
        return [
            finding
            for question in questions
            for finding in self._forward([question], window_seconds, return_mixture)
        ]

    def _findings(
        self, questions: list[Question], window_seconds: float | None, return_mixture: bool
    ) -> list[Finding]:
        findings = [Finding(question, error=question.error) for question in questions]
        answered = [finding for finding in findings if finding.error is None]
        embeddings = [self._speaker(finding.question) for finding in answered]
        rate = self.feature_extractor.sampling_rate
        for finding, embedding in zip(answered, embeddings, strict=True):
            # Before the extracted speech may take the mixture's place.
            mixture = _mixture(finding).values
            finding.mixture_power = _frame_power(band_powers(mixture, rate))
            if self._embeds_speech:
                whole = [(0, len(mixture))]
                finding.mixture_similarity = self._similarity(mixture, whole, embedding)
            if self._classifier is not None and return_mixture:
                finding.mixture_probabilities = self._mixture_probabilities(mixture)
        # An hour takes 230 MB. Several questions may be asked again after an error in one of them.
        in_place = len(questions) == 1 and not return_mixture
        self._extract(answered, embeddings, in_place)
        for finding, embedding in zip(answered, embeddings, strict=True):
            self._find_speech(finding)
            if self._embeds_speech:
                finding.similarity = self._similarity(finding.speech, finding.heard, embedding)
        if self._classifier is not None:
            self._classify(answered, window_seconds)
        return findings

    @property
    def _embeds_speech(self) -> bool:
        config = self._extractor.config
        return config.auxiliary_type != "projection" or config.speaker_encoder is not None

    def _mixture_probabilities(self, mixture: np.ndarray) -> Tensor:
        """Emotions of `mixture` `(num_samples,)` as it is, `(num_labels,)`."""
        whole = [(0, len(mixture))]
        parts = _equal_parts(whole, self._num_windows(whole))
        return self._probabilities([(mixture, part) for part in parts]).mean(dim=0)

    def _speaker(self, question: Question) -> Tensor:
        """The embedding of the target speaker, `(1, embedding_size)`."""
        if question.embedding is not None:
            return question.embedding.to(self.device, self._extractor.dtype)
        self._compare_parts(question)
        return enroll(self.model, question.enrollments)

    def _compare_parts(self, question: Question) -> None:
        """Warn where parts of an enrollment are less alike than those of one voice."""
        threshold = self._setting("one_voice_threshold")
        if threshold is None or question.enrolled_by_itself:
            return
        similarity = self.least_similarity(question.enrollments)
        if similarity is not None and similarity < threshold:
            question.warnings.append(
                {
                    "code": "two_voices",
                    "message": "The enrollment sounds like more than one voice: pass recordings "
                    "of the speaker alone.",
                    "role": "enrollment",
                    "similarity": similarity,
                }
            )

    def least_similarity(self, enrollments: Sequence[np.ndarray]) -> float | None:
        """
        The lowest cosine between parts of an enrollment: low where a second voice is in it.

        Args:
            enrollments: prepared waveforms `(num_samples,)` at unit level.

        Returns:
            `float`, *optional*: None where there are fewer than two parts.
        """
        length = round(VOICE_PART_SECONDS * self.feature_extractor.sampling_rate)
        parts = [
            each[start : start + length]
            for each in enrollments
            for start in range(0, len(each) - length + 1, length)
        ][:MAX_VOICE_PARTS]
        if len(parts) < 2:
            return None
        embeddings = torch.cat([enroll(self.model, [part]) for part in parts]).float()
        units = torch.nn.functional.normalize(embeddings, dim=-1)
        return float((units @ units.T).min())

    def _extract(
        self, findings: list[Finding], embeddings: list[Tensor], in_place: bool = False
    ) -> None:
        """
        Fill in the extracted speech: of short mixtures together, by length; of a long one part by
        part, over the mixture where this is allowed.
        """
        lengths = [len(_mixture(finding).values) for finding in findings]
        longest = round(WINDOW_SECONDS * self.feature_extractor.sampling_rate)
        for rows in self._batches(lengths):
            if len(rows) == 1 or lengths[rows[-1]] > longest:
                for row in rows:
                    mixture = _mixture(findings[row]).values
                    parts = _extracted_parts(self._extractor, mixture, embeddings[row])
                    out = mixture if in_place else np.empty_like(mixture)
                    _set_speech(findings[row], parts, out)
                continue
            values, mask = self._padded([_mixture(findings[row]).values for row in rows])
            outputs = self._extractor(
                values,
                attention_mask=mask,
                speaker_embeddings=torch.cat([embeddings[row] for row in rows]),
                return_dict=True,
            )
            for row, extracted in zip(rows, outputs.extracted_values, strict=True):
                parts = iter([extracted[None, : lengths[row]]])
                _set_speech(findings[row], parts, np.empty(lengths[row], np.float32))

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Positions sorted by length, in groups whose padded length stays within bounds."""
        most = BATCH_SECONDS * self.feature_extractor.sampling_rate
        batch: list[int] = []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__):
            if batch and (len(batch) + 1) * lengths[row] > most:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _padded(self, waveforms: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        longest = max(map(len, waveforms))
        values = torch.zeros(len(waveforms), longest)
        mask = torch.zeros(len(waveforms), longest, dtype=torch.long)
        for row, waveform in enumerate(waveforms):
            values[row, : len(waveform)] = torch.from_numpy(waveform)
            mask[row, : len(waveform)] = 1
        return values.to(self.device), mask.to(self.device)

    def _find_speech(self, finding: Finding) -> None:
        """Where the target speaks, in the mixture's stretches."""
        rate, mixture = self.feature_extractor.sampling_rate, _mixture(finding)
        settings = SpeechActivitySettings(
            range_db=min(TARGET_RANGE_DB, self.feature_extractor.speech_range_db),
            margin_seconds=TARGET_MARGIN_SECONDS,
            max_pause_seconds=self.feature_extractor.max_pause_seconds,
        )
        own = band_powers(finding.speech, rate)
        power = _frame_power(own)
        share_db = 10 * np.log10(power / finding.mixture_power)
        level_db = 10 * np.log10(power)
        level_db -= loud_level_db(level_db, settings.range_db)
        active = active_frames(own, settings) & (share_db >= -TARGET_BELOW_MIXTURE_DB)
        clear = active & (share_db >= -CLEAR_BELOW_MIXTURE_DB) & (level_db >= -CLEAR_RANGE_DB)
        reach = round(CLEAR_REACH_SECONDS / HOP_SECONDS)
        finding.active = active & (smoothed(clear[:, None] * 1.0, 2 * reach + 1)[:, 0] > 1e-6)
        if mixture.speech_seconds < self.feature_extractor.min_speech_seconds:
            finding.active[:] = False
        finding.speech_seconds = float(finding.active.sum()) * HOP_SECONDS
        finding.heard = speech_stretches(finding.active, len(finding.speech), rate, settings)
        if finding.speech_seconds < self.feature_extractor.min_speech_seconds:
            finding.heard = [(0, len(finding.speech))]

    def _similarity(
        self, waveform: np.ndarray, pieces: list[tuple[int, int]], embedding: Tensor
    ) -> float:
        """The highest cosine to a speaker over stretches of pieces of a waveform."""
        longest = SIMILARITY_SECONDS * self.feature_extractor.sampling_rate
        count = max(round(_length(pieces) / longest), 1)
        similarities = []
        for part in _equal_parts(pieces, count):
            values = torch.from_numpy(join_stretches(waveform, part))[None]
            similarities.append(
                speaker_similarity(
                    self._extractor, values.to(self._encoder_weight), embedding
                ).item()
            )
        return max(similarities)

    @property
    def _encoder_weight(self) -> Tensor:
        weight: Tensor = next(self._extractor.parameters())
        return weight

    def _classify(self, findings: list[Finding], window_seconds: float | None) -> None:
        """Fill in the probabilities, and the course where it is wanted."""
        windows: list[Window] = []
        weights: list[list[float]] = []
        for finding in findings:
            own, own_weights = self._speech_windows(finding)
            windows += own
            weights.append(own_weights)
        shares = [torch.tensor(each, dtype=torch.float64) for each in weights]
        each_own = self._probabilities(windows).split([len(share) for share in shares])
        for finding, share, probabilities in zip(findings, shares, each_own, strict=True):
            finding.probabilities = share @ probabilities / share.sum()
            if window_seconds is not None:
                # Apart from the others: the company of a window must not move the whole answer.
                finding.windows, spoken = self._course_windows(finding, window_seconds)
                course = iter(self._probabilities(spoken))
                for window in finding.windows:
                    if window.pop("has_speech"):
                        window["emotions"] = self._ranked(next(course))

    def _speech_windows(self, finding: Finding) -> tuple[list[Window], list[float]]:
        """The speech in windows of one length, and how much speech each holds."""
        rate = self.feature_extractor.sampling_rate
        parts = _equal_parts(finding.heard, self._num_windows(finding.heard))
        edges = np.cumsum([0, *map(_length, parts)])
        frames = np.flatnonzero(finding.active) * round(HOP_SECONDS * rate)
        inside = np.concatenate(
            [
                frames[(frames >= start) & (frames < stop)] - start + offset
                for (start, stop), offset in _with_offsets(finding.heard)
            ]
        )
        weights, _ = np.histogram(inside, edges)
        # Without any speech, all count alike.
        weights = weights if weights.any() else np.ones(len(parts))
        kept = [index for index, weight in enumerate(weights) if weight > 0]
        windows = [(finding.speech, parts[index]) for index in kept]
        return windows, [float(weights[index]) for index in kept]

    def _num_windows(self, pieces: list[tuple[int, int]]) -> int:
        """How many windows no longer than what the classifier was trained on hold the pieces."""
        longest = round(self._longest_seconds * self.feature_extractor.sampling_rate)
        return math.ceil(_length(pieces) / longest)

    def _course_windows(
        self, finding: Finding, window_seconds: float
    ) -> tuple[list[dict[str, Any]], list[Window]]:
        """Windows along the recording, and the target's speech in each that has any."""
        rate, mixture = self.feature_extractor.sampling_rate, _mixture(finding)
        window = round(window_seconds * rate)
        last = max(mixture.num_samples - window, 0)
        starts = [*range(0, last, round(COURSE_HOP_SECONDS * rate)), last]
        pieces = _in_recording(finding.heard, mixture.stretches)
        hop = round(HOP_SECONDS * rate)
        course, speech = [], []
        for start in starts:
            stop = min(start + window, mixture.num_samples)
            inside = [
                (at + max(start - first, 0), at + min(stop, first + length) - first)
                for first, at, length in pieces
                if first < stop and first + length > start
            ]
            seconds = HOP_SECONDS * sum(
                float(finding.active[a // hop : -(-b // hop)].sum()) for a, b in inside
            )
            has_speech = _length(inside) >= MIN_WINDOW_SAMPLES
            if has_speech:
                speech.append((finding.speech, inside))
            course.append(
                {
                    "start_seconds": start / rate,
                    "end_seconds": stop / rate,
                    "speech_seconds": min(seconds, (stop - start) / rate),
                    "emotions": [],
                    "has_speech": has_speech,
                }
            )
        return course, speech

    def _probabilities(self, windows: list[Window]) -> Tensor:
        """Calibrated probabilities of waveforms, `(num_windows, num_labels)`."""
        temperature = self._setting("temperature") or 1.0
        num_labels = len(self.model.config.id2label)
        probabilities = torch.zeros(len(windows), num_labels, dtype=torch.float64)
        for rows in self._batches([_length(pieces) for _, pieces in windows]):
            values, mask = self._padded([join_stretches(*windows[row]) for row in rows])
            logits = self._classifier(values, attention_mask=mask, return_dict=True).logits
            probabilities[rows] = (logits.double().cpu() / temperature).softmax(dim=-1)
        return probabilities

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
            emotions = self._ranked(finding.probabilities)
        present = self._is_present(finding)
        answer = self._answer(finding, emotions, present)
        emotions = emotions[:top_k]
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
            if question.warnings:
                said |= {"warnings": question.warnings}
            return [{**emotion, **said} for emotion in emotions]
        mixture = _mixture(finding)
        rate = self.feature_extractor.sampling_rate
        result: dict[str, Any] = {
            "emotions": emotions,
            "answer": answer,
            "duration_seconds": mixture.num_samples / rate,
            "speech_seconds": finding.speech_seconds,
            "speaker_similarity": finding.similarity,
            "mixture_similarity": finding.mixture_similarity,
            "target_present": present,
            "removed_db": finding.removed_db,
            "warnings": question.warnings,
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
                "emotions": self._ranked(mixture_emotions)[:top_k],
            }
        if finding.windows is not None:
            result["windows"] = [
                {**window, "emotions": window["emotions"][:top_k]} for window in finding.windows
            ]
        return result

    def _is_present(self, finding: Finding) -> bool | None:
        threshold = self._setting("presence_threshold")
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

    def _ranked(self, probabilities: Tensor) -> list[dict[str, Any]]:
        scores, classes = probabilities.sort(descending=True)
        names = self.model.config.id2label
        return [
            {"score": score, "label": names[index]}
            for score, index in zip(scores.tolist(), classes.tolist(), strict=True)
        ]


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
        return self.prepare(index, self.inputs[index], **self.parameters)


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
        isinstance(inputs, (str, os.PathLike, bytes, bytearray, Mapping, np.ndarray, Tensor))
        or is_rate_and_waveform(inputs)
        or hasattr(inputs, "get_all_samples")
        or callable(getattr(inputs, "read", None))
    )


def _mixture(finding: Finding) -> PreparedWaveform:
    assert finding.question.mixture is not None  # or there would be an error in its place
    return finding.question.mixture


def _frame_power(powers: np.ndarray) -> np.ndarray:
    """Smoothed power of each frame, `(num_frames,)`, from that of its bands."""
    # The bands first: smoothed one by one, they would take six times the memory.
    return np.maximum(smoothed(powers.sum(axis=1, keepdims=True), SHARE_FRAMES)[:, 0], 1e-30)


def _extracted_parts(extractor: Any, mixture: np.ndarray, embedding: Tensor) -> Iterable[Tensor]:
    """The extracted speech of one mixture, part by part where the extractor can."""
    values = torch.from_numpy(mixture)[None]
    options = {"speaker_embeddings": embedding, "window_seconds": WINDOW_SECONDS}
    if hasattr(extractor, "extract_in_parts"):
        parts: Iterable[Tensor] = extractor.extract_in_parts(values, **options)
        return parts
    # An extractor of another type need only have `extract`.
    return [extractor.extract(values, **options)]


def _set_speech(finding: Finding, parts: Iterable[Tensor], out: np.ndarray) -> None:
    """
    Write the extracted `parts`, each `(1, num_part_samples)`, to `out`, perhaps the mixture itself.

    They get as loud as the target is in the mixture, by the multiple that is nearest to it.
    """
    mixture = _mixture(finding).values
    product, energy, mixture_energy = 0.0, 0.0, 0.0
    start = 0
    for extracted in parts:
        part = extracted[0].float().cpu().numpy()
        stop = start + len(part)
        own, whole = part.astype(np.float64), mixture[start:stop].astype(np.float64)
        product += float(own @ whole)
        energy += float(own @ own)
        mixture_energy += float(whole @ whole)
        out[start:stop] = part
        start = stop
    gain = product / max(energy, 1e-30)
    out *= np.float32(gain)
    finding.speech = out
    finding.removed_db = 10 * math.log10(
        max(mixture_energy, 1e-30) / max(gain**2 * energy, 1e-12 * mixture_energy, 1e-30)
    )


def _length(pieces: list[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in pieces)


def _equal_parts(pieces: list[tuple[int, int]], count: int) -> list[list[tuple[int, int]]]:
    """Pieces of a waveform, joined, in so many parts of one length: the pieces of each."""
    edges = np.linspace(0, _length(pieces), count + 1).round().astype(int).tolist()
    placed = list(_with_offsets(pieces))
    return [
        [
            (start + max(first - offset, 0), start + min(last - offset, stop - start))
            for (start, stop), offset in placed
            if offset < last and offset + stop - start > first
        ]
        for first, last in pairwise(edges)
    ]


def _with_offsets(stretches: list[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], int]]:
    """Each stretch, and where it begins once they stand one after the other."""
    offset = 0
    for start, stop in stretches:
        yield (start, stop), offset
        offset += stop - start


def _in_recording(
    parts: list[tuple[int, int]], stretches: list[tuple[int, int]]
) -> list[tuple[int, int, int]]:
    """
    Where parts of the joined stretches lie in the recording.

    Returns:
        Pieces of the parts: first sample in the recording, first sample in the joined stretches,
        and length.
    """
    pieces = []
    for (start, stop), offset in _with_offsets(stretches):
        for first, last in parts:
            begin, end = max(first, offset), min(last, offset + stop - start)
            if begin < end:
                pieces.append((start + begin - offset, begin, end - begin))
    return pieces


def _in_place(finding: Finding, values: np.ndarray) -> np.ndarray:
    """
    What was heard as long and as loud as its mixture, within -1..1; silence where that is.

    Where there is room for it, this is written over `values`.
    """
    mixture = _mixture(finding)
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
