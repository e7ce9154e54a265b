"""LibriSpeech: read English speech of 2,484 speakers, about 1,000 hours (Panayotov et al., 2015).

Reads any of its subsets from the extracted archives (LibriSpeech/train-clean-100/103/1240/
103-1240-0000.flac) or from Parquet, local or on the Hub, see `librispeech_parquet`. Genders come
from SPEAKERS.TXT. Of several hundred thousand files only headers and ends are read, unless
`measure_speech` asks for more: the makers cut the recordings at silences, so there is little to
trim. A copy that was read before is known again by the times of its folders, in milliseconds: only
a file that was overwritten in place goes unnoticed (touch its folder).

The paper takes 105 hours as human speech noise, and 100 others for pretraining.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import datasets
import numpy as np

from data_builders.corpora.corpus_table import (
    Description,
    add_gender,
    count_line,
    describe_files,
    load_table,
    require_folder,
    unknown_gender_line,
    wrong_folder,
)
from data_builders.corpora.librispeech_parquet import subset_of, unpack_files, unpack_hub
from data_builders.corpora.scan import (
    AUDIO_SUFFIXES,
    FoundFile,
    find_file,
    list_files,
    scan_audio_files,
)
from data_builders.schema import CorpusError

# Number of utterances of each.
SUBSETS = {
    "train-clean-100": 28_539,
    "train-clean-360": 104_014,
    "train-other-500": 148_688,
    "dev-clean": 2_703,
    "dev-other": 2_864,
    "test-clean": 2_620,
    "test-other": 2_939,
}
SPEAKERS_FILE = "SPEAKERS.TXT"
# The split that the first word of a subset's name stands for.
RELEASE_SPLITS = {"train": "train", "dev": "validation", "test": "test"}

# speaker, chapter, utterance
FILE_NAME = re.compile(r"(\d+)-(\d+)-\d{4}")
# 14   | F | train-clean-360  | 25.03 | Kristin LeMoine; one name contains the bar.
SPEAKER_LINE = re.compile(r"\s*(\d+)\s*\|\s*(\w)\s*\|.*")
GENDER_LETTERS = {"F": "female", "M": "male"}
TRANSCRIPT_SUFFIX = ".trans.txt"
EXPECTED = (
    "LibriSpeech/train-clean-100/103/1240/103-1240-0000.flac (or another subset), or Parquet "
    "files of a subset, such as train.clean.100/0000.parquet"
)


class _Choice(NamedTuple):
    """Which utterances of the subsets are wanted; see `load_librispeech`."""

    hours: list[float]
    part: int
    seed: int
    exclude_speakers: list[str]


def load_librispeech(
    data_dir: Path | None,
    cache_dir: Path,
    *,
    subsets: Sequence[str] | None = None,
    hours: float | Sequence[float] | None = None,
    part: int = 1,
    seed: int = 0,
    exclude_speakers: Sequence[str] = (),
    measure_speech: bool = False,
    release_splits: bool = False,
    hub: str | None = None,
    strict: bool = False,
) -> datasets.Dataset:
    """Reads LibriSpeech, or a number of hours of it.

    Args:
        data_dir (`Path`, *optional*): the folder LibriSpeech, the one above it, that of a subset,
            or a folder of Parquet files. With `hub`: where SPEAKERS.TXT is, if anywhere.
        cache_dir, strict: see `data_builders.load_corpus`, as for errors.
        subsets (`Sequence[str]`, *optional*): some of `SUBSETS`; every one that is there if None.
        hours (`float` or `Sequence[float]`, *optional*): hours to draw, by whole speakers but for
            the last; of several numbers, parts that share no speaker, drawn one after the other.
        part (`int`): 1-based; which of several `hours` to return.
        seed (`int`): seed of the drawing.
        exclude_speakers (`Sequence[str]`): speakers to leave out, "103" or "librispeech_103".
        measure_speech (`bool`): decode every chosen file and find the ends of its speech; if not,
            it lasts from the first to the last sample, and `trim_silence` changes nothing.
        release_splits (`bool`): keep to the splits of the release: train-... is trained on, dev-...
            validated and test-... tested; if not, the speakers of all subsets are split anew.
        hub (`str`, *optional*): name of a dataset on the Hub, such as openslr/librispeech_asr.

    Returns:
        `datasets.Dataset`: utterances without emotion, with `UTTERANCE_FEATURES`, and "split" for
        `release_splits`; the speaker is "librispeech_103".
    """
    _check_names(subsets)
    if subsets is None and data_dir is not None and data_dir.name in SUBSETS:
        subsets = [data_dir.name]
    root = _find_root(data_dir, cache_dir, subsets, hub)
    chosen = _choose_subsets(root, subsets)
    # Down to the chapters: their times tell whether files were added, removed or replaced in them,
    # and they are looked at in a fraction of the time that the files would take.
    folders = [
        find_file(root, path.relative_to(root).as_posix())
        for subset in chosen
        for level in ("", "*/", "*/*/")
        for path in sorted((root / subset).glob(level) if level else [root / subset])
    ]
    speakers = _find_speakers(root, data_dir)
    choice = _Choice(
        _check_hours(hours, part),
        part,
        seed,
        sorted({f"librispeech_{name.removeprefix('librispeech_')}" for name in exclude_speakers}),
    )
    split_of_name: dict[str, str] = {}

    def describe(report: list[str]) -> list[tuple[FoundFile, Description]]:
        suffixes = (*AUDIO_SUFFIXES, TRANSCRIPT_SUFFIX)
        files = [file for subset in chosen for file in list_files(root, suffixes, subset)]
        audio = [file for file in files if not file.path.endswith(TRANSCRIPT_SUFFIX)]
        genders = _read_genders(speakers)
        texts = _read_transcripts(root, files)
        described = describe_files(
            "librispeech",
            root,
            audio,
            EXPECTED,
            lambda path: _describe(path, genders, texts),
            report,
        )
        report += _check(described, texts, chosen)
        chosen_ones = _choose_utterances(root, described, choice, cache_dir, report, strict)
        split_of_name.update(
            {entry.name: RELEASE_SPLITS[file.path.partition("-")[0]] for file, entry in chosen_ones}
        )
        return chosen_ones

    return load_table(
        "librispeech",
        root,
        [*folders, *speakers],
        cache_dir,
        describe,
        options={**choice._asdict(), "release_splits": release_splits},
        measure_speech=measure_speech,
        more_columns={"split": split_of_name} if release_splits else None,
        strict=strict,
    )


def _check_names(subsets: Sequence[str] | None) -> None:
    unknown = [name for name in subsets or () if name not in SUBSETS]
    if unknown or (subsets is not None and not subsets):
        raise CorpusError(
            f"librispeech: unknown subsets {unknown}: use some of {', '.join(SUBSETS)}"
        )


def _check_hours(hours: float | Sequence[float] | None, part: int) -> list[float]:
    wanted = [hours] if isinstance(hours, int | float) else list(hours or ())
    if any(not 0 < number < float("inf") for number in wanted):
        raise CorpusError(f"librispeech: hours: expected positive numbers, got {wanted}")
    if not 1 <= part <= max(1, len(wanted)):
        raise CorpusError(
            f"librispeech: part {part} does not exist: hours={wanted} has {len(wanted)} parts, "
            f"counted from 1"
        )
    return [float(number) for number in wanted]


def _find_root(
    data_dir: Path | None, cache_dir: Path, subsets: Sequence[str] | None, hub: str | None
) -> Path:
    """The folder that holds the subsets' folders: a given one, or what Parquet was unpacked to."""
    if hub is not None:
        if subsets is None:
            raise CorpusError(f"librispeech: hub={hub}: name the subsets to fetch")
        return unpack_hub(hub, subsets, cache_dir)
    folder = require_folder("librispeech", data_dir)
    above = [folder.parent] if folder.name in SUBSETS else []
    for candidate in (folder, folder / "LibriSpeech", *above):
        if any((candidate / subset).is_dir() for subset in SUBSETS):
            return candidate
    parquet_files = list_files(folder, (".parquet",))
    of_subset = {
        subset: [file for file in parquet_files if subset_of(folder, file.path) == subset]
        for subset in SUBSETS
    }
    if not any(of_subset.values()):
        raise wrong_folder("librispeech", folder, EXPECTED, list_files(folder, AUDIO_SUFFIXES))
    found = [subset for subset, files in of_subset.items() if files]
    wanted = found if subsets is None else [name for name in found if name in subsets]
    return unpack_files(folder, {subset: of_subset[subset] for subset in wanted}, cache_dir)


