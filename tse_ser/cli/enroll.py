"""`tse-ser enroll`: a voice in a file."""

from __future__ import annotations

import argparse

from modeling import save_voice
from tse_ser.cli.errors import CommandError
from tse_ser.cli.recognition import Recognizer


def enroll(arguments: argparse.Namespace) -> None:
    """Writes the speaker embedding of recordings.

    Args:
        arguments (`argparse.Namespace`): of `tse-ser enroll`.

    Raises:
        CommandError: the output is no .safetensors file.
        ValueError: a recording that cannot be used.
    """
    output = arguments.output
    if output.suffix != ".safetensors":
        raise CommandError(f"--output {output}: a voice is a .safetensors file, name it so")
    recognizer = Recognizer(arguments.model, arguments.device)
    embedding = recognizer.voice(arguments.recordings, None)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_voice(output, embedding, recognizer.model, output.stem)
    count = len(arguments.recordings)
    print(f"{output}: the voice of {count} recording{'s' if count > 1 else ''}")
