"""Every option of the data: what is mixed with what, how it is drawn, and which split hears what.

Each is declared here once. `DrawingOptions` are those of `MixturePlanner`, `MixtureOptions` those
of `load_mixtures` and `load_dataset`; `DataOptions` adds what a program says of one split, and
`RecipeOptions` what a recipe says of all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_builders.mixtures.lowpass import lowpass_filter
from data_builders.mixtures.speed import MAX_SPEED_DENOMINATOR, speed_ratio
from data_builders.option_reader import (
    OptionError,
    OptionParser,
    build_options,
    close_match,
    of_file,
    option,
    read_yaml,
    refuse_unknown,
    settle_options,
)
from data_builders.schema import EMOTIONS, CorpusError

# How many of the training examples are of a kind.
SHARES = ("noise_share", "reverberation_share", "clean_share", "absent_share")
# What is left at its default where nobody interferes: clean speech knows no noise and no room.
INTERFERENCE = (
    "interferers",
    "num_speakers",
    "gender_state",
    "interferer_draw",
    "interferer_emotions",
    "interferer_languages",
    "snr_distribution",
    "snr_range_db",
    "snr_mean_std_db",
    "noise_dir",
    "noise_snr_range_db",
    "reverberation",
    "rt60_range_seconds",
    "target_pause_range_seconds",
    *SHARES,
)
# What belongs to training alone.
TRAIN_ONLY = ("speed_factors", *SHARES)
# What the published metadata of LibriMix decide.
DECIDED_BY_LIBRIMIX = (
    "gender_state",
    "interferer_draw",
    "interferer_emotions",
    "interferer_languages",
    "snr_distribution",
    "snr_range_db",
    "reverberation",
    "trim_silence",
    "lowpass_hz",
    "target_pause_range_seconds",
    "speed_factors",
    "noise_snr_range_db",
    "noise_share",
    "clean_share",
    "absent_share",
)
LIBRIMIX_SPEAKERS = (2, 3)


@dataclass(kw_only=True)
class DrawingOptions:
    """How a mixture is drawn: the keywords of `MixturePlanner`, all but the noise recordings.

    Raises:
        OptionError: an option is out of its range; the message names it.
    """

    mixing_seed: int = option(0, "Seed of the drawn mixtures.", at_least=0)
    num_speakers: tuple[int, ...] = option(
        (2,),
        "Speakers in a mixture, target included, or the lowest and the highest number.",
        at_least=2,
        at_most=5,
    )
    gender_state: Literal["any", "same", "different"] = option(
        "any", "Genders of the interferers beside the target's."
    )
    interferer_draw: Literal["corpus", "speaker", "own_corpus"] = option(
        "corpus",
        "Draw a corpus, then one of its speakers; or any speaker alike; or a speaker of the "
        "target's own corpus, so that voices are not told apart by their recordings.",
    )
    interferer_emotions: tuple[str, ...] | None = option(
        None, "Emotions of the interferers; every one if unset."
    )
    interferer_languages: tuple[str, ...] | None = option(
        None, "Languages of the interferers (BCP 47 tags); every one if unset."
    )
    snr_distribution: Literal["uniform", "normal", "loudness"] = option(
        "uniform",
        "Law of the SNR: 'uniform' over snr_range_db, 'normal' with snr_mean_std_db, or "
        "'loudness', LibriMix's: each voice between -33 and -25 LUFS.",
    )
    snr_range_db: tuple[float, float] = option(
        (0.0, 0.0), "Lowest and highest ratio of target to each interferer, in dB."
    )
    snr_mean_std_db: tuple[float, float] = option(
        (0.0, 4.0), "Mean and standard deviation of a normal SNR, in dB."
    )
    segment_seconds: float | None = option(
        None, "Longer targets are cropped to this length.", above=0
    )
    enrollment_seconds: float | None = option(
        None, "Longer enrollments are cropped to this length.", above=0
    )
    enrollment_emotion: str | None = option(
        "neutral", "Emotion of the enrollment; 'any' takes every one."
    )
    trim_silence: bool = option(False, "Leave out silence before and after the speech.")
    target_pause_range_seconds: tuple[float, float] = option(
        (0.0, 0.0),
        "Shortest and longest time, before the target's speech and after it, in which the "
        "interferers may talk alone.",
        at_least=0,
    )
    speed_factors: tuple[float, ...] = option(
        (1.0,),
        f"Voices are played at one of these speeds, ratios of integers up to "
        f"{MAX_SPEED_DENOMINATOR}.",
        at_least=0.5,
        at_most=2,
    )
    lowpass_hz: float | None = option(
        None,
        "Cut-off of a low-pass filter that all sources of a mixture share, in Hz; none if unset.",
        above=0,
    )
    noise_snr_range_db: tuple[float, float] = option(
        (5.0, 20.0), "Lowest and highest ratio of target to background noise, in dB."
    )
    reverberation: Literal["none", "direct", "reverberant"] = option(
        "none", "Rooms, and which signal of the target is to be extracted in them."
    )
    # Below the shortest, Sabine's formula asks for walls that swallow more than there is; above the
    # longest, a room has millions of images.
    rt60_range_seconds: tuple[float, float] = option(
        (0.2, 0.6),
        "Shortest and longest reverberation time of the rooms.",
        at_least=0.2,
        at_most=1.5,
    )
    noise_share: float = option(
        1.0, "Share of the examples with noise, where there is any.", at_least=0, at_most=1
    )
    reverberation_share: float = option(
        1.0, "Share of the examples in a room, where there are rooms.", at_least=0, at_most=1
    )
    clean_share: float = option(
        0.0, "Share of the examples without interferer.", at_least=0, at_most=1
    )
    absent_share: float = option(
        0.0, "Share of the examples whose target is silent.", at_least=0, at_most=1
    )

    def __post_init__(self) -> None:
        settle_options(self)
        if self.enrollment_emotion == "any":
            self.enrollment_emotion = None
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if one.name.endswith(("range_db", "range_seconds")) and value and value[0] > value[1]:
                raise OptionError(f"{one.name}: expected the lower number first, got {value}")
        self.speaker_range()
        if self.snr_mean_std_db[1] < 0:
            raise OptionError(
                f"snr_mean_std_db: expected a deviation of at least 0, got {self.snr_mean_std_db}"
            )
        if not self.speed_factors or any(float(speed_ratio(s)) != s for s in self.speed_factors):
            raise OptionError(
                f"speed_factors: expected ratios of integers up to {MAX_SPEED_DENOMINATOR}, such "
                f"as 0.9 or 1.1, got {self.speed_factors}"
            )
        if self.lowpass_hz is not None:
            lowpass_filter(self.lowpass_hz)  # refuses what is no cut-off
        if self.clean_share + self.absent_share > 1:
            raise OptionError(
                f"clean_share and absent_share: expected at most 1 together, got "
                f"{self.clean_share} and {self.absent_share}"
            )

    def speaker_range(self) -> tuple[int, int]:
        """Fewest and most speakers of a mixture."""
        numbers = self.num_speakers
        if len(numbers) not in (1, 2) or numbers[0] > numbers[-1]:
            raise OptionError(
                f"num_speakers: expected one number, or the lowest and the highest, got {numbers}"
            )
        return numbers[0], numbers[-1]


@dataclass(kw_only=True)
class MixtureOptions(DrawingOptions):
    """The keywords of `load_mixtures` and `load_dataset`: the corpora, and `DrawingOptions`."""

    targets: tuple[str, ...] = option(("generated",), "Corpora of the target speech.")
    interferers: tuple[str, ...] | None = option(
        None,
        "Corpora of the interfering speech, each with all utterances of the split; nobody "
        "interferes if unset.",
    )
    fold: int = option(1, "Test session of the corpora with sessions, from 1.", at_least=1)
    protocol: Literal["validated", "paper"] = option(
        "validated", "'validated' keeps a session to choose an epoch on, 'paper' trains on it too."
    )
    corpus_dir: str | None = option(None, "Folder that holds a folder <name> for each corpus.")
    corpus_dirs: Mapping[str, str] | None = option(
        None, "Folders of single corpora, as iemocap=/data/IEMOCAP; these win."
    )
    emotions: tuple[str, ...] | None = option(
        EMOTIONS,
        "Emotions of the targets, the classes in their order; 'all' takes every utterance, with "
        "the label -100 where its emotion is none of the default ones.",
    )
    max_examples: int | None = option(
        None, "At most so many targets, evenly spread over the split.", at_least=1
    )
    strict_corpora: bool = option(
        False, "Stop at audio that cannot be used; it is left out and counted otherwise."
    )
    noise_dir: str | None = option(
        None,
        "Folder of background noise, or its name in corpus_dirs or below corpus_dir; no noise if "
        "unset.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.emotions == ("all",):
            self.emotions = None
        if self.emotions is not None and len({*self.emotions}) < len(self.emotions):
            raise OptionError(f"emotions: expected each class once, got {self.emotions}")

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> MixtureOptions:
        """Takes the keywords that a caller gave, with the defaults for what is not given.

        Raises `OptionError` where a keyword is unknown, and names the nearest known one, or where a
        value does not fit.
        """
        refuse_unknown(keywords, [one.name for one in dataclasses.fields(cls)])
        return cls(**keywords)

    @property
    def classes(self) -> tuple[str, ...]:
        """The emotions that have a label, in the order of the labels."""
        return EMOTIONS if self.emotions is None else self.emotions

    @property
    def noise_folder(self) -> str | None:
        """The folder that `noise_dir` names."""
        if self.noise_dir is None:
            return None
        named = (self.corpus_dirs or {}).get(self.noise_dir)
        if named is not None or self.corpus_dir is None or Path(self.noise_dir).is_dir():
            return named or self.noise_dir
        below = Path(self.corpus_dir) / self.noise_dir
        return str(below) if below.is_dir() else self.noise_dir


@dataclass(kw_only=True)
class DataOptions(MixtureOptions):
    """What a program hears of one split."""

    condition: Literal["clean", "noisy", "denoised"] = option(
        "noisy", "What is heard: the target, the mixture, or what was extracted before."
    )
    denoised_dir: str | None = option(
        None, "Denoised set, as tse_ser.training.denoise_corpus writes it."
    )
    protocol: Literal["validated", "paper", "best_on_test"] = option(  # type: ignore[assignment]
        "validated",
        "'validated' selects on a session of its own; 'paper' has none and takes the last epoch; "
        "'best_on_test' takes the best epochs on the test session: optimistic.",
    )
    cache_dir: str | None = option(None, "Folder for resampled and generated speech.")

    def keywords(self) -> dict[str, Any]:
        """The keywords for `load_mixtures`, all but `split`.

        There is nobody and nothing beside the target but in the condition "noisy".
        """
        keywords = values_of(self, MixtureOptions) | {"cache_dir": self.cache_dir}
        if self.protocol == "best_on_test":
            # The sessions of "paper"; it differs in the choice of an epoch.
            keywords["protocol"] = "paper"
        if self.condition != "noisy":
            keywords |= _defaults(INTERFERENCE)
        if self.condition == "denoised":
            if self.denoised_dir is None:
                raise OptionError("condition 'denoised' needs denoised_dir, a Denoised set")
            keywords["targets"] = ("denoised",)
            folders = {**(self.corpus_dirs or {}), "denoised": self.denoised_dir}
            # Nobody hears the enrollment: no speaker of a small set needs a neutral utterance.
            keywords |= {"corpus_dirs": folders, "enrollment_emotion": None}
        return keywords


@dataclass(kw_only=True)
class RecipeOptions(DataOptions):
    """What a recipe says of the data of all its splits.

    `segment_seconds`, `speed_factors` and all shares are for training alone; the test is of whole
    utterances, at the SNR of the validation.
    """

    config: str | None = option(None, "YAML recipe of defaults; the command line wins.")
    eval_snr_range_db: tuple[float, float] | None = option(
        None, "The SNR range of validation and test, in dB; that of training if unset."
    )
    eval_segment_seconds: float | None = option(
        None, "Longer targets of the validation are cropped to this; whole if unset.", above=0
    )
    max_train_examples: int | None = option(
        None, "Train on at most so many targets an epoch.", at_least=1
    )
    max_eval_examples: int | None = option(
        None, "Validate on at most so many mixtures.", at_least=1
    )
    fresh_mixtures: bool = option(
        True,
        "Draw new training mixtures in every epoch; false keeps those of the first, as a corpus on "
        "disk would.",
    )
    equalizer_db: float = option(
        0.0,
        "Equalize target and interference of training mixtures, each otherwise, by faders of this "
        "standard deviation in dB: more voices of few.",
        at_least=0,
        at_most=12,
    )
    random_lowpass_share: float = option(
        0.0,
        "Share of the training mixtures heard through a low-pass, its cut-off drawn.",
        at_least=0,
        at_most=1,
    )
    librimix_subset: str | None = option(
        None,
        "Train an extractor on LibriMix's published mixtures of this subset, such as "
        "train-clean-100; targets and interferers are not read then.",
    )
    librimix_eval_subset: str = option("dev-clean", "The LibriMix subset of the validation.")
    librimix_metadata_dir: str | None = option(
        None,
        "Folder of LibriMix's CSV files; if unset, that of the name librimix in corpus_dirs, else "
        "librimix/ below corpus_dir.",
    )
    librispeech_dir: str | None = option(
        None,
        "Folder of LibriSpeech for LibriMix; if unset, that of the name librispeech in "
        "corpus_dirs, else librispeech/ below corpus_dir.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.has_channels and (self.reverberation != "none" or self.librimix_subset is not None):
            raise OptionError(
                "equalizer_db and random_lowpass_share are for drawn mixtures without rooms: leave "
                "them out, or leave out reverberation and librimix_subset"
            )
        if self.librimix_subset is None:
            return
        if self.condition != "noisy":
            raise OptionError(
                f"librimix_subset is for condition 'noisy', as LibriMix has no emotions: it is "
                f"'{self.condition}'"
            )
        fewest, most = self.speaker_range()
        if fewest != most or most not in LIBRIMIX_SPEAKERS:
            raise OptionError(
                f"num_speakers: LibriMix has mixtures of 2 or of 3 speakers, got "
                f"{self.num_speakers}"
            )
        for name, default in _defaults(DECIDED_BY_LIBRIMIX).items():
            if getattr(self, name) != default:
                raise OptionError(
                    f"{name}: LibriMix's metadata decide what is mixed and how loud: leave it out, "
                    f"or leave out librimix_subset and draw mixtures from the corpus librispeech"
                )

    @property
    def has_channels(self) -> bool:
        """Whether the voices of training mixtures come through channels of their own."""
        asked_for = self.equalizer_db > 0 or self.random_lowpass_share > 0
        return asked_for and self.condition == "noisy"

    def of_split(self, split: str, **changes: Any) -> DataOptions:
        """What is heard in a split, with changes that win over what the recipe says.

        Raises `CorpusError` where the recipe takes the published mixtures of LibriMix.
        """
        if self.librimix_subset is not None:
            raise CorpusError(
                "librimix_subset: the published mixtures of LibriMix are not drawn from corpora; "
                "there is no plan of them to read"
            )
        validation, limit = split == "validation", self.max_train_examples
        values = values_of(self, DataOptions)
        if split != "train":
            limit = self.max_eval_examples if validation else None
            values |= _defaults(TRAIN_ONLY) | {
                "snr_range_db": self.eval_snr_range_db or self.snr_range_db,
                "segment_seconds": self.eval_segment_seconds if validation else None,
            }
        values["max_examples"] = limit or self.max_examples
        values |= changes
        if values["condition"] != "noisy":
            values |= _defaults(INTERFERENCE)
        return DataOptions(**values)


def read_recipe(path: str | Path, flags: Mapping[str, Any] | None = None) -> RecipeOptions:
    """Reads what a YAML file says about data; flags win over it.

    The file is a recipe of a training or of the Denoised set, whose other options are left alone;
    or its key `data` holds such options (with `protocol` beside it); or it holds nothing else.
    Raises `OptionError` where the file cannot be read, a key is unknown, or a variable is not set.
    """
    content, given = read_yaml(path), dict(flags or {})
    of_a_program = "output_dir" in content
    if isinstance(content.get("data"), dict):
        shared = {key: content[key] for key in ("protocol",) if key in content}
        content = {**shared, **content["data"]}
    kinds = {
        name: kind for name, kind in OptionParser([RecipeOptions]).kinds.items() if name != "config"
    }
    for key in content:
        # Of what is left to the program, nothing may be a slip of the pen.
        if key not in kinds and (not of_a_program or close_match(key, kinds)):
            refuse_unknown([key], kinds, f"{path}: ")
    known = {key: value for key, value in content.items() if key in kinds}
    return build_options(
        RecipeOptions, {**of_file(path, known, kinds, given), **given}, f"{path}: "
    )


def read_split(
    path: str | Path | None, split: str, flags: Mapping[str, Any], kind: type = DataOptions
) -> Any:
    """What a program hears of one split: what a recipe says of it, and over it a command line.

    Without a recipe the flags say all. `kind` is `DataOptions`, or the options of a program, which
    are more. Raises what `read_recipe` and `RecipeOptions.of_split` raise.
    """
    if path is None:
        return build_options(kind, flags)
    data = {one.name for one in dataclasses.fields(DataOptions)}
    # Read with the flags, so that what they give needs no variable of the environment.
    recipe = read_recipe(path, {name: flags[name] for name in flags if name in data})
    return build_options(kind, {**values_of(recipe.of_split(split), DataOptions), **flags})


def values_of(options: Any, kind: type) -> dict[str, Any]:
    """The values that options have for the fields of a dataclass, by name."""
    return {one.name: getattr(options, one.name) for one in dataclasses.fields(kind)}


def _defaults(names: Sequence[str]) -> dict[str, Any]:
    return {
        one.name: one.default for one in dataclasses.fields(MixtureOptions) if one.name in names
    }
