"""`tse-ser predict`: the emotions of the target speaker in one recording."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from tse_ser.cli.errors import CommandError
from tse_ser.cli.recognition import (
    check_format,
    check_output,
    labels_of,
    load_pipeline,
    speaker_of,
    write_speech,
)


def predict(arguments: argparse.Namespace) -> None:
    """Prints the emotions, and writes the extracted speech where asked. Raises `CommandError`
    where the model has no classifier, or an output must not be written; `ValueError` where
    audio cannot be used; `OSError` where the output cannot be written."""
    output = arguments.output and arguments.output.expanduser()
    if output is not None:  # wrong names show before the work
        check_format(output)
        inputs = [arguments.mixture, arguments.voice, *(arguments.enrollment or [])]
        check_output(output, inputs, overwrite=arguments.overwrite)
    recognize = load_pipeline(arguments.model, arguments.device)
    if not labels_of(recognize):
        raise CommandError(
            f"--model {arguments.model} extracts and knows no emotions: take a joint model, or "
            "`tse-ser extract` for the speech alone"
        )
    speaker = speaker_of(recognize, arguments.enrollment, arguments.voice, arguments.channel)
    result: dict[str, Any] = recognize(
        {"mixture": arguments.mixture, **speaker},
        channel=arguments.channel,
        top_k=arguments.top_k,
        window_seconds=arguments.window_seconds,
        return_extracted=output is not None,
        details=True,
    )
    if output is not None:
        extracted = result.pop("extracted")
        write_speech(output, extracted["array"], extracted["sampling_rate"])
        result["extracted"] = str(output)
    if arguments.json:
        print(json.dumps({"mixture": str(arguments.mixture), **result}, indent=2))
    else:
        _print_lines(result)


def _print_lines(result: dict[str, Any]) -> None:
    """The result for people: the answer, an emotion a line, then a window a line."""
    if result["answer"] != result["emotions"][0]["label"]:
        print(f"answer: {result['answer']}")
    width = max(len(emotion["label"]) for emotion in result["emotions"])
    for emotion in result["emotions"]:
        print(f"{emotion['label']:<{width}}  {emotion['score']:6.1%}")
    for window in result.get("windows", []):
        span = f"{window['start_seconds']:8.2f} - {window['end_seconds']:.2f} s"
        if window["emotions"]:
            emotion = window["emotions"][0]
            print(f"{span}  {emotion['label']:<{width}}  {emotion['score']:6.1%}")
        else:
            print(f"{span}  -")
    if "extracted" in result:
        print(f"extracted speech: {result['extracted']}")
    for warning in result["warnings"]:
        print(f"tse-ser: warning: {warning['message']}", file=sys.stderr)
