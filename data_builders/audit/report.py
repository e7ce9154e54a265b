"""The audit's report: what is wrong, then the tables it was read from, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_builders.audit.levels import LevelScore, score_levels
from data_builders.audit.recordings import Recording
from data_builders.audit.splits import PRETRAINING, Overlap, SplitContents, find_identical
from data_builders.schema import EMOTIONS, GENDERS

MAX_NAMED = 5
OFFSET_LIMIT = 0.1
SILENCE_LIMIT = 0.5


@dataclass
class RecipeAudit:
    """What was found out about one recipe.

    Attributes:
        name (`str`): the recipe.
        trim_silence (`bool`): whether it leaves out the silence around the speech.
        classes (`tuple[str, ...]`): emotions that it tells apart.
        contents (`dict[tuple[int, str], SplitContents]`): by fold and split.
        overlaps (`list[Overlap]`): what splits share, for each fold and pair.
        pretraining (`list[str]`): recipes whose training data the splits were compared with.
        unexplained (`list[str]`): starting points whose data are not known.
        left_out (`list[str]`): a line for the files of each corpus that cannot be used.
    """

    name: str
    trim_silence: bool
    classes: tuple[str, ...] = EMOTIONS
    contents: dict[tuple[int, str], SplitContents] = field(default_factory=dict)
    overlaps: list[Overlap] = field(default_factory=list)
    pretraining: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def recordings(self, *, targets_only: bool = False) -> list[Recording]:
        """Every recording of every fold once.

        Args:
            targets_only (`bool`): without those that only interfere or enroll.

        Returns:
            `list[Recording]`: sorted by utterance id.
        """
        found = {
            one.utterance_id: one
            for (_, split), contents in self.contents.items()
            if split != PRETRAINING
            for one in (contents.targets if targets_only else contents.everything)
        }
        return [found[name] for name in sorted(found)]

    def leaks(self) -> list[str]:
        """What makes a score worthless, a line each.

        Returns:
            `list[str]`: shared speakers, utterances and audio; enrollments inside their mixtures.
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

        Args:
            scores (`Sequence[LevelScore]`): what loudness tells of the targets.

        Returns:
            `list[str]`: identical recordings, levels that depend on the emotion, bad recordings.
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
            if score.tells and score.is_level
        ]
        for what, bad in (
            ("are clipped", [one for one in recordings if one.clipped_samples]),
            ("have a DC offset", [one for one in recordings if one.offset_ratio > OFFSET_LIMIT]),
            ("are mostly silent", [one for one in recordings if one.silence_ratio > SILENCE_LIMIT]),
        ):
            if bad:
                lines.append(f"{len(bad)} recordings {what}, see the table of recordings")
        lines += self.left_out
        lines += [f"starts from {name}, whose data are not known" for name in self.unexplained]
        return lines

    def _enrolls_itself(self, group: Sequence[str]) -> str:
        """A remark where one copy of a recording may be drawn as the enrollment of another."""
        for (_, split), contents in self.contents.items():
            if split == PRETRAINING:
                continue
            targets = {one.utterance_id: one.speaker_id for one in contents.targets}
            for one in contents.enrollments:
                copies = [name for name in group if targets.get(name) == one.speaker_id]
                if one.utterance_id in group and {*copies} - {one.utterance_id}:
                    return "; one may be drawn as the enrollment of the other"
        return ""


def write_report(audit: RecipeAudit) -> str:
    """Writes the section of one recipe.

    Args:
        audit (`RecipeAudit`): what was found out.

    Returns:
        `str`: Markdown.
    """
    targets = audit.recordings(targets_only=True)
    corpora = sorted({one.corpus for one in targets})
    scores = [
        score
        for corpus in corpora
        for score in score_levels([one for one in targets if one.corpus == corpus], audit.classes)
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
            _level_table(targets, corpora),
            _score_table(scores),
        ]
    parts += ["### Recordings", _recordings_table(audit.recordings())]
    return "\n\n".join(part for part in parts if part)


def _splits_table(audit: RecipeAudit) -> str:
    rows = []
    for (fold, split), contents in audit.contents.items():
        classes = [sum(one.emotion == name for one in contents.targets) for name in audit.classes]
        rows.append(
            [
                str(fold),
                split,
                f"{len(contents.targets)}",
                _hours(contents.targets),
                _speakers(contents.targets),
                *(str(count) for count in classes),
                str(len(contents.targets) - sum(classes)),
                _hours(contents.interferers),
                _speakers(contents.interferers),
                f"{len(contents.enrollments)}",
            ]
        )
    header = ["fold", "split", "targets", "hours", "speakers", *audit.classes, "other emotion"]
    legend = "Speakers: number (female / male / unknown)."
    return f"{legend}\n\n" + _table(
        [*header, "interferer hours", "interferer speakers", "enrollments"], rows
    )


