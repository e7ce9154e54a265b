"""The repository of a plan of mixtures: tables of ids, paths and numbers, and their card."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub import DatasetCardData

from data_builders.corpora import parse_corpus_name
from data_builders.plans.plan_files import PLAN_FILE_FEATURES, PlanFile
from data_builders.schema import EMOTIONS, SAMPLING_RATE, CorpusError
from tse_ser.publishing.cards import render
from tse_ser.publishing.corpora import Corpus, find_corpora, listed
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.licenses import OWN_TERMS, License, choose_license
from tse_ser.publishing.options import PublishingOptions
from tse_ser.publishing.repository import CARD_NAME, build_folder
from tse_ser.publishing.training_description import NOISE

WRITE_ONE = "write one by python -m data_builders.plans.export_plan"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True)
class Plan:
    """A plan file."""

    path: Path  # the file
    split: str  # "train", "validation" or "test"
    options: Mapping[str, Any]  # what the mixtures were drawn with
    num_mixtures: int  # rows
    hours: float  # duration of all mixtures
    num_speakers: int  # target speakers
    emotions: Mapping[str, int]  # mixtures by the target's emotion
    corpora: tuple[str, ...]  # names of the corpora it needs, and of the noise


def read_plan(path: Path) -> Plan:
    """Reads a plan file, and refuses whatever is none.

    Args:
        path (`Path`): Parquet file that `python -m data_builders.plans.export_plan` wrote.

    Returns:
        `Plan`: its facts.

    Raises:
        PublishingError: it is no plan, or holds audio or the names of folders.
    """
    try:
        facts = PlanFile(path).metadata
    except CorpusError as error:
        raise PublishingError(f"--plan {error}") from error
    table = pq.read_table(path)
    _refuse_other_columns(path, table.schema)
    corpora = tuple(pc.unique(pc.list_flatten(table["corpora"])).to_pylist())
    options = facts["options"]
    _refuse_folders(path, table)
    _refuse_options(path, [*corpora, *listed(options["targets"]), *listed(options["interferers"])])
    has_noise = table["noise_fingerprint"].null_count < len(table)
    samples = pc.sum(table["num_samples"]).as_py() or 0
    return Plan(
        path=path,
        split=facts["split"],
        options=options,
        num_mixtures=table.num_rows,
        hours=samples / SAMPLING_RATE / 3600,
        num_speakers=len(pc.unique(table["speaker_id"])),
        emotions=Counter(sorted(name or "none given" for name in table["emotion"].to_pylist())),
        corpora=(*corpora, NOISE) if has_noise else corpora,
    )


def build_plan_repository(
    plans: Sequence[Path],
    output_dir: Path,
    repo_id: str,
    options: PublishingOptions | None = None,
    *,
    private: bool = True,
) -> Path:
    """Builds the folder of a dataset: one table a split, and the card.

    Args:
        plans (`Sequence[Path]`): plan files, one a split.
        output_dir (`Path`): folder to build; missing or empty.
        repo_id (`str`): where it goes, for the card.
        options (`PublishingOptions`, *optional*): licence and descriptions of what is not known
            here.
        private (`bool`): whether it stays private.

    Returns:
        `Path`: the folder, complete and checked.

    Raises:
        PublishingError: a file is no plan, a split is given twice, or the plan tells in public of
            a corpus whose makers do not allow it.
    """
    read = [read_plan(path) for path in plans]
    twice = [split for split, count in Counter(plan.split for plan in read).items() if count > 1]
    if twice:
        raise PublishingError(f"--plan: two plans of the split {twice[0]!r}: give one a split")
    options = options or PublishingOptions()
    corpora = find_corpora((name for plan in read for name in plan.corpora), options.descriptions)
    own = [corpus.title for corpus in corpora if corpus.license_id == OWN_TERMS]
    if own and not private:
        raise PublishingError(
            f"--public: the plan tells ids and emotions of {' and '.join(own)}, which come under "
            "their makers' own terms: publish it as private, and open it on the Hub once they agree"
        )
    card = _render_card(repo_id, read, corpora, options.given_license)

    def fill(folder: Path) -> None:
        (folder / "data").mkdir()
        for plan in read:
            shutil.copyfile(plan.path, folder / "data" / f"{plan.split}.parquet")
        (folder / CARD_NAME).write_text(card, encoding="utf-8")

    return build_folder(output_dir, "dataset", fill)


def _render_card(
    repo_id: str, plans: Sequence[Plan], corpora: Sequence[Corpus], given: License | None
) -> str:
    terms = choose_license((corpus.part for corpus in corpora), given)
    total = sum(plan.num_mixtures for plan in plans)
    files = [{"split": plan.split, "path": f"data/{plan.split}.parquet"} for plan in plans]
    metadata = DatasetCardData(
        license=terms.id,
        pretty_name=repo_id.split("/")[-1],
        task_categories=["audio-classification", "audio-to-audio"],
        size_categories=[next((name for size, name in SIZES if total < size), "n>1M")],
        language=sorted({one for corpus in corpora for one in corpus.languages}) or None,
        tags=["speech-emotion-recognition", "target-speaker-extraction", "speech-mixtures"],
        license_name=terms.name,
        license_link=terms.link,
        configs=[{"config_name": "default", "data_files": files}],
    )
    speech = [corpus for corpus in corpora if corpus.name != NOISE]
    return render(
        "mixture_plan.md.jinja",
        metadata,
        needed=("license", "configs", "tags"),
        repo_id=repo_id,
        plans=plans,
        corpora=corpora,
        folders=[f"/data/{corpus.name}" for corpus in speech],
        has_noise=len(speech) < len(corpora),
        license=terms,
        columns=PLAN_FILE_FEATURES,
        classes=_read_classes(plans),
    )


def _read_classes(plans: Sequence[Plan]) -> tuple[str, ...]:
    """The emotions that have a label, in the order of the labels; the same in all splits."""
    found = {tuple(plan.options.get("emotions") or EMOTIONS) for plan in plans}
    if len(found) > 1:
        raise PublishingError(
            f"--plan: the splits have other classes ({' and '.join(map(str, sorted(found)))}): "
            "export them with the same emotions"
        )
    return found.pop()


def _refuse_other_columns(path: Path, schema: pa.Schema) -> None:
    """A plan has its own columns and no others, so that no audio hides among them."""
    expected = PLAN_FILE_FEATURES.arrow_schema
    for field in schema:
        if field.name not in expected.names or field.type != expected.field(field.name).type:
            raise PublishingError(
                f"--plan {path}: the column {field.name} ({field.type}) is none of a plan: only "
                f"plans without audio are published; {WRITE_ONE}"
            )


def _leads_away(name: str) -> bool:
    """Whether a path does not stay in the folder that it is relative to, on whichever system."""
    parts = PureWindowsPath(name)  # which knows both slashes
    return bool(parts.anchor) or ".." in parts.parts or name.startswith("~")


def _refuse_options(path: Path, names: Sequence[str]) -> None:
    for name in names:
        for option, value in parse_corpus_name(name)[1].items():
            if isinstance(value, str) and _leads_away(value):
                raise PublishingError(
                    f"--plan {path}: the corpus {name} names a place on this machine by {option}: "
                    f"move it into the folder of the corpus, and export the plan again"
                )


def _refuse_folders(path: Path, table: pa.Table) -> None:
    utterances = pc.list_flatten(table["utterances"]).combine_chunks()
    for name in pc.unique(utterances.field("path")).to_pylist():
        if _leads_away(name):
            raise PublishingError(
                f"--plan {path}: names {name}, a file outside the folder of its corpus: keep the "
                "recordings inside that folder, and export the plan again"
            )
