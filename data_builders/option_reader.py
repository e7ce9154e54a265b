"""Options: fields of dataclasses with a help, a default and a range, from YAML and a command line.

A dataclass declares an option once, by `option`. `read_options` fills such dataclasses, and those
of transformers: a YAML file gives defaults, the command line wins.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import math
import os
import re
import sys
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml

RANGE = "range"
NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
INCLUDE = "include"
TRUE_WORDS, FALSE_WORDS = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
KIND_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


class OptionError(ValueError):
    """An option that cannot be used; the message names it and the fix."""


@dataclass(frozen=True)
class Range:
    """Numbers that an option may have: finite ones within the bounds."""

    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf

    def __contains__(self, number: float) -> bool:
        is_finite = abs(number) < math.inf
        return is_finite and self.at_least <= number <= self.at_most and number > self.above

    def __str__(self) -> str:
        bounds = {"at least": self.at_least, "above": self.above, "at most": self.at_most}
        words = [f"{word} {bound:g}" for word, bound in bounds.items() if abs(bound) < math.inf]
        return " and ".join(words) or "finite"


def option(default: Any, help_text: str, **bounds: float) -> Any:
    """Declares an option as a field of a dataclass, by its default and a help with the unit.

    The bounds are fields of `Range`; every number of a sequence keeps to them.
    """
    return field(default=default, metadata={"help": help_text, RANGE: Range(**bounds)})


def settle_options(options: Any) -> None:
    """Brings the options of a dataclass to their types, and raises unless each is in its range.

    Lists become tuples, "1e-3" a number and "iemocap=/data/IEMOCAP" an entry of a mapping. Raises
    `OptionError`, which names the option and what would fit.
    """
    kinds = get_type_hints(type(options))
    for one in dataclasses.fields(options):
        if RANGE in one.metadata:
            value = convert(one.name, getattr(options, one.name), kinds[one.name])
            check_range(one.name, value, one.metadata[RANGE])
            setattr(options, one.name, value)


def check_range(name: str, value: Any, allowed: Range) -> None:
    """Raises `OptionError` unless a number, or every number of a sequence, is in a range.

    What is no number is in every range; `name` begins the message.
    """
    for number in value if isinstance(value, tuple | list) else (value,):
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if is_number and number not in allowed:
            raise OptionError(f"{name}: expected a number {allowed}, got {number}")


def convert(name: str, value: Any, kind: Any) -> Any:
    """Brings a value from YAML, a command line or Python to the type of an option.

    `name` begins the message of the `OptionError` that is raised where it does not fit.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _convert_to_any(name, value, parts)
    if origin in (tuple, list, Sequence):
        return _convert_sequence(name, value, tuple if origin is tuple else list, parts)
    if origin in (Mapping, dict) or kind is dict:
        return _convert_mapping(name, value)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # one word of a command line that would take several
    if origin is Literal:
        return _choose(name, value, parts)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(_choose(name, getattr(value, "value", value), [one.value for one in kind]))
    return _convert_scalar(name, value, kind)


def _choose(name: str, value: Any, choices: Sequence[Any]) -> Any:
    if value not in choices:
        words = ", ".join(repr(choice) for choice in choices)
        raise OptionError(f"{name}: unknown choice {value!r}: use one of {words}")
    return value


def _convert_to_any(name: str, value: Any, kinds: Sequence[Any]) -> Any:
    if value is None or (value == [] and types.NoneType in kinds):
        if types.NoneType in kinds:
            return None
        raise OptionError(f"{name}: expected a value, got none")
    complaint: OptionError | None = None
    for kind in kinds:
        if kind is types.NoneType:
            continue
        try:
            return convert(name, value, kind)
        except OptionError as error:
            complaint = error
    assert complaint is not None
    raise complaint


def _convert_sequence(name: str, value: Any, origin: type, kinds: Sequence[Any]) -> Any:
    is_one = isinstance(value, str) or not isinstance(value, Collection)
    items = [value] if is_one else list(value)
    variable = origin is list or kinds[-1] is Ellipsis
    if value is None or (not variable and len(items) != len(kinds)):
        number = "some values" if variable else f"{len(kinds)} values"
        raise OptionError(f"{name}: expected {number}, got {value!r}")
    expected = [kinds[0]] * len(items) if variable else kinds
    return origin(convert(name, *pair) for pair in zip(items, expected, strict=True))


