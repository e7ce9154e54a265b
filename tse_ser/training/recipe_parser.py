"""Arguments from a YAML recipe and the command line: the recipe gives defaults, the line wins."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool


class RecipeError(ValueError):
    """A recipe or a command line that cannot be used; the message names the key and the fix."""


class RecipeParser(HfArgumentParser):
    """`HfArgumentParser` over dataclasses, one of which has a field `config`: the recipe's path.

    Args:
        dataclass_types (`Sequence[type]`): argument dataclasses; a recipe may set any of their
            fields, and no other key.
    """

    def __init__(self, dataclass_types: Sequence[type], **kwargs: Any) -> None:
        # Abbreviated flags would let a misspelt one through.
        super().__init__(dataclass_types, allow_abbrev=False, **kwargs)  # type: ignore[arg-type]
        self._config: str | None = None
        self._recipe_keys: set[str] = set()

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage, which is longer than a screen."""
        match = re.match(r"argument --(\w+)", message)
        if match and match.group(1) in self._recipe_keys:
            message = f"{self._config}: {message}"
        raise RecipeError(message)

    def parse(self, argv: Sequence[str]) -> tuple[Any, ...]:
        """Reads the recipe that `--config` names, if any, then the command line over it.

        Args:
            argv (`Sequence[str]`): command-line arguments without the program's name.

        Returns:
            `tuple`: one instance per dataclass.

        Raises:
            RecipeError: the recipe cannot be read, a key or flag is unknown (the closest known ones
                are named), or a value does not fit.
        """
        config = self._config = self._config_path(argv)
        given = {word.split("=")[0].lstrip("-") for word in argv if word.startswith("--")}
        recipe_argv = self._recipe_argv(config, given) if config else []
        namespace, unknown = self.parse_known_args([*recipe_argv, *argv])
        if unknown:
            flag = next((word for word in unknown if word.startswith("--")), unknown[0])
            name = flag.split("=")[0].lstrip("-").replace("-", "_")
            self.error(f"unknown argument {flag}{self._suggestion(name, prefix='--')}")
        values = vars(namespace)
        try:
            return tuple(
                dataclass_type(
                    **{
                        field.name: values[field.name]
                        for field in dataclasses.fields(dataclass_type)
                    }
                )
                for dataclass_type in self.dataclass_types
            )
        except ValueError as error:
            raise RecipeError(f"{config}: {error}" if config else str(error)) from error

    @staticmethod
    def _config_path(argv: Sequence[str]) -> str | None:
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--config")
        return parser.parse_known_args(argv)[0].config

    def _recipe_argv(self, config: str, given: set[str]) -> list[str]:
        """The recipe as command-line words without those given there: one parser checks both."""
        recipe = read_yaml_mapping(config)
        argv: list[str] = []
        for key, value in recipe.items():
            action = self._option_string_actions.get(f"--{key}")
            if action is None or key == "config":
                self.error(f"{config}: unknown key '{key}'{self._suggestion(str(key))}")
            if key in given:
                continue
            if value is None or value == []:
                # A null cannot be said on a command line.
                self.set_defaults(**{key: None})
            else:
                self._recipe_keys.add(key)
                argv += _as_words(key, _expanded(value, key, config), action)
        return argv

    def _suggestion(self, name: str, prefix: str = "") -> str:
        known = [
            field.name
            for dataclass_type in self.dataclass_types
            for field in dataclasses.fields(dataclass_type)
        ]
        close = difflib.get_close_matches(name, known, n=3)
        if not close:
            return ": no known key comes close, see --help"
        return ": did you mean " + " or ".join(f"{prefix}{match}" for match in close) + "?"


def read_yaml_mapping(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file that holds one mapping.

    Args:
        path (`str` or `Path`): file to read.

    Returns:
        `dict[str, Any]`: its keys and values.

    Raises:
        RecipeError: the file is missing, is no YAML, or holds something else than a mapping.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: expected `key: value` lines, got {type(content).__name__}")
    return content


def _as_words(key: str, value: Any, action: argparse.Action) -> list[str]:
    if isinstance(value, list):
        return [f"--{key}", *(str(item) for item in value)]
    if isinstance(value, dict):
        return [f"--{key}={json.dumps(value)}"]
    if isinstance(value, bool) and action.type is not string_to_bool:
        # YAML 1.1 reads the words no and yes as booleans: `eval_strategy: no`.
        return [f"--{key}={'yes' if value else 'no'}"]
    return [f"--{key}={value}"]


def _expanded(value: Any, key: str, config: str) -> Any:
    """Replaces ${VARIABLE} in strings by the environment's value."""
    if isinstance(value, list):
        return [_expanded(item, key, config) for item in value]
    if not isinstance(value, str):
        return value
    expanded = os.path.expandvars(value)
    missing = re.findall(r"\$\{(\w+)\}", expanded)
    if missing:
        raise RecipeError(
            f"{config}: '{key}' needs the environment variable {missing[0]}: "
            f"export {missing[0]}=... or pass --{key}"
        )
    return expanded
