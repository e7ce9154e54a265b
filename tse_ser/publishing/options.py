"""The options of publishing: where a repository goes, and what the user says of its content."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from data_builders.option_reader import option, settle_options
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.licenses import License, conditions

SHAREABLE_CONDITIONS = frozenset({"by", "sa", "nc"})


@dataclass(frozen=True)
class Samples:
    """Two recordings and the terms under which they may be shared."""

    mixture: Path  # audio file of a mixture
    enrollment: Path  # audio file of the target speaker alone
    license_id: str  # a Creative Commons licence that allows adaptations, such as `cc0-1.0`
    credit: str | None = None  # whom to name; needed unless the licence is CC0

    def __post_init__(self) -> None:
        asked = conditions(self.license_id)
        if not self.license_id.startswith("cc") or not asked <= SHAREABLE_CONDITIONS:
            raise PublishingError(
                f"--sample_license {self.license_id!r}: only recordings under a Creative Commons "
                "licence that allows adaptations (cc0-1.0, cc-by-4.0, ...) may be shared as a "
                "sample; those that `make demo` speaks are cc0-1.0"
            )
        if asked and not self.credit:
            raise PublishingError(
                f"--sample_credit is missing: {self.license_id} asks you to name the author"
            )


@dataclass(kw_only=True)
class PublishingOptions:
    """What the user says of a model or a plan, beyond what its files hold.

    Raises:
        PublishingError: options exclude each other or lack each other; the message names them.
    """

    results: Path | None = option(
        None,
        "Cells measured with this model: a file or a study's folder; of an extractor also "
        "extraction.md of the extraction benchmark.",
    )
    not_evaluated: bool = option(False, "Let the card say so, in place of numbers.")
    license: str | None = option(None, "By default the freest that the training data allow.")
    license_name: str | None = option(None, "Name of --license other.")
    license_link: str | None = option(None, "Address of the text of --license other.")
    license_note: str | None = option(None, "Of --license other, in a sentence for the card.")
    base_model: tuple[str, ...] = option((), "Hub ids of models of others that this one builds on.")
    earlier_stages: tuple[Path, ...] = option(
        (), "Folders of the trainings before, where they were moved."
    )
    describe: tuple[str, ...] = option(
        (), "What recordings of your own are: NAME=TEXT, such as 'folder=40 hours of ...'."
    )
    languages: tuple[str, ...] = option(
        (), "Those of your own recordings, as ISO 639-1 codes such as 'pl'."
    )
    limits: tuple[str, ...] = option((), "What this model cannot do, a sentence each.")
    calibration: tuple[Path, ...] = option(
        (), "What tse_ser.evaluation.calibration wrote of this model: validation, and test."
    )
    dtype: Literal["float16", "bfloat16"] | None = option(None, "Round the weights: half the size.")
    sample_mixture: Path | None = option(None, "Audio to try the model on.")
    sample_enrollment: Path | None = option(None, "Its speaker alone.")
    sample_license: str | None = option(None, "Licence of both recordings, such as cc0-1.0.")
    sample_credit: str | None = option(None, "Whom to name for them, unless they are CC0.")

    def __post_init__(self) -> None:
        settle_options(self)
        if self.results is not None and self.not_evaluated:
            raise PublishingError("--results and --not_evaluated exclude each other: give one")
        if not all(self.descriptions.values()):
            raise PublishingError(
                "--describe: expected NAME=TEXT, such as 'folder=40 hours of ...'"
            )
        of_other = (self.license_name, self.license_link, self.license_note)
        if any(of_other) and self.license != "other":
            raise PublishingError(
                "--license_name, --license_link and --license_note say what --license other is: "
                "give it as well"
            )
        sample = (self.sample_mixture, self.sample_enrollment, self.sample_license)
        if any(sample) and not all(sample):
            raise PublishingError(
                "--sample_mixture, --sample_enrollment and --sample_license go together: give all "
                "three"
            )

    @property
    def descriptions(self) -> dict[str, str]:
        """What corpora are that are not known here, by name."""
        pairs = (text.partition("=") for text in self.describe)
        return {name: text for name, _, text in pairs}

    @property
    def given_license(self) -> License | None:
        """The user's choice, if any."""
        if self.license is None:
            return None
        return License(self.license, self.license_name, self.license_link, self.license_note)

    @property
    def samples(self) -> Samples | None:
        """The recordings to show, if any."""
        if not (self.sample_mixture and self.sample_enrollment and self.sample_license):
            return None
        return Samples(
            self.sample_mixture, self.sample_enrollment, self.sample_license, self.sample_credit
        )


@dataclass(kw_only=True)
class PushOptions(PublishingOptions):
    """What is published, and where it goes."""

    repo_id: str = field(metadata={"help": "owner/name on the Hub"})
    model: Path | None = option(None, "Folder that train.py wrote.")
    plan: tuple[Path, ...] = option((), "Plans of mixtures, one file a split, in place of a model.")
    dry_run: bool = option(False, "Show files and card, upload nothing.")
    public: bool = option(False, "Everybody may see it; private by default.")
    revision: str | None = option(None, "Commit to this branch, not to main.")
    create_pr: bool = option(False, "Open a pull request.")
    commit_message: str = option("Upload by tse-ser", "First line of the commit.")
    output_dir: Path | None = option(None, "Build the repository's folder there, and keep it.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.model is None) == (not self.plan):
            raise PublishingError("one of --model and --plan is required, and not both")
        try:
            validate_repo_id(self.repo_id)
        except HFValidationError as error:
            raise PublishingError(f"--repo_id {self.repo_id!r}: {error}") from error
        if "/" not in self.repo_id:
            raise PublishingError(
                f"--repo_id {self.repo_id!r}: expected owner/name, such as lab/tse-ser-ft"
            )
        if self.revision is not None and self.create_pr:
            raise PublishingError("--revision and --create_pr exclude each other: give one")

    @property
    def repo_type(self) -> str:
        """What the Hub calls it: "model" or "dataset"."""
        return "model" if self.model is not None else "dataset"