def _convert_mapping(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    words = [value] if isinstance(value, str) else list(value or ())
    if len(words) == 1 and str(words[0]).startswith("{"):
        try:
            return dict(json.loads(words[0]))
        except ValueError as error:
            raise OptionError(f"{name}: is not valid JSON: {error}") from error
    pairs = [str(word).partition("=") for word in words]
    for word, (key, _, one) in zip(words, pairs, strict=True):
        if not (key and one):
            raise OptionError(
                f"{name}: expected entries such as iemocap=/data/IEMOCAP, got {str(word)!r}"
            )
    return {key: one for key, _, one in pairs}


def _convert_scalar(name: str, value: Any, kind: Any) -> Any:
    given, fits = value, True
    if kind is bool:
        word = str(value).lower()
        fits = word in TRUE_WORDS + FALSE_WORDS
        value = word in TRUE_WORDS
    elif kind is str:
        # YAML 1.1 reads the words no and yes as booleans: `eval_strategy: no`.
        fits = isinstance(value, str | int | float | os.PathLike)
        value = ("yes" if value else "no") if isinstance(value, bool) else str(value)
    elif kind is Path:
        value = Path(value)
    elif kind in (int, float):
        try:
            number = kind(value)
            fits = not isinstance(value, bool) and (kind is float or number == float(value))
            value = number
        except (TypeError, ValueError, OverflowError):
            fits = False
    if not fits:
        raise OptionError(f"{name}: expected {KIND_WORDS[kind]}, got {given!r}")
    return value


def refuse_unknown(given: Collection[str], known: Collection[str], where: str = "") -> None:
    """Raises `OptionError` unless every name is known; the message names the nearest known one."""
    for name in given:
        if name not in known:
            raise OptionError(f"{where}unknown key {name!r}{_suggestion(name, known)}")


def close_match(name: Any, known: Collection[str]) -> bool:
    """Whether a name is so near to a known one that it will be a misspelt one."""
    return bool(difflib.get_close_matches(str(name), known, n=1, cutoff=0.8))


def _suggestion(name: Any, known: Collection[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(str(name), known, n=2)
    if not close:
        return ": no known one comes close, see --help"
    return f": did you mean {' or '.join(repr(prefix + one) for one in close)}?"


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file that holds one mapping, over the files that its key `include` names.

    What it includes is looked for in its own folder; ${VARIABLES} stay as they are. Raises
    `OptionError` where a file is missing, is no YAML, holds something else than a mapping, or
    includes itself.
    """
    return _read_yaml(Path(path), ())


def _read_yaml(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise OptionError(f"{path}: includes itself")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise OptionError(f"{path}: expected `key: value` lines, got {type(content).__name__}")
    named = content.pop(INCLUDE, [])
    included: dict[str, Any] = {}
    for name in [named] if isinstance(named, str) else named:
        included |= _read_yaml(path.parent / name, (*above, path.resolve()))
    return included | content


def _expand(value: Any, name: str) -> Any:
    """Replaces ${VARIABLE} by the environment's value, in lists and mappings too."""
    if isinstance(value, list):
        return [_expand(item, name) for item in value]
    if isinstance(value, dict):
        return {key: _expand(item, name) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    expanded = os.path.expandvars(value)
    missing = re.search(r"\$\{(\w+)\}", expanded)
    if missing:
        raise OptionError(
            f"{name} needs the environment variable {missing[1]}: export {missing[1]}=... or give "
            f"the option on the command line"
        )
    return expanded


class OptionParser(argparse.ArgumentParser):
    """Command line whose flags are the fields of dataclasses; complains by raising `OptionError`.

    Args:
        kinds (`Sequence[type]`): dataclasses.
    """

    def __init__(self, kinds: Sequence[type], **keywords: Any) -> None:
        # Abbreviated flags would let a misspelt one through.
        super().__init__(allow_abbrev=False, argument_default=argparse.SUPPRESS, **keywords)
        self.kinds: dict[str, Any] = {}
        for kind in kinds:
            hints = get_type_hints(kind)
            for one in dataclasses.fields(kind):
                if one.init and one.name not in self.kinds:
                    self.kinds[one.name] = hints[one.name]
                    self._add_option(one, hints[one.name])

    def _add_option(self, one: dataclasses.Field[Any], kind: Any) -> None:
        keywords: dict[str, Any] = {}
        if takes_several(kind):
            # A flag that is repeated adds to a list; of a pair the last one counts, as of a number.
            keywords |= {"nargs": "+", "action": "extend" if takes_any_number(kind) else "store"}
        elif bool in (kind, *get_args(kind)):
            keywords |= {"nargs": "?", "const": True}
        self.add_argument(f"--{one.name}", help=_help_of(one, kind), **keywords)

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage, which is longer than a screen."""
        raise OptionError(message)

    def flags(self, argv: Sequence[str] | None = None) -> dict[str, Any]:
        """What a command line gives: option to value, those alone that are there.

        Raises `OptionError` where a flag is unknown, or a value does not fit.
        """
        words = sys.argv[1:] if argv is None else argv
        # argparse takes -1e-3 for a flag, but no word with a space.
        words = [f" {word}" if NEGATIVE_NUMBER.fullmatch(word) else word for word in words]
        namespace, unknown = self.parse_known_args(words)
        if unknown:
            flag = next((word for word in unknown if word.startswith("--")), unknown[0])
            known = [action.dest for action in self._actions]
            name = flag.split("=")[0].lstrip("-").replace("-", "_")
            self.error(f"unknown argument {flag}{_suggestion(name, known, prefix='--')}")
        return {
            name: convert(f"--{name}", value, self.kinds[name]) if name in self.kinds else value
            for name, value in vars(namespace).items()
        }


def takes_several(kind: Any) -> bool:
    """Whether an option of a type may have several values."""
    return any(
        get_origin(part) in (tuple, list, Sequence, Mapping, dict) or part is dict
        for part in (kind, *get_args(kind))
    )


def takes_any_number(kind: Any) -> bool:
    """Whether an option that may have several values may have any number of them."""
    return not any(
        get_origin(part) is tuple and get_args(part)[-1] is not Ellipsis
        for part in (kind, *get_args(kind))
    )


def _help_of(one: dataclasses.Field[Any], kind: Any) -> str:
    words = [str(one.metadata.get("help", "")).strip()]
    choices = [repr(part) for part in get_args(kind) if get_origin(kind) is Literal]
    if choices:
        words.append(f"One of {', '.join(choices)}.")
    if str(one.metadata.get(RANGE, Range())) != str(Range()):
        words.append(f"Numbers {one.metadata[RANGE]}.")
    if one.default is not dataclasses.MISSING and one.default is not None:
        words.append(f"Default: {one.default}.")
    return " ".join(words).replace("%", "%%")


def of_file(
    path: str | Path, content: Mapping[str, Any], kinds: Mapping[str, Any], given: Collection[str]
) -> dict[str, Any]:
    """The options of the content of a YAML file, all but those that a command line gives.

    There are none in it but those of `kinds`. Raises `OptionError` where a value does not fit, or a
    variable is not set.
    """
    return {
        name: convert(f"{path}: {name}", _expand(value, f"{path}: '{name}'"), kinds[name])
        for name, value in content.items()
        if name not in given
    }


def read_options(
    kinds: Sequence[type], argv: Sequence[str] | None = None, **keywords: Any
) -> tuple[Any, ...]:
    """Reads the YAML file that `--config` names, if any, then the command line over it.

    Args:
        kinds (`Sequence[type]`): dataclasses, one of which has a field `config`; the file may set
            any of their other fields, and no other key.
        argv (`Sequence[str]`, *optional*): arguments; those of the process if not given.
        **keywords: of `argparse.ArgumentParser`.

    Returns:
        `tuple`: one instance per dataclass.

    Raises:
        OptionError: the file cannot be read, a key or flag is unknown (the closest known ones are
            named), or a value does not fit.
    """
    parser = OptionParser(kinds, **keywords)
    flags = parser.flags(argv)
    config = flags.get("config")
    values = dict(flags)
    if config is not None:
        content = read_yaml(config)
        refuse_unknown(content, parser.kinds.keys() - {"config"}, f"{config}: ")
        values |= of_file(config, content, parser.kinds, flags)
    where = "" if config is None else f"{config}: "
    return tuple(build_options(kind, values, where) for kind in kinds)


def build_options(kind: type, values: Mapping[str, Any], where: str = "") -> Any:
    """Makes a dataclass of those values that are its own; `where` begins messages.

    Raises `OptionError` where a needed option is missing, or the dataclass refuses a value.
    """
    fields = [one for one in dataclasses.fields(kind) if one.init]
    missing = [
        one.name
        for one in fields
        if one.default is one.default_factory is dataclasses.MISSING and one.name not in values
    ]
    if missing:
        raise OptionError(f"{where}{missing[0]} is needed: give --{missing[0]}")
    try:
        return kind(**{one.name: values[one.name] for one in fields if one.name in values})
    except ValueError as error:
        raise OptionError(f"{where}{error}") from error
