"""
What the models make of a prepared recording: who is extracted from it, where the target speaks, and
which emotion that is. `pipeline_tse_ser` asks the questions and words the answers.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .feature_extraction_tse_ser import PreparedWaveform
from .speech_activity import (
    HOP_SECONDS,
    SpeechActivitySettings,
    active_frames,
    band_powers,
    frame_powers,
    loud_level_db,
    smoothed,
    speech_stretches,
    with_hysteresis,
)
from .stretches import equal_parts, in_recording, join_stretches, total_length, with_offsets
from .voices import enroll, speaker_similarity

# What the extractor hears at once, of a recording that is longer.
WINDOW_SECONDS = 10.0
# From one window of `window_seconds` to the next.
COURSE_HOP_SECONDS = 1.0
# Padded audio that goes through a model at once.
BATCH_SECONDS = 10.0
# Speakers are compared over stretches of this length, and the likeliest one counts.
SIMILARITY_SECONDS = 10.0
# What is left out of a part of a recording is compared where the part is that long.
MIN_REST_SECONDS = 1.0
# What is left out and quieter than that is what the filters lose, and no voice.
REST_BELOW_MIXTURE_DB = 20.0
# Of an enrollment: its parts are compared.
VOICE_PART_SECONDS = 1.6
MAX_VOICE_PARTS = 12
# Where the target speaks, what was extracted is little below the mixture and below its own loud
# parts: what leaks of others is weaker. The first pair of numbers is for moments that are clearly
# the target's, the second for what lies within reach of one. Chosen on validation actors.
CLEAR_BELOW_MIXTURE_DB, CLEAR_RANGE_DB = 4.0, 15.0
TARGET_BELOW_MIXTURE_DB, TARGET_RANGE_DB = 10.0, 30.0
CLEAR_REACH_SECONDS = 0.15
# Kept before and after, as words begin and end softly and the classifier was trained on whole ones;
# but no further than some of the target is left: past that, others talk alone.
TARGET_MARGIN_SECONDS = 0.6
MARGIN_BELOW_MIXTURE_DB = 20.0
SHARE_FRAMES = 11
MIN_WINDOW_SAMPLES = 400  # what a classifier hears at least
# A waveform and the pieces of it that are heard: first sample and the one after the last.
Window = tuple[np.ndarray, list[tuple[int, int]]]


@dataclass
class Question:
    """
    One input, prepared.

    Args:
        index: its position among the inputs, or None where it is the only one.
        mixture: filtered and cut to its speech, at unit level.
        level: that of the mixture as it came.
        enrollments: waveforms of the target speaker at unit level, each `(num_samples,)`.
        embedding (`torch.Tensor` of shape `(1, embedding_size)`, *optional*): of a voice that was
            enrolled before, or of `enrollments` once they were heard.
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
        rest_similarity: cosine of what was left out of the mixture and the enrollment; None where
            next to nothing was.
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
    rest_similarity: float | None = None
    removed_db: float = 0.0
    error: str | None = None


