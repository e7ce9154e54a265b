"""The command that publishes: `push_to_hub.py`, and `tse-ser push`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from transformers.utils import logging

from data_builders.option_reader import OptionError, read_options
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.model_repository import build_model_repository
from tse_ser.publishing.options import PushOptions
from tse_ser.publishing.plan_repository import build_plan_repository
from tse_ser.publishing.repository import CARD_NAME, describe_tree, upload

DESCRIPTION = """\
Publishes a checkpoint, or a plan of mixtures, on the Hugging Face Hub.

A model goes with its code, card, endpoint handler and, where one is given, a sample; a plan goes
without any audio. Repositories are private unless --public is given."""


def main(argv: Sequence[str] | None = None) -> None:
    """Builds the folder of a repository, and shows or uploads it; raises `PublishingError`
    where something must not, or cannot, be published."""
    logging.disable_progress_bar()  # that of reading and writing weights
    options = parse_options(argv)
    with tempfile.TemporaryDirectory() as scratch:
        publish(options, options.output_dir or Path(scratch) / "repository")


def parse_options(argv: Sequence[str] | None) -> PushOptions:
    """Reads the command line."""
    try:
        (options,) = read_options([PushOptions], argv, prog="tse-ser push", description=DESCRIPTION)
    except OptionError as error:
        raise PublishingError(str(error)) from error
    return cast(PushOptions, options)


def publish(options: PushOptions, folder: Path) -> None:
    """Builds the folder and shows it, or uploads it."""
    if options.model is not None:
        build_model_repository(options.model, folder, options.repo_id, options)
    else:
        build_plan_repository(
            options.plan, folder, options.repo_id, options, private=not options.public
        )
    print(describe_tree(folder))
    place = options.revision or ("a pull request" if options.create_pr else "main")
    seen = "public" if options.public else "private"
    kept = "" if options.output_dir is None else f"\nThe folder is kept: {folder}"
    if options.dry_run:
        print(f"\n{(folder / CARD_NAME).read_text(encoding='utf-8')}")
        print(f"Nothing was uploaded. It would go to {options.repo_id}, {place}, {seen}.{kept}")
        return
    commit = upload(folder, options)
    print(f"Uploaded to {options.repo_id}, {place}, {seen}: {commit.pr_url or commit}{kept}")
