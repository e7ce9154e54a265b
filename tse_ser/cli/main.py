"""The command `tse-ser`: its arguments, its help and its exit codes."""

from __future__ import annotations

import argparse
import errno
import io
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from tse_ser.cli.errors import CommandError
from tse_ser.cli.programs import PROGRAMS, add_programs, run_program

ALL_FINE, SOME_FAILED, CANNOT, INTERRUPTED = 0, 1, 2, 130

DESCRIPTION = """\
The emotion and the speech of one known speaker while others talk.

Three steps to a first result, with a model folder (or a model of the Hub) and two recordings: some
seconds of the speaker alone, best calm speech (the enrollment), and the speaker among others (the
mixture):

  tse-ser predict --model MODEL --mixture meeting.wav --enrollment alice.wav
  tse-ser enroll --model MODEL --recordings alice1.wav alice2.wav --output alice.safetensors
  tse-ser extract --model MODEL --input recordings --voice alice.safetensors --output alice_only

Files may have any sampling rate and several channels; wav, flac, ogg and mp3 are read, and m4a, mp4
and webm where PyAV is installed (pip install 'tse-ser[av]')."""
EXIT_CODES = """\
exit codes:
  0    everything is done
  1    done, but some files could not be used: results.csv says which and why (extract)
  2    wrong use, or a file that cannot be used: the message says what to do
  130  interrupted"""
PREDICT = """\
The emotions of the target speaker in one recording, the likeliest first.

All of the speaker's speech in the recording counts, whatever its length: silence and the speech of
others are left out. --window_seconds adds the course and never moves the overall answer. Where
there is too little speech, the speaker is not heard, or no emotion is likelier than all others
together, the first line says so. The answer is that of `pipeline`."""
PREDICT_EXAMPLES = """\
examples:
  tse-ser predict --model MODEL --mixture meeting.wav --enrollment alice.wav
  tse-ser predict --model MODEL --mixture meeting.wav --voice alice.safetensors --top_k 1
  tse-ser predict --model MODEL --mixture meeting.wav --voice alice.safetensors \\
      --output alice_only.wav --window_seconds 3 --json
"""
ENROLL = """\
Keep a voice in a file, from one or more recordings of the speaker alone.

The file holds a vector, no audio, and fits the model that made it (and those trained on from it
with a frozen speaker network). It still tells a person: treat it as you would a recording."""
ENROLL_EXAMPLES = """\
example:
  tse-ser enroll --model MODEL --recordings alice1.wav alice2.flac --output alice.safetensors
"""
EXTRACT = """\
The target speaker's speech, and the emotions, from every recording in a folder.

OUTPUT gets the folders and names of the input (a name that does not end in .wav gets that ending)
and results.csv, a row a file: file, status (ok, failed), reason, stamp (its size and time), output,
duration_seconds, speech_seconds, answer, target_present (yes, no), speaker_similarity,
mixture_similarity, rest_similarity, removed_db, warnings, emotion and a column of probabilities for
each emotion.
Models without a classifier give no emotions.

The same command again goes on where a run was cut off, and does again what was replaced or deleted
since. No file is overwritten that this command did not write. A file that cannot be used is
recorded with the reason and left behind; --retry_failed tries it again."""
EXTRACT_EXAMPLES = """\
examples:
  tse-ser extract --model MODEL --input recordings --voice alice.safetensors --output alice_only
  tse-ser extract --model MODEL --input recordings --enrollment alice.wav --output alice_only \\
      --retry_failed
"""


