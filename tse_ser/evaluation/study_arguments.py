"""The command line of the study runner."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tse_ser.evaluation.study import StudyError


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line of the study runner.

    Args:
        argv: arguments; those of the process by default.

    Returns:
        Their values.
    """
    parser = argparse.ArgumentParser(description="Run a study; what is done already is skipped.")
    parser.add_argument("--study", required=True, type=Path, help="YAML file of the study")
    parser.add_argument("--output_dir", required=True, type=Path, help="folder of its results")
    _add_choice(parser)
    parser.add_argument(
        *("--corpus_dir", "--data_root"),
        help="folder that holds the corpora (ravdess/, emodb/, ...)",
    )
    parser.add_argument(
        "--corpus_dirs", nargs="+", help="folders of single corpora, as iemocap=/data/IEMOCAP"
    )
    _add_machines(parser)
    return parser.parse_args(argv)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    """What of the study is run, and whether in earnest."""
    parser.add_argument("--folds", nargs="+", type=int, help="these folds only")
    parser.add_argument("--seeds", nargs="+", type=int, help="these seeds only")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="these tables, cells or steps only, and what they need: II, sb_sc, 'II/sc_*'",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="print the plan and what it costs, and stop"
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="two optimizer steps a training, eight examples a cell, into OUTPUT_DIR/smoke",
    )


def _add_machines(parser: argparse.ArgumentParser) -> None:
    """How programs are started, and how the work is shared."""
    parser.add_argument(
        "--accelerate_config",
        type=Path,
        help="YAML file for `accelerate launch`, such as recipes/accelerate/cpu_2_processes.yaml",
    )
    parser.add_argument(
        "--machine_rank",
        type=int,
        help="of this machine where each training runs on several; that of the file if unset",
    )
    parser.add_argument(
        "--no_wait", action="store_true", help="stop where only other runners have work left"
    )
    parser.add_argument(
        "--stale_minutes",
        type=float,
        default=10.0,
        help="take over from a runner on another machine that was not heard of for so long",
    )


def machine_folders(arguments: argparse.Namespace) -> dict[str, Any]:
    """Where the corpora lie on this machine.

    Args:
        arguments: what `parse_arguments` gives.

    Returns:
        Data arguments: `corpus_dir`, `corpus_dirs`, as far as they were given.

    Raises:
        StudyError: if an entry names no corpus or no folder.
    """
    folders: dict[str, Any] = {}
    if arguments.corpus_dir:
        folders["corpus_dir"] = str(Path(arguments.corpus_dir).resolve())
    if arguments.corpus_dirs:
        pairs = [entry.partition("=") for entry in arguments.corpus_dirs]
        if not all(name and folder for name, _, folder in pairs):
            raise StudyError("--corpus_dirs: expected entries such as iemocap=/data/IEMOCAP")
        folders["corpus_dirs"] = [f"{name}={Path(folder).resolve()}" for name, _, folder in pairs]
    return folders