def _choose_subsets(root: Path, subsets: Sequence[str] | None) -> list[str]:
    present = [subset for subset in SUBSETS if (root / subset).is_dir()]
    missing = [subset for subset in subsets or () if subset not in present]
    if missing:
        raise CorpusError(
            f"librispeech: {', '.join(missing)} missing in {root}, which has "
            f"{', '.join(present) or 'no subset'}; get it from https://www.openslr.org/12, or "
            f"leave it out of subsets"
        )
    return present if subsets is None else [subset for subset in present if subset in subsets]


def _choose_utterances(
    root: Path,
    described: list[tuple[FoundFile, Description]],
    choice: _Choice,
    cache_dir: Path,
    report: list[str],
    strict: bool,
) -> list[tuple[FoundFile, Description]]:
    if not choice.hours:
        excluded = {*choice.exclude_speakers}
        return [entry for entry in described if entry[1].speaker_id not in excluded]
    files = [file for file, _ in described]
    scanned = scan_audio_files(
        "librispeech", root, files, cache_dir, report, measure_speech=False, strict=strict
    )
    described = [entry for entry, one in zip(described, scanned, strict=True) if one is not None]
    parts = draw_hours(
        [description.speaker_id for _, description in described],
        [one.duration_seconds for one in scanned if one is not None],
        choice.hours,
        seed=choice.seed,
        exclude_speakers=choice.exclude_speakers,
    )
    return [described[row] for row in parts[choice.part - 1]]


