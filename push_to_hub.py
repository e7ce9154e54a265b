"""Publishes a checkpoint, or a plan of mixtures, on the Hugging Face Hub.

    python push_to_hub.py --model results/ravdess/joint --repo_id lab/tse-ser-ft \\
        --results results/ravdess --dry_run
    python push_to_hub.py --plan plan.parquet --repo_id lab/ravdess-mixtures

A model goes with its code, card, endpoint handler and, where one is given, a sample; a plan goes
without any audio. Repositories are private unless --public is given.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from transformers.utils import logging

from tse_ser.publishing.cards import CARD_NAME
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.facts import PublishingOptions
from tse_ser.publishing.licenses import License
from tse_ser.publishing.plans import build_plan_repository
from tse_ser.publishing.repository import build_repository, describe_tree
from tse_ser.publishing.samples import Samples
from tse_ser.publishing.upload import check_destination, upload


def main(argv: Sequence[str] | None = None) -> None:
    """Builds the folder of a repository, and shows or uploads it.

    Args:
        argv (`Sequence[str]`, *optional*): arguments; those of the process by default.
    """
    arguments = parse_arguments(argv)
    logging.disable_progress_bar()  # that of reading and writing weights
    try:
        check_destination(arguments.repo_id, arguments.revision, arguments.create_pr)
        with tempfile.TemporaryDirectory() as scratch:
            publish(arguments, arguments.output_dir or Path(scratch) / "repository")
    except PublishingError as error:
        sys.exit(f"push_to_hub.py: error: {error}")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    summary, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="push_to_hub.py",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, metavar="DIR", help="folder that train.py wrote")
    what.add_argument(
        "--plan", type=Path, nargs="+", metavar="FILE", help="plans of mixtures, one a split"
    )
    _add_destination(parser)
    _add_facts(parser)
    return parser.parse_args(argv)


def _add_destination(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where it goes")
    group.add_argument("--repo_id", required=True, help="owner/name on the Hub")
    group.add_argument("--dry_run", action="store_true", help="show files and card, upload nothing")
    seen = group.add_mutually_exclusive_group()
    seen.add_argument("--public", action="store_true", help="everybody may see it")
    seen.add_argument("--private", action="store_true", help="only you and your team (the default)")
    group.add_argument("--revision", metavar="BRANCH", help="commit to this branch, not to main")
    group.add_argument("--create_pr", action="store_true", help="open a pull request")
    group.add_argument("--commit_message", default="Upload by push_to_hub.py", metavar="TEXT")
    group.add_argument(
        "--output_dir", type=Path, metavar="DIR", help="build the folder there, and keep it"
    )


def _add_facts(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what the card says")
    group.add_argument(
        "--results", type=Path, help="cells measured with this model: a file or a study's folder"
    )
    group.add_argument("--not_evaluated", action="store_true", help="say so instead of numbers")
    group.add_argument("--license", help="by default the freest that the training data allow")
    group.add_argument("--license_name", help="name of --license other")
    group.add_argument("--license_link", help="text of --license other")
    group.add_argument(
        "--base_model", nargs="+", default=[], metavar="ID", help="models of others it builds on"
    )
    group.add_argument(
        "--earlier_stages",
        nargs="+",
        default=[],
        type=Path,
        metavar="DIR",
        help="folders of the trainings before, where they have been moved",
    )
    group.add_argument(
        "--describe",
        nargs="+",
        default=[],
        metavar="NAME=TEXT",
        help="what recordings of your own are, such as 'folder=40 hours of ...'",
    )
    group.add_argument(
        "--dtype", choices=["float16", "bfloat16"], help="round the weights: half the size"
    )
    group.add_argument("--sample_mixture", type=Path, metavar="FILE", help="audio to try it on")
    group.add_argument("--sample_enrollment", type=Path, metavar="FILE", help="its speaker alone")
    group.add_argument("--sample_license", metavar="ID", help="of both, such as cc0-1.0")
    group.add_argument("--sample_credit", metavar="TEXT", help="whom to name, unless it is CC0")


def publish(arguments: argparse.Namespace, folder: Path) -> None:
    """Builds the folder and shows it, or uploads it."""
    build(arguments, folder)
    print(describe_tree(folder))
    place = arguments.revision or ("a pull request" if arguments.create_pr else "main")
    seen = "public" if arguments.public else "private"
    kept = "" if arguments.output_dir is None else f"\nThe folder is kept: {folder}"
    if arguments.dry_run:
        print(f"\n{(folder / CARD_NAME).read_text(encoding='utf-8')}")
        print(f"Nothing was uploaded. It would go to {arguments.repo_id}, {place}, {seen}.{kept}")
        return
    commit = upload(
        folder,
        arguments.repo_id,
        repo_type="model" if arguments.plan is None else "dataset",
        private=not arguments.public,
        revision=arguments.revision,
        create_pr=arguments.create_pr,
        commit_message=arguments.commit_message,
    )
    print(f"Uploaded to {arguments.repo_id}, {place}, {seen}: {commit.pr_url or commit}{kept}")


def build(arguments: argparse.Namespace, folder: Path) -> Path:
    """Builds the folder of a model or of a plan."""
    terms = None
    if arguments.license is not None:
        terms = License(arguments.license, arguments.license_name, arguments.license_link)
    pairs = [text.partition("=") for text in arguments.describe]
    descriptions = {name: text for name, _, text in pairs}
    if not all(descriptions.values()):
        raise PublishingError("--describe: expected NAME=TEXT, such as 'folder=40 hours of ...'")
    if arguments.plan is not None:
        return build_plan_repository(
            arguments.plan,
            folder,
            arguments.repo_id,
            private=not arguments.public,
            given_license=terms,
            descriptions=descriptions,
        )
    options = PublishingOptions(
        results=arguments.results,
        not_evaluated=arguments.not_evaluated,
        license=terms,
        base_models=arguments.base_model,
        earlier_stages=arguments.earlier_stages,
        descriptions=descriptions,
        samples=read_samples(arguments),
        dtype=arguments.dtype,
    )
    return build_repository(arguments.model, folder, arguments.repo_id, options)


def read_samples(arguments: argparse.Namespace) -> Samples | None:
    """The recordings to show, if any."""
    given = (arguments.sample_mixture, arguments.sample_enrollment, arguments.sample_license)
    if not any(given):
        return None
    if not all(given):
        raise PublishingError(
            "--sample_mixture, --sample_enrollment and --sample_license go together: give all three"
        )
    return Samples(*given, arguments.sample_credit)


if __name__ == "__main__":
    main()