class TargetRecognizer:
    """
    Extractor and classifier at work on questions.

    Args:
        model ([`TseSerForEmotionClassification`] or an extractor alone).
        feature_extractor ([`TseSerFeatureExtractor`]): its settings.
        device (`torch.device`): where the model is.
    """

    def __init__(self, model: Any, feature_extractor: Any, device: torch.device):
        self.model, self.feature_extractor, self.device = model, feature_extractor, device

    @property
    def extractor(self) -> Any:
        """The model itself, where it extracts alone."""
        return getattr(self.model, "extractor", self.model)

    @property
    def classifier(self) -> Any:
        """None where the model extracts alone."""
        return getattr(self.model, "classifier", None)

    @property
    def longest_seconds(self) -> float:
        """What the classifier hears at most."""
        return float(self.classifier.config.max_duration_seconds)

    def setting(self, name: str) -> Any:
        """One of `CALIBRATED` that came with the model, None without it."""
        return getattr(self.model.config, name, None)

    def findings(
        self, questions: list[Question], window_seconds: float | None, return_mixture: bool
    ) -> list[Finding]:
        """
        What the models make of several questions, heard together.

        Args:
            questions: those with an error are passed over.
            window_seconds (`float`, *optional*): the course is wanted in such windows.
            return_mixture (`bool`): the emotions of the mixture are wanted too.

        Returns:
            `list[Finding]`: one a question.
        """
        findings = [Finding(question, error=question.error) for question in questions]
        answered = [finding for finding in findings if finding.error is None]
        embeddings = [self.speaker(finding.question) for finding in answered]
        rate = self.feature_extractor.sampling_rate
        for finding, embedding in zip(answered, embeddings, strict=True):
            # Before the extracted speech may take the mixture's place.
            mixture = mixture_of(finding).values
            finding.mixture_power = _frame_power(frame_powers(mixture, rate))
            if self.embeds_speech:
                whole = [(0, len(mixture))]
                finding.mixture_similarity = self._similarity(mixture, whole, embedding)
            if self.classifier is not None and return_mixture:
                finding.mixture_probabilities = self._mixture_probabilities(mixture)
        # An hour takes 230 MB. Several questions may be asked again after an error in one of them.
        in_place = len(questions) == 1 and not return_mixture
        self._extract(answered, embeddings, in_place)
        for finding, embedding in zip(answered, embeddings, strict=True):
            self.find_speech(finding)
            if self.embeds_speech:
                finding.similarity = self._similarity(finding.speech, finding.heard, embedding)
        if self.classifier is not None:
            self._classify(answered, window_seconds)
        return findings

    @property
    def embeds_speech(self) -> bool:
        """Whether the extractor itself makes speaker embeddings of speech."""
        config = self.extractor.config
        return config.auxiliary_type != "projection" or config.speaker_encoder is not None

    def _mixture_probabilities(self, mixture: np.ndarray) -> Tensor:
        """Emotions of `mixture` `(num_samples,)` as it is, `(num_labels,)`."""
        whole = [(0, len(mixture))]
        parts = equal_parts(whole, self._num_windows(whole))
        return self._probabilities([(mixture, part) for part in parts]).mean(dim=0)

    def speaker(self, question: Question) -> Tensor:
        """The embedding of the target speaker, `(1, embedding_size)`."""
        if question.embedding is not None:
            return question.embedding.to(self.device, self.extractor.dtype)
        self.compare_parts(question)
        # Kept, as a question is asked again where another one of its batch fails.
        question.embedding = enroll(self.model, question.enrollments)
        return question.embedding

    def compare_parts(self, question: Question) -> None:
        """Warn where parts of an enrollment are less alike than those of one voice."""
        threshold = self.setting("one_voice_threshold")
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
        lengths = [len(mixture_of(finding).values) for finding in findings]
        longest = round(WINDOW_SECONDS * self.feature_extractor.sampling_rate)
        for rows in self._batches(lengths):
            if len(rows) == 1 or lengths[rows[-1]] > longest:
                for row in rows:
                    mixture = mixture_of(findings[row]).values
                    parts = _extracted_parts(self.extractor, mixture, embeddings[row])
                    out = mixture if in_place else np.empty_like(mixture)
                    self._set_speech(findings[row], parts, embeddings[row], out)
                continue
            values, mask = self._padded([mixture_of(findings[row]).values for row in rows])
            outputs = self.extractor(
                values,
                attention_mask=mask,
                speaker_embeddings=torch.cat([embeddings[row] for row in rows]),
                return_dict=True,
            )
            for row, extracted in zip(rows, outputs.extracted_values, strict=True):
                parts = iter([extracted[None, : lengths[row]]])
                out = np.empty(lengths[row], np.float32)
                self._set_speech(findings[row], parts, embeddings[row], out)

    def _set_speech(
        self, finding: Finding, parts: Iterable[Tensor], embedding: Tensor, out: np.ndarray
    ) -> None:
        """
        Write the extracted `parts`, each `(1, num_part_samples)`, to `out`, perhaps the mixture
        itself, and compare what is left of the mixture with the `embedding` of the speaker.

        They get as loud as the target is in the mixture, by the multiple that is nearest to it.
        """
        mixture = mixture_of(finding).values
        product, energy, mixture_energy = 0.0, 0.0, 0.0
        similarities: list[float] = []
        start = 0
        for extracted in parts:
            part = extracted[0].float().cpu().numpy()
            stop = start + len(part)
            own, whole = part.astype(np.float64), mixture[start:stop].astype(np.float64)
            products = float(own @ whole), float(own @ own)
            product += products[0]
            energy += products[1]
            mixture_energy += float(whole @ whole)
            rest = (whole - products[0] / max(products[1], 1e-30) * own).astype(np.float32)
            if self.embeds_speech and self._is_somebody(rest, whole, is_first=start == 0):
                similarities.append(self._similarity(rest, [(0, len(rest))], embedding))
            out[start:stop] = part
            start = stop
        gain = product / max(energy, 1e-30)
        out *= np.float32(gain)
        finding.speech = out
        finding.rest_similarity = max(similarities, default=None)
        finding.removed_db = 10 * math.log10(
            max(mixture_energy, 1e-30) / max(gain**2 * energy, 1e-12 * mixture_energy, 1e-30)
        )

    def _is_somebody(self, rest: np.ndarray, mixture: np.ndarray, is_first: bool) -> bool:
        """Whether what was left out of a part, `(num_samples,)` both, may be a voice."""
        # The last part may be a few samples, which are nobody's.
        is_long = len(rest) >= MIN_REST_SECONDS * self.feature_extractor.sampling_rate
        floor = 10 ** (-REST_BELOW_MIXTURE_DB / 10)
        is_loud = np.square(rest).sum() > floor * np.square(mixture).sum()
        return bool(is_loud and (is_long or is_first))

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

    def find_speech(self, finding: Finding) -> None:
        """Where the target speaks, in the mixture's stretches."""
        rate, mixture = self.feature_extractor.sampling_rate, mixture_of(finding)
        settings = SpeechActivitySettings(
            range_db=min(TARGET_RANGE_DB, self.feature_extractor.speech_range_db),
            max_pause_seconds=self.feature_extractor.max_pause_seconds,
        )
        own = band_powers(finding.speech, rate)
        power = _frame_power(own.sum(axis=1, keepdims=True))
        share_db = 10 * np.log10(power / finding.mixture_power)
        level_db = 10 * np.log10(power)
        level_db -= loud_level_db(level_db, settings.range_db)
        active = active_frames(own, settings) & (share_db >= -TARGET_BELOW_MIXTURE_DB)
        clear = active & (share_db >= -CLEAR_BELOW_MIXTURE_DB) & (level_db >= -CLEAR_RANGE_DB)
        finding.active = active & _within(CLEAR_REACH_SECONDS, clear)
        if mixture.speech_seconds < self.feature_extractor.min_speech_seconds:
            finding.active[:] = False
        finding.speech_seconds = float(finding.active.sum()) * HOP_SECONDS
        margin = _within(TARGET_MARGIN_SECONDS, finding.active)
        kept = with_hysteresis(finding.active, margin & (share_db >= -MARGIN_BELOW_MIXTURE_DB))
        finding.heard = speech_stretches(kept, len(finding.speech), rate, settings)
        if finding.speech_seconds < self.feature_extractor.min_speech_seconds:
            finding.heard = [(0, len(finding.speech))]

    def _similarity(
        self, waveform: np.ndarray, pieces: list[tuple[int, int]], embedding: Tensor
    ) -> float:
        """The highest cosine to a speaker over stretches of pieces of a waveform."""
        longest = SIMILARITY_SECONDS * self.feature_extractor.sampling_rate
        count = max(round(total_length(pieces) / longest), 1)
        similarities = []
        for part in equal_parts(pieces, count):
            values = torch.from_numpy(join_stretches(waveform, part))[None]
            similarities.append(
                speaker_similarity(
                    self.extractor, values.to(self._encoder_weight), embedding
                ).item()
            )
        return max(similarities)

    @property
    def _encoder_weight(self) -> Tensor:
        weight: Tensor = next(self.extractor.parameters())
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
                        window["emotions"] = self.ranked(next(course))

    def _speech_windows(self, finding: Finding) -> tuple[list[Window], list[float]]:
        """The speech in windows of one length, and how much speech each holds."""
        rate = self.feature_extractor.sampling_rate
        parts = equal_parts(finding.heard, self._num_windows(finding.heard))
        edges = np.cumsum([0, *map(total_length, parts)])
        frames = np.flatnonzero(finding.active) * round(HOP_SECONDS * rate)
        inside = np.concatenate(
            [
                frames[(frames >= start) & (frames < stop)] - start + offset
                for (start, stop), offset in with_offsets(finding.heard)
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
        longest = round(self.longest_seconds * self.feature_extractor.sampling_rate)
        return math.ceil(total_length(pieces) / longest)

    def _course_windows(
        self, finding: Finding, window_seconds: float
    ) -> tuple[list[dict[str, Any]], list[Window]]:
        """Windows along the recording, and the target's speech in each that has any."""
        rate, mixture = self.feature_extractor.sampling_rate, mixture_of(finding)
        window = round(window_seconds * rate)
        last = max(mixture.num_samples - window, 0)
        starts = [*range(0, last, round(COURSE_HOP_SECONDS * rate)), last]
        pieces = in_recording(finding.heard, mixture.stretches)
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
            has_speech = total_length(inside) >= MIN_WINDOW_SAMPLES
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
        temperature = self.setting("temperature") or 1.0
        num_labels = len(self.model.config.id2label)
        probabilities = torch.zeros(len(windows), num_labels, dtype=torch.float64)
        for rows in self._batches([total_length(pieces) for _, pieces in windows]):
            values, mask = self._padded([join_stretches(*windows[row]) for row in rows])
            logits = self.classifier(values, attention_mask=mask, return_dict=True).logits
            probabilities[rows] = (logits.double().cpu() / temperature).softmax(dim=-1)
        return probabilities

    def ranked(self, probabilities: Tensor) -> list[dict[str, Any]]:
        """Labels with their scores, the likeliest first, of `(num_labels,)`."""
        scores, classes = probabilities.sort(descending=True)
        names = self.model.config.id2label
        return [
            {"score": score, "label": names[index]}
            for score, index in zip(scores.tolist(), classes.tolist(), strict=True)
        ]


def mixture_of(finding: Finding) -> PreparedWaveform:
    """The mixture of a finding without an error."""
    assert finding.question.mixture is not None  # or there would be an error in its place
    return finding.question.mixture


def _frame_power(powers: np.ndarray) -> np.ndarray:
    """Smoothed power of each frame, `(num_frames,)`, from `(num_frames, 1)`."""
    return np.maximum(smoothed(powers, SHARE_FRAMES)[:, 0], 1e-30)


def _within(seconds: float, frames: np.ndarray) -> np.ndarray:
    """The frames that are no further than `seconds` from one of `frames`, booleans both."""
    reach = round(seconds / HOP_SECONDS)
    return smoothed(frames[:, None] * 1.0, 2 * reach + 1)[:, 0] > 1e-6


def _extracted_parts(extractor: Any, mixture: np.ndarray, embedding: Tensor) -> Iterable[Tensor]:
    """The extracted speech of one mixture, part by part where the extractor can."""
    values = torch.from_numpy(mixture)[None]
    options = {"speaker_embeddings": embedding, "window_seconds": WINDOW_SECONDS}
    if hasattr(extractor, "extract_in_parts"):
        parts: Iterable[Tensor] = extractor.extract_in_parts(values, **options)
        return parts
    # An extractor of another type need only have `extract`.
    return [extractor.extract(values, **options)]
