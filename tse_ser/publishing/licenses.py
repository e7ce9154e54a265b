"""What corpora allow: the licence that a model or a plan of mixtures made of them comes under."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tse_ser.publishing.errors import PublishingError

# What passes on from data to what is made of it; the credit ("by") is given in the card.
INHERITED = frozenset({"nc", "sa", "research"})
OWN_TERMS = "research-only"
UNKNOWN = "unknown"
# The order of the parts in the name of a Creative Commons licence.
PARTS = ("by", "nc", "sa")
WORDS = {
    "nc": "non-commercial use only",
    "sa": "sharing under the same licence",
    "research": "research only, under the terms of its makers",
}


@dataclass(frozen=True)
class License:
    """A licence as the Hub writes it.

    Attributes:
        id (`str`): identifier, such as `cc-by-4.0`, or `other`.
        name (`str`, *optional*): name of an `other` licence.
        link (`str`, *optional*): where the text of an `other` licence is.
    """

    id: str
    name: str | None = None
    link: str | None = None

    def __str__(self) -> str:
        return self.id if self.name is None else f"{self.name} ({self.link})"


@dataclass(frozen=True)
class LicensedPart:
    """Something that went into a model or a plan.

    Attributes:
        title (`str`): what it is.
        license_id (`str`): its licence as the Hub writes it, `research-only` or `unknown`.
        url (`str`, *optional*): where its terms are.
    """

    title: str
    license_id: str
    url: str | None = None


def conditions(license_id: str) -> frozenset[str]:
    """What a licence asks for.

    Args:
        license_id (`str`): as the Hub writes it, or `research-only`.

    Returns:
        `frozenset[str]`: of "by", "nc", "sa", "nd" and "research"; empty for licences of code.
    """
    if license_id == OWN_TERMS:
        return frozenset({"research"})
    if license_id.startswith("cc-"):
        return frozenset(license_id.split("-")[1:-1])
    return frozenset()


def choose_license(parts: Iterable[LicensedPart], given: License | None = None) -> License:
    """The licence of what is made of several parts.

    Args:
        parts (`Iterable[LicensedPart]`): what it is made of.
        given (`License`, *optional*): the user's choice.

    Returns:
        `License`: the choice, or the freest that the parts allow.

    Raises:
        PublishingError: a part has no known licence and no choice was made, or the choice leaves
            out what a part asks for.
    """
    parts = list(parts)
    if given is not None:
        _check_choice(parts, given)
        return given
    for part in parts:
        if part.license_id == UNKNOWN:
            raise PublishingError(
                f"--license: {part.title} has no licence that is known here: say by --license "
                "under which one this may be shared"
            )
    asked = frozenset[str]().union(*(conditions(part.license_id) for part in parts))
    if "research" in asked:
        source = next(part for part in parts if part.license_id == OWN_TERMS)
        return License("other", OWN_TERMS, source.url)
    if "nd" in asked:
        source = next(part for part in parts if "nd" in conditions(part.license_id))
        raise PublishingError(
            f"{source.title} is under {source.license_id}, which allows no adaptation: publish "
            "only with its makers' consent, and state their terms by --license other"
        )
    kept = [part for part in PARTS if part in asked]
    return License("-".join(["cc", *kept, "4.0"]) if kept else "apache-2.0")


def _check_choice(parts: Iterable[LicensedPart], given: License) -> None:
    if given.id == "other":
        if not (given.name and given.link):
            raise PublishingError("--license other needs --license_name and --license_link")
        return
    for part in parts:
        missing = (conditions(part.license_id) & INHERITED) - conditions(given.id)
        if missing:
            raise PublishingError(
                f"--license {given.id}: {part.title} is under {part.license_id}, which asks for "
                f"{' and '.join(WORDS[one] for one in sorted(missing))}: leave out --license for "
                "the freest licence that fits, or state other terms by --license other"
            )
