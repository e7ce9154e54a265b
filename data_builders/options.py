"""The keywords of `load_mixtures`, in one place: what is mixed with what, and how it is drawn."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_builders.corpora.folds import Protocol
from data_builders.mixtures.interference import GenderState, InterfererDraw
from data_builders.schema import EMOTIONS


@dataclass
class DrawingOptions:
    """How a mixture is drawn: the keywords of `MixturePlanner`, all but the noise recordings.

    Attributes:
        seed (`int`): mixing seed.
        num_speakers (`int` or `tuple[int, int]`): speakers in a mixture, target included, 2 to 5; a
            range is drawn uniformly.
        gender_state (`str`): "any", "same" or "different" genders of target and interferers.
        interferer_draw (`str`): "corpus" draws a corpus, then one of its speakers; "speaker" draws
            any speaker alike.
        interferer_emotions (`Sequence[str]`, *optional*): emotions of interferers; None for any.
        interferer_languages (`Sequence[str]`, *optional*): BCP 47 tags; None for any.
        snr_distribution (`str`): "uniform" over `snr_range_db`, "normal" with `snr_mean_std_db`, or
            "loudness", LibriMix's law: each voice between -33 and -25 LUFS.
        snr_range_db (`tuple[float, float]`): lowest and highest SNR in dB.
        snr_mean_std_db (`tuple[float, float]`): mean and standard deviation of the SNR in dB.
        segment_seconds (`float`, *optional*): longer targets are cropped to this.
        enrollment_seconds (`float`, *optional*): longer enrollments are cropped to this.
        enrollment_emotion (`str`, *optional*): emotion of enrollments, drawn from all utterances of
            the split; None for any.
        trim_silence (`bool`): leave out silence before and after the speech.
        speed_factors (`tuple[float, ...]`): speeds drawn for target and interferers.
        lowpass_hz (`float`, *optional*): cut-off of a low-pass that all sources share, in Hz.
        noise_snr_range_db (`tuple[float, float]`): SNR of target to background noise in dB.
        reverberation (`str`): "none", or what of a room is to be extracted, the "direct" or the
            "reverberant" signal of the target.
        rt60_range_seconds (`tuple[float, float]`): reverberation times of the rooms in seconds.
        clean_share (`float`): share of examples without interferer, 0 to 1.
        absent_share (`float`): share of examples whose target is silent, 0 to 1.
    """

    seed: int = 0
    num_speakers: int | tuple[int, int] = 2
    gender_state: GenderState = "any"
    interferer_draw: InterfererDraw = "corpus"
    interferer_emotions: Sequence[str] | None = None
    interferer_languages: Sequence[str] | None = None
    snr_distribution: Literal["uniform", "normal", "loudness"] = "uniform"
    snr_range_db: tuple[float, float] = (0.0, 0.0)
    snr_mean_std_db: tuple[float, float] = (0.0, 4.0)
    segment_seconds: float | None = None
    enrollment_seconds: float | None = None
    enrollment_emotion: str | None = "neutral"
    trim_silence: bool = False
    speed_factors: tuple[float, ...] = (1.0,)
    lowpass_hz: float | None = None
    noise_snr_range_db: tuple[float, float] = (5.0, 20.0)
    reverberation: Literal["none", "direct", "reverberant"] = "none"
    rt60_range_seconds: tuple[float, float] = (0.2, 0.6)
    clean_share: float = 0.0
    absent_share: float = 0.0

    def drawing_keywords(self) -> dict[str, Any]:
        """The keywords for `MixturePlanner`.

        Returns:
            `dict[str, Any]`: field name to value.
        """
        names = [field.name for field in dataclasses.fields(DrawingOptions)]
        return {name: getattr(self, name) for name in names}


@dataclass
class MixtureOptions(DrawingOptions):
    """The keywords of `load_mixtures` and `load_dataset`: the corpora, and `DrawingOptions`.

    Attributes:
        targets (`str` or `Sequence[str]`): corpora of the targets.
        interferers (`str` or `Sequence[str]`, *optional*): corpora of the interferers, each with
            all utterances of the same split; None for clean speech.
        fold (`int`): 1-based fold of the corpora with sessions.
        protocol (`str`): "validated" or "paper", see `split_by_session`.
        corpus_dir (`str` or `Path`, *optional*): root with one folder a corpus, named like it.
        corpus_dirs (`Mapping[str, str | Path]`, *optional*): folders by corpus name; these win.
        emotions (`Sequence[str]`, *optional*): emotions of the targets; None for every utterance,
            with the label -100 where it is none of `EMOTIONS`.
        max_examples (`int`, *optional*): at most so many targets, evenly spread over the split.
        noise_dir (`str` or `Path`, *optional*): folder of noise recordings; None for no noise.
    """

    targets: str | Sequence[str] = "generated"
    interferers: str | Sequence[str] | None = "generated_pool"
    fold: int = 1
    protocol: Protocol = "validated"
    corpus_dir: str | Path | None = None
    corpus_dirs: Mapping[str, str | Path] | None = None
    emotions: Sequence[str] | None = EMOTIONS
    max_examples: int | None = None
    noise_dir: str | Path | None = None

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> MixtureOptions:
        """Takes the keywords that a caller gave.

        Args:
            keywords (`Mapping[str, Any]`): field name to value.

        Returns:
            `MixtureOptions`: with the defaults for what is not given.

        Raises:
            TypeError: a keyword is unknown; the message names the nearest known one.
        """
        refuse_unknown(keywords, [field.name for field in dataclasses.fields(cls)])
        return cls(**keywords)


def refuse_unknown(given: Collection[str], known: Collection[str]) -> None:
    """Raises unless every name is known.

    Args:
        given (`Collection[str]`): names to check.
        known (`Collection[str]`): admissible names.

    Raises:
        TypeError: a name is unknown; the message names the nearest known one.
    """
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"use some of {sorted(known)}"
            raise TypeError(f"unknown keyword {name!r}: {hint}")
