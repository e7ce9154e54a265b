"""`tse-ser enroll`: a voice in a file."""

from __future__ import annotations

import argparse
import sys

from modeling import save_voice
from tse_ser.cli.errors import CommandError
from tse_ser.cli.recognition import check_output, load_pipeline


def enroll(arguments: argparse.Namespace) -> None:
    """Writes the speaker embedding of recordings. Raises `CommandError` where the output is no
    .safetensors file, an input, or there already; `ValueError` where a recording cannot be
    used or all hold too little speech; `OSError` where the output cannot be written."""
    output = arguments.output.expanduser()
    if output.suffix != ".safetensors":
        raise CommandError(f"--output {output}: a voice is a .safetensors file, name it so")
    check_output(output, arguments.recordings, overwrite=arguments.overwrite)
    recognize = load_pipeline(arguments.model, arguments.device)
    voice = recognize.voice_to_keep(arguments.recordings, arguments.channel)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_voice(output, voice.embedding, recognize.model, output.stem)
    count = len(arguments.recordings)
    print(f"{output}: the voice of {count} recording{'s' if count > 1 else ''}")
    for warning in voice.warnings:
        print(f"tse-ser: warning: {warning['message']}", file=sys.stderr)
