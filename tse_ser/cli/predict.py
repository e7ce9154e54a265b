"""`tse-ser predict`: the emotions of the target speaker in one recording."""

from __future__ import annotations

import argparse
import json
from typing import Any

from tse_ser.cli.errors import CommandError
from tse_ser.cli.recognition import Recognition, Recognizer, audio_format, write_speech

ABSENT = "the speaker seems to be absent from this recording: the emotions are somebody else's"


def predict(arguments: argparse.Namespace) -> None:
    """Prints the emotions, and writes the extracted speech where asked.

    Args:
        arguments (`argparse.Namespace`): of `tse-ser predict`.

    Raises:
        CommandError: the model has no classifier, or an output that cannot be written.
        ValueError: audio that cannot be used.
    """
    if arguments.output is not None:
        audio_format(arguments.output)  # wrong names show before the work
    recognizer = Recognizer(arguments.model, arguments.device)
    if not recognizer.labels:
        raise CommandError(
            f"--model {arguments.model} extracts and knows no emotions: take a joint model, or "
            "`tse-ser extract` for the speech alone"
        )
    embedding = recognizer.voice(arguments.enrollment, arguments.voice)
    mixture = recognizer.read(arguments.mixture)
    try:
        found = recognizer.recognize(mixture, embedding, arguments.window_seconds)
    except ValueError as error:
        raise CommandError(f"{arguments.mixture}: {error}") from error
    if arguments.output is not None:
        write_speech(arguments.output, found.extracted, recognizer.sampling_rate)
    print_json(found, arguments) if arguments.json else print_lines(found, arguments)


def ranked(probabilities: dict[str, float], top_k: int | None = None) -> list[tuple[str, float]]:
    """The likeliest emotions first.

    Args:
        probabilities (`dict[str, float]`): emotion to probability.
        top_k (`int`, *optional*): so many; all by default.

    Returns:
        `list[tuple[str, float]]`: emotion and probability.
    """
    return sorted(probabilities.items(), key=lambda pair: -pair[1])[:top_k]


def print_lines(found: Recognition, arguments: argparse.Namespace) -> None:
    """The result for people: an emotion a line, then a window a line.

    Args:
        found (`Recognition`): what the model found.
        arguments (`argparse.Namespace`): of `tse-ser predict`.
    """
    if found.target_present is False:
        print(ABSENT)
    width = max(len(label) for label in found.probabilities)
    for label, probability in ranked(found.probabilities, arguments.top_k):
        print(f"{label:<{width}}  {probability:6.1%}")
    for window in found.windows:
        label, probability = ranked(window.probabilities)[0]
        span = f"{window.start_seconds:8.2f} - {window.end_seconds:.2f} s"
        print(f"{span}  {label:<{width}}  {probability:6.1%}")
    if arguments.output is not None:
        print(f"extracted speech: {arguments.output}")


def print_json(found: Recognition, arguments: argparse.Namespace) -> None:
    """The result for programs, in the words of the pipeline.

    Args:
        found (`Recognition`): what the model found.
        arguments (`argparse.Namespace`): of `tse-ser predict`.
    """
    result: dict[str, Any] = {
        "mixture": str(arguments.mixture),
        "emotions": _entries(found.probabilities, arguments.top_k),
    }
    if found.target_present is not None:
        result["target_present"] = found.target_present
    if arguments.window_seconds is not None:
        result["windows"] = [
            {
                "start_seconds": window.start_seconds,
                "end_seconds": window.end_seconds,
                "emotions": _entries(window.probabilities, arguments.top_k),
            }
            for window in found.windows
        ]
    if arguments.output is not None:
        result["extracted"] = str(arguments.output)
    print(json.dumps(result, indent=2, ensure_ascii=False))


def _entries(probabilities: dict[str, float], top_k: int | None) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in ranked(probabilities, top_k)]
