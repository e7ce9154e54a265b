"""Asterisk core sounds: telephone prompts by professional voices, here as interfering speech.

The folder of a voice tells language, gender and name (en_US_f_Allison). Prompts have no emotion,
and their text is the prompt's key, not a transcript.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

import datasets

from data_builders.corpora.corpus_table import Description, load_audio_folder

# The speaker and the licence of each name: Allison Smith speaks English and Spanish.
SPEAKERS = {
    "Allison": ("asterisk_allison_smith", "CC-BY-SA-3.0"),
    "June": ("asterisk_june_wallack", "CC-BY-SA-3.0"),
    "Carlo": ("asterisk_carlo_flora", "CC-BY-3.0"),
    "IvrvoiceRU": ("asterisk_ivrvoice_ru", "CC-BY-3.0"),
}
VOICES = (
    "en_US_f_Allison",
    "es_MX_f_Allison",
    "fr_CA_f_June",
    "it_IT_m_Carlo",
    "ru_RU_f_IvrvoiceRU",
)
VOICE_FOLDER = re.compile(rf"([a-z]{{2}})_([A-Z]{{2}})_([fm])_({'|'.join(SPEAKERS)})")


def load_asterisk(
    data_dir: Path | None, cache_dir: Path, *, strict: bool = False
) -> datasets.Dataset:
    """Reads the prompts of the four known Asterisk voices, with the emotion "".

    Arguments, result and errors are those of `data_builders.load_corpus`.
    """
    return load_audio_folder(
        "asterisk",
        data_dir,
        cache_dir,
        expected="voice folders such as en_US_f_Allison/conf-full.flac (or .wav)",
        describe=_describe,
        check=_check,
        strict=strict,
    )


def _check(descriptions: Sequence[Description]) -> list[str]:
    """Names the voices that are missing; how many prompts a voice has depends on the release."""
    found = Counter(description.name.partition("/")[0] for description in descriptions)
    missing = [voice for voice in VOICES if voice not in found]
    if not missing:
        return []
    there = ", ".join(f"{voice}: {number} prompts" for voice, number in sorted(found.items()))
    return [f"of the voices {', '.join(missing)} there is nothing; found {there}"]


def _describe(path: PurePath) -> Description | None:
    voice = VOICE_FOLDER.fullmatch(path.parts[0])
    prompt = PurePath(*path.parts[1:]).with_suffix("").as_posix() if voice else ""
    # The release also holds files of silence and one of screaming monkeys: no speech.
    if voice is None or prompt.startswith("silence/") or prompt == "tt-monkeys":
        return None
    language, country, gender, name = voice.groups()
    return Description(
        name=f"{path.parts[0]}/{prompt}",
        speaker_id=SPEAKERS[name][0],
        gender="female" if gender == "f" else "male",
        text=prompt,
        language=f"{language}-{country}",
        licence=SPEAKERS[name][1],
    )
