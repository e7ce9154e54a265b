"""What is known of the corpora: titles, licences, credits; from `corpora.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.licenses import OWN_TERMS, UNKNOWN, LicensedPart

# The corpus of one's own recordings, and the option that names it.
OWN = "folder"
OWN_NAME = re.compile(r",name=([^,]+)")
DATA_FILE = Path(__file__).with_name("corpora.json")


@dataclass(frozen=True)
class Corpus:
    """A corpus, as a card names it."""

    name: str  # its name in recipes
    title: str  # what it is called
    license_id: str  # its licence as the Hub writes it, `research-only` or `unknown`
    url: str | None = None  # where it, or its terms, are found
    languages: tuple[str, ...] = ()  # ISO 639-1 codes
    speech: str = ""  # who speaks, in a few words
    credit: str | None = None  # whom to name
    hub_id: str | None = None  # the corpus as a dataset of the Hub

    @property
    def link(self) -> str:
        """Its title, linked where there is an address."""
        return self.title if self.url is None else f"[{self.title}]({self.url})"

    @property
    def license_words(self) -> str:
        """Its licence for readers."""
        own = {OWN_TERMS: "its makers' own terms, research only", UNKNOWN: "see the description"}
        return own.get(self.license_id, self.license_id)

    @property
    def part(self) -> LicensedPart:
        """What it asks of what is made of it."""
        return LicensedPart(self.title, self.license_id, self.url)


@cache
def known_facts() -> dict[str, Any]:
    """The content of `corpora.json`.

    Returns:
        `dict[str, Any]`: `corpora` and `speaker_encoders`, each by name.
    """
    facts: dict[str, Any] = json.loads(DATA_FILE.read_text(encoding="utf-8"))
    return facts


def base_name(name: str) -> str:
    """The name of a corpus without its options: "librispeech" of "librispeech:hours=100".

    Recordings of one's own have the name that they were given: "clinic" of "folder:name=clinic".
    """
    corpus, _, options = name.partition(":")
    given = OWN_NAME.search(f",{options}")
    return given[1] if corpus == OWN and given else corpus


def listed(names: str | Iterable[str] | None) -> list[str]:
    """Names of corpora, given as one, as several or not at all."""
    return [names] if isinstance(names, str) else list(names or [])


def titles(names: str | Iterable[str] | None) -> str:
    """Corpora by their titles, those that are not known by their names."""
    return ", ".join(corpus.title for corpus in find_corpora(listed(names), None))


def find_corpora(
    names: Iterable[str], descriptions: Mapping[str, str] | None
) -> tuple[Corpus, ...]:
    """The corpora that a training or a plan names.

    Args:
        names (`Iterable[str]`): with or without options; repeated ones count once.
        descriptions (`Mapping[str, str]`, *optional*): what the user says of corpora that are not
            known here, such as `folder`, by `base_name`; without, they are called by their names.

    Returns:
        `tuple[Corpus, ...]`: in the order of their first mention.

    Raises:
        PublishingError: some are neither known nor described; the message names them all.
    """
    wanted = dict.fromkeys((base_name(name), name.partition(":")[0] == OWN) for name in names)
    found = [_find(name, is_own, descriptions or {}) for name, is_own in wanted]
    unknown = [corpus.name for corpus in found if not corpus.title]
    if unknown and descriptions is not None:
        flags = " ".join(f"{name}=TEXT" for name in unknown)
        raise PublishingError(
            f"{', '.join(unknown)}: nothing is known of these recordings here: say what they are "
            f"by --describe {flags}, what is spoken in them by --languages, and by --license "
            "under which licence what was made of them may be shared"
        )
    return tuple(corpus if corpus.title else replace(corpus, title=corpus.name) for corpus in found)


def _find(name: str, is_own: bool, descriptions: Mapping[str, str]) -> Corpus:
    """A corpus, without a title where it is neither known nor described."""
    # Whatever somebody calls a folder, what is in it comes under no other corpus's terms.
    facts = None if is_own else known_facts()["corpora"].get(name)
    if facts is not None:
        fields = {**facts, "languages": tuple(facts["languages"])}
        return Corpus(name=name, license_id=fields.pop("license"), **fields)
    return Corpus(name=name, title=descriptions.get(name, ""), license_id=UNKNOWN)
