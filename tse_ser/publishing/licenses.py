"""What corpora allow: the licence that a model or a plan of mixtures made of them comes under."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tse_ser.publishing.errors import PublishingError

OWN_TERMS = "research-only"
UNKNOWN = "unknown"
# Licences that leave the terms of what is made of a work to its maker.
FREE = frozenset(
    {
        *("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "zlib", "unlicense"),
        *("cc0-1.0", "pddl", "bsl-1.0", "artistic-2.0"),
    }
)
# Licences that ask for the same licence, and those that count as the same, the fittest first: CC
# BY-SA names its later versions, the GPL the stronger ones of its family; ODbL asks it of what is
# made of a database, OpenRAIL of whatever passes on its restrictions.
SAME_LICENSE = {
    "cc-by-sa-3.0": ("cc-by-sa-4.0", "cc-by-sa-3.0"),
    "cc-by-sa-4.0": ("cc-by-sa-4.0",),
    "cc-by-nc-sa-3.0": ("cc-by-nc-sa-4.0", "cc-by-nc-sa-3.0"),
    "cc-by-nc-sa-4.0": ("cc-by-nc-sa-4.0",),
    "odbl": ("odbl",),
    "lgpl-3.0": ("lgpl-3.0", "gpl-3.0", "agpl-3.0"),
    "gpl-3.0": ("gpl-3.0", "agpl-3.0"),
    "agpl-3.0": ("agpl-3.0",),
    "gpl-2.0": ("gpl-2.0",),
    "openrail": ("openrail",),
    "bigscience-openrail-m": ("bigscience-openrail-m",),
    "creativeml-openrail-m": ("creativeml-openrail-m",),
    "bigcode-openrail-m": ("bigcode-openrail-m",),
}
# Creative Commons licences whose conditions their names tell.
NAMED_CONDITIONS = re.compile(r"cc-by(-nc)?(-nd)?-[234]\.[05]")
# The order of the parts in the name of a Creative Commons licence.
PARTS = ("by", "nc", "sa")
WORDS = {
    "nc": "non-commercial use only",
    "research": "research only, under the terms of its makers",
}


@dataclass(frozen=True)
class License:
    """A licence as the Hub writes it."""

    id: str  # identifier, such as `cc-by-4.0`, or `other`
    name: str | None = None  # name of an `other` licence
    link: str | None = None  # where the text of an `other` licence is
    note: str | None = None  # what an `other` licence comes to, in a sentence

    def __str__(self) -> str:
        return self.id if self.name is None else f"{self.name} ({self.link})"


@dataclass(frozen=True)
class LicensedPart:
    """Something that went into a model or a plan."""

    title: str  # what it is
    license_id: str  # its licence as the Hub writes it, `research-only` or `unknown`
    url: str | None = None  # where its terms are


def conditions(license_id: str) -> frozenset[str]:
    """What a licence asks for, of "by", "nc", "sa", "nd" and "research"; nothing, for licences
    of code."""
    if license_id == OWN_TERMS:
        return frozenset({"research"})
    if license_id.startswith("cc-"):
        return frozenset(license_id.split("-")[1:-1])
    return frozenset({"sa"} if license_id in SAME_LICENSE else ())


def is_known(license_id: str) -> bool:
    """Whether it is known here what a licence asks for: not of `unknown`, nor of any that is
    not listed here."""
    listed = license_id in FREE or license_id in SAME_LICENSE or license_id == OWN_TERMS
    return listed or NAMED_CONDITIONS.fullmatch(license_id) is not None


def choose_license(parts: Iterable[LicensedPart], given: License | None = None) -> License:
    """The licence of what is made of several parts.

    Args:
        parts (`Iterable[LicensedPart]`): what it is made of.
        given (`License`, *optional*): the user's choice.

    Returns:
        `License`: the choice, or the freest that the parts allow.

    Raises:
        PublishingError: a part has no known licence and no choice was made, no licence keeps what
            all parts ask for, or the choice leaves out what a part asks for.
    """
    parts = list(parts)
    if given is not None:
        _check_choice(parts, given)
        return given
    for part in parts:
        if not is_known(part.license_id):
            raise PublishingError(
                f"--license: {part.title} has no licence that is known here "
                f"({part.license_id}): say by --license under which one this may be shared"
            )
        if "nd" in conditions(part.license_id):
            raise PublishingError(
                f"{part.title} is under {part.license_id}, which allows no adaptation: publish "
                "only with its makers' consent, and state their terms by --license other"
            )
    license_id = _common_license(parts)
    for part in parts:
        if not _keeps(license_id, part):
            binding = next(one for one in parts if one.license_id in SAME_LICENSE)
            raise _contradiction(part, binding)
    if license_id == OWN_TERMS:
        source = next(part for part in parts if part.license_id == OWN_TERMS)
        return License("other", OWN_TERMS, source.url)
    return License(license_id)


def _common_license(parts: Sequence[LicensedPart]) -> str:
    """The licence that parts ask for, else the freest with all their conditions."""
    binding = [part for part in parts if part.license_id in SAME_LICENSE]
    admitted = list(SAME_LICENSE[binding[0].license_id]) if binding else []
    for part in binding:
        admitted = [one for one in admitted if one in SAME_LICENSE[part.license_id]]
        if not admitted:
            raise _contradiction(binding[0], part)
    if admitted:
        return admitted[0]
    asked = frozenset[str]().union(*(conditions(part.license_id) for part in parts))
    if "research" in asked:
        return OWN_TERMS
    kept = [part for part in PARTS if part in asked]
    return "-".join(["cc", *kept, "4.0"]) if kept else "apache-2.0"


def _keeps(license_id: str, part: LicensedPart) -> bool:
    """Whether a licence of the whole keeps what a part asks for; credit is given in the card."""
    if part.license_id in SAME_LICENSE:
        return license_id in SAME_LICENSE[part.license_id]
    asked = conditions(part.license_id) - {"by"}
    # The terms of makers, research only, are stricter than non-commercial use.
    return asked <= (frozenset(WORDS) if license_id == OWN_TERMS else conditions(license_id))


def _contradiction(one: LicensedPart, other: LicensedPart) -> PublishingError:
    return PublishingError(
        f"{one.title} is under {one.license_id} and {other.title} under {other.license_id}: no "
        "licence keeps the terms of both. Train without one of them, or publish with the consent "
        "of its makers, and state the terms by --license other"
    )


def _check_choice(parts: Iterable[LicensedPart], given: License) -> None:
    if given.id == "other":
        if not (given.name and given.link):
            raise PublishingError("--license other needs --license_name and --license_link")
        return
    if given.id == OWN_TERMS or not is_known(given.id):
        raise PublishingError(
            f"--license {given.id}: no licence that is known here, so that nobody can say whether "
            "it keeps the terms of all parts: write it as the Hub does, such as cc-by-4.0, or "
            "state it by --license other, --license_name and --license_link"
        )
    for part in parts:
        if not is_known(part.license_id) or _keeps(given.id, part):
            continue
        asked = conditions(part.license_id) - conditions(given.id)
        words = [WORDS[one] for one in sorted(asked) if one in WORDS]
        if part.license_id in SAME_LICENSE:
            words.append(f"sharing under the same licence ({SAME_LICENSE[part.license_id][0]})")
        raise PublishingError(
            f"--license {given.id}: {part.title} is under {part.license_id}, which asks for "
            f"{' and '.join(words) or 'no adaptation'}: leave out --license for the freest "
            "licence that fits, or state other terms by --license other"
        )
