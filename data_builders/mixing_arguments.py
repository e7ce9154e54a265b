"""The keywords of `load_mixtures` as command-line arguments, for training and evaluation alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data_builders.corpora.folds import Protocol

PAIRS = ("snr_range_db", "snr_mean_std_db", "noise_snr_range_db", "rt60_range_seconds")


@dataclass
class MixingArguments:
    """Corpora, split and mixing; the names are those of `data_builders.load_mixtures`."""

    targets: list[str] = field(
        default_factory=lambda: ["generated"], metadata={"help": "Corpora of the target speech."}
    )
    interferers: list[str] | None = field(
        default=None, metadata={"help": "Corpora of the interfering speech."}
    )
    corpus_dir: str | None = field(
        default=None, metadata={"help": "Folder that holds a folder <name> for each corpus."}
    )
    corpus_dirs: list[str] | None = field(
        default=None,
        metadata={"help": "Folders of single corpora, as iemocap=/data/IEMOCAP; these win."},
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "Folder for resampled and generated speech."}
    )
    fold: int = field(default=1, metadata={"help": "Test session, from 1."})
    protocol: Literal["validated", "paper", "best_on_test"] = field(
        default="validated",
        metadata={
            "help": "'validated' selects on a session of its own; 'paper' has none and takes the "
            "last epoch; 'best_on_test' takes the best epochs on the test session: optimistic."
        },
    )
    num_speakers: list[int] = field(
        default_factory=lambda: [2],
        metadata={"help": "Speakers in a mixture, target included: 2 to 5, or a range of two."},
    )
    gender_state: Literal["any", "same", "different"] = field(
        default="any", metadata={"help": "Gender of the interferer relative to the target's."}
    )
    interferer_draw: Literal["corpus", "speaker"] = field(
        default="corpus",
        metadata={"help": "Draw a corpus, then one of its speakers; or any speaker alike."},
    )
    interferer_emotions: list[str] | None = field(
        default=None, metadata={"help": "Emotions of the interferers; every one if unset."}
    )
    interferer_languages: list[str] | None = field(
        default=None, metadata={"help": "Languages of the interferers; every one if unset."}
    )
    snr_distribution: Literal["uniform", "normal", "loudness"] = field(
        default="uniform",
        metadata={"help": "Law of the SNR; 'loudness' draws each voice's loudness as LibriMix."},
    )
    snr_range_db: list[float] = field(
        default_factory=lambda: [0.0, 0.0],
        metadata={"help": "Lowest and highest signal-to-interference ratio, in dB."},
    )
    snr_mean_std_db: list[float] = field(
        default_factory=lambda: [0.0, 4.0],
        metadata={"help": "Mean and standard deviation of a normal SNR, in dB."},
    )
    enrollment_seconds: float | None = field(
        default=None, metadata={"help": "Longer enrollments are cropped to this length."}
    )
    enrollment_emotion: str | None = field(
        default="neutral", metadata={"help": "Emotion of the enrollment; 'any' takes every one."}
    )
    trim_silence: bool = field(
        default=False, metadata={"help": "Leave out silence before and after the speech."}
    )
    noise_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of background noise, or its name in corpus_dirs or below corpus_dir; "
            "no noise if unset."
        },
    )
    noise_snr_range_db: list[float] = field(
        default_factory=lambda: [5.0, 20.0],
        metadata={"help": "Lowest and highest ratio of target to background noise, in dB."},
    )
    reverberation: Literal["none", "direct", "reverberant"] = field(
        default="none",
        metadata={"help": "Rooms, and which signal of the target is to be extracted in them."},
    )
    rt60_range_seconds: list[float] = field(
        default_factory=lambda: [0.2, 0.6],
        metadata={"help": "Shortest and longest reverberation time of the rooms."},
    )
    mixing_seed: int = field(default=0, metadata={"help": "Seed of the drawn mixtures."})

    def __post_init__(self) -> None:
        if self.enrollment_emotion == "any":
            self.enrollment_emotion = None
        for name in PAIRS:
            check_pair(name, getattr(self, name), ordered=name != "snr_mean_std_db")
        if len(self.num_speakers) not in (1, 2):
            raise ValueError(f"num_speakers: expected one number or two, got {self.num_speakers}")
        self._folders()

    @property
    def split_protocol(self) -> Protocol:
        """The protocol as far as it decides which session is in which split."""
        return "validated" if self.protocol == "validated" else "paper"

    @property
    def noise_folder(self) -> str | None:
        """The folder that `noise_dir` names."""
        if self.noise_dir is None:
            return None
        named = self._folders().get(self.noise_dir)
        below = None if self.corpus_dir is None else Path(self.corpus_dir) / self.noise_dir
        if named is None and below is not None and below.is_dir():
            return self.noise_dir if Path(self.noise_dir).is_dir() else str(below)
        return named or self.noise_dir

    def mixing_keywords(self, *, noisy: bool) -> dict[str, Any]:
        """Keywords of `load_mixtures`.

        Args:
            noisy (`bool`): whether anybody interferes; clean speech knows no noise and no room.

        Returns:
            `dict[str, Any]`: all that these arguments decide.
        """
        keywords = {
            "targets": self.targets,
            "interferers": None,
            "corpus_dir": self.corpus_dir,
            "corpus_dirs": self._folders(),
            "cache_dir": self.cache_dir,
            "fold": self.fold,
            "protocol": self.split_protocol,
            "enrollment_seconds": self.enrollment_seconds,
            "enrollment_emotion": self.enrollment_emotion,
            "trim_silence": self.trim_silence,
            "seed": self.mixing_seed,
        }
        if not noisy:
            return keywords
        lowest, *highest = self.num_speakers
        return keywords | {
            "interferers": self.interferers,
            "num_speakers": (lowest, highest[0]) if highest else lowest,
            "gender_state": self.gender_state,
            "interferer_draw": self.interferer_draw,
            "interferer_emotions": self.interferer_emotions,
            "interferer_languages": self.interferer_languages,
            "snr_distribution": self.snr_distribution,
            "snr_range_db": tuple(self.snr_range_db),
            "snr_mean_std_db": tuple(self.snr_mean_std_db),
            "noise_dir": self.noise_folder,
            "noise_snr_range_db": tuple(self.noise_snr_range_db),
            "reverberation": self.reverberation,
            "rt60_range_seconds": tuple(self.rt60_range_seconds),
        }

    def _folders(self) -> dict[str, str]:
        pairs = [entry.partition("=") for entry in self.corpus_dirs or []]
        for name, equals, folder in pairs:
            if not (name and equals and folder):
                raise ValueError(
                    f"corpus_dirs: expected entries such as iemocap=/data/IEMOCAP, got "
                    f"{name + equals + folder!r}"
                )
        return {name: folder for name, _, folder in pairs}


def check_pair(name: str, values: list[float], *, ordered: bool = True) -> None:
    """Checks an argument of two numbers.

    Args:
        name (`str`): of the argument.
        values (`list[float]`): its value.
        ordered (`bool`): the first may not be above the second.

    Raises:
        ValueError: another count, or the wrong order.
    """
    if len(values) != 2 or (ordered and values[0] > values[1]):
        order = ", low then high" if ordered else ""
        raise ValueError(f"{name}: expected two numbers{order}, got {values}")
