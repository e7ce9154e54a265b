"""Whether the programs that the pages name would take the arguments that the pages give them."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import pkgutil
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from data_builders.option_reader import OptionParser

REPOSITORY = Path(__file__).resolve().parent.parent
# Programs of others, whose flags are their own business.
EXTERNAL = {"cd", "curl", "export", "git", "hf", "ls", "mkdir", "set", "source", "unzip"}
EXTERNAL_MODULES = {"pip", "pytest", "venv"}
PYTHONS = {"python", "python3", ".venv/bin/python"}
# What stands at the root of the repository: a path below has to exist.
ROOT_FOLDERS = (
    *("benchmarks/", "deploy/", "docs/", "model_cards/"),
    *("pretrained/", "recipes/", "studies/", "tests/"),
)
MISSING = re.compile(r"arguments are required|is required|is needed: give --")


class CommandProblemError(AssertionError):
    """A command that would not run as it stands on the page."""


class AcceptedError(Exception):
    """Raised in place of the work, once the arguments are parsed."""


def check_command(words: Sequence[str], *, complete: bool = True) -> None:
    """Asks the program of a command whether it takes its arguments.

    Args:
        words: program and arguments; variables may be set in front.
        complete: whether required arguments have to be there; a mention in the prose may leave
            them out.

    Raises:
        CommandProblemError: the program is unknown, refuses the arguments, or a file is not there.
    """
    words = [word for word in words if complete or word != "..."]
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    if not words:
        return
    check_paths(words)
    program, arguments = words[0], list(words[1:])
    try:
        if program in CHECKS:
            CHECKS[program](arguments)
        elif program in PYTHONS:
            check_python(arguments)
        elif program not in EXTERNAL and not (REPOSITORY / program).is_file():
            raise CommandProblemError(
                f"unknown command {program!r}: teach it to tests/{Path(__file__).name}"
            )
    except CommandProblemError as problem:
        if complete or not MISSING.search(str(problem)):
            raise CommandProblemError(f"{' '.join(words)}: {problem}") from problem


def check_paths(words: Sequence[str]) -> None:
    """Raises where a path of the repository does not exist."""
    for word in words:
        path = word.rpartition("=")[2]
        written = {"--output", "--output_dir"} & set(words)
        if path.startswith(ROOT_FOLDERS) and not (REPOSITORY / path).exists() and not written:
            raise CommandProblemError(f"{path} does not exist")


def check_python(arguments: list[str]) -> None:
    """`python -m module ...`, or `python script.py ...`."""
    if not arguments:
        raise CommandProblemError("python needs a program")
    if arguments[0] == "-m":
        check_module(arguments[1], arguments[2:])
    else:
        check_script(arguments[0], arguments[1:])


def check_module(name: str, arguments: list[str]) -> None:
    """A module that is run as a program."""
    if name in EXTERNAL_MODULES:
        if name == "pip":
            check_pip(arguments)
        return
    if name in PARSERS:
        parsed_by(pkgutil.resolve_name(PARSERS[name]), arguments)
        return
    if (REPOSITORY / name.replace(".", "/")).is_dir():  # `python -m package`
        name += ".__main__"
    path = REPOSITORY / f"{name.replace('.', '/')}.py"
    if not path.is_file():
        raise CommandProblemError(f"there is no module {name}")
    try:
        module = importlib.import_module(name)
    except ImportError:  # an extra that is not installed
        check_flags_in_source(path, arguments)
        return
    accepted_by_main(module, f"{name}.py", arguments)


def check_script(name: str, arguments: list[str]) -> None:
    """A file that is run as a program."""
    path = REPOSITORY / name
    if not path.is_file():
        raise CommandProblemError(f"there is no file {name}")
    if name in PARSERS:
        parsed_by(pkgutil.resolve_name(PARSERS[name]), arguments)
        return
    if path.parent != REPOSITORY:  # of deploy/, which has packages of its own
        check_flags_in_source(path, arguments)
        return
    accepted_by_main(importlib.import_module(path.stem), name, arguments)


def check_flags_in_source(path: Path, arguments: list[str]) -> None:
    """For a program whose packages may be absent here: its flags stand in its source."""
    source = path.read_text(encoding="utf-8")
    for word in arguments:
        flag = word.partition("=")[0]
        if flag.startswith("--") and f'"{flag}"' not in source:
            raise CommandProblemError(f"{path.name} has no {flag}")


def accepted_by_main(module: ModuleType, name: str, arguments: list[str]) -> None:
    """Runs `main` up to where its arguments are parsed."""

    def stop_after(parse: Callable[..., Any]) -> Callable[..., Any]:
        def parsed(*args: Any, **kwargs: Any) -> Any:
            parse(*args, **kwargs)
            raise AcceptedError

        return parsed

    parsers = (
        (argparse.ArgumentParser, "parse_args"),
        (OptionParser, "flags"),
    )
    with contextlib.ExitStack() as patches:
        for parser, method in parsers:
            stopped = stop_after(getattr(parser, method))
            patches.enter_context(mock.patch.object(parser, method, stopped))
        patches.enter_context(mock.patch.object(sys, "argv", [name, *arguments]))
        parsed_by(lambda _: module.main(), arguments)


def parsed_by(parse: Callable[[list[str]], Any], arguments: list[str]) -> None:
    """Calls a parser; what it complains of is the problem."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = parse(arguments)
        if isinstance(code, int) and code:
            raise CommandProblemError(said.getvalue().strip().splitlines()[-1])
    except AcceptedError:
        return
    except SystemExit as stop:
        if stop.code:
            # The last line of a usage is what it is about.
            lines = said.getvalue().strip().splitlines() or [str(stop.code)]
            raise CommandProblemError(lines[-1]) from stop
    except ValueError as error:
        raise CommandProblemError(str(error)) from error