class OneLineParser(argparse.ArgumentParser):
    """Complains in one line, in place of the usage and a line."""

    def error(self, message: str) -> NoReturn:
        """Raises, so that every complaint leaves by the same door."""
        raise CommandError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code, see `EXIT_CODES`."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # Names of files are bytes to the system, not always text.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if words and words[0] in PROGRAMS:
            return run_program(words[0], words[1:])
        arguments = build_parser().parse_args(words)
        return _run(arguments)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print(f"tse-ser: error: {_describe(error)}", file=sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        goes_on = ": the same command goes on" if "extract" in words[:1] else ""
        print(f"tse-ser: interrupted{goes_on}", file=sys.stderr)
        return INTERRUPTED


def _describe(error: Exception) -> str:
    """What went wrong, in one line that names the file."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        hint = {
            errno.ENOSPC: ": make room on the disk, the same command goes on",
            errno.EACCES: ": you may not write there, name another --output",
            errno.EROFS: ": nothing can be written there, name another --output",
        }.get(error.errno or 0, "")
        return f"{place}{error.strerror}{hint}"
    return " ".join(str(error).split()) or type(error).__name__


def _run(arguments: argparse.Namespace) -> int:
    """Runs the command that the arguments name; returns its exit code."""
    # Imported here: torch takes seconds, which help and wrong flags need not wait for.
    from tse_ser.cli import enroll, extract, predict

    if arguments.command == "predict":
        predict.predict(arguments)
    elif arguments.command == "enroll":
        enroll.enroll(arguments)
    elif extract.extract(arguments):
        return SOME_FAILED
    return ALL_FINE


def build_parser() -> argparse.ArgumentParser:
    """The parser of `tse-ser` and its commands; raises `CommandError` where it cannot parse."""
    parser = OneLineParser(
        prog="tse-ser",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tse-ser {version('tse-ser')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_predict(commands)
    _add_enroll(commands)
    _add_extract(commands)
    add_programs(commands)
    return parser


def _add_predict(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = _command(commands, "predict", "the emotions in one recording", PREDICT)
    parser.epilog = f"{PREDICT_EXAMPLES}\n{EXIT_CODES}"
    parser.add_argument("--mixture", required=True, type=Path, help="the recording")
    _add_speaker(parser)
    parser.add_argument(
        "--output", type=Path, help="write the extracted speech here (16-bit .wav or .flac)"
    )
    _add_overwrite(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument(
        "--window_seconds",
        type=_positive_seconds,
        help="the emotions in every such window too, one a second",
    )
    parser.add_argument("--top_k", type=_positive_count, help="so many emotions; all by default")


def _add_enroll(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = _command(commands, "enroll", "keep a voice in a file", ENROLL)
    parser.epilog = f"{ENROLL_EXAMPLES}\n{EXIT_CODES}"
    parser.add_argument(
        "--recordings", required=True, nargs="+", type=Path, help="the speaker alone"
    )
    parser.add_argument("--output", required=True, type=Path, help="the voice, a .safetensors file")
    _add_overwrite(parser)


def _add_extract(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = _command(commands, "extract", "a folder of recordings, resumable", EXTRACT)
    parser.epilog = f"{EXTRACT_EXAMPLES}\n{EXIT_CODES}"
    parser.add_argument("--input", required=True, type=Path, help="folder of recordings")
    _add_speaker(parser)
    parser.add_argument("--output", required=True, type=Path, help="folder of the results")
    parser.add_argument(
        "--retry_failed", action="store_true", help="try files again that could not be used"
    )


def _command(
    commands: argparse._SubParsersAction[OneLineParser],
    name: str,
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    """A command's parser with what all of them take."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, help="model folder, or its name on the Hub")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; a GPU where there is one")
    parser.add_argument(
        "--channel",
        type=_channel,
        default="mean",
        help="of recordings with several: a number from 0, mean (default) or louder",
    )
    return parser


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="replace --output where it is there already"
    )


def _add_speaker(parser: argparse.ArgumentParser) -> None:
    """Who is meant: recordings of the speaker alone, or a voice made from them before."""
    speaker = parser.add_mutually_exclusive_group(required=True)
    speaker.add_argument(
        "--enrollment", nargs="+", type=Path, help="the target speaker alone, some seconds"
    )
    speaker.add_argument("--voice", type=Path, help="a file that `tse-ser enroll` wrote")


def _positive_seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text}")
    return seconds


def _channel(text: str) -> int | str:
    if text in ("mean", "louder"):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number from 0, mean or louder, got {text}")
    return int(text)


def _positive_count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return count


if __name__ == "__main__":
    sys.exit(main())
