"""Audits the data of recipes: what is in their splits, and whether anything leaks between them.

    python -m data_builders.audit --config recipes/ravdess/1_extraction.yaml --corpus_dir DIR \\
        [--folds 1 2] [--output docs/audits/ravdess.md]

`tse-ser audit` is the same. Every option of the data is a flag too and wins over the recipes'; they
are audited in the condition "noisy", with everybody who may interfere. Prints a report in Markdown.
The exit status is 1 on a leak (a speaker, an utterance or identical audio in two splits, or in a
split and in the pretraining; an enrollment inside its own mixture), 2 where the data cannot be read
or the report cannot be written, and 0 otherwise, whatever else was found.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_builders.audit.report import RecipeAudit, write_report
from data_builders.audit.splits import (
    PRETRAINING,
    RecipeData,
    Recordings,
    SplitContents,
    compare_splits,
    each_once,
)
from data_builders.files import check_output
from data_builders.option_reader import OptionError, OptionParser
from data_builders.options import DataOptions
from data_builders.schema import CorpusError

LEAK, UNREADABLE = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Audits the recipes of a command line and returns the exit status, see above."""
    try:
        arguments, flags = _parse(argv)
        if arguments.output is not None:
            check_output(arguments.output)
        audits = audit_recipes(arguments.config, flags, arguments.folds)
    except (CorpusError, OptionError) as error:
        print(f"tse-ser audit: error: {error}", file=sys.stderr)
        return UNREADABLE
    report = (
        "\n\n".join([_heading(arguments, flags), *(write_report(audit) for audit in audits)]) + "\n"
    )
    print(report, end="")
    if arguments.output is not None:
        arguments.output.write_text(report, encoding="utf-8")
    return LEAK if any(audit.leaks() for audit in audits) else 0


def audit_recipes(
    configs: Sequence[Path], flags: Mapping[str, Any], folds: Sequence[int] | None = None
) -> list[RecipeAudit]:
    """Audits recipes, all folds unless some are named; what they share is measured once.

    The flags win over the options of the recipes. Raises `CorpusError` where a recipe or a corpus
    cannot be used.
    """
    recordings: Recordings = {}
    known: dict[tuple[Path, str, int], SplitContents] = {}

    def read(recipe: RecipeData, split: str, fold: int) -> SplitContents:
        key = recipe.path, split, fold
        if key not in known:
            known[key] = recipe.read(split, fold)
        return known[key]

    audits = []
    for config in configs:
        recipe = RecipeData(config, flags, recordings)
        paths, unexplained = recipe.pretraining()
        sources = [RecipeData(path, flags, recordings) for path in paths]
        audit = RecipeAudit(
            name=str(config),
            trim_silence=recipe.trim_silence,
            classes=recipe.classes,
            pretraining=[str(path) for path in paths],
            unexplained=unexplained,
        )
        with _left_out([recipe, *sources]) as audit.left_out:
            for fold in folds or recipe.folds():
                splits = {split: read(recipe, split, fold) for split in recipe.splits()}
                trained = [
                    read(source, "train", source.fold_as_pretraining(fold)) for source in sources
                ]
                if trained:
                    splits[PRETRAINING] = _joined(trained)
                audit.contents.update({(fold, split): one for split, one in splits.items()})
                audit.overlaps += compare_splits(fold, splits)
        audits.append(audit)
    return audits


@contextlib.contextmanager
def _left_out(recipes: Sequence[RecipeData]) -> Iterator[list[str]]:
    """Collects what corpora and noise say of files that they leave out, each line once."""
    lines: list[str] = []
    folders = {folder for recipe in recipes for folder in recipe.folders()}

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = record.getMessage()
            # Without the folders, which are nobody else's; those inside of others come first.
            for folder in sorted(folders, key=len, reverse=True):
                line = line.replace(folder, "DIR")
            if "left out" in line and line not in lines:
                lines.append(line)

    readers, collector = logging.getLogger("data_builders"), Collector()
    readers.addHandler(collector)
    try:
        yield lines
    finally:
        readers.removeHandler(collector)


def _joined(parts: Sequence[SplitContents]) -> SplitContents:
    roles = ("targets", "interferers", "enrollments")
    return SplitContents(*(each_once(getattr(part, role) for part in parts) for role in roles))


def _heading(arguments: argparse.Namespace, flags: Mapping[str, Any]) -> str:
    configs = " ".join(str(config) for config in arguments.config)
    folds = "" if arguments.folds is None else f" --folds {' '.join(map(str, arguments.folds))}"
    given = "".join(f" --{name} {_words(name, value)}" for name, value in flags.items())
    return (
        f"# Audit of the data\n\nWritten by `python -m data_builders.audit --config {configs}"
        f"{given}{folds}`. A leak makes a score worthless; a finding is worth knowing."
    )


def _words(name: str, value: Any) -> str:
    """A flag's value as it is typed, without the folders, which are nobody else's."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}=DIR" for key in value)
    if name.endswith("_dir"):
        return "DIR"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    parser = OptionParser(
        [DataOptions],
        prog="tse-ser audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own = [
        parser.add_argument("--config", type=Path, nargs="+", required=True, help="YAML recipes."),
        parser.add_argument(
            "--folds", type=int, nargs="+", default=None, help="Folds to audit; all if not given."
        ),
        parser.add_argument(
            "--output", type=Path, default=None, help="Markdown file of the report."
        ),
    ]
    flags = parser.flags(argv)
    return argparse.Namespace(**{one.dest: flags.pop(one.dest) for one in own}), flags


if __name__ == "__main__":
    sys.exit(main())