def check_accelerate(arguments: list[str]) -> None:
    """`accelerate launch [options] program ...`."""
    from accelerate.commands.launch import launch_command_parser

    if arguments[:1] != ["launch"]:
        raise CommandProblemError("only `accelerate launch` is known")
    launched: list[Any] = []
    parsed_by(
        lambda words: launched.append(launch_command_parser().parse_args(words)), arguments[1:]
    )
    options = launched[0]
    if options.config_file is not None and not Path(options.config_file).is_file():
        raise CommandProblemError(f"{options.config_file} does not exist")
    check = check_module if options.module else check_script
    check(options.training_script, options.training_script_args)


def check_make(arguments: list[str]) -> None:
    """`make target VARIABLE=value`."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in (word for word in arguments if "=" not in word):
        if not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE):
            raise CommandProblemError(f"the Makefile has no target {target!r}")


def check_pip(arguments: list[str]) -> None:
    """`pip install ...`: extras and files of requirements exist."""
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    for word in arguments:
        match = re.fullmatch(r"(?:\.|tse-ser)\[(.*)\]", word)
        for extra in match[1].split(",") if match else []:
            if not re.search(rf"^{re.escape(extra)} = \[$", project, re.MULTILINE):
                raise CommandProblemError(f"pyproject.toml has no extra {extra!r}")
        if word.endswith(".txt") and not (REPOSITORY / word).is_file():
            raise CommandProblemError(f"{word} does not exist")


def check_tse_ser(arguments: list[str]) -> None:
    """The installed command, and the programs that it hands the rest of its line to."""
    from tse_ser.cli.main import build_parser
    from tse_ser.cli.programs import PROGRAMS as BEHIND_IT

    if len(arguments) == 1 and arguments[0] in BEHIND_IT:
        return  # the name of a program, in a sentence
    if arguments and arguments[0] in BEHIND_IT:
        check_module(BEHIND_IT[arguments[0]][0], arguments[1:])
    else:
        parsed_by(build_parser().parse_args, arguments)


def check_snakemake(arguments: list[str]) -> None:
    """`snakemake -s studies/NAME/Snakefile ...`: its flags, and the keys and files they name."""
    from snakemake.cli import get_argument_parser

    read: list[Any] = []
    parsed_by(lambda words: read.append(get_argument_parser().parse_args(words)), arguments)
    # The placeholders of the page have no folder: what is asked for is the plan, no file.
    rules = (REPOSITORY / "studies" / "rules.smk").read_text(encoding="utf-8")
    for setting in read[0].config:
        key = setting.partition("=")[0]
        if f'"{key}"' not in rules:
            raise CommandProblemError(f"no study has a key {key!r}")


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "accelerate": check_accelerate,
    "make": check_make,
    "pip": check_pip,
    "snakemake": check_snakemake,
    "tse-ser": check_tse_ser,
}
# Programs that read a recipe, or miss what they need, while they parse: what parses for them.
PARSERS = {
    "train.py": "tse_ser.options:read_training_options",
    "tse_ser.training.train": "tse_ser.options:read_training_options",
    "push_to_hub.py": "tse_ser.publishing.command:parse_options",
    "tse_ser.publishing.command": "tse_ser.publishing.command:parse_options",
    "tse_ser.training.denoise_corpus": "tse_ser.training.denoise_corpus:parse_arguments",
    "tse_ser.evaluation.evaluate_checkpoint": "tse_ser.options:read_evaluation_options",
}
PROGRAMS = {*CHECKS, *PYTHONS, *EXTERNAL}
