"""The commands of `tse-ser` that are programs of their own: each gets the rest of the line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from tse_ser import resources

# name -> module with `main(argv)`, and what it does
PROGRAMS = {
    "train": ("tse_ser.training.train", "train the extractor, the classifier, or both"),
    "evaluate": ("tse_ser.evaluation.evaluate_checkpoint", "score a model on a test set"),
    "denoise": ("tse_ser.training.denoise_corpus", "write a corpus of extracted speech"),
    "audit": ("data_builders.audit.__main__", "look for leaks in the data of recipes"),
    "push": ("tse_ser.publishing.command", "publish a model or a plan on the Hub"),
}


def add_programs(commands: argparse._SubParsersAction[Any]) -> None:
    """Lists the programs in the help of `tse-ser`; what follows their name is theirs.

    Args:
        commands (`argparse._SubParsersAction`): of the parser of `tse-ser`.
    """
    for name, (_, summary) in PROGRAMS.items():
        commands.add_parser(name, help=summary, add_help=False)


def run_program(name: str, words: Sequence[str]) -> int:
    """Runs a program of `PROGRAMS`, which alone is imported, with the words after its name;
    returns its exit code. A recipe that the working folder does not have is that of the
    package."""
    module, _ = PROGRAMS[name]
    words = resources.find_in_words(words)
    sys.argv = [f"tse-ser {name}", *words]  # the name in usages and errors
    return import_module(module).main(words) or 0
