"""The audit's report: what is wrong, then the tables it was read from, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from data_builders.audit.levels import LevelScore, score_levels
from data_builders.audit.splits import (
    PRETRAINING,
    Overlap,
    SplitContents,
    each_once,
    find_identical,
)
from data_builders.schema import EMOTIONS, GENDERS, some_of

OFFSET_LIMIT = 0.1
SILENCE_LIMIT = 0.5


@dataclass
class RecipeAudit:
    """What was found out about one recipe."""

    name: str
    trim_silence: bool  # whether it leaves out the silence around the speech
    classes: tuple[str, ...] = EMOTIONS  # emotions that it tells apart
    contents: dict[tuple[int, str], SplitContents] = field(default_factory=dict)  # fold and split
    overlaps: list[Overlap] = field(default_factory=list)  # for each fold and pair of splits
    # Recipes whose training data the splits were compared with; starting points of unknown data.
    pretraining: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # what corpora say of unusable files

    def recordings(self, *, targets_only: bool = False) -> pd.DataFrame:
        """Every recording of every fold, or every target, once, sorted by utterance id."""
        return each_once(
            contents.targets if targets_only else contents.everything
            for (_, split), contents in self.contents.items()
            if split != PRETRAINING
        ).sort_index()

    def leaks(self) -> list[str]:
        """What makes a score worthless, a line each.

        Shared speakers, utterances and audio; enrollments inside their mixtures.
        """
        lines = [
            f"fold {overlap.fold}: {overlap.first} and {overlap.second} share {len(shared)} "
            f"{what}: {_names(shared)}"
            for overlap in self.overlaps
            for what, shared in (
                ("speakers", overlap.speakers),
                ("utterances", overlap.utterances),
                ("recordings with identical samples", overlap.audio),
            )
            if shared
        ]
        for (fold, split), contents in self.contents.items():
            where = f"fold {fold}: {split}"
            if contents.enrolled_itself:
                lines.append(
                    f"{where} has {len(contents.enrolled_itself)} mixtures that hold their own "
                    f"enrollment: {_names(contents.enrolled_itself)}"
                )
            if contents.enrolled_copy and split in ("validation", "test"):
                lines.append(
                    f"{where} has {len(contents.enrolled_copy)} mixtures that hold a copy of their "
                    f"enrollment: {_names(contents.enrolled_copy)}"
                )
        return lines

    def findings(self, scores: Sequence[LevelScore]) -> list[str]:
        """What is worth knowing, but gives nothing away between splits, a line each.

        Identical recordings, levels that depend on the emotion, bad recordings.
        """
        recordings = self.recordings()
        lines = [
            f"identical samples: {' = '.join(group)}{self._enrolls_itself(group)}"
            for group in find_identical(recordings)
        ]
        copies = [
            name
            for (_, split), contents in self.contents.items()
            if split == "train"
            for name in contents.enrolled_copy
        ]
        if copies:
            lines.append(
                f"{len(copies)} training mixtures hold a copy of their enrollment: {_names(copies)}"
            )
        lines += [
            f"{score.corpus}: {score.measure}, gives the emotion away: UA {score.ua:.1%} where "
            f"guessing gives {score.chance:.1%} (shuffled labels up to {score.bound:.1%})"
            for score in scores
            if score.tells and score.measure.startswith("level")
        ]
        for what, is_bad in _blemishes(recordings).items():
            if is_bad.any():
                lines.append(f"{is_bad.sum()} recordings {what}, see the table of recordings")
        lines += self.left_out
        lines += [f"starts from {name}, whose data are not known" for name in self.unexplained]
        return lines

    def _enrolls_itself(self, group: Sequence[str]) -> str:
        """A remark where one copy of a recording may be drawn as the enrollment of another."""
        for (_, split), contents in self.contents.items():
            if split == PRETRAINING:
                continue
            speaker_of = contents.targets["speaker_id"].to_dict()
            enrolled = contents.enrollments["speaker_id"]
            for name, speaker in enrolled[enrolled.index.isin(group)].items():
                if any(speaker_of.get(copy) == speaker for copy in group if copy != name):
                    return "; one may be drawn as the enrollment of the other"
        return ""


def write_report(audit: RecipeAudit) -> str:
    """Writes the section of one recipe, in Markdown."""
    targets = audit.recordings(targets_only=True)
    scores = [
        score
        for _, of_corpus in targets.groupby("corpus")
        for score in score_levels(of_corpus, audit.classes)
    ]
    leaks, findings = audit.leaks(), audit.findings(scores)
    parts = [
        f"## {audit.name}",
        f"**{len(leaks)} leaks.**" if leaks else "**No leak.**",
        _bullets(leaks),
        f"{len(findings)} findings:" if findings else "No findings.",
        _bullets(findings),
        "### Splits",
        _splits_table(audit),
        "### Shared between splits",
        _pretraining_line(audit),
        _overlap_table(audit.overlaps),
        "### Enrollments",
        _enrollment_table(audit),
    ]
    if scores:
        heard = "between the first and last active time" if audit.trim_silence else "of whole files"
        parts += [
            "### Level and emotion",
            f"Level {heard}, in dB of full scale, mean and standard deviation; UA of a Gaussian a "
            f"class fitted to one number an utterance, tested on other speakers. Normalised: "
            f"divided by its root mean square, as the models' feature extractor does; what "
            f"loudness still tells then comes from rhythm and spectrum, not from level.",
            _level_table(targets),
            _score_table(scores),
        ]
    parts += ["### Recordings", _recordings_table(audit.recordings())]
    return "\n\n".join(part for part in parts if part)


def _splits_table(audit: RecipeAudit) -> str:
    rows = [
        {
            "fold": fold,
            "split": split,
            "targets": len(contents.targets),
            "hours": _hours(contents.targets),
            "speakers": _speakers(contents.targets),
            **{name: (contents.targets["emotion"] == name).sum() for name in audit.classes},
            "other emotion": (~contents.targets["emotion"].isin(audit.classes)).sum(),
            "interferer hours": _hours(contents.interferers),
            "interferer speakers": _speakers(contents.interferers),
            "enrollments": len(contents.enrollments),
        }
        for (fold, split), contents in audit.contents.items()
    ]
    return f"Speakers: number (female / male / unknown).\n\n{_table(rows)}"


def _overlap_table(overlaps: Sequence[Overlap]) -> str:
    return _table(
        [
            {
                "fold": overlap.fold,
                "between": f"{overlap.first}, {overlap.second}",
                "speakers": len(overlap.speakers),
                "utterances": len(overlap.utterances),
                "identical audio": len(overlap.audio),
            }
            for overlap in overlaps
        ]
    )


def _pretraining_line(audit: RecipeAudit) -> str:
    if not audit.pretraining:
        return "Targets, interferers and enrollments together."
    names = ", ".join(audit.pretraining)
    return (
        f"Targets, interferers and enrollments together. Pretraining is the training split of "
        f"{names}."
    )


def _enrollment_table(audit: RecipeAudit) -> str:
    return _table(
        [
            {
                "fold": fold,
                "split": split,
                "mixtures drawn": contents.num_plans,
                "enrollment in it": len(contents.enrolled_itself),
                "copy of the enrollment in it": len(contents.enrolled_copy),
            }
            for (fold, split), contents in audit.contents.items()
            if split != PRETRAINING
        ]
    )


def _level_table(targets: pd.DataFrame) -> str:
    levels = targets[targets["emotion"] != ""].groupby(["corpus", "emotion"])["level_db"]
    return _table(
        [
            {
                "corpus": corpus,
                "emotion": emotion,
                "utterances": len(of_emotion),
                "level (dB)": f"{of_emotion.mean():.1f}",
                "deviation (dB)": f"{of_emotion.std(ddof=0):.1f}",
            }
            for (corpus, emotion), of_emotion in levels
        ]
    )


def _score_table(scores: Sequence[LevelScore]) -> str:
    return _table(
        [
            {
                "corpus": score.corpus,
                "measure": score.measure,
                "UA": f"{score.ua:.1%}",
                "chance": f"{score.chance:.1%}",
                "shuffled, 95 %": f"{score.bound:.1%}",
                "gives the emotion away": "yes" if score.tells else "no",
            }
            for score in scores
        ]
    )


def _blemishes(recordings: pd.DataFrame) -> dict[str, pd.Series]:
    """What mars a recording, in words that follow "recordings", and which of them have it."""
    return {
        "are clipped": recordings["clipped_samples"] > 0,
        "have a DC offset": recordings["offset_ratio"] > OFFSET_LIMIT,
        "are mostly silent": recordings["silence_ratio"] > SILENCE_LIMIT,
    }


def _recordings_table(recordings: pd.DataFrame) -> str:
    rows = []
    for corpus, own in recordings.groupby("corpus"):
        clipped, offset, silent = (own[is_bad] for is_bad in _blemishes(own).values())
        rows.append(
            {
                "corpus": corpus,
                "files": len(own),
                "hours": _hours(own),
                "copies": own["content_hash"].duplicated().sum(),
                "clipped": _count_and_example(clipped),
                "DC offset": _count_and_example(offset),
                f"over {SILENCE_LIMIT:.0%} silence": _count_and_example(silent),
                "mean silence": f"{own['silence_ratio'].mean():.0%}",
            }
        )
    legend = (
        f"Clipped: a run of three samples at full scale. DC offset: a mean above "
        f"{OFFSET_LIMIT:.0%} of the root mean square. Silence: before and after the speech."
    )
    return f"{legend}\n\n{_table(rows)}"


def _count_and_example(recordings: pd.DataFrame) -> str:
    if recordings.empty:
        return "0"
    return f"{len(recordings)} ({recordings.index[0].partition('/')[2]})"


def _hours(recordings: pd.DataFrame) -> str:
    return f"{recordings['seconds'].sum() / 3600:.2f}"


def _speakers(recordings: pd.DataFrame) -> str:
    genders = recordings.drop_duplicates("speaker_id")["gender"]
    counts = [*((genders == name).sum() for name in GENDERS), (~genders.isin(GENDERS)).sum()]
    return f"{len(genders)} ({' / '.join(str(count) for count in counts)})"


def _names(names: Sequence[str]) -> str:
    return some_of(dict.fromkeys(names))


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)] if rows else []
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in cells)