def _overlap_table(overlaps: Sequence[Overlap]) -> str:
    rows = [
        [
            str(overlap.fold),
            f"{overlap.first}, {overlap.second}",
            str(len(overlap.speakers)),
            str(len(overlap.utterances)),
            str(len(overlap.audio)),
        ]
        for overlap in overlaps
    ]
    return _table(["fold", "between", "speakers", "utterances", "identical audio"], rows)


def _pretraining_line(audit: RecipeAudit) -> str:
    if not audit.pretraining:
        return "Targets, interferers and enrollments together."
    names = ", ".join(audit.pretraining)
    return (
        f"Targets, interferers and enrollments together. Pretraining is the training split of "
        f"{names}."
    )


def _enrollment_table(audit: RecipeAudit) -> str:
    rows = [
        [
            str(fold),
            split,
            str(contents.num_plans),
            str(len(contents.enrolled_itself)),
            str(len(contents.enrolled_copy)),
        ]
        for (fold, split), contents in audit.contents.items()
        if split != PRETRAINING
    ]
    header = ["fold", "split", "mixtures drawn", "enrollment in it", "copy of the enrollment in it"]
    return _table(header, rows)


def _level_table(targets: Sequence[Recording], corpora: Sequence[str]) -> str:
    rows = []
    for corpus in corpora:
        own = [one for one in targets if one.corpus == corpus]
        for emotion in sorted({one.emotion for one in own} - {""}):
            levels = [one.level_db for one in own if one.emotion == emotion]
            rows.append(
                [
                    corpus,
                    emotion,
                    str(len(levels)),
                    f"{np.mean(levels):.1f}",
                    f"{np.std(levels):.1f}",
                ]
            )
    return _table(["corpus", "emotion", "utterances", "level (dB)", "deviation (dB)"], rows)


def _score_table(scores: Sequence[LevelScore]) -> str:
    rows = [
        [
            score.corpus,
            score.measure,
            f"{score.ua:.1%}",
            f"{score.chance:.1%}",
            f"{score.bound:.1%}",
            "yes" if score.tells else "no",
        ]
        for score in scores
    ]
    header = ["corpus", "measure", "UA", "chance", "shuffled, 95 %", "gives the emotion away"]
    return _table(header, rows)


def _recordings_table(recordings: Sequence[Recording]) -> str:
    rows = []
    for corpus in sorted({one.corpus for one in recordings}):
        own = [one for one in recordings if one.corpus == corpus]
        rows.append(
            [
                corpus,
                str(len(own)),
                _hours(own),
                str(sum(len(group) - 1 for group in find_identical(own))),
                _count_and_example([one for one in own if one.clipped_samples]),
                _count_and_example([one for one in own if one.offset_ratio > OFFSET_LIMIT]),
                _count_and_example([one for one in own if one.silence_ratio > SILENCE_LIMIT]),
                f"{np.mean([one.silence_ratio for one in own]):.0%}",
            ]
        )
    legend = (
        f"Clipped: a run of three samples at full scale. DC offset: a mean above "
        f"{OFFSET_LIMIT:.0%} of the root mean square. Silence: before and after the speech."
    )
    header = ["corpus", "files", "hours", "copies", "clipped", "DC offset"]
    return f"{legend}\n\n" + _table(
        [*header, f"over {SILENCE_LIMIT:.0%} silence", "mean silence"], rows
    )


def _count_and_example(recordings: Sequence[Recording]) -> str:
    if not recordings:
        return "0"
    return f"{len(recordings)} ({recordings[0].utterance_id.partition('/')[2]})"


def _hours(recordings: Iterable[Recording]) -> str:
    return f"{sum(one.seconds for one in recordings) / 3600:.2f}"


def _speakers(recordings: Iterable[Recording]) -> str:
    gender_of = {one.speaker_id: one.gender for one in recordings}
    genders = list(gender_of.values())
    known = [genders.count(name) for name in GENDERS]
    counts = [*known, len(genders) - sum(known)]
    return f"{len(genders)} ({' / '.join(str(count) for count in counts)})"


def _names(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - MAX_NAMED} more" if len(unique) > MAX_NAMED else ""
    return ", ".join(unique[:MAX_NAMED]) + more


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
