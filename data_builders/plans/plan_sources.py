"""Where a plan of mixtures comes from: a file, or a dataset repository of the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from data_builders.plans.plan_files import PlanFile
from data_builders.schema import CorpusError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def open_plan(plan: str | Path, split: str | None = None, revision: str | None = None) -> PlanFile:
    """Opens a plan; one on the Hub is downloaded first, if it is not in the Hub's cache already.

    Args:
        plan (`str` or `Path`): file that `python -m data_builders.plans.export_plan` wrote, or the
            id of a dataset repository on the Hub with one such file a split, as "lab/mixtures".
        split (`str`, *optional*): the split that is wanted; needed where a repository has several.
        revision (`str`, *optional*): branch, tag or commit of the repository.

    Returns:
        `PlanFile`: the plan of that split.

    Raises:
        CorpusError: neither the file nor the repository can be read, one of its tables is no plan,
            or it has no such split, or several and none is named.
    """
    plans = [PlanFile(path) for path in _plan_paths(plan, revision)]
    found = [one for one in plans if split in (None, one.split)]
    if len(found) == 1:
        return found[0]
    splits = ", ".join(sorted(one.split for one in plans)) or "no plan at all"
    wanted = "split: name the one that is wanted" if split is None else f"split {split!r}"
    raise CorpusError(f"{plan}: {wanted}; it has {splits}")


def _plan_paths(plan: str | Path, revision: str | None) -> list[Path]:
    is_file = Path(plan).suffix == ".parquet" or Path(plan).exists()
    if is_file or not isinstance(plan, str) or not HUB_ID.fullmatch(plan):
        return [Path(plan)]
    try:
        folder = snapshot_download(
            plan, repo_type="dataset", revision=revision, allow_patterns="*.parquet"
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = " ".join([line for line in str(error).splitlines() if line.strip()][:2])
        raise CorpusError(
            f"{plan}: is no file, and cannot be had as a dataset repository of the Hub ({reason}); "
            f"check its name and the revision, and whether you are logged in and online"
        ) from error
    return sorted(Path(folder).rglob("*.parquet"))
