"""Plans of mixtures as datasets: the table and its card, and never a recording."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from mixture_bytes import NUM_MIXTURES, every_option, usual_keywords

from data_builders.plans.export_plan import write_plan
from tse_ser.publishing.cards import UNFILLED
from tse_ser.publishing.command import main
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.options import PublishingOptions
from tse_ser.publishing.plan_repository import build_plan_repository, read_plan
from tse_ser.publishing.repository import check_repository

REPO_ID = "lab/mixtures"
# Under terms that one licence keeps; those of Asterisk and RAVDESS contradict each other.
FITTING = ["ravdess", "emodb"]


@pytest.fixture(scope="module")
def plan(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "plan.parquet"
    write_plan(path, split="test", **usual_keywords(corpora, interferers=FITTING))
    return path


@pytest.fixture(scope="module")
def train_plan(corpora: Path, plan: Path) -> Path:
    path = plan.with_name("train.parquet")
    write_plan(path, split="train", num_epochs=2, **usual_keywords(corpora, interferers=FITTING))
    return path


def rewritten(plan: Path, folder: Path, column: str, values: Any) -> Path:
    """The plan with one column added or replaced."""
    table = pq.read_table(plan)
    if column in table.column_names:
        table = table.drop_columns(column)
    table = table.append_column(column, values)
    path = folder / "changed.parquet"
    pq.write_table(table, path)
    return path


def test_the_facts_of_a_plan_are_read_from_the_table(plan: Path, train_plan: Path) -> None:
    read = read_plan(plan)
    rows = pq.read_table(plan).to_pylist()
    assert (read.split, read.num_mixtures) == ("test", len(rows))
    assert read.hours == pytest.approx(sum(row["num_samples"] for row in rows) / 16000 / 3600)
    assert read.num_speakers == len({row["speaker_id"] for row in rows})
    assert sum(read.emotions.values()) == len(rows)
    assert set(read.corpora) == {name for row in rows for name in row["corpora"]}
    assert read_plan(train_plan).num_mixtures == 2 * len(rows)


def test_the_card_of_a_plan_is_complete(plan: Path, train_plan: Path, tmp_path: Path) -> None:
    folder = build_plan_repository([train_plan, plan], tmp_path / "built", REPO_ID)
    text = (folder / "README.md").read_text(encoding="utf-8")
    card = DatasetCard(text)
    assert str(DatasetCard(str(card))) == str(card)
    assert card.data.to_dict()["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train.parquet"},
                {"split": "test", "path": "data/test.parquet"},
            ],
        }
    ]
    assert not UNFILLED.search(text)
    assert "\n\n\n" not in text
    assert f'load_dataset("{REPO_ID}", split="train")' in text
    assert "**There is no audio here.**" in text
    read = read_plan(plan)
    assert f"| test | {NUM_MIXTURES} |" in text
    for column in pq.read_schema(plan).names:
        assert f"`{column}`" in text
    for name in read.corpora:
        assert f"- `{name}`: [" in text


def test_the_lines_of_python_in_the_card_are_right(
    plan: Path, corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_plan_repository([plan], tmp_path / "built", REPO_ID)
    text = (folder / "README.md").read_text(encoding="utf-8")
    source = text.partition("```python\n")[2].partition("```")[0]
    source = source.replace(REPO_ID, str(folder)).replace('"/data"', repr(str(corpora)))
    source = source.replace('"/data/noise"', repr(str(corpora / "noise")))
    monkeypatch.setenv("TSE_SER_CACHE", str(corpora / "cache"))
    # The library keeps a folder's tables by their names: another run's may be there.
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub")
    names: dict[str, Any] = {}
    exec(compile(source, "README.md", "exec"), names)
    assert len(names["mixtures"]) == NUM_MIXTURES


def test_recordings_that_nobody_knows_have_to_be_described(corpora: Path, tmp_path: Path) -> None:
    path = tmp_path / "noisy.parquet"
    write_plan(path, split="test", **{**every_option(corpora), "interferers": FITTING})
    with pytest.raises(PublishingError, match=r"--describe noise=TEXT, .*--languages.*--license"):
        build_plan_repository([path], tmp_path / "built", REPO_ID)
    described = PublishingOptions(describe=("noise=recordings of rain",))
    with pytest.raises(PublishingError, match="rain has no licence that is known here"):
        build_plan_repository([path], tmp_path / "built", REPO_ID, described)
    licensed = replace(described, license="cc-by-nc-sa-4.0")
    folder = build_plan_repository([path], tmp_path / "built", REPO_ID, licensed)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "- `noise`: recordings of rain" in text
    assert 'corpus_dir="/data", noise_dir="/data/noise")' in text
    assert "SNR 0 ± 4 dB" in text


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("audio", b"RIFF"),
        ("audio", {"bytes": b"RIFF", "path": ""}),
        ("mixture", [0.5] * 10),
        ("encoded", "UklGR"),
        ("speaker_id", b"RIFF"),
    ],
)
def test_a_plan_has_no_columns_but_its_own(
    column: str, value: Any, plan: Path, tmp_path: Path
) -> None:
    path = rewritten(plan, tmp_path, column, pa.array([value] * NUM_MIXTURES))
    with pytest.raises(PublishingError, match=f"the column {column}.* only plans without audio"):
        build_plan_repository([path], tmp_path / "built", REPO_ID)
    assert not (tmp_path / "built").exists()


def test_what_is_no_plan_is_refused(plan: Path, tmp_path: Path) -> None:
    other, broken = tmp_path / "other.parquet", tmp_path / "broken.parquet"
    pq.write_table(pa.table({"text": ["a"]}), other)
    broken.write_bytes(b"PAR1 and no more")
    for path, message in (
        (other, "no plan of mixtures"),
        (broken, "no readable Parquet file"),
        (tmp_path / "missing.parquet", "no readable Parquet file"),
    ):
        with pytest.raises(PublishingError, match=message):
            read_plan(path)
    with pytest.raises(PublishingError, match="two plans of the split 'test'"):
        build_plan_repository([plan, plan], tmp_path / "built", REPO_ID)


def test_a_plan_that_names_files_outside_its_corpora_is_refused(plan: Path, tmp_path: Path) -> None:
    utterances = pq.read_table(plan)["utterances"].to_pylist()
    for path in ("/recordings/anna.wav", "../anna.wav"):
        utterances[0][0]["path"] = path
        changed = rewritten(plan, tmp_path, "utterances", pa.array(utterances))
        with pytest.raises(PublishingError, match=r"names .*anna\.wav, a file outside"):
            read_plan(changed)


@pytest.mark.parametrize(
    "place", ["/recordings/anna b/calls.csv", "..\\calls.csv", "C:\\calls.csv", "~anna/calls.csv"]
)
def test_a_plan_that_names_a_table_outside_its_corpus_is_refused(
    place: str, plan: Path, tmp_path: Path
) -> None:
    for name, refused in ((f"folder:metadata={place}", True), ("folder:metadata=a/b.csv", False)):
        changed = rewritten(plan, tmp_path, "corpora", pa.array([[name]] * NUM_MIXTURES))
        if refused:
            with pytest.raises(PublishingError, match="a place on this machine by metadata"):
                read_plan(changed)
        else:
            assert read_plan(changed).corpora == (name,)


def test_a_plan_of_a_corpus_under_its_makers_terms_stays_private(
    plan: Path, tmp_path: Path
) -> None:
    names = pa.array([["iemocap:scenario=improvised", "librispeech"]] * NUM_MIXTURES)
    path = rewritten(plan, tmp_path, "corpora", names)
    with pytest.raises(PublishingError, match="--public: the plan tells ids and emotions of IEMO"):
        build_plan_repository([path], tmp_path / "public", REPO_ID, private=False)
    folder = build_plan_repository([path], tmp_path / "private", REPO_ID)
    card: Any = DatasetCard((folder / "README.md").read_text(encoding="utf-8"))
    assert card.data.license == "other"
    assert card.data.to_dict()["license_name"] == "research-only"


def test_the_command_shows_a_plan_and_uploads_nothing(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "built"
    main(["--plan", str(plan), "--repo_id", REPO_ID, "--dry_run", "--output_dir", str(folder)])
    text = capsys.readouterr().out
    assert "data/test.parquet\n" in text
    assert (folder / "README.md").read_text(encoding="utf-8") in text
    assert f"It would go to {REPO_ID}, main, private." in text
    check_repository(folder, "dataset")
    with pytest.raises(PublishingError, match="is a table"):
        check_repository(folder, "model")
    (folder / "data" / "one.flac").write_bytes(b"fLaC")
    with pytest.raises(PublishingError, match="is audio"):
        check_repository(folder, "dataset")
