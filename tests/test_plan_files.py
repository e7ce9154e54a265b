"""Plan files: the same bytes from the same corpora, and a named error from others."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from mixture_bytes import NUM_MIXTURES, digest, every_option, usual_keywords, write_noise

from data_builders import (
    CorpusError,
    MixtureDataset,
    load_mixtures,
    load_mixtures_from_plan,
    render_plan_rows,
)
from data_builders.options import MixtureOptions
from data_builders.plans import plan_rendering as plan_rendering_module
from data_builders.plans.export_plan import write_plan
from data_builders.plans.plan_files import (
    KEPT_ROW_GROUPS,
    MAX_ROW_GROUP_ROWS,
    METADATA_KEY,
    PlanFile,
)
from data_builders.plans.plan_rendering import PlanPlayer


@pytest.fixture(scope="module")
def plan(corpora: Path) -> Path:
    path = corpora / "plans" / "test.parquet"
    assert write_plan(path, split="test", **usual_keywords(corpora)) == NUM_MIXTURES
    return path


@pytest.fixture(scope="module")
def full_plan(corpora: Path) -> Path:
    path = corpora / "plans" / "full.parquet"
    write_plan(path, split="test", **every_option(corpora))
    return path


def folders(root: Path) -> dict[str, Any]:
    return {"corpus_dir": root, "noise_dir": root / "noise", "cache_dir": root / "cache"}


def opened(plan: Path, root: Path) -> MixtureDataset:
    return load_mixtures_from_plan(plan, corpus_dir=root, cache_dir=root / "cache")


def rows_of(plan: Path, streaming: bool, cache_dir: Path) -> Any:
    return datasets.load_dataset(
        "parquet",
        data_files=str(plan),
        split="train",
        streaming=streaming,
        cache_dir=str(cache_dir),
    )


@pytest.fixture
def other_copy(corpora: Path, tmp_path: Path) -> Path:
    for name in ("ravdess", "emodb", "asterisk"):
        shutil.copytree(corpora / name, tmp_path / name)
    return tmp_path


def named_file(plan: Path, root: Path) -> tuple[str, Path]:
    """The target of the first mixture, and its recording below a folder."""
    name = PlanFile(plan).row(0)["target_id"]
    return name, next((root / "ravdess").rglob(f"{name.partition('/')[2]}.*"))


def test_a_plan_of_before_there_was_a_low_pass_gives_the_same_bytes(
    corpora: Path, full_plan: Path, tmp_path: Path
) -> None:
    table = pq.read_table(full_plan)
    metadata = json.loads(table.schema.metadata[METADATA_KEY]) | {"schema_version": 1}
    older = table.drop_columns(["lowpass_hz"]).replace_schema_metadata(
        {METADATA_KEY: json.dumps(metadata)}
    )
    pq.write_table(older, tmp_path / "older.parquet")
    now, before = (
        load_mixtures_from_plan(path, **folders(corpora))
        for path in (full_plan, tmp_path / "older.parquet")
    )
    assert [digest(before[index]) for index in range(len(before))] == [
        digest(now[index]) for index in range(len(now))
    ]
    # Every kind of mixture is among these.
    specs = [now.plan(index) for index in range(len(now))]
    assert {len(spec.interferers) for spec in specs} == {0, 1, 2}
    assert {spec.target_absent for spec in specs} == {False, True}
    assert all(spec.noise is not None and spec.room is not None for spec in specs)


def test_a_plan_holds_ids_paths_and_numbers_and_nothing_of_this_machine(
    corpora: Path, full_plan: Path
) -> None:
    content = full_plan.read_bytes()
    assert str(corpora).encode() not in content
    assert len(content) < 200_000
    table = pq.read_table(full_plan)
    assert not [field for field in table.schema if pa.types.is_binary(field.type)]
    row = table.slice(0, 1).to_pylist()[0]
    for utterance in row["utterances"]:
        info = soundfile.info(corpora / utterance["corpus"] / utterance["path"])
        assert info.frames == utterance["num_samples"]
    assert row["corpora"] == sorted({one["corpus"] for one in row["utterances"]})
    metadata = json.loads(table.schema.metadata[METADATA_KEY])
    assert metadata["schema_version"] == 2
    assert metadata["package_version"]
    assert metadata["options"]["num_speakers"] == [2, 3]


def test_a_plan_of_training_holds_its_epochs(corpora: Path, tmp_path: Path) -> None:
    keywords = usual_keywords(corpora, max_examples=5)
    path = tmp_path / "train.parquet"
    assert write_plan(path, split="train", num_epochs=2, **keywords) == 10
    drawn, mixtures = load_mixtures(split="train", **keywords), opened(path, corpora)
    assert len(mixtures) == 5
    for epoch in (1, 0):
        drawn.set_epoch(epoch)
        mixtures.set_epoch(epoch)
        assert [digest(mixtures[index]) for index in range(5)] == [
            digest(drawn[index]) for index in range(5)
        ]
    mixtures.set_epoch(2)
    with pytest.raises(ValueError, match=r"holds the mixtures of 2 epochs, epoch 2 .* --epochs"):
        mixtures[0]
    with pytest.raises(ValueError, match="same in every epoch"):
        write_plan(path, split="test", num_epochs=2, **keywords)


def test_only_the_corpora_that_a_plan_names_are_read(corpora: Path, tmp_path: Path) -> None:
    path = tmp_path / "clean.parquet"
    write_plan(path, **usual_keywords(corpora, interferers=None))
    (tmp_path / "ravdess").symlink_to(corpora / "ravdess")  # no emodb, no asterisk
    assert len(opened(path, tmp_path)) == NUM_MIXTURES


def test_corpora_with_options_are_found_again(corpora: Path, tmp_path: Path) -> None:
    """Their utterances need not bear their name, and two of them may share some."""
    splits = ("train", "validation", "test")
    rows = [
        f"{path.relative_to(corpora / 'ravdess')},{path.parent.name},f,neutral,"
        f"{splits[int(path.parent.name[-2:]) % 3]}"
        for path in sorted((corpora / "ravdess").rglob("*.flac"))
    ]
    for table, part in (("some.csv", rows[:60]), ("more.csv", rows[30:])):
        lines = ["path,speaker_id,gender,emotion,split", *part]
        (corpora / "ravdess" / table).write_text("\n".join(lines))
    own = ["folder:metadata=some.csv,name=own", "folder:metadata=more.csv,name=own"]
    keywords = usual_keywords(
        corpora,
        targets=own[0],
        interferers=own[1],
        emotions=("neutral",),
        corpus_dirs={"folder": corpora / "ravdess"},
    )
    path = tmp_path / "own.parquet"
    write_plan(path, split="train", **keywords)
    drawn = load_mixtures(split="train", **keywords)
    folder: dict[str, Any] = {"corpus_dirs": {"folder": corpora / "ravdess"}, "cache_dir": tmp_path}
    mixtures = load_mixtures_from_plan(path, **folder)
    assert mixtures[0]["utterance_id"].startswith("own/")
    assert {name for one in PlanFile(path).utterances().items() for name in one} > {*own}
    for index in range(NUM_MIXTURES):
        assert digest(mixtures[index]) == digest(drawn[index])


def test_an_utterance_that_is_met_in_every_role_is_checked_in_each(
    corpora: Path, plan: Path
) -> None:
    """Rows may come in any order, and bring their corpora with them."""
    rows = PlanFile(plan)
    player = PlanPlayer(MixtureOptions(corpus_dir=str(corpora)), corpora / "cache")
    for number in reversed(range(len(rows))):
        row = rows.row(number)
        assert player.spec(row).target_id == row["target_id"]
        for name, wrong in (("emotion", "joyful"), ("speaker_id", "somebody")):
            with pytest.raises(CorpusError, match=f"{name} is .*, in the plan '{wrong}'"):
                player.spec({**row, name: wrong})


def test_another_format_of_the_same_recordings_is_the_same_corpus(
    corpora: Path, plan: Path, other_copy: Path
) -> None:
    for path in sorted((other_copy / "ravdess").rglob("*.flac")):
        samples, rate = soundfile.read(path)
        soundfile.write(path.with_suffix(".wav"), samples, rate, subtype="PCM_16")
        path.unlink()
    ours, theirs = opened(plan, corpora), opened(plan, other_copy)
    for index in range(NUM_MIXTURES):
        assert digest(theirs[index]) == digest(ours[index])


def test_a_later_search_for_speech_changes_no_published_mixture(
    corpora: Path, full_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixtures = load_mixtures_from_plan(full_plan, **folders(corpora))
    expected = [digest(mixtures[index]) for index in range(4)]
    monkeypatch.setattr(
        "data_builders.corpora.scan.find_speech", lambda samples: (0.0, len(samples) / 16e3)
    )
    later = load_mixtures_from_plan(full_plan, **{**folders(corpora), "cache_dir": tmp_path})
    assert [digest(later[index]) for index in range(4)] == expected


def test_missing_utterances_are_named_when_the_plan_is_opened(
    plan: Path, other_copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name, path = named_file(plan, other_copy)
    path.unlink()
    with pytest.raises(CorpusError, match=f"1 utterances .* not in the corpora: {name}; complete"):
        opened(plan, other_copy)
    # A plan too large for that tells when the mixture is rendered, as rows do.
    monkeypatch.setattr(plan_rendering_module, "MAX_ROWS_CHECKED_AT_ONCE", 1)
    with pytest.raises(CorpusError, match=name):
        opened(plan, other_copy)[0]
    rows = render_plan_rows(rows_of(plan, False, tmp_path / "hub"), corpus_dir=other_copy)
    with pytest.raises(CorpusError, match=name):
        rows[0]


def test_an_utterance_that_changed_is_named(plan: Path, other_copy: Path) -> None:
    name, path = named_file(plan, other_copy)
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples * 0.9, rate)
    with pytest.raises(CorpusError, match=f"{name} .* holds other samples .* use the copy"):
        opened(plan, other_copy)[0]
    soundfile.write(path, samples[:-100], rate)
    with pytest.raises(
        CorpusError, match=rf"{name} .* has \d+ samples, {len(samples)} in the plan"
    ):
        opened(plan, other_copy)[0]


def test_noise_that_is_missing_or_changed_is_named(
    corpora: Path, full_plan: Path, tmp_path: Path
) -> None:
    with pytest.raises(CorpusError, match=r"background noise, such as .*wav: give noise_dir"):
        opened(full_plan, corpora)[0]
    noise = write_noise(tmp_path / "noise")
    for path in noise.iterdir():
        samples, rate = soundfile.read(path)
        soundfile.write(path, samples * 0.5, rate)
    mixtures = load_mixtures_from_plan(full_plan, **{**folders(corpora), "noise_dir": noise})
    with pytest.raises(CorpusError, match=r"noise_dir: \d.wav holds other samples"):
        mixtures[0]


def test_a_missing_corpus_folder_is_named(plan: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=f"asterisk: {tmp_path}/asterisk is not a folder"):
        opened(plan, tmp_path)
    with pytest.raises(CorpusError, match="asterisk: its folder is not known; pass --corpus_dir"):
        load_mixtures_from_plan(plan)


def test_files_that_are_no_plans_are_refused(plan: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"is no readable Parquet file .*export_plan"):
        load_mixtures_from_plan(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("mixture")
    with pytest.raises(CorpusError, match=r"text.parquet: is no readable Parquet file"):
        load_mixtures_from_plan(tmp_path / "text.parquet")
    table = pq.read_table(plan)
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "bare.parquet")
    with pytest.raises(CorpusError, match=r"bare.parquet: .* but no plan .* render_plan_rows"):
        load_mixtures_from_plan(tmp_path / "bare.parquet")
    metadata = {METADATA_KEY: json.dumps({"schema_version": 7, "package_version": "9.1"}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "newer.parquet")
    with pytest.raises(
        CorpusError, match=r"schema version 7, written by .* 9.1; .* reads \(1, 2\)"
    ):
        load_mixtures_from_plan(tmp_path / "newer.parquet")
    rows = rows_of(plan, False, tmp_path / "hub").remove_columns(["utterances", "split"])
    with pytest.raises(CorpusError, match=r"rows: lacks the columns \['split', 'utterances'\]"):
        render_plan_rows(rows)


def test_rows_are_rendered_that_the_caller_has_chosen(
    corpora: Path, plan: Path, tmp_path: Path
) -> None:
    rows = rows_of(plan, False, tmp_path).filter(lambda row: row["emotion"] == "angry")
    rendered = render_plan_rows(rows, **folders(corpora))
    assert len(rendered) == NUM_MIXTURES // 4
    assert {example["label"] for example in rendered} == {3}
    assert rendered[1:3]["utterance_id"] == rendered.select([1, 2])[:]["utterance_id"]


def synthetic_plan(plan: Path, path: Path, num_rows: int) -> Path:
    """The rows of a plan again and again, in row groups of the usual size, up to a number."""
    table = pq.read_table(plan)
    group = pa.concat_tables([table] * (MAX_ROW_GROUP_ROWS // len(table))).combine_chunks()
    with pq.ParquetWriter(path, group.schema, write_statistics=False) as writer:
        for first in range(0, num_rows, len(group)):
            writer.write_table(group.slice(0, num_rows - first))
    return path


def test_opening_a_plan_reads_none_of_its_rows(
    corpora: Path, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digest(opened(plan, corpora)[15_555 % NUM_MIXTURES])
    path = synthetic_plan(plan, tmp_path / "large.parquet", 20_000)
    monkeypatch.setattr(plan_rendering_module, "MAX_ROWS_CHECKED_AT_ONCE", 1_000)
    rows_read: list[int | str] = []
    decode = PlanFile._decode_group

    def watched_decode(self: PlanFile, group: int) -> pa.Table:
        rows_read.append(group)
        return decode(self, group)

    monkeypatch.setattr(PlanFile, "_decode_group", watched_decode)
    monkeypatch.setattr(PlanFile, "utterances", lambda self: rows_read.append("ids"))
    mixtures = opened(path, corpora)
    assert len(mixtures) == 20_000
    assert rows_read == []
    assert digest(mixtures[15_555]) == expected
    assert rows_read == [15_555 // MAX_ROW_GROUP_ROWS]
    rows = PlanFile(path)
    for number in range(0, 20_000, 300):
        assert rows.row(number)["index"] == number % NUM_MIXTURES
    assert rows._read_group.cache_info().currsize == KEPT_ROW_GROUPS


def test_a_plan_travels_to_other_processes(corpora: Path, plan: Path) -> None:
    mixtures = opened(plan, corpora)
    planner = pickle.loads(pickle.dumps(mixtures.planner))  # noqa: S301
    assert planner.plan(0, 3) == mixtures.plan(3)
