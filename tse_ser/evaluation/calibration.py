"""Finds on validation speakers what a model's answers are worth, and writes it into its config.

    python -m tse_ser.evaluation.calibration --model CHECKPOINT --config RECIPE.yaml \
        --output calibration.json --write

The temperature makes probabilities what they say (Guo et al. 2017, "On Calibration of Modern Neural
Networks"); the presence threshold tells that the enrolled speaker is not heard; the one-voice
threshold tells that an enrollment holds a second voice. Everything is measured through the
pipeline, as users have it. `--split test` measures what was found, on speakers that it was not
found on, and finds nothing. Data and fold as in `evaluate_checkpoint`.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset
from tqdm import tqdm

from data_builders.option_reader import OptionError, option
from data_builders.schema import CorpusError
from modeling import (
    TargetSpeakerEmotionPipeline,
    TseSerFeatureExtractor,
    TseSerForEmotionClassification,
)
from modeling.configuration_tse_ser import CALIBRATED
from tse_ser.evaluation.evaluate_checkpoint import classes_of, load_condition
from tse_ser.options import EvaluationOptions, read_evaluation_options

NUM_BINS = 10
# Never below 1. The epoch was chosen on these speakers, who flatter the model: they may make it
# less sure than its training did, and not surer. (The shipped model they would, and wrongly.)
TEMPERATURES = np.geomspace(1.0, 4.0, 1001)


@dataclass(kw_only=True)
class CalibrationOptions(EvaluationOptions):
    """What is calibrated on what."""

    split: Literal["train", "validation", "test"] = option("validation", "What is measured.")
    false_alarm_rate: float = option(
        0.05, "Share of what is as it should be that may be flagged.", at_least=0, at_most=1
    )
    write: bool = option(False, "Put what was found into the model's config.")


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray
) -> tuple[float, list[dict[str, float]]]:
    """How far confidence and accuracy lie apart, over ten bins of equal width.

    Args:
        probabilities (`np.ndarray` of shape `(num_examples, num_labels)`): of each emotion.
        labels (`np.ndarray` of shape `(num_examples,)`): the true ones.

    Returns:
        The error, 0 to 1, and the bins that hold examples: `from`, `to`, `num_examples`,
        `confidence` and `accuracy`.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    places = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    bins = [
        {
            "from": place / NUM_BINS,
            "to": (place + 1) / NUM_BINS,
            "num_examples": int((places == place).sum()),
            "confidence": float(confidence[places == place].mean()),
            "accuracy": float(correct[places == place].mean()),
        }
        for place in np.unique(places)
    ]
    gaps = [each["num_examples"] * abs(each["confidence"] - each["accuracy"]) for each in bins]
    return sum(gaps) / len(labels), bins


def at_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities of temperature 1 as another one makes them, `(num_examples, num_labels)`."""
    powers = np.power(np.maximum(probabilities, 1e-300), 1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative logarithm of the true emotions' probabilities."""
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


