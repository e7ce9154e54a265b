"""A plan of mixtures on the Hub: its rows for everybody, its mixtures for who has the corpora."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hub_clients import hub_environment, link_packages, run_installed, run_isolated
from hub_server import HubServer
from huggingface_hub import constants
from mixture_bytes import NUM_MIXTURES, digest, usual_keywords

from data_builders import CorpusError, load_mixtures, load_mixtures_from_plan
from data_builders.plans.export_plan import write_plan
from data_builders.plans.plan_files import PLAN_FILE_FEATURES

CARD = "---\nlicense: cc-by-4.0\n---\n# Mixtures\n"
# Under terms that one licence keeps; those of Asterisk and RAVDESS contradict each other.
FITTING = ["ravdess", "emodb"]

PUSH = """
import json
from huggingface_hub import CommitOperationAdd, HfApi
api = HfApi()

def commit(repository, *splits):
    files = [
        CommitOperationAdd(f"data/{split}.parquet", f"{sys.argv[1]}/{split}.parquet")
        for split in splits
    ]
    files.append(CommitOperationAdd("README.md", sys.argv[2].encode()))
    api.create_commit(repository, files, commit_message="Plans", repo_type="dataset")

for repository in ("lab/mixtures", "lab/growing"):
    api.create_repo(repository, repo_type="dataset", private=False)
commit("lab/mixtures", "test", "train")
commit("lab/growing", "test")
api.create_branch("lab/growing", repo_type="dataset", branch="frozen")
commit("lab/growing", "train")
print(json.dumps(None))
"""

USE_ROWS = """
import json
from datasets import load_dataset
splits = load_dataset("lab/mixtures")
stream = load_dataset("lab/mixtures", split="test", streaming=True)
print(json.dumps({
    "splits": {name: split.num_rows for name, split in splits.items()},
    "columns": splits["test"].column_names,
    "types": [str(splits["test"].features[name]) for name in splits["test"].column_names],
    "rows": splits["test"][:3],
    "streamed": list(stream),
}))
"""

RENDER = """
import json, os, sys
from datasets import load_dataset
from mixture_bytes import digest
from data_builders import load_mixtures_from_plan, render_plan_rows
folders = {"corpus_dir": sys.argv[1], "cache_dir": sys.argv[1] + "/cache"}
found = {}
mixtures = load_mixtures_from_plan("lab/mixtures", **folders, split="test")
found["plan"] = [digest(mixtures[index]) for index in range(len(mixtures))]
frozen = load_mixtures_from_plan("lab/growing", **folders, revision="frozen")
found["only split of a branch"] = [digest(frozen[index]) for index in range(len(frozen))]
for name, streaming in (("rows", False), ("streamed rows", True)):
    rows = load_dataset("lab/mixtures", split="test", streaming=streaming)
    found[name] = [digest(example) for example in render_plan_rows(rows, **folders)]
    splits = render_plan_rows(load_dataset("lab/mixtures", streaming=streaming), **folders)
    found[name + " of all splits"] = [digest(example) for example in splits["test"]]
for name, plan in (
    ("no split", {"plan": "lab/growing"}),
    ("other split", {"plan": "lab/mixtures", "split": "validation"}),
    ("no repository", {"plan": "lab/absent"}),
    ("no revision", {"plan": "lab/mixtures", "revision": "v9"}),
):
    try:
        load_mixtures_from_plan(**plan, **folders)
    except ValueError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def plans(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plans")
    for split in ("test", "train"):
        write_plan(
            folder / f"{split}.parquet", split=split, **usual_keywords(corpora, interferers=FITTING)
        )
    return folder


@pytest.fixture(scope="module")
def server(plans: Path) -> Iterator[HubServer]:
    """Holds two repositories of plans."""
    with HubServer() as server:
        site = link_packages(plans / "hub", "huggingface_hub")
        environment = hub_environment(server, plans / "pusher")
        run_isolated(PUSH, site, plans, environment, str(plans), CARD)
        yield server


@pytest.fixture(scope="module")
def digests(corpora: Path) -> list[str]:
    """Of the mixtures as they were drawn."""
    drawn = load_mixtures(split="test", **usual_keywords(corpora, interferers=FITTING))
    return [digest(drawn[index]) for index in range(len(drawn))]


@pytest.fixture(scope="module")
def home(plans: Path) -> Path:
    return plans / "user"


@pytest.fixture(scope="module")
def found(server: HubServer, corpora: Path, plans: Path, home: Path) -> dict[str, Any]:
    """What a user's process finds who has this project and the corpora."""
    environment = hub_environment(server, home, token=None)
    answer: dict[str, Any] = run_installed(RENDER, plans, environment, str(corpora))
    return answer


def test_anybody_reads_the_rows(server: HubServer, plans: Path) -> None:
    environment = hub_environment(server, plans / "anybody", token=None)
    site = link_packages(plans / "datasets", "datasets")
    answer = run_isolated(USE_ROWS, site, plans, environment)
    assert answer["splits"] == {"test": NUM_MIXTURES, "train": NUM_MIXTURES}
    assert answer["columns"] == list(PLAN_FILE_FEATURES)
    assert answer["types"] == [str(feature) for feature in PLAN_FILE_FEATURES.values()]
    written = pq.read_table(plans / "test.parquet").to_pylist()
    assert answer["streamed"] == written
    for name, values in answer["rows"].items():
        assert values == [row[name] for row in written[:3]]
    assert server.unknown_requests == []


@pytest.mark.parametrize(
    "way",
    [
        "plan",
        "only split of a branch",
        "rows",
        "streamed rows",
        "rows of all splits",
        "streamed rows of all splits",
    ],
)
def test_the_mixtures_are_those_that_were_drawn(
    way: str, found: dict[str, Any], digests: list[str]
) -> None:
    assert found[way] == digests
    assert len(set(digests)) == NUM_MIXTURES


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no split", "lab/growing: split: name the one that is wanted; it has test, train"),
        ("other split", "lab/mixtures: split 'validation'; it has test, train"),
        ("no repository", "lab/absent: is no file, and cannot be had as a dataset repository"),
        ("no revision", "Revision Not Found"),
    ],
)
def test_what_is_not_there_is_named(name: str, message: str, found: dict[str, Any]) -> None:
    assert message in found[name]


def test_a_plan_that_was_loaded_once_needs_no_network(
    found: dict[str, Any],
    corpora: Path,
    home: Path,
    digests: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert constants.HF_HUB_OFFLINE  # as in all tests
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    folders: dict[str, Any] = {"corpus_dir": corpora, "cache_dir": corpora / "cache"}
    mixtures = load_mixtures_from_plan("lab/growing", **folders, revision="frozen")
    assert digest(mixtures[0]) == digests[0]
    with pytest.raises(CorpusError, match=r"lab/other: is no file, .* logged in and online"):
        load_mixtures_from_plan("lab/other", **folders)


def test_a_file_has_its_split_too(plans: Path, corpora: Path) -> None:
    folders: dict[str, Any] = {"corpus_dir": corpora, "cache_dir": corpora / "cache"}
    path = plans / "test.parquet"
    assert len(load_mixtures_from_plan(path, **folders, split="test")) == NUM_MIXTURES
    with pytest.raises(CorpusError, match=r"test.parquet: split 'train'; it has test"):
        load_mixtures_from_plan(path, **folders, split="train")