def _find_speakers(root: Path, data_dir: Path | None) -> list[FoundFile]:
    """SPEAKERS.TXT, if it is there: Parquet copies lack it."""
    folders = [root, *([] if data_dir is None else [data_dir.absolute()])]
    candidates = [find_file(folder, str(folder / SPEAKERS_FILE)) for folder in folders]
    return [file for file in candidates if file.size_bytes > 0][:1]


def _read_genders(files: Sequence[FoundFile]) -> dict[str, str]:
    """Speaker to gender."""
    genders: dict[str, str] = {}
    for file in files:
        for line in Path(file.path).read_text(encoding="utf-8", errors="replace").splitlines():
            match = SPEAKER_LINE.fullmatch(line)
            if match is not None:
                gender = GENDER_LETTERS.get(match[2], "")
                add_gender(genders, match[1], gender, f"librispeech: {file.path}")
    return genders


def _read_transcripts(root: Path, files: Sequence[FoundFile]) -> dict[str, str]:
    """Utterance to text."""
    texts = {}
    for file in files:
        if not file.path.endswith(TRANSCRIPT_SUFFIX):
            continue
        for line in (root / file.path).read_text(encoding="utf-8").splitlines():
            name, _, text = line.strip().partition(" ")
            if name:
                texts[name] = text
    return texts


def _describe(
    path: PurePath, genders: Mapping[str, str], texts: Mapping[str, str]
) -> Description | None:
    match = FILE_NAME.fullmatch(path.stem)
    if match is None:
        return None
    return Description(
        name=path.stem,
        speaker_id=f"librispeech_{match[1]}",
        gender=genders.get(match[1], ""),
        text=texts.get(path.stem, ""),
        language="en",
        licence="CC-BY-4.0",
    )


def _check(
    described: Sequence[tuple[FoundFile, Description]],
    texts: Mapping[str, str],
    subsets: Sequence[str],
) -> list[str]:
    found = Counter(file.path.partition("/")[0] for file, _ in described)
    report = count_line(found, {subset: SUBSETS[subset] for subset in subsets})
    names = {description.name for _, description in described}
    silent = [name for name in texts if name not in names]
    if silent:
        report.append(f"{len(silent)} transcribed utterances have no audio, such as {silent[0]}")
    untold = [name for name in names if name not in texts]
    if untold:
        report.append(f"{len(untold)} utterances have no transcript, such as {min(untold)}")
    descriptions = [description for _, description in described]
    return report + unknown_gender_line(descriptions, f"LibriSpeech's {SPEAKERS_FILE}")


def draw_hours(
    speaker_ids: Sequence[str],
    durations_seconds: Sequence[float],
    hours: Sequence[float],
    *,
    seed: int,
    exclude_speakers: Sequence[str] = (),
) -> list[list[int]]:
    """Draws speaker after speaker until each part has its hours; the next begins with another.

    A speaker counts with all utterances, the last of a part with no more than are needed: a part
    exceeds its hours by less than one utterance. The seed gives the order of the speakers; that of
    the others is the same without `exclude_speakers`. Returns for each part the positions of its
    utterances, ascending. Raises `CorpusError` where there are too few hours.
    """
    rows_of_speaker: dict[str, list[int]] = {}
    for row, speaker in enumerate(speaker_ids):
        rows_of_speaker.setdefault(speaker, []).append(row)
    speakers = sorted(rows_of_speaker)
    order = np.random.default_rng(seed).permutation(len(speakers))
    excluded = {*exclude_speakers}
    queue = [speakers[place] for place in order if speakers[place] not in excluded]
    remaining = iter(queue)
    parts = []
    for wanted in hours:
        rows: list[int] = []
        seconds = 0.0
        while seconds < wanted * 3600:
            speaker = next(remaining, "")
            if not speaker:
                total = sum(
                    durations_seconds[row] for name in queue for row in rows_of_speaker[name]
                )
                raise CorpusError(
                    f"{' + '.join(f'{number:g}' for number in hours)} hours are wanted, the "
                    f"{len(queue)} speakers have {total / 3600:.2f}; add subsets, or lower hours"
                )
            for row in rows_of_speaker[speaker]:
                if seconds >= wanted * 3600:
                    break
                rows.append(row)
                seconds += durations_seconds[row]
        parts.append(sorted(rows))
    return parts