def find_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, 1 to 4, at which the probabilities `(num_examples, num_labels)` of
    temperature 1 have the least log loss."""
    losses = [log_loss(at_temperature(probabilities, each), labels) for each in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def calibrate(options: EvaluationOptions, false_alarm_rate: float) -> dict[str, Any]:
    """Measures a combined model, and on the validation split finds its settings.

    Args:
        options (`EvaluationOptions`): model, data and split; the condition is "noisy".
        false_alarm_rate (`float`): share of mixtures and enrollments that are what they should be,
            and of which the model may say that they are not.

    Returns:
        What is written to `output`: `split`, `num_examples`, `temperature`, `log_loss` and
        `expected_calibration_error` before and after, `reliability` before and after, `presence`
        and `one_voice`: their thresholds, and how many were told rightly and wrongly; None where
        the validation split has nothing to find one on, or a model in test has none.

    Raises:
        OptionError: the split is that of the training, or other emotions are asked for than the
            model tells apart.
    """
    if options.split == "train":
        raise OptionError("split: a model is calibrated on speakers that it was not trained on")
    finds = options.split == "validation"
    recognize = load_model(options.model)
    options = replace(options, emotions=classes_of(recognize.model, options))
    config = recognize.model.config
    saved = {name: getattr(config, name) for name in CALIBRATED}
    # Measured as trained: what is found replaces what an earlier calibration found.
    config.temperature, config.one_voice_threshold = 1.0, None
    present = ask_all(recognize, load_condition(replace(options, absent_share=0.0)), "present")
    absent = ask_all(recognize, load_condition(replace(options, absent_share=1.0)), "absent")
    probabilities = np.array([answer["probabilities"] for answer in present])
    labels = np.array([answer["label"] for answer in present])
    temperature = find_temperature(probabilities, labels) if finds else saved["temperature"]
    after = at_temperature(probabilities, temperature)
    errors = [expected_calibration_error(each, labels) for each in (probabilities, after)]
    alike, unlike = _enrollment_similarities(recognize, present)

    def told(name: str, positive: list[float], negative: list[float]) -> dict[str, Any] | None:
        if finds:
            return detection(positive, negative, None, false_alarm_rate)
        # A threshold that the model lacks is not found on test speakers.
        threshold = saved[name]
        if threshold is None:
            return None
        return detection(positive, negative, threshold, false_alarm_rate)

    return {
        "split": options.split,
        "fold": options.fold,
        "num_examples": len(labels),
        "false_alarm_rate": false_alarm_rate,
        "temperature": temperature,
        "log_loss": {"before": log_loss(probabilities, labels), "after": log_loss(after, labels)},
        "expected_calibration_error": {"before": errors[0][0], "after": errors[1][0]},
        "reliability": {"before": errors[0][1], "after": errors[1][1]},
        "presence": told(
            "presence_threshold",
            [answer["similarity"] for answer in present],
            [answer["similarity"] for answer in absent],
        ),
        "one_voice": told("one_voice_threshold", alike, unlike),
    }


def load_model(folder: str) -> TargetSpeakerEmotionPipeline:
    """The pipeline of a saved model, on a GPU where there is one."""
    model: Any = TseSerForEmotionClassification.from_pretrained(folder)
    feature_extractor = TseSerFeatureExtractor.from_pretrained(folder)
    return TargetSpeakerEmotionPipeline(model=model, feature_extractor=feature_extractor)


def ask_all(
    recognize: TargetSpeakerEmotionPipeline, examples: Dataset[dict[str, Any]], what: str
) -> list[dict[str, Any]]:
    """The pipeline's answers to examples of the contract between data and models.

    Args:
        recognize (`TargetSpeakerEmotionPipeline`): the model.
        examples (`Dataset`): mixtures.
        what (`str`): for the progress bar.

    Returns:
        For each `probabilities` in the order of the model's classes, `similarity`, and of the
        example `label`, `speaker_id` and `enrollment`.
    """
    answers = []
    emotions = (recognize.model.config.id2label or {}).values()
    indexed: Any = examples
    for index in tqdm(range(len(indexed)), desc=what, unit="mixture", disable=None):
        example = indexed[index]
        given = {"mixture": example["mixture"], "enrollment": example["enrollment"]}
        answer = recognize(given, details=True)
        scores = {emotion["label"]: emotion["score"] for emotion in answer["emotions"]}
        answers.append(
            {
                "probabilities": [scores[name] for name in emotions],
                "similarity": answer["speaker_similarity"],
                **{name: example[name] for name in ("label", "speaker_id", "enrollment")},
            }
        )
    return answers


def _enrollment_similarities(
    recognize: TargetSpeakerEmotionPipeline, answers: Sequence[Mapping[str, Any]]
) -> tuple[list[float], list[float]]:
    """The lowest cosine inside two enrollments, of one speaker and of two: two lists."""
    by_speaker: dict[str, list[np.ndarray]] = {}
    for answer in answers:
        own = by_speaker.setdefault(answer["speaker_id"], [])
        if not any(np.array_equal(answer["enrollment"], other) for other in own):
            own.append(answer["enrollment"])
    same = [pair for own in by_speaker.values() for pair in itertools.combinations(own, 2)]
    different = [
        (one, other)
        for first, second in itertools.combinations(sorted(by_speaker), 2)
        for one, other in zip(by_speaker[first], by_speaker[second], strict=False)
    ]

    def lowest(pair: tuple[np.ndarray, np.ndarray]) -> float | None:
        question = recognize.preprocess({"mixture": pair[0], "enrollment": list(pair)})
        return recognize.recognizer.least_similarity(question.enrollments)

    measured = [[lowest(pair) for pair in pairs] for pairs in (same, different)]
    alike, unlike = ([each for each in group if each is not None] for group in measured)
    return alike, unlike


def detection(
    positive: Sequence[float],
    negative: Sequence[float],
    threshold: float | None,
    false_alarm_rate: float,
) -> dict[str, Any] | None:
    """A threshold below which something is said, and how often that is right and wrong.

    Args:
        positive (`Sequence[float]`): similarities where nothing should be said.
        negative (`Sequence[float]`): similarities where it should.
        threshold (`float`, *optional*): found here where it is not given.
        false_alarm_rate (`float`): share of `positive` that may lie below.

    Returns:
        `threshold`, `num_positive`, `num_negative`, `false_alarms` and `hits`, shares of 0 to 1;
        None where there is nothing to measure.
    """
    if not (len(positive) and len(negative)):
        return None
    if threshold is None:
        # Downwards, so that no more lie below it.
        lowest = float(np.quantile(positive, false_alarm_rate, method="lower"))
        threshold = math.floor(lowest * 10_000) / 10_000
    return {
        "threshold": threshold,
        "num_positive": len(positive),
        "num_negative": len(negative),
        "false_alarms": float((np.array(positive) < threshold).mean()),
        "hits": float((np.array(negative) < threshold).mean()),
    }


def write_settings(folder: Path, result: Mapping[str, Any]) -> None:
    """Puts what `calibrate` found into the config.json of a model's folder."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["temperature"] = round(result["temperature"], 4)
    for name in ("presence", "one_voice"):
        if result[name] is not None:
            config[f"{name}_threshold"] = result[name]["threshold"]
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrates, prints the numbers, and writes them where asked; returns the exit code, 2
    where an option or a corpus cannot be used."""
    try:
        options: CalibrationOptions = read_evaluation_options(argv, CalibrationOptions)
        if options.write and options.split != "validation":
            raise OptionError("write: settings are found on the validation split alone")
        result = calibrate(options, options.false_alarm_rate)
    except (OptionError, CorpusError) as error:
        print(f"calibration: error: {error}", file=sys.stderr)
        return 2
    text = json.dumps(result, indent=2)
    print(text)
    if options.output is not None:
        Path(options.output).write_text(f"{text}\n", encoding="utf-8")
    if options.write:
        write_settings(Path(options.model), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
